//! The quick way through the device server, for what the engine calls plain.
use tcmu_handler_api::abi;

use super::{DeviceServer, ServeError};
use crate::{
    engine::{Judge, Plain},
    ring::{Completion, Fetched, MailboxFlags},
    server::counters::Kind,
};

/// What a command does, if it is plain.
#[inline]
pub(super) fn judge(judge: &Judge, fetched: &Fetched) -> Option<Plain> {
    judge.plain(fetched.cdb_start(), fetched.data_len()).filter(|_| !fetched.is_bidi())
}

impl DeviceServer {
    /// A request came back.
    #[inline(always)]
    pub(super) fn came_back(&mut self, index: usize) -> Result<(), ServeError> {
        if self.finish_plain(index)? { Ok(()) } else { self.completed(index) }
    }

    /// Ends a plain command whose request was completed well; whether it was one. Another gets the task that it lacks.
    #[inline(always)]
    fn finish_plain(&mut self, index: usize) -> Result<bool, ServeError> {
        let command = &mut *self.commands[index];
        let Some(plain) = &command.plain else { return Ok(false) };
        if command.completed().status != abi::TCMU_STATUS_OK {
            command.plain_failed();
            return Ok(false);
        }
        // As `complete` does for Data-Out.
        let read_len = if plain.write && plain.length > 1 && self.ring.flags().contains(MailboxFlags::READ_LEN) {
            command.buffer().fill_at(0, 1, 0);
            Some(1)
        } else {
            None
        };
        let completed = self.ring.complete(command.fetched.id, &Completion { status: 0, sense: &[], read_len });
        let kind = if plain.write { Kind::Write } else { Kind::Read };
        command.plain = None;
        (command.age, command.aborted) = (0, false);
        self.ended(index, kind);
        self.free.push(index);
        self.in_flight -= 1;
        self.retry_waiting();
        completed?;
        Ok(true)
    }

    /// Brings the counters up to date.
    pub(super) fn count_plain(&mut self) {
        let done = self.tally.count(&mut self.unit, &self.judge);
        let ([reads, writes], [read, written]) = (done.commands, done.bytes);
        let counters = self.counters.cells();
        counters.commands.add(reads + writes);
        counters.reads.add(reads);
        counters.bytes_read.add(read);
        counters.writes.add(writes);
        counters.bytes_written.add(written);
    }

    /// After anything that may have touched the unit's state.
    #[inline]
    pub(super) fn judge_anew(&mut self) {
        self.unit.watched = self.is_watched();
        self.judge = Judge::of(&self.unit);
    }
}

/// The range that a plain command changes.
pub(super) fn changes(plain: &Plain) -> Option<(u64, u64)> {
    plain.write.then_some((plain.offset, plain.length))
}
