//! Requests that another thread or another unit completes in place of the device's handler.
use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::{
    process::{getpid, getpriority_process, setpriority_process},
    thread::{sched_getaffinity, sched_setaffinity},
};
use tcmu_handler_api::{abi, plugin::Refusal};

use super::DeviceServer;
use crate::engine::{self, PeerKey, Work};

impl DeviceServer {
    /// Asks a question that may block on a thread of its own. That is rare: initiators look at port groups every now and then.
    pub(super) fn ask(&mut self, index: usize, question: engine::Question) {
        let answer = Arc::new(Mutex::new(None));
        let command = &mut self.commands[index];
        command.answer = Some(answer.clone());
        let request = Elsewhere(command.arm_question());
        let (target, device) = (self.unit.target(), self.device.clone());
        let work = move || {
            be_as_the_process_is();
            let found = engine::ask(
                &*target,
                &question,
                |tag| without_lock_is_fine(device.lock().acquire(tag.into())),
                || without_lock_is_fine(device.lock().release()),
            );
            *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            request.complete(abi::TCMU_STATUS_OK);
        };
        if let Err(error) = thread::Builder::new().name("tcmu-question".into()).spawn(work) {
            tracing::error!(device = self.name, %error, "no thread");
            Elsewhere(self.commands[index].request()).complete(abi::TCMU_STATUS_BUSY);
        }
    }

    /// Has a piece of a copy done by another unit.
    pub(super) fn submit_to_peer(&mut self, index: usize, peer: PeerKey, work: Work) {
        let returned = Arc::new(Mutex::new(Vec::new()));
        let command = &mut self.commands[index];
        command.returned = Some(returned.clone());
        let memory = command.task.as_mut().map(|task| std::mem::take(&mut task.memory)).unwrap_or_default();
        let request = Elsewhere(command.arm_question());
        let done = move |status, memory| {
            *returned.lock().unwrap_or_else(PoisonError::into_inner) = memory;
            request.complete(status);
        };
        if let Some(neighbours) = &self.neighbours {
            neighbours.send(peer, work, memory, Box::new(done));
        }
    }
}

/// A request that another thread completes instead of the handler.
struct Elsewhere(*mut abi::tcmu_request);

// SAFETY: the request is completed by the thread that gets this, and by nobody else.
unsafe impl Send for Elsewhere {}

impl Elsewhere {
    fn complete(self, status: i32) {
        // SAFETY: armed, not completed yet, and kept until it is.
        unsafe { ((*self.0).complete)(self.0, status) }
    }
}

/// Gives this thread the processors and the priority that the process began with, in the place of what the reactor that started it had just
/// then. Where that is refused it is slower, and no less right.
fn be_as_the_process_is() {
    let process = Some(getpid());
    if let Ok(processors) = sched_getaffinity(process) {
        let _ = sched_setaffinity(None, &processors);
    }
    if let Ok(priority) = getpriority_process(process) {
        let _ = setpriority_process(None, priority);
    }
}

/// Access states can be set for handlers that have no lock.
fn without_lock_is_fine(outcome: Result<(), Refusal>) -> std::io::Result<()> {
    match outcome {
        Err(refusal) if refusal.errno() != libc::EOPNOTSUPP => Err(std::io::Error::other(refusal)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{affinity::Affinity, priority::Priority};

    #[test]
    fn who_answers_a_question_is_not_kept_where_the_reactor_is() {
        let standing = || (sched_getaffinity(None).unwrap(), getpriority_process(None).unwrap());
        let (free, ours) = thread::spawn(move || {
            let (mut affinity, mut priority, free) = (Affinity::new(true), Priority::new(true), standing());
            affinity.set_stays(true);
            priority.set_lowest(true);
            // Both can be changed on most machines that this is tested on.
            assert_eq!(standing() != free, affinity.changes() || priority.changes());
            let asked = thread::spawn(move || {
                be_as_the_process_is();
                standing()
            });
            (free, asked.join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(ours, free);
    }
}
