//! The way back: a request that its handler completed goes on, or ends its command on the ring.
use std::sync::PoisonError;

use tcmu_handler_api::{
    abi,
    scsi::{Status, sense::SENSE_BUFFER},
};

use super::{DeviceServer, ServeError, timing::sense_key};
use crate::{
    engine::{self, Judge, Outcome, Step},
    ring::{Completion, MailboxFlags},
    server::counters::Kind,
};

impl DeviceServer {
    /// A request came back that was not a plain command's, or failed.
    #[inline(never)]
    pub(super) fn completed(&mut self, index: usize) -> Result<(), ServeError> {
        let command = &mut *self.commands[index];
        let (op, status) = (command.completed().request.op, command.completed().status);
        if op == abi::TCMU_OP_SCSI {
            if status == abi::TCMU_STATUS_NOT_HANDLED {
                return if command.aborted { self.finish_aborted(index) } else { self.begin(index) };
            }
            return self.finish_cdb(index);
        }
        let Some(mut task) = command.task.take() else { return Ok(()) };
        if let Some(mut piece) = command.piece.take() {
            piece.memory = std::mem::take(&mut task.memory);
            piece.end(status);
            command.task = Some(task);
            self.release(index);
            return Ok(());
        }
        if let Some(returned) = command.returned.take() {
            task.memory = std::mem::take(&mut *returned.lock().unwrap_or_else(PoisonError::into_inner));
        }
        if let Some(answer) = command.answer.take()
            && let Some(answer) = answer.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            self.unit.answered(answer);
        }
        let slot = command.completed();
        let sense = &slot.sense[..(slot.request.sense_length as usize).min(slot.sense.len())];
        let step = engine::resume(&mut self.unit, &mut task, &command.buffer(), &slot.request, status, sense);
        self.judge = Judge::of(&self.unit);
        let give_up = self.stopping && command.detached && matches!(step, Step::Submit(_));
        if give_up {
            // The daemon ends or the device goes: nobody waits for this, and nobody will be there to finish it.
            tracing::warn!(device = self.name, "an operation in the background was not finished");
            engine::abandon(&mut self.unit, &mut task);
            self.judge = Judge::of(&self.unit);
        }
        command.task = Some(task);
        if command.aborted && matches!(step, Step::Submit(_)) {
            return self.finish_aborted(index);
        }
        match step {
            Step::Submit(work) if !give_up => {
                if self.pieces == 0 {
                    self.later.push_back((index, work));
                } else {
                    self.pieces -= 1;
                    self.submit(index, work);
                }
                Ok(())
            }
            Step::Done(outcome) => self.finish(index, outcome),
            _ => {
                self.release(index);
                Ok(())
            }
        }
    }

    /// Completes a command whose CDB the handler executed: status, sense and data length are the handler's.
    fn finish_cdb(&mut self, index: usize) -> Result<(), ServeError> {
        let command = &*self.commands[index];
        let slot = command.completed();
        let length = command.buffer().len() as u64;
        let valid = slot.request.result.min(length);
        if slot.status == abi::TCMU_STATUS_SENSE {
            let sense = slot.sense;
            let sense = &sense[..(slot.request.sense_length as usize).min(sense.len())];
            let read_len = (valid > 0 && valid < length).then_some(valid as u32);
            return self.end(index, Status::CheckCondition as u8, sense, read_len);
        }
        let outcome = if slot.status == abi::TCMU_STATUS_OK {
            Outcome { data: Some(valid as usize), ..Outcome::GOOD }
        } else {
            engine::outcome_of(slot.request.op, slot.status, slot.request.result, &slot.sense)
        };
        self.finish(index, outcome)
    }

    /// Ends a command.
    pub(super) fn finish(&mut self, index: usize, outcome: Outcome) -> Result<(), ServeError> {
        let completed = if self.commands[index].detached {
            if outcome.status != Status::Good as u8 {
                tracing::warn!(device = self.name, ?outcome, "an operation in the background failed");
            }
            Ok(())
        } else {
            self.complete(index, outcome)
        };
        self.release(index);
        completed
    }

    /// Completes a command's entry on the ring.
    fn complete(&mut self, index: usize, outcome: Outcome) -> Result<(), ServeError> {
        let command = &self.commands[index];
        command.bidi_buffer().fill(0);
        let buffer = command.buffer();
        let knows_length = self.ring.flags().contains(MailboxFlags::READ_LEN);
        let data = match outcome.data {
            // The kernel shows none of the buffer then, unless a length says so; and an initiator would take a length for what was read:
            // Linux complains of one that is no whole number of blocks.
            None if outcome.status == Status::CheckCondition as u8 => None,
            // A Data-Out buffer, unless the initiator has the directions wrong (which the ring does not tell): then the kernel shows it
            // what is in there. Clearing one byte and showing that one costs nothing.
            None if knows_length && buffer.has_more_than(1) => {
                buffer.fill_at(0, 1, 0);
                Some(1)
            }
            None if outcome.status != Status::Good as u8 => Some(0),
            data => data,
        };
        let read_len = data.filter(|valid| buffer.has_more_than(*valid)).and_then(|valid| u32::try_from(valid).ok());
        if let Some(valid) = read_len {
            // A kernel without READ_LEN, and any kernel for a length of 0, copies the whole buffer: clear what isn't ours to show.
            if valid == 0 || !knows_length {
                buffer.fill_at(valid as usize, usize::MAX, 0);
            }
        }
        let Some(value) = outcome.sense else { return self.put(index, outcome.status, &[], read_len) };
        let mut sense = [0; SENSE_BUFFER];
        // As the control page says; and where the fixed format can't hold it.
        let length = if self.unit.descriptor_sense() || value.information.is_some_and(|i| u32::try_from(i).is_err()) {
            value.write_descriptor(&mut sense)
        } else {
            value.write_fixed(&mut sense)
        };
        self.put(index, outcome.status, &sense[..length], read_len)
    }

    fn put(&mut self, index: usize, status: u8, sense: &[u8], read_len: Option<u32>) -> Result<(), ServeError> {
        if status != Status::Good as u8 {
            self.counters.cells().failed(sense_key(status, sense));
        }
        if self.unit.watched || status != Status::Good as u8 {
            self.tell(index, status, sense);
        }
        self.ended(index, Kind::of(self.commands[index].fetched.cdb()));
        self.ring.complete(self.commands[index].fetched.id, &Completion { status, sense, read_len })?;
        Ok(())
    }

    /// Frees what a command had, whatever became of its entry.
    pub(super) fn release(&mut self, index: usize) {
        let command = &mut self.commands[index];
        let task = command.task.take();
        self.exclusive -= usize::from(task.is_some_and(|task| task.exclusive));
        (command.age, command.detached, command.aborted) = (0, false, false);
        self.free.push(index);
        self.in_flight -= 1;
        self.retry_waiting();
    }

    /// Completes and ends a command with sense data as the handler wrote it.
    fn end(&mut self, index: usize, status: u8, sense: &[u8], read_len: Option<u32>) -> Result<(), ServeError> {
        let completed = self.put(index, status, sense, read_len);
        self.release(index);
        completed
    }

    /// Completes a command's entry on the ring; what it began goes on without.
    pub(super) fn detach(&mut self, index: usize, outcome: Outcome) -> Result<(), ServeError> {
        self.complete(index, outcome)?;
        self.commands[index].detach();
        Ok(())
    }
}
