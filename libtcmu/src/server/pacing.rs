//! How a reactor waits for commands: sleeping, or looking at the rings for a while before that; where, and with which priority.
//!
//! To sleep and be woken costs a few system calls and a switch of threads, often more than a command does. Where commands come one by one,
//! a reactor may look at its busy rings a little longer before it sleeps. One that sleeps may be woken on another processor each time, and
//! so may those whose commands it does: it may stay on one. Where many commands are under way, the first of them wakes it, takes the
//! processor from who queues the others, and each of those finds it at work, so that it does one or two at a time: it may let others go
//! first, and take many together. Whether any of this pays depends on the machine, on who else wants its processors and on what initiators
//! do, which nobody knows beforehand: so it is tried (`trial`). A reactor without work does nothing of it, and none polls longer than it
//! is allowed to.
//!
//! Time is counted in looks while polling: reading the clock costs more than a look, and on some machines a system call. How long a look
//! takes is measured now and then.
//!
//! There is no `PAUSE` between two looks: in a virtual machine without hardware help each one leaves the translated code and takes the lock
//! that other processors need for their timers and interrupts, so that a poll delayed what it waited for.
use std::time::Duration;

use super::{
    affinity::Affinity,
    priority::Priority,
    trial::{Trial, Way, processor_time},
};

/// So many polls that find something shorten the next ones by as much as one in vain makes them longer, so that one of about so many gives up
/// too early. It has to be few: who gives up just before something comes has paid for the poll, and for sleeping.
const LATE: u32 = 256;
/// Polls between two measurements of how long a look takes, which costs two system calls; and in a trial.
const MEASURE_EVERY: u32 = 64;
const MEASURE_IN_TRIAL: u32 = 8;
/// Looks that may be made before how long they take is known.
const UNKNOWN: u32 = 2048;
/// How long a look takes is known after so many.
const LEAST: u32 = 512;
/// More looks than anybody makes in a poll.
const MOST_LOOKS: u32 = 1 << 20;
/// So many measured looks are remembered, or a little more.
const REMEMBERED: u32 = 32 * LEAST;
/// Turns in a row that looking may give to busy devices before the others are asked.
const ROUNDS: u32 = 16;

/// What a reactor does before its next round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Sleep until there is something.
    Sleep,
    /// Look at the busy rings.
    Look,
    /// Ask for all that happened, without sleeping, and look if it was nothing.
    Ask,
}

/// When to poll, and for how long; when to stay on one processor, and when to let others go first.
#[derive(Debug)]
pub(super) struct Pacing {
    /// The longest poll; zero: none.
    most: Duration,
    /// The longest poll, in looks.
    most_looks: u32,
    /// Looks that were measured of late, and how long they took together.
    measured: (u32, Duration),
    /// Looks in a poll once a trial is over: what comes later than that is one of [`LATE`] commands.
    window: u32,
    polls: u32,
    /// Rounds of looking since the last one in which all were asked.
    rounds: u32,
    trial: Trial,
    priority: Priority,
    affinity: Affinity,
}

impl Pacing {
    /// Polls for at most so long, and may be kept on one processor and have the lowest priority. To be called on the thread that will do so.
    pub(super) fn new(most: Duration, stays: bool, gives_way: bool) -> Pacing {
        let (affinity, priority) = (Affinity::new(stays), Priority::new(gives_way));
        let trial = Trial::new(!most.is_zero(), affinity.changes(), priority.changes());
        let measured = (0, Duration::ZERO);
        Pacing { most, most_looks: UNKNOWN, measured, window: MOST_LOOKS, polls: 0, rounds: 1, trial, priority, affinity }
    }

    /// There is nothing to do. `worked`: the last round did something. One that did not was after a sleep which ended because of what had
    /// been found by looking already, and another look would be as vain as the one before that sleep; or it only asked.
    pub(super) fn step(&mut self, worked: bool) -> Step {
        let asked = self.rounds == 0;
        if !(worked || asked) || self.most.is_zero() || self.trial.way() != Way::Poll {
            return Step::Sleep;
        }
        self.rounds = (self.rounds + 1) % ROUNDS;
        if self.rounds == 0 { Step::Ask } else { Step::Look }
    }

    /// There is nothing to do, and this was its [`step`](Pacing::step): looks for something until it is there (`true`), or it is time to
    /// sleep.
    pub(super) fn look(&mut self, mut something: impl FnMut() -> bool) -> bool {
        let settled = self.trial.is_settled();
        let window = if settled { self.window.min(self.most_looks) } else { self.most_looks };
        self.polls = self.polls.wrapping_add(1);
        let every = if settled { MEASURE_EVERY } else { MEASURE_IN_TRIAL };
        let measured = self.polls.is_multiple_of(every).then(processor_time);
        let mut looks = 0;
        let mut found = false;
        while looks < window && !found {
            found = something();
            looks += 1;
        }
        if let Some(start) = measured {
            self.measure(processor_time().saturating_sub(start), looks);
        }
        if settled {
            self.window = if found { window - window / LATE } else { 2 * window };
        }
        found
    }

    /// A round took so many commands.
    #[inline]
    pub(super) fn did(&mut self, commands: u32) {
        // Others may want the processor for long: then it must not take many rounds until that is seen.
        self.trial.did(commands, self.priority.is_lowest() || self.affinity.stays());
        self.priority.set_lowest(self.trial.gives_way());
        self.affinity.set_stays(self.trial.stays());
    }

    /// Commands are done on other threads, or by io_uring. To be called before what may start a thread for them.
    #[inline]
    pub(super) fn elsewhere(&mut self) {
        self.trial.elsewhere();
        self.priority.set_lowest(false);
        self.affinity.set_stays(false);
    }

    /// Learns how long looks take. One measurement says little: the clock may have stood still meanwhile, or jumped.
    fn measure(&mut self, took: Duration, looks: u32) {
        self.measured = (self.measured.0 + looks, self.measured.1 + took);
        let (looks, took) = self.measured;
        if looks < LEAST {
            return;
        }
        let possible = self.most.as_nanos() * u128::from(looks) / took.as_nanos().max(1);
        self.most_looks = u32::try_from(possible).unwrap_or(u32::MAX).clamp(1, MOST_LOOKS);
        if looks >= REMEMBERED {
            self.measured = (looks / 2, took / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(1);

    /// Polls for at most so long, and changes nothing else.
    fn polling(most: Duration) -> Pacing {
        Pacing::new(most, false, false)
    }

    /// In a trial, when it is the turn of this way.
    fn trying(most: Duration, way: Way) -> Pacing {
        let mut pacing = polling(most);
        pacing.trial.tries(way);
        pacing
    }

    /// As after a trial that polling won.
    fn settled(mut pacing: Pacing) -> Pacing {
        pacing.trial.won(Way::Poll);
        pacing
    }

    /// Looks until a poll in which nothing comes is over.
    fn looks_in_vain(pacing: &mut Pacing) -> u32 {
        let mut looks = 0;
        let found = pacing.step(true) != Step::Sleep
            && pacing.look(|| {
                looks += 1;
                false
            });
        assert!(!found);
        looks
    }

    #[test]
    fn a_trial_polls_every_time_and_whole() {
        let mut pacing = trying(MOST, Way::Poll);
        for _ in 0..1000 {
            let most = pacing.most_looks;
            assert_eq!(looks_in_vain(&mut pacing), most, "{pacing:?}");
        }
    }

    #[test]
    fn without_many_commands_nobody_polls() {
        let mut pacing = polling(MOST);
        for _ in 0..10_000 {
            pacing.did(1);
            pacing.trial.grow_older(Duration::from_millis(50));
            assert_eq!(looks_in_vain(&mut pacing), 0, "{pacing:?}");
        }
    }

    #[test]
    fn what_comes_is_found() {
        let (mut pacing, mut looks) = (settled(polling(MOST)), 0);
        for _ in 0..1000 {
            looks = 0;
            assert!(pacing.look(|| {
                looks += 1;
                looks == 20
            }));
        }
        assert_eq!(looks, 20);
    }

    #[test]
    fn off_is_off() {
        assert_eq!(settled(polling(MOST)).step(true), Step::Look);
        assert_eq!(settled(polling(Duration::ZERO)).step(true), Step::Sleep);
    }

    #[test]
    fn who_polls_asks_for_the_others_now_and_then_but_does_not_sleep_for_that() {
        let mut pacing = settled(polling(MOST));
        let steps: Vec<_> = (0..10 * ROUNDS).map(|_| pacing.step(true)).collect();
        assert!(!steps.contains(&Step::Sleep), "{steps:?}");
        assert!(steps.chunks(ROUNDS as usize).all(|chunk| chunk.contains(&Step::Ask)), "{steps:?}");
        assert!(steps.iter().filter(|step| **step == Step::Ask).count() <= 10, "{steps:?}");
    }

    #[test]
    fn after_a_round_without_work_it_sleeps() {
        let mut pacing = settled(polling(MOST));
        assert_eq!(pacing.step(false), Step::Sleep);
        // But not where that round only asked, which is told of what was found by looking.
        while pacing.step(true) != Step::Ask {}
        assert_eq!([pacing.step(false), pacing.step(false)], [Step::Look, Step::Sleep]);
    }

    #[test]
    fn the_window_is_for_all_but_a_few() {
        let mut pacing = settled(polling(Duration::from_secs(1)));
        let mut wait_for = |gap| {
            let mut looks = 0;
            pacing.look(|| {
                looks += 1;
                looks == gap
            })
        };
        // Most come soon, one of 32 late.
        let mut found = |commands: u32| (0..commands).filter(|n| wait_for(if n % 32 == 31 { 1500 } else { 100 })).count();
        found(10_000);
        let found = found(10_000);
        assert!((9900..10_000).contains(&found), "{found} of 10000");
        // If nobody is late any more, nobody is waited for so long.
        (0..2000).for_each(|_| assert!(wait_for(100)));
        let window = looks_in_vain(&mut pacing);
        assert!((100..=300).contains(&window), "{window}");
        // What comes later than that is waited for longer, up to the limit.
        for _ in 0..20 {
            looks_in_vain(&mut pacing);
        }
        assert_eq!(looks_in_vain(&mut pacing), pacing.most_looks);
    }

    #[test]
    fn looks_are_counted_by_what_many_of_them_took() {
        let mut pacing = polling(MOST);
        // A clock that stands still, and then jumps: half a microsecond for each look.
        for n in 0..1000 {
            pacing.measure(if n % 10 == 0 { Duration::from_micros(320) } else { Duration::ZERO }, 64);
        }
        assert!((1800..2300).contains(&pacing.most_looks), "{pacing:?}");
    }

    #[test]
    fn a_poll_is_no_longer_than_it_may_be() {
        let mut pacing = trying(Duration::from_micros(50), Way::Poll);
        // Looks are measured in a trial.
        for _ in 0..200 {
            looks_in_vain(&mut pacing);
        }
        let start = processor_time();
        looks_in_vain(&mut pacing);
        // Generous, but far from what as many looks as are made unmeasured by mistake would take.
        assert!(processor_time() - start < Duration::from_millis(5), "{pacing:?}");
    }
}
