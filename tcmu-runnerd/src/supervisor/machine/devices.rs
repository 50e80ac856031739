//! A device's way from one state to the next.
use std::time::Instant;

use tcmu::BackstoreId;

use super::{Action, Device, FAIL_EVERY, HostState, Machine, Purpose, RETRY, Stage, State, WaitingChange};

impl Machine {
    /// The only place where a device changes its state.
    fn go(&mut self, id: &BackstoreId, state: State, now: Instant) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let (from, to) = (device.state.stage(), state.stage());
        if !from.may_become(to) {
            tracing::error!(device = %id, ?from, ?to, "a way that does not exist; that is a bug");
            debug_assert!(false, "{from:?} -> {to:?}");
        }
        if from != to {
            device.since = now;
        }
        if from == Stage::Serving && to != from {
            device.paused.get_or_insert(now);
        }
        if to == Stage::Serving
            && let Some(paused) = device.paused.take()
        {
            device.pauses = (device.pauses.0 + 1, device.pauses.1 + now.saturating_duration_since(paused));
        }
        (device.state, device.hangs, device.close_again) = (state, None, None);
    }

    pub(super) fn prepared(&mut self, id: &BackstoreId, outcome: Result<(), (i32, String)>, now: Instant) {
        let Some(device) = self.devices.get_mut(id).filter(|device| device.state == State::Preparing) else { return };
        if device.unwanted {
            return self.forget(id, now);
        }
        device.size = None;
        let ready = self.hosts.get(&device.host) == Some(&HostState::Up);
        match outcome {
            Ok(()) if ready => self.open(id, now),
            Ok(()) => self.go(id, State::Waiting, now),
            Err((libc::ENODEV, _)) if device.added.is_none() => {
                tracing::info!(device = %id, "is not there any more");
                self.forget(id, now);
            }
            Err((errno, reason)) => self.failed(id, errno, reason, now),
        }
    }

    pub(super) fn open(&mut self, id: &BackstoreId, now: Instant) {
        self.go(id, State::Opening, now);
        let Some(device) = self.devices.get(id) else { return };
        let (host, take_over) = (device.host.clone(), device.take_over);
        let request = self.request(id, &host, Purpose::Open);
        self.actions.push(Action::Open { request, id: id.clone(), host, take_over });
    }

    pub(super) fn opened(&mut self, id: &BackstoreId, refused: Option<(i32, String)>, now: Instant) {
        if self.devices.get(id).is_none_or(|device| device.state != State::Opening) {
            return;
        }
        if let Some((errno, message)) = refused {
            return self.failed(id, errno, message, now);
        }
        self.go(id, State::Serving, now);
        let Some(device) = self.devices.get_mut(id) else { return };
        if let Some(since) = device.unserved {
            tracing::info!(device = %id, "served again after {} ms", now.saturating_duration_since(since).as_millis());
        }
        (device.unserved, device.fail, device.said) = (None, None, None);
        if device.removed.is_none() {
            device.deadline = None;
        }
        let (added, take_over, unwanted) = (device.added.take(), device.take_over, device.unwanted);
        tracing::info!(device = %id, config = device.name.config, "served by {}", device.name.subtype);
        self.refusals.forget(id);
        device.take_over = false;
        let leaving = self.hosts.get(&device.host) == Some(&HostState::Leaving);
        let change = if unwanted || leaving || self.stopping { None } else { device.change.take() };
        if unwanted {
            self.answer_kernel(added, -libc::ENODEV);
            return self.close(id, now);
        }
        self.answer_kernel(added, 0);
        if self.stopping || leaving {
            self.block(id, now);
        } else if take_over {
            self.actions.push(Action::Unblock { id: id.clone() });
        }
        if let Some(WaitingChange { token, change, .. }) = change {
            self.change(token, id, change);
        }
    }

    /// A device could not be opened: a new one is refused, one that was there before is tried again.
    fn failed(&mut self, id: &BackstoreId, errno: i32, reason: String, now: Instant) {
        let Some(device) = self.devices.get_mut(id) else { return };
        match device.added.take() {
            Some(token) => {
                tracing::warn!(device = %id, "refused: {reason}");
                self.refusals.note(id, &reason);
                self.answer_kernel(Some(token), -errno);
                self.forget(id, now);
            }
            None if device.unwanted => self.forget(id, now),
            None => {
                if device.said.as_ref() != Some(&reason) {
                    tracing::error!(device = %id, "cannot be served: {reason}; trying again every {} s", RETRY.as_secs());
                    device.said = Some(reason.clone());
                }
                let change = device.change.take().map(|change| change.token);
                self.answer_kernel(change, -libc::EAGAIN);
                self.go(id, State::Failed { reason, retry: now + RETRY }, now);
            }
        }
    }

    pub(super) fn device_failed(&mut self, id: &BackstoreId, reason: &str, now: Instant) {
        let Some(device) = self.devices.get_mut(id).filter(|device| device.state == State::Serving) else { return };
        // Nothing comes from this ring until it is reset: the device is closed and taken over anew.
        tracing::error!(device = %id, "{reason}");
        (device.take_over, device.broken) = (true, true);
        device.unserved = Some(now);
        self.close(id, now);
    }

    pub(super) fn block(&mut self, id: &BackstoreId, now: Instant) {
        self.go(id, State::Blocking, now);
        self.actions.push(Action::Block { id: id.clone() });
    }

    pub(super) fn close(&mut self, id: &BackstoreId, now: Instant) {
        self.go(id, State::Closing, now);
        let Some(device) = self.devices.get(id) else { return };
        let host = device.host.clone();
        let request = self.request(id, &host, Purpose::Close);
        self.actions.push(Action::Close { request, id: id.clone(), host });
    }

    pub(super) fn closed(&mut self, id: &BackstoreId, refused: Option<String>, now: Instant) {
        let Some(device) = self.devices.get_mut(id).filter(|device| device.state == State::Closing) else { return };
        if let Some(message) = refused {
            tracing::warn!(device = %id, "closing: {message}");
            // Its host still has it. One that is to be replaced is not waited for any longer.
            device.close_again = Some(now + RETRY);
            let host = device.host.clone();
            if self.hosts.get(&host) == Some(&HostState::Leaving) {
                self.kill(&host, "it does not let go of its devices");
            }
            return;
        }
        if device.unwanted || self.stopping {
            tracing::info!(device = %id, "closed");
            return self.forget(id, now);
        }
        if std::mem::take(&mut device.broken) {
            self.actions.push(Action::Release { id: id.clone() });
        }
        self.prepare_anew(id, now);
    }

    /// From the start: block it, empty its ring, open it.
    pub(super) fn prepare_anew(&mut self, id: &BackstoreId, now: Instant) {
        self.go(id, State::Preparing, now);
        let Some(device) = self.devices.get_mut(id) else { return };
        (device.take_over, device.fail) = (true, None);
        device.unserved.get_or_insert(now);
        let minor = device.minor;
        self.actions.push(Action::Prepare { id: id.clone(), minor, take_over: true });
    }

    /// When the commands of a device that nobody serves are to fail (again).
    pub(super) fn fails_at(&self, device: &Device) -> Option<Instant> {
        if self.stopping || !matches!(device.state, State::Waiting | State::Failed { .. }) {
            return None;
        }
        let limit = device.unserved? + self.policy(device).give_up?;
        Some(device.fail.unwrap_or(limit))
    }

    pub(super) fn fail_commands(&mut self, id: &BackstoreId, now: Instant) {
        let Some(device) = self.devices.get_mut(id) else { return };
        if device.fail.is_none() {
            tracing::error!(device = %id, "nobody has served it for too long: its commands fail until somebody does");
        }
        device.fail = Some(now + FAIL_EVERY);
        self.actions.push(Action::FailCommands { id: id.clone() });
    }

    /// A device's end.
    pub(super) fn forget(&mut self, id: &BackstoreId, now: Instant) {
        let Some(device) = self.devices.remove(id) else { return };
        debug_assert!(device.state.stage().may_become(Stage::Gone), "{:?} -> Gone", device.state);
        self.actions.push(Action::Release { id: id.clone() });
        if !self.stopping {
            self.note_cache(id, true);
        }
        if device.host.device.is_some() {
            self.hosts.remove(&device.host);
            self.actions.push(Action::EndHost { host: device.host });
        }
        self.answer_kernel(device.added, -libc::ENODEV);
        self.answer_kernel(device.change.map(|change| change.token), -libc::ENODEV);
        // After the descriptor is closed, which is what the kernel waits for.
        self.answer_kernel(device.removed, 0);
        if let Some(newer) = device.newer {
            self.add(newer, now);
        }
    }
}
