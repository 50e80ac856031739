//! Looking at the rings for a while before sleeping.
//!
//! To sleep and be woken costs a few system calls and a switch of threads, often more than a command does. So after some work a
//! reactor looks at its busy rings a little longer, as long as the gaps between commands make it likely that something comes. A reactor
//! without work never polls, and none polls longer than it is allowed to.
use std::time::{Duration, Instant};

/// How often the clock is looked at while polling.
const LOOKS: u32 = 32;
/// Polls between two looks at whether somebody else wants the processor.
const CHECK_EVERY: u32 = 64;
/// First and longest pause after polling was found to take the processor from others.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// When to poll, learned from the gaps between the end of some work and the next command.
#[derive(Debug)]
pub(super) struct Polling {
    /// The longest poll; zero: none.
    most: Duration,
    /// Average gap; more than `most` if they are of no interest.
    gap: Duration,
    /// When there was nothing left to do.
    idle_since: Option<Instant>,
    polls: u32,
    /// Times that the kernel took the processor away from this thread.
    preempted: u64,
    pause: Duration,
    paused_until: Option<Instant>,
}

impl Polling {
    /// Polls for at most so long.
    pub(super) fn new(most: Duration) -> Polling {
        Polling {
            most,
            gap: Duration::ZERO,
            idle_since: None,
            polls: 0,
            preempted: preemptions(),
            pause: PAUSE.0,
            paused_until: None,
        }
    }

    /// Something came after there was nothing: learns from how long that took.
    pub(super) fn found_work(&mut self) {
        let Some(since) = self.idle_since.take() else { return };
        // One long pause says nothing about those within a burst: it counts as one that is just too long.
        let gap = since.elapsed().min(4 * self.most);
        self.gap = (self.gap * 7 + gap) / 8;
    }

    /// There is nothing to do. Looks for something until it is there (`true`), or it is time to sleep.
    pub(super) fn look(&mut self, mut something: impl FnMut() -> bool) -> bool {
        if self.most.is_zero() {
            return false;
        }
        let start = Instant::now();
        self.idle_since = Some(start);
        let window = (2 * self.gap).min(self.most);
        // Gaps that are longer than a poll may be are not worth one.
        if self.gap > self.most || self.is_paused(start) {
            return false;
        }
        self.polls += 1;
        if self.polls.is_multiple_of(CHECK_EVERY) {
            self.check_contention(start);
        }
        loop {
            for _ in 0..LOOKS {
                if something() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= window {
                return false;
            }
        }
    }

    fn is_paused(&mut self, now: Instant) -> bool {
        match self.paused_until {
            Some(until) if now < until => true,
            Some(_) => {
                self.paused_until = None;
                self.preempted = preemptions();
                false
            }
            None => false,
        }
    }

    /// Whoever is preempted every other poll keeps somebody from working, perhaps the one it waits for.
    fn check_contention(&mut self, now: Instant) {
        let preempted = preemptions();
        if preempted - self.preempted > u64::from(CHECK_EVERY / 2) {
            self.paused_until = Some(now + self.pause);
            self.pause = (self.pause * 2).min(PAUSE.1);
        } else {
            self.pause = PAUSE.0;
        }
        self.preempted = preempted;
    }
}

/// Involuntary context switches of this thread so far.
fn preemptions() -> u64 {
    // SAFETY: a plain system call that fills the struct.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    u64::try_from(usage.ru_nivcsw).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(1);

    fn after(gap: Duration) -> Polling {
        Polling { gap, ..Polling::new(MOST) }
    }

    #[test]
    fn what_comes_is_found() {
        let mut looks = 0;
        let found = after(MOST / 4).look(|| {
            looks += 1;
            looks == 3
        });
        assert!(found && looks == 3);
    }

    #[test]
    fn nothing_is_looked_for_where_gaps_are_long_or_polling_is_off() {
        let never = || -> bool { panic!("it looked") };
        assert!(!after(MOST * 2).look(never));
        assert!(!Polling::new(Duration::ZERO).look(never));
    }

    #[test]
    fn gaps_are_learned() {
        let mut polling = after(MOST / 4);
        for _ in 0..40 {
            assert!(!polling.look(|| false));
            std::thread::sleep(MOST * 3);
            polling.found_work();
        }
        assert!(polling.gap > MOST, "{polling:?}");
        for _ in 0..40 {
            polling.look(|| true);
            polling.idle_since = Some(Instant::now());
            polling.found_work();
        }
        assert!(polling.gap < MOST, "{polling:?}");
    }

    #[test]
    fn a_thread_that_is_in_the_way_pauses() {
        let mut polling = after(MOST / 4);
        polling.preempted = 0;
        polling.check_contention(Instant::now());
        let had = preemptions();
        if had <= u64::from(CHECK_EVERY / 2) {
            assert_eq!(polling.paused_until, None);
        }
        polling.paused_until = Some(Instant::now() + MOST);
        assert!(!polling.look(|| -> bool { panic!("it looked") }));
        std::thread::sleep(MOST * 2);
        assert!(polling.look(|| true));
    }
}
