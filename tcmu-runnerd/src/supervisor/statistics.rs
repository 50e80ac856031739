//! What was done for devices. Hosts count in memory that the supervisor made: it is read without a word to them, outlives them, and comes
//! back with them when another supervisor adopts them.
use std::{
    collections::{BTreeMap, HashMap},
    os::fd::OwnedFd,
    sync::Arc,
    time::Instant,
};

use tcmu::{
    BackstoreId,
    server::counters::{Counters, Hold, Page},
};

use super::{
    Supervisor,
    machine::{Device, State},
};
use crate::{
    dbus::Supervisor as Asking,
    metrics,
    protocol::ToHost,
    statistics::{DeviceStatistics, HandlerStatistics, Statistics},
};

/// The pages that devices are counted in, and what those had that are gone.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: HashMap<BackstoreId, DevicePage>,
    gone: BTreeMap<String, Counters>,
}

#[derive(Debug)]
struct DevicePage {
    subtype: String,
    page: Arc<OwnedFd>,
    /// Between two hosts nobody else has it in memory. `None`: no more may be locked.
    _hold: Option<Hold>,
}

impl DevicePage {
    fn new(subtype: &str, page: OwnedFd) -> DevicePage {
        DevicePage { subtype: subtype.to_owned(), _hold: Page::hold(&page).ok(), page: Arc::new(page) }
    }
}

impl Pages {
    /// A device's page. A new one if it has none yet; none at all if there is no memory for it, and then it is not counted.
    pub(super) fn of(&mut self, id: &BackstoreId, subtype: &str) -> Option<Arc<OwnedFd>> {
        if let Some(known) = self.pages.get(id) {
            return Some(known.page.clone());
        }
        match Page::create() {
            Ok(page) => {
                let new = DevicePage::new(subtype, page);
                let page = new.page.clone();
                self.pages.insert(id.clone(), new);
                Some(page)
            }
            Err(error) => {
                tracing::warn!(device = %id, %error, "it is not counted what is done for it");
                None
            }
        }
    }

    /// A page that came with an adopted host.
    pub(super) fn keep(&mut self, id: BackstoreId, subtype: &str, page: OwnedFd) {
        self.pages.insert(id, DevicePage::new(subtype, page));
    }

    /// A device is gone. What was done for it stays with its handler.
    pub(super) fn retire(&mut self, id: &BackstoreId) {
        let Some(DevicePage { subtype, page, .. }) = self.pages.remove(id) else { return };
        let mut counters = Page::read_from(&page).unwrap_or_default();
        (counters.in_flight, counters.in_flight_max, counters.size) = (0, 0, 0);
        self.gone.entry(subtype).or_default().add(&counters);
    }

    /// What was done for a device. A page that makes no sense is as good as none.
    pub(super) fn read(&self, id: &BackstoreId) -> Option<Counters> {
        Page::read_from(&self.pages.get(id)?.page).ok()
    }
}

impl Supervisor {
    /// All that is known. Asks nobody.
    pub(super) fn statistics(&self) -> Statistics {
        let now = Instant::now();
        let mut devices = Vec::new();
        let mut of_handlers = self.pages.gone.clone();
        let mut counts: HashMap<&str, u64> = HashMap::new();
        for (id, device) in self.machine.devices() {
            let mut counters = self.pages.read(id).unwrap_or_default();
            let serving = device.state == State::Serving;
            if !serving {
                // Of a process that may be gone.
                counters.in_flight = 0;
            }
            if counters.size == 0 {
                counters.size = self.prepared.get(id).map_or(0, |prepared| prepared.facts.size);
            }
            of_handlers.entry(device.name.subtype.clone()).or_default().add(&counters);
            *counts.entry(&device.name.subtype).or_default() += 1;
            let (takeovers, blocked) = device.pauses(now);
            devices.push(DeviceStatistics {
                device: id.to_string(),
                handler: device.name.subtype.clone(),
                state: self.state_of(device),
                serving,
                hangs: device.hangs,
                takeovers,
                blocked,
                counters,
            });
        }
        let mut handlers: BTreeMap<String, HandlerStatistics> = BTreeMap::new();
        for host in self.hosts.values().filter(|host| host.handler().is_some()) {
            let subtype = host.subtype();
            let handler = handlers.entry(subtype.clone()).or_insert_with(|| HandlerStatistics {
                devices: counts.get(subtype.as_str()).copied().unwrap_or(0),
                counters: of_handlers.get(&subtype).cloned().unwrap_or_default(),
                handler: subtype,
                ..HandlerStatistics::default()
            });
            handler.up |= host.device.is_none() && host.is_ready();
            handler.restarts += host.restarts;
        }
        Statistics { devices, handlers: handlers.into_values().collect() }
    }

    /// A device's state in words.
    pub(super) fn state_of(&self, device: &Device) -> String {
        let mut state = device.state.to_string();
        if let Some(time) = device.hangs {
            state.push_str(&format!(", hangs for {} s", time.as_secs()));
        }
        if self.machine.is_killed(&device.host) {
            state.push_str(", its host is killed but has not ended");
        }
        state
    }

    /// Tells hosts which commands are slow, after that was changed.
    pub(super) fn send_slow_commands(&self) {
        let policies = self.config.policies();
        for (id, device) in self.machine.devices().iter().filter(|(_, device)| device.state.is_in_host()) {
            let ms = policies.of(&device.name.subtype, id).slow_command.map_or(0, |time| time.as_millis() as u64);
            if let Some(host) = self.host_of(&device.host) {
                host.send(ToHost::SlowCommand { device: id.to_string(), ms }, None);
            }
        }
    }

    /// A trace is to begin with this file, or to end.
    pub(super) fn trace(&mut self, question: crate::dbus::Question) {
        use crate::dbus::Question;
        let (Question::StartTrace { device, .. } | Question::StopTrace { device, .. }) = &question else { return };
        let device = device.clone();
        let found = device.parse::<BackstoreId>().ok().and_then(|id| self.machine.devices().get(&id));
        let Some(host) = found.filter(|device| device.state == State::Serving).map(|device| device.host.clone()) else {
            let reason =
                if found.is_some() { "it is not being served" } else { "there is no such device; `tcmuctl devices` lists them" };
            return question.answer_check(false, format!("{device}: {reason}"));
        };
        let (message, file): (Box<dyn FnOnce(u64) -> ToHost>, _) = match &question {
            Question::StartTrace { file, limit, .. } => {
                let limit = *limit;
                (Box::new(move |id| ToHost::StartTrace { id, device, limit }), Some(file.clone()))
            }
            _ => (Box::new(move |id| ToHost::StopTrace { id, device }), None),
        };
        let request = self.request(super::Waiting::Check(question), self.config.check_timeout());
        if let Some(host) = self.host_of(&host) {
            host.send(message(request), file);
        }
    }

    /// Starts to answer Prometheus, if that is wanted.
    pub(super) fn start_metrics(&self) {
        let Ok(Some(endpoint)) = metrics::Endpoint::parse(&self.config.metrics) else { return };
        let asking = Asking(self.happenings.clone());
        if let Err(error) = metrics::serve(&endpoint, move || asking.statistics()) {
            tracing::error!("metrics = {:?}: {error}; devices are served without", self.config.metrics);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_for_a_device_stays_with_its_handler() {
        let mut pages = Pages::default();
        let id: BackstoreId = "user_0/a".parse().unwrap();
        assert_eq!(pages.read(&id), None);
        let page = pages.of(&id, "file").unwrap();
        assert!(Arc::ptr_eq(&page, &pages.of(&id, "file").unwrap()), "the next host goes on in the same page");
        rustix::io::pwrite(&*page, &[&1u64.to_ne_bytes()[..], &5u64.to_ne_bytes()].concat(), 0).unwrap();
        assert_eq!(pages.read(&id).unwrap().commands, 5);
        for _ in 0..2 {
            pages.retire(&id);
            assert_eq!((pages.read(&id), pages.gone["file"].commands), (None, 5));
        }
    }

    #[test]
    fn a_page_that_makes_no_sense_harms_nobody() {
        let mut pages = Pages::default();
        let id: BackstoreId = "user_0/a".parse().unwrap();
        let page = pages.of(&id, "file").unwrap();
        rustix::io::pwrite(&*page, &[0xff; 4096], 0).unwrap();
        assert_eq!(pages.read(&id), None);
        pages.retire(&id);
        rustix::io::pwrite(&*page, &1u64.to_ne_bytes(), 0).unwrap();
        pages.keep(id.clone(), "file", page.try_clone().unwrap());
        let mut sum = pages.read(&id).unwrap();
        sum.add(&pages.read(&id).unwrap());
        assert_eq!(sum.commands, u64::MAX - 1, "sums wrap");
    }
}
