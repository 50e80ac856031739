//! What the bus is told of by itself: each change of handlers and devices. It is found by comparing with what was told last, at most every
//! [`PERIOD`], so that a thousand steps of a device cost one signal.
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use tcmu::BackstoreId;

use super::{
    Happening, Supervisor,
    hosts::Host,
    machine::{Device, HostName, Stage, State},
    programs::program_row,
    questions::{device_row, handler_row, size_of},
};
use crate::{
    dbus::{Change, Row, Thing},
    protocol::FromHost,
};

/// How long changes are gathered before they are told.
const PERIOD: Duration = Duration::from_millis(100);
/// To compare takes no more than one of so many parts of the time, however many devices there are.
const PART: u32 = 10;

/// A new device is told of when it is served, or is not, but no later than this.
const SETTLES: Duration = Duration::from_secs(10);

/// What was told last.
#[derive(Default)]
pub(super) struct Told {
    handlers: BTreeMap<String, Row>,
    devices: BTreeMap<BackstoreId, Facts>,
    /// When to compare.
    pub(super) at: Option<Instant>,
    /// How long it took last.
    took: Duration,
}

/// What is told of a device when it changes.
#[derive(Debug, PartialEq)]
struct Facts {
    stage: Stage,
    reason: Option<String>,
    hangs: bool,
    killed: bool,
    config: String,
    size: u64,
    minor: u32,
    pid: u32,
}

impl Facts {
    fn of(device: &Device, killed: bool, size: u64, pid: u32) -> Facts {
        let reason = match &device.state {
            State::Failed { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        Facts {
            stage: device.state.stage(),
            reason,
            hangs: device.hangs.is_some(),
            killed,
            config: device.name.config.clone(),
            size,
            minor: device.minor,
            pid,
        }
    }
}

impl Supervisor {
    /// Whether something may be new by this. That a host is there and all goes well is not: it says so all the time.
    pub(super) fn is_news(&self, happening: &Happening) -> bool {
        let well = matches!(happening, Happening::HostSaid(_, _, FromHost::Alive { late }) if late.is_empty());
        !well || self.machine.devices().values().any(|device| device.hangs.is_some())
    }

    /// Something happened: it is time to look soon.
    pub(super) fn announce_soon(&mut self) {
        if self.bus.is_some() {
            let soon = Instant::now() + PERIOD.max(self.told.took * PART);
            self.told.at = self.told.at.into_iter().chain([soon]).min();
        }
    }

    /// Tells the bus what is new.
    pub(super) fn announce(&mut self) {
        let start = Instant::now();
        let handlers = self.handlers_now();
        let mut changes = Vec::new();
        changed(&self.told.handlers, &handlers, |subtype, row| changes.push((Thing::Handler, subtype.clone(), row)));
        self.told.handlers = handlers.into_iter().map(|(subtype, (_, row))| (subtype, row)).collect();

        let hosts: HashMap<HostName, &Host> = self.hosts.values().filter_map(|host| Some((host.name()?, host))).collect();
        let mut devices = BTreeMap::new();
        let mut settles = None;
        for (id, device) in self.machine.devices() {
            let on_its_way = matches!(device.state, State::Preparing | State::Opening);
            if on_its_way && !self.told.devices.contains_key(id) && start < device.since + SETTLES {
                settles = settles.into_iter().chain([device.since + SETTLES]).min();
                continue;
            }
            let pid = hosts.get(&device.host).and_then(|host| host.pid()).unwrap_or(0);
            let killed = self.machine.is_killed(&device.host);
            // The host knows first when it is another one.
            let counters = self.pages.read(id);
            let size = counters.as_ref().map(|counters| counters.size).filter(|size| *size > 0);
            let size = size.unwrap_or_else(|| size_of(device, self.prepared.get(id)));
            let facts = Facts::of(device, killed, size, pid);
            let was = self.told.devices.remove(id);
            if was.as_ref() != Some(&facts) {
                let row = device_row(id, device, self.state_of(device), counters.as_ref(), self.prepared.get(id), pid);
                let change = if was.is_some() { Change::Changed(row) } else { Change::Added(row) };
                changes.push((Thing::Device, id.to_string(), change));
            }
            devices.insert(id.clone(), facts);
        }
        for id in self.told.devices.keys() {
            changes.push((Thing::Device, id.to_string(), Change::Removed));
        }
        (self.told.devices, self.told.at) = (devices, settles);
        if let Some(bus) = &self.bus {
            bus.announce(changes);
        }
        self.told.took = start.elapsed();
    }

    /// Handlers as they are shown, and the part of it that is compared: not what changes by itself with time.
    fn handlers_now(&self) -> BTreeMap<String, (Row, Row)> {
        let mut now = BTreeMap::new();
        let plugins = self.hosts.values().filter(|host| host.device.is_none());
        // Of two plugins with the same subtype the one that is used.
        let (used, refused): (Vec<_>, Vec<_>) = plugins.partition(|host| host.unloadable.is_none());
        let programs = self.programs.values().map(|program| (program.subtype.clone(), program_row(program)));
        let plugins = used.into_iter().chain(refused).map(|host| (host.subtype(), handler_row(host)));
        for (subtype, row) in plugins.chain(programs) {
            let compared = row.iter().filter(|(name, _)| !matches!(name.as_str(), "state" | "outdated")).cloned().collect();
            now.entry(subtype).or_insert((row, compared));
        }
        now
    }
}

fn changed(was: &BTreeMap<String, Row>, now: &BTreeMap<String, (Row, Row)>, mut tell: impl FnMut(&String, Change)) {
    for (name, (row, compared)) in now {
        match was.get(name) {
            None => tell(name, Change::Added(row.clone())),
            Some(before) if before != compared => tell(name, Change::Changed(row.clone())),
            Some(_) => {}
        }
    }
    for name in was.keys().filter(|name| !now.contains_key(*name)) {
        tell(name, Change::Removed);
    }
}
