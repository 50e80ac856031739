//! The priority of a reactor's thread: its own, or the lowest.
use std::thread;

use rustix::process::{getpriority_process, setpriority_process};

/// As `nice` has it (setpriority(2)): a thread with this one gets a processor that others want for a hundredth of the time, and takes it
/// from nobody when it is woken.
const LOWEST: i32 = 19;

/// The priority of the thread that made it.
#[derive(Debug)]
pub(super) struct Priority {
    own: i32,
    is_lowest: bool,
    /// It can go down, and up again.
    changes: bool,
}

impl Priority {
    /// To be called on the thread whose priority it is. `may`: it may be changed.
    pub(super) fn new(may: bool) -> Priority {
        let own = getpriority_process(None).unwrap_or(LOWEST);
        Priority { own, is_lowest: false, changes: may && own < LOWEST && comes_back_to(own) }
    }

    /// Whether it can be changed.
    pub(super) fn changes(&self) -> bool {
        self.changes
    }

    pub(super) fn is_lowest(&self) -> bool {
        self.is_lowest
    }

    /// Makes it the lowest, or its own again.
    #[inline]
    pub(super) fn set_lowest(&mut self, lowest: bool) {
        if lowest != self.is_lowest && self.changes {
            self.change(lowest);
        }
    }

    #[cold]
    fn change(&mut self, lowest: bool) {
        match setpriority_process(None, if lowest { LOWEST } else { self.own }) {
            Ok(()) => self.is_lowest = lowest,
            // It was tried before; somebody has taken the right away since.
            Err(error) => {
                tracing::warn!(%error, lowest, "the priority of a reactor cannot be changed any more");
                self.changes = false;
            }
        }
    }
}

/// Whether a thread that has the lowest priority may go back to this one: by `CAP_SYS_NICE`, or as far as `RLIMIT_NICE` lets it. Tried on a
/// thread of its own, since who may not could not go back.
fn comes_back_to(own: i32) -> bool {
    let tries = move || setpriority_process(None, LOWEST).and_then(|()| setpriority_process(None, own)).is_ok();
    thread::Builder::new().name("tcmu-priority".into()).spawn(tries).is_ok_and(|thread| thread.join().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_thread(test: impl FnOnce() + Send + 'static) {
        thread::spawn(test).join().unwrap();
    }

    #[test]
    fn it_goes_down_and_comes_back() {
        on_a_thread(|| {
            let own = getpriority_process(None).unwrap();
            let mut priority = Priority::new(true);
            priority.set_lowest(true);
            // Who may not come back must not go down.
            let expected = if priority.changes() { LOWEST } else { own };
            assert_eq!(getpriority_process(None).unwrap(), expected);
            priority.set_lowest(false);
            assert_eq!(getpriority_process(None).unwrap(), own);
        });
    }

    #[test]
    fn off_is_off() {
        on_a_thread(|| {
            let own = getpriority_process(None).unwrap();
            let mut priority = Priority::new(false);
            assert!(!priority.changes());
            priority.set_lowest(true);
            assert_eq!((getpriority_process(None).unwrap(), priority.is_lowest()), (own, false));
        });
    }

    #[test]
    fn who_is_at_the_bottom_stays_there() {
        on_a_thread(|| {
            setpriority_process(None, LOWEST).unwrap();
            assert!(!Priority::new(true).changes());
        });
    }
}
