//! Handler hosts that come, go, hang, and are replaced.
use std::time::{Duration, Instant};

use tcmu::BackstoreId;

use super::{Action, Asked, Device, Found, HostName, HostState, Machine, Purpose, State};
use crate::{policy::HangAction, protocol::Doing};

impl Machine {
    pub(super) fn host_up(&mut self, host: &HostName, now: Instant) {
        // The host of a device that is gone is on its way out.
        let Some(state) = self.hosts.get_mut(host).filter(|state| **state == HostState::Down) else { return };
        *state = HostState::Up;
        for id in self.of_host(host, |device| device.state == State::Waiting) {
            let given_up = self.devices.get(&id).is_some_and(|device| device.fail.is_some());
            if given_up {
                // There may be commands in its ring: they are for the next reset.
                self.prepare_anew(&id, now);
            } else {
                self.open(&id, now);
            }
        }
    }

    /// A host that another supervisor left, and what it has. What it is busy with it answers to us.
    pub(super) fn adopted(&mut self, host: &HostName, devices: Vec<Found>, now: Instant) {
        self.hosts.insert(host.clone(), HostState::Up);
        for Found { minor, name, doing, write_cache, added } in devices {
            let id = name.id.clone();
            if self.devices.contains_key(&id) {
                tracing::error!(device = %id, "two hosts have it");
                self.answer_kernel(added, -libc::EAGAIN);
                self.kill(host, "it has a device that is another's");
                continue;
            }
            let (state, request, failed) = match doing {
                Doing::Serving => (State::Serving, None, None),
                Doing::Opening { id } => (State::Opening, Some((id, Purpose::Open)), None),
                Doing::Closing { id } => (State::Closing, Some((id, Purpose::Close)), None),
                Doing::Changing { id } => (State::Serving, Some((id, Purpose::Inherited)), None),
                Doing::Failed { reason } => (State::Serving, None, Some(reason)),
            };
            if let Some((request, purpose)) = request {
                self.requests.insert(request, Asked { id: id.clone(), host: host.clone(), purpose });
            }
            let serving = state == State::Serving;
            let mut device = Device::new(minor, name, now);
            (device.state, device.host, device.adopted, device.take_over) = (state, host.clone(), true, !serving);
            device.write_cache = write_cache;
            // One that is served by now is all that its tool waits for; one that is being opened was not there before.
            if added.is_some() && device.state == State::Opening {
                (device.added, device.deadline, device.take_over) = (added, Some(now + self.settings.open_timeout), false);
            } else {
                self.answer_kernel(added, if serving { 0 } else { -libc::EAGAIN });
            }
            self.devices.insert(id.clone(), device);
            if let Some(reason) = failed {
                self.device_failed(&id, &reason, now);
            } else if serving && added.is_none() {
                // It may have been blocked by a supervisor that could not go on.
                self.actions.push(Action::Unblock { id: id.clone() });
                self.actions.push(Action::Compare { id, unsure: false });
            }
        }
    }

    pub(super) fn host_down(&mut self, host: &HostName, now: Instant) {
        let Some(state) = self.hosts.get_mut(host) else { return };
        *state = HostState::Down;
        let lost: Vec<_> = self.requests.iter().filter(|(_, asked)| asked.host == *host).map(|(request, _)| *request).collect();
        for request in lost {
            if let Some(Asked { purpose: Purpose::Reconfigure(token, _), .. }) = self.requests.remove(&request) {
                self.answer_kernel(Some(token), -libc::EIO);
            }
        }
        for id in self.of_host(host, |device| device.state.is_in_host()) {
            let Some(device) = self.devices.get_mut(&id) else { continue };
            let stopped = self.stopping && matches!(device.state, State::Blocking | State::Closing);
            let added = device.added.take();
            if device.unwanted || stopped || added.is_some() {
                // Whoever enables a device must learn that its handler died of it.
                self.answer_kernel(added, -libc::EIO);
                self.forget(&id, now);
            } else {
                self.prepare_anew(&id, now);
            }
        }
    }

    /// Blocks and closes all that a host has, so that another process can take its place.
    pub(super) fn replace(&mut self, host: &HostName, now: Instant) {
        let Some(state) = self.hosts.get_mut(host).filter(|state| **state == HostState::Up) else { return };
        *state = HostState::Leaving;
        for id in self.of_host(host, |device| device.state == State::Serving) {
            self.block(&id, now);
        }
    }

    /// Hosts that have let go of their last device.
    pub(super) fn swap_hosts(&mut self) {
        let done = |host: &HostName| !self.devices.values().any(|device| device.host == *host && device.state.is_in_host());
        let leaving = self.hosts.iter().filter(|(_, state)| **state == HostState::Leaving);
        let done: Vec<HostName> = leaving.filter(|(host, _)| done(host)).map(|(host, _)| host.clone()).collect();
        for host in done {
            self.hosts.insert(host.clone(), HostState::Down);
            self.actions.push(Action::SwapHost { host });
        }
    }

    pub(super) fn kill(&mut self, host: &HostName, why: &str) {
        let Some(state) = self.hosts.get_mut(host) else { return };
        if matches!(state, HostState::Up | HostState::Leaving) {
            *state = HostState::Killed;
            tracing::error!(handler = %host, "its host is killed: {why}");
            self.actions.push(Action::KillHost { host: host.clone() });
        }
    }

    pub(super) fn oldest(&mut self, id: &BackstoreId, age: Duration) {
        let Some(policy) = self.devices.get(id).map(|device| self.policy(device)) else { return };
        let Some(device) = self.devices.get_mut(id).filter(|device| device.state == State::Serving) else { return };
        let hangs = policy.hang.is_some_and(|limit| age >= limit);
        match (hangs, device.hangs) {
            (true, None) => {
                tracing::error!(device = %id, "hangs: its oldest command has been with its handler for {} s", age.as_secs());
            }
            (false, Some(_)) => tracing::info!(device = %id, "goes on"),
            _ => {}
        }
        device.hangs = hangs.then_some(age);
        if hangs && policy.hang_action == HangAction::Restart {
            let host = device.host.clone();
            self.kill(&host, "a command takes too long");
        }
    }

    /// See [`Input::HostSilent`](super::Input::HostSilent).
    pub(super) fn host_silent(&mut self, host: &HostName, time: Duration) {
        let policy = self.settings.policies.of_handler(&host.subtype);
        if policy.hang.is_none_or(|limit| time < limit) {
            return;
        }
        for id in self.of_host(host, |device| device.state == State::Serving) {
            let Some(device) = self.devices.get_mut(&id) else { continue };
            if device.hangs.is_none() {
                tracing::error!(device = %id, "hangs: its host has not been heard of for {} s", time.as_secs());
            }
            device.hangs = Some(time);
        }
        if policy.hang_action == HangAction::Restart {
            self.kill(host, "it is not heard of any more");
        }
    }

    /// When a device that is being opened or closed takes too long for its handler to be well.
    pub(super) fn overdue_at(&self, device: &Device) -> Option<Instant> {
        if device.hangs.is_some() || !matches!(device.state, State::Opening | State::Closing) {
            return None;
        }
        Some(device.since + self.settings.open_timeout + self.policy(device).hang?)
    }

    pub(super) fn overdue(&mut self, id: &BackstoreId, now: Instant) {
        let Some(policy) = self.devices.get(id).map(|device| self.policy(device)) else { return };
        let Some(device) = self.devices.get_mut(id) else { return };
        let time = now.saturating_duration_since(device.since);
        tracing::error!(device = %id, "hangs: it has been {} for {} s", device.state, time.as_secs());
        device.hangs = Some(time);
        if policy.hang_action == HangAction::Restart {
            let host = device.host.clone();
            self.kill(&host, "it neither opens nor closes a device");
        }
    }
}
