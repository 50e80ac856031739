//! Task management: commands that nobody waits for any more.
//!
//! The kernel answers the initiator when all commands that it aborts are completed, whatever their status. So what is completed here must
//! have ended, and nothing of it may be done later: that is what makes an abort true. It also keeps the initiator waiting, so whatever was
//! not begun is not, and the handler is asked to let go of the rest.
use tcmu_handler_api::scsi::Status;

use super::{DeviceServer, ServeError};
use crate::{
    engine::{self, Outcome},
    ring::TaskManagement,
};

/// `TCMU_TMR_LUN_RESET` (enum tcmu_tmr_type, include/uapi/linux/target_core_user.h).
const LUN_RESET: u8 = 5;

impl DeviceServer {
    /// Ends what can be ended of the commands that a notification names. What goes on whatever initiators do (SANITIZE, SBC-4 4.11.2) is
    /// completed at once, so that nobody waits for it.
    pub(super) fn task_management(&mut self, notice: &TaskManagement) -> Result<(), ServeError> {
        tracing::info!(device = self.name, kind = notice.kind, commands = notice.commands.len(), "task management");
        if notice.kind == LUN_RESET {
            self.unit.reset();
            self.judge_anew();
        }
        for index in 0..self.commands.len() {
            let command = &self.commands[index];
            if command.age == 0 || command.detached || !notice.commands.contains(&command.fetched.id) {
                continue;
            }
            if command.task.as_ref().is_some_and(engine::Task::survives_abort) {
                self.detach(index, Outcome::status(Status::TaskAborted))?;
            } else {
                self.abort(index)?;
            }
        }
        Ok(())
    }

    fn abort(&mut self, index: usize) -> Result<(), ServeError> {
        self.commands[index].aborted = true;
        let request = self.commands[index].request();
        if self.withdraw(index) {
            return self.finish_aborted(index);
        }
        // Another thread or unit has it; neither can be asked to let go.
        if self.commands[index].answer.is_some() || self.commands[index].returned.is_some() {
            return Ok(());
        }
        // SAFETY: the request is there; whether the handler still has it is for it to see (ABI, `cancel`).
        unsafe { self.device.cancel(request) }
        Ok(())
    }

    /// Takes back what the handler has not got yet; whether there was anything.
    fn withdraw(&mut self, index: usize) -> bool {
        let waits = |(waiting, _): &(usize, _)| *waiting == index;
        for queue in [&mut self.waiting, &mut self.later] {
            if let Some(at) = queue.iter().position(waits) {
                queue.remove(at);
                return true;
            }
        }
        // What is to be done on this thread in a moment is done: Linux' loopback (6.1) tells its initiator that a command went well which
        // its own reset aborted.
        let Some(lane) = &self.lane else { return false };
        let request = self.commands[index].request();
        if let Some(at) = self.batch.iter().position(|submitted| *submitted == request) {
            self.batch.remove(at);
            return true;
        }
        self.shared.pool.withdraw(lane, request)
    }

    /// Ends a command that was aborted, of which nothing is under way.
    pub(super) fn finish_aborted(&mut self, index: usize) -> Result<(), ServeError> {
        self.commands[index].plain = None;
        if let Some(task) = &mut self.commands[index].task {
            engine::abandon(&mut self.unit, task);
            self.judge_anew();
        }
        self.finish(index, Outcome::status(Status::TaskAborted))
    }
}
