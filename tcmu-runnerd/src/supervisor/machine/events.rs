//! What the kernel says: devices that come, go and change.
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tcmu::{BackstoreId, identity::DeviceName};

use super::{Action, Device, HostName, HostState, Machine, Newer, Purpose, Stage, State, Token, WaitingChange};
use crate::protocol::DeviceChange;

impl Machine {
    pub(super) fn added(&mut self, token: Token, minor: u32, name: DeviceName, now: Instant) {
        if self.leave_to_program(token, &name.id, &name.subtype, -libc::ENOENT) {
            return;
        }
        let refuse = if self.stopping {
            Some(libc::ESHUTDOWN)
        } else if !self.handlers.contains(&name.subtype) {
            tracing::warn!(device = %name.id, "there is no handler {:?}; it is refused", name.subtype);
            self.refusals.note(&name.id, &format!("there is no handler {:?}", name.subtype));
            Some(libc::ENOENT)
        } else {
            None
        };
        if let Some(errno) = refuse {
            return self.answer_kernel(Some(token), -errno);
        }
        let newer = Newer { token, minor, name, deadline: now + self.settings.open_timeout };
        let id = newer.name.id.clone();
        let Some(device) = self.devices.get_mut(&id) else { return self.add(newer, now) };
        // Its removal was missed, or it was seen before this event came and nothing could be done with it yet.
        let earlier = device.newer.replace(newer).map(|newer| newer.token);
        self.answer_kernel(earlier, -libc::EAGAIN);
        self.leave(None, &id, now);
    }

    /// A device that a tool waits for.
    pub(super) fn add(&mut self, newer: Newer, now: Instant) {
        if self.stopping {
            return self.answer_kernel(Some(newer.token), -libc::ESHUTDOWN);
        }
        self.note_cache(&newer.name.id, true);
        let mut device = Device::new(newer.minor, newer.name, now);
        (device.added, device.deadline) = (Some(newer.token), Some(newer.deadline));
        self.insert(device);
    }

    /// A device that nobody has yet.
    fn insert(&mut self, mut device: Device) {
        let (id, minor, take_over) = (device.name.id.clone(), device.minor, device.take_over);
        if self.settings.host_per_device.contains(&device.name.subtype) {
            device.host.device = Some(id.clone());
            self.hosts.insert(device.host.clone(), HostState::Down);
            self.actions.push(Action::StartHost { host: device.host.clone() });
        }
        debug_assert!(Stage::New.may_become(device.state.stage()));
        self.devices.insert(id.clone(), device);
        self.actions.push(Action::Prepare { id, minor, take_over });
    }

    pub(super) fn removed(&mut self, token: Token, id: &BackstoreId, now: Instant) {
        // Whoever enabled it does not wait any more.
        let newer = self.devices.get_mut(id).and_then(|device| device.newer.take()).map(|newer| newer.token);
        self.answer_kernel(newer, -libc::ENODEV);
        self.leave(Some(token), id, now);
    }

    /// A device is not to be there any more.
    fn leave(&mut self, token: Option<Token>, id: &BackstoreId, now: Instant) {
        let Some(device) = self.devices.get_mut(id) else { return self.answer_kernel(token, 0) };
        let earlier = token.and_then(|token| device.removed.replace(token));
        device.unwanted = true;
        if device.added.is_none() {
            device.deadline = Some(now + self.settings.open_timeout);
        }
        self.answer_kernel(earlier, 0);
        let Some(device) = self.devices.get_mut(id) else { return };
        match device.state {
            // Who prepares it may have to wait in the kernel until it is removed, which waits for us; and nobody serves it.
            State::Preparing => {
                let token = device.removed.take();
                self.answer_kernel(token, 0);
            }
            State::Opening | State::Closing => {}
            State::Waiting | State::Failed { .. } => self.forget(id, now),
            // Whoever blocks it now has to wait in the kernel until it is removed, which waits for us.
            State::Serving | State::Blocking => self.close(id, now),
        }
    }

    pub(super) fn reconfigured(
        &mut self,
        token: Token,
        id: &BackstoreId,
        change: DeviceChange,
        subtype: Option<&str>,
        now: Instant,
    ) {
        let Some(device) = self.devices.get_mut(id) else { return self.answer_kernel(Some(token), -libc::ENODEV) };
        if subtype.is_some_and(|subtype| subtype != device.name.subtype) {
            tracing::warn!(device = %id, "a device cannot move to another handler");
            self.refusals.note(id, "a device cannot move to another handler");
            return self.answer_kernel(Some(token), -libc::EINVAL);
        }
        // Tools that restore a configuration write what is there already.
        if change == DeviceChange::Config(device.name.config.clone()) {
            return self.answer_kernel(Some(token), 0);
        }
        if device.state == State::Serving {
            return self.change(token, id, change);
        }
        if device.unwanted || self.stopping || matches!(device.state, State::Failed { .. }) {
            return self.answer_kernel(Some(token), -libc::EAGAIN);
        }
        // Its host comes back soon.
        let change = WaitingChange { token, change, deadline: now + self.settings.open_timeout };
        let earlier = device.change.replace(change).map(|change| change.token);
        self.answer_kernel(earlier, -libc::EAGAIN);
    }

    /// Has a device changed by its host.
    pub(super) fn change(&mut self, token: Token, id: &BackstoreId, change: DeviceChange) {
        let Some(device) = self.devices.get(id) else { return };
        let host = device.host.clone();
        let request = self.request(id, &host, Purpose::Reconfigure(token, change.clone()));
        self.actions.push(Action::Reconfigure { request, id: id.clone(), host, change });
    }

    /// Makes a device what it is by now for the kernel, which asked nobody.
    pub(super) fn put_right(&mut self, id: &BackstoreId, change: DeviceChange) {
        let Some(device) = self.devices.get(id).filter(|device| device.state == State::Serving) else { return };
        tracing::warn!(device = %id, ?change, "changed while nobody watched; its handler is told now");
        let host = device.host.clone();
        let request = self.request(id, &host, Purpose::PutRight(change.clone()));
        self.actions.push(Action::Reconfigure { request, id: id.clone(), host, change });
    }

    pub(super) fn note_change(&mut self, id: &BackstoreId, change: DeviceChange) {
        let Some(device) = self.devices.get_mut(id) else { return };
        match change {
            DeviceChange::Config(config) => device.name.config = config,
            DeviceChange::WriteCache(on) => {
                device.write_cache = Some(on);
                self.note_cache(id, on);
            }
            DeviceChange::Size(bytes) => device.size = Some(bytes),
            DeviceChange::Medium { config, size } => (device.name.config, device.size) = (config, Some(size)),
        }
    }

    /// A device's write cache is on from now on, or off. One that is gone is forgotten here too.
    pub(super) fn note_cache(&mut self, id: &BackstoreId, on: bool) {
        let changed = if on { self.caches_off.remove(id) } else { self.caches_off.insert(id.clone()) };
        if changed {
            self.actions.push(Action::KeepCachesOff { devices: self.caches_off.clone() });
        }
    }

    /// A device has another medium, as nobody but its handler knows yet.
    pub fn medium_changed(&mut self, id: &BackstoreId, config: String, size: u64) {
        self.note_change(id, DeviceChange::Medium { config, size });
    }

    pub(super) fn present(&mut self, present: Vec<(u32, DeviceName)>, now: Instant) {
        let there: HashSet<_> = present.iter().map(|(minor, name)| (name.id.clone(), *minor)).collect();
        for id in self.ids(|device| !there.contains(&(device.name.id.clone(), device.minor))) {
            self.leave(None, &id, now);
        }
        for (minor, name) in present {
            if let Some(device) = self.devices.get_mut(&name.id) {
                let adopted = std::mem::take(&mut device.adopted);
                if adopted && device.name.config != name.config && device.name.subtype == name.subtype {
                    self.put_right(&name.id, DeviceChange::Config(name.config));
                }
                continue;
            }
            if self.is_foreign(&name.subtype) {
                continue;
            }
            if !self.handlers.contains(&name.subtype) {
                tracing::warn!(device = %name.id, "there is no handler {:?}; the device is left alone", name.subtype);
                continue;
            }
            tracing::info!(device = %name.id, "taking over");
            let mut device = Device::new(minor, name, now);
            (device.take_over, device.unserved) = (true, Some(now));
            device.write_cache = self.caches_off.contains(&device.name.id).then_some(false);
            self.insert(device);
        }
    }
}

impl Device {
    pub(super) fn new(minor: u32, name: DeviceName, now: Instant) -> Device {
        let host = HostName::of_handler(&name.subtype);
        Device {
            minor,
            name,
            state: State::Preparing,
            since: now,
            size: None,
            host,
            hangs: None,
            write_cache: None,
            take_over: false,
            broken: false,
            adopted: false,
            unserved: None,
            paused: None,
            pauses: (0, Duration::ZERO),
            fail: None,
            close_again: None,
            said: None,
            added: None,
            removed: None,
            unwanted: false,
            deadline: None,
            change: None,
            newer: None,
        }
    }

    /// How often it was served again after a pause, and how long it was not served in all although it should have been.
    pub fn pauses(&self, now: Instant) -> (u64, Duration) {
        let (times, time) = self.pauses;
        (times, time + self.paused.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)))
    }
}
