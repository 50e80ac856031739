//! The quick way through the device server, for what the engine calls plain.
use tcmu_handler_api::abi;

use super::{DeviceServer, ServeError};
use crate::{
    engine::{Judge, Plain},
    ring::{Completion, MailboxFlags},
};

impl DeviceServer {
    /// Submits a command if it is plain; whether it was.
    #[inline]
    pub(super) fn begin_plain(&mut self, index: usize) -> bool {
        // Where a range is somebody's own, the engine's tasks tell whose.
        if self.exclusive > 0 {
            return false;
        }
        let command = &mut *self.commands[index];
        let Some(plain) = self.judge.plain(command.fetched.cdb(), command.fetched.data_len()) else { return false };
        if !command.fetched.bidi().is_empty() {
            return false;
        }
        plain.count(&mut self.unit, &self.judge);
        let (commands, bytes) = if plain.write {
            (&self.counters.writes, &self.counters.bytes_written)
        } else {
            (&self.counters.reads, &self.counters.bytes_read)
        };
        commands.add(1);
        bytes.add(plain.length);
        self.batch.push(command.arm_plain(plain));
        true
    }

    /// Ends a plain command whose request was completed well; whether it was one. Another gets the task that it lacks.
    #[inline]
    pub(super) fn finish_plain(&mut self, index: usize) -> Result<bool, ServeError> {
        let command = &mut *self.commands[index];
        let Some(plain) = command.plain.take() else { return Ok(false) };
        if command.completed().status != abi::TCMU_STATUS_OK {
            command.task = Some(plain.task());
            return Ok(false);
        }
        // As `complete` does for Data-Out.
        let read_len = if plain.write && plain.length > 1 && self.ring.flags().contains(MailboxFlags::READ_LEN) {
            command.buffer().fill_at(0, 1, 0);
            Some(1)
        } else {
            None
        };
        self.ring.complete(command.fetched.id, &Completion { status: 0, sense: &[], read_len })?;
        command.age = 0;
        self.free.push(index);
        self.in_flight -= 1;
        if !self.waiting.is_empty() {
            self.retry_waiting();
        }
        Ok(true)
    }

    /// After anything that may have touched the unit's state.
    #[inline]
    pub(super) fn judge_anew(&mut self) {
        self.judge = Judge::of(&self.unit);
    }
}

/// The range that a plain command changes.
pub(super) fn changes(plain: &Plain) -> Option<(u64, u64)> {
    plain.write.then_some((plain.offset, plain.length))
}
