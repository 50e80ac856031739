//! How long commands take. The clock is read twice in a turn, not for each command: what is taken in a turn began when that did, and
//! what ends in the same turn ends with it, since the kernel is told then. What takes longer ends when it comes back.
use std::{sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tcmu_handler_api::scsi::{SenseKey, Status, describe};

use super::DeviceServer;
use crate::server::{
    counters::{KINDS, Kind},
    observe::{Completed, Observe},
};

/// How often a device may complain of slow commands.
const COMPLAIN: u64 = 1_000_000_000;

/// Nanoseconds, from any beginning.
fn clock() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// What the device server knows of times.
pub(super) struct Timing {
    /// When the last turn began in which commands were taken.
    pub(super) begun: u64,
    /// Commands of that turn that ended and are not counted yet, by kind.
    pub(super) ended: [u32; KINDS],
    /// The time, as it was read for commands of earlier turns.
    late: Option<u64>,
    /// Nanoseconds that are too many.
    slow: u64,
    /// When slow commands were logged last, and those that were not since.
    complained: u64,
    unsaid: u64,
    observer: Option<Arc<dyn Observe>>,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { begun: 0, ended: [0; KINDS], late: None, slow: u64::MAX, complained: 0, unsaid: 0, observer: None }
    }
}

impl Timing {
    fn late(&mut self) -> u64 {
        *self.late.get_or_insert_with(clock)
    }
}

impl DeviceServer {
    /// A turn begins in which commands are taken.
    pub(super) fn begin_turn(&mut self) {
        let now = clock();
        self.count_ended(now);
        (self.timing.begun, self.timing.late) = (now, None);
    }

    /// A turn ends: so do the commands of it that are done.
    pub(super) fn end_turn(&mut self) {
        if self.timing.ended != [0; KINDS] {
            self.count_ended(clock());
        }
        self.timing.late = None;
    }

    fn count_ended(&mut self, now: u64) {
        let took = now.saturating_sub(self.timing.begun);
        let mut commands = 0;
        for (kind, ended) in Kind::ALL.into_iter().zip(std::mem::take(&mut self.timing.ended)) {
            if ended > 0 {
                self.counters.cells().ended(kind, took, u64::from(ended));
                commands += u64::from(ended);
            }
        }
        if took >= self.timing.slow && commands > 0 {
            let this_turn = |command: &super::Command| command.begun == self.timing.begun && command.age == 0;
            let example = self.commands.iter().position(|command| this_turn(command));
            self.slow(example, took, commands);
        }
    }

    /// A command ended.
    #[inline]
    pub(super) fn ended(&mut self, index: usize, kind: Kind) {
        if self.commands[index].begun == self.timing.begun {
            self.timing.ended[kind as usize] += 1;
        } else {
            self.ended_late(index, kind);
        }
    }

    /// A command ended that an earlier turn took.
    #[inline(never)]
    fn ended_late(&mut self, index: usize, kind: Kind) {
        let took = self.timing.late().saturating_sub(self.commands[index].begun);
        self.counters.cells().ended(kind, took, 1);
        if took >= self.timing.slow {
            self.slow(Some(index), took, 1);
        }
    }

    #[cold]
    fn slow(&mut self, example: Option<usize>, took: u64, commands: u64) {
        self.counters.cells().slow.add(commands);
        let now = self.timing.late();
        if now.saturating_sub(self.timing.complained) < COMPLAIN {
            self.timing.unsaid += commands;
            return;
        }
        self.timing.complained = now;
        let unsaid = std::mem::take(&mut self.timing.unsaid);
        let command = example.map(|index| describe(self.commands[index].fetched.cdb()).to_string()).unwrap_or_default();
        let milliseconds = took / 1_000_000;
        tracing::warn!(device = self.name, command, milliseconds, commands, unsaid, "slow");
    }

    /// See [`Attached::set_slow`](crate::server::Attached::set_slow).
    pub(in crate::server) fn set_slow(&mut self, limit: Option<Duration>) {
        self.timing.slow = limit.map_or(u64::MAX, |limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
    }

    /// See [`Attached::observe`](crate::server::Attached::observe).
    pub(in crate::server) fn observe(&mut self, observer: Option<Arc<dyn Observe>>) {
        self.timing.observer = observer;
    }

    /// Whether somebody looks at each command: then none may take the quick way.
    pub(super) fn is_watched(&self) -> bool {
        self.timing.observer.is_some() || tracing::enabled!(target: "tcmu::command", tracing::Level::TRACE)
    }

    /// Tells those who look at single commands of one that is about to be completed.
    #[inline(never)]
    pub(super) fn tell(&self, index: usize, status: u8, sense: &[u8]) {
        let command = &self.commands[index];
        let latency = Duration::from_nanos(clock().saturating_sub(command.begun));
        let fetched = &command.fetched;
        if let Some(observer) = &self.timing.observer {
            observer.completed(&Completed { cdb: fetched.cdb(), length: fetched.data_len(), status, sense, latency });
        }
        let (command, microseconds) = (describe(fetched.cdb()), latency.as_micros() as u64);
        if status == Status::Good as u8 {
            tracing::trace!(target: "tcmu::command", device = self.name, %command, microseconds, "done");
        } else {
            let outcome = describe::outcome(status, sense);
            tracing::debug!(target: "tcmu::command", device = self.name, %command, microseconds, %outcome, "failed");
        }
    }
}

/// The sense key, for those who count.
pub(super) fn sense_key(status: u8, sense: &[u8]) -> Option<u8> {
    if status != Status::CheckCondition as u8 {
        return None;
    }
    let at = if sense.first()? & 0x7f >= 0x72 { 1 } else { 2 };
    Some(sense.get(at).map_or(SenseKey::NoSense as u8, |byte| byte & 0x0f))
}
