//! Looking at the rings for a while before sleeping.
//!
//! To sleep and be woken costs a few system calls and a switch of threads, often more than a command does. So after some work a
//! reactor may look at its busy rings a little longer. Whether that pays depends on the machine, on who else wants its processors and
//! on what initiators do, which nobody knows beforehand: so it is tried. For a moment a reactor polls, for a moment it does not, and it
//! goes on with what got more commands done. A reactor without work never polls, and none polls longer than it is allowed to.
//!
//! Time is counted in looks: reading the clock costs more than a look, and on some machines a system call. How long a look takes is
//! measured now and then.
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Polls between two measurements of how long a look takes.
const MEASURE_EVERY: u32 = 64;
/// Looks that may be made before how long they take is known.
const UNKNOWN: u32 = 2048;
/// The shortest poll, in looks.
const LEAST: u32 = 64;
/// Sleeps until a poll is made again after polls found nothing: at first, and after many in vain.
const SKIP: (u32, u32) = (8, 4096);
/// Hits in 256 polls below which they find too little.
const ENOUGH: u32 = 128;

/// When to poll, and for how long.
#[derive(Debug)]
pub(super) struct Polling {
    /// The longest poll; zero: none.
    most: Duration,
    /// The same in looks.
    most_looks: u32,
    /// Average looks until something came, times 16.
    gap: u32,
    /// Of 256 polls so many found something, by a moving average.
    hits: u32,
    /// Sleeps until the next try, while polling is off.
    skip: u32,
    next_skip: u32,
    polls: u32,
    trial: Trial,
}

impl Polling {
    /// Polls for at most so long. To be called on the thread that will poll.
    pub(super) fn new(most: Duration) -> Polling {
        Polling { most, most_looks: UNKNOWN, gap: 0, hits: 0, skip: 0, next_skip: SKIP.0, polls: 0, trial: Trial::new() }
    }

    /// There is nothing to do. Looks for something until it is there (`true`), or it is time to sleep.
    pub(super) fn look(&mut self, mut something: impl FnMut() -> bool) -> bool {
        if self.most.is_zero() {
            return false;
        }
        if !self.trial.polls() {
            return false;
        }
        // A trial is of polling as it would be once it found its pace: whole polls, every time.
        let trial = self.trial.is_on();
        if self.skip > 0 && !trial {
            self.skip -= 1;
            return false;
        }
        let on = self.hits >= ENOUGH && !trial;
        self.polls = self.polls.wrapping_add(1);
        let measured = (!on || self.polls.is_multiple_of(MEASURE_EVERY)).then(processor_time);
        // Twice the average gap finds nearly all; a try is a whole one.
        let window = if on { (self.gap / 8).clamp(LEAST.min(self.most_looks), self.most_looks) } else { self.most_looks };
        let mut looks = 0;
        let mut found = false;
        while looks < window && !found {
            found = something();
            looks += 1;
            std::hint::spin_loop();
        }
        if let Some(start) = measured {
            self.measure(processor_time().saturating_sub(start), looks);
        }
        self.learn(found, looks, on);
        found
    }

    /// So many commands were taken in a round.
    #[inline]
    pub(super) fn did(&mut self, commands: u32) {
        if !self.most.is_zero() && self.trial.did(commands) && self.trial.polls() {
            // What was learned while nothing came is forgotten.
            (self.skip, self.next_skip) = (0, SKIP.0);
        }
    }

    fn learn(&mut self, found: bool, looks: u32, was_on: bool) {
        match (found, was_on) {
            (true, true) => {
                self.gap = self.gap - self.gap / 16 + looks;
                self.hits += (256 - self.hits) / 16;
            }
            // A try that found something is believed at once.
            (true, false) => (self.gap, self.hits) = (16 * looks, 192),
            // It may have come a little later.
            (false, _) => {
                self.gap = (self.gap + self.gap / 8).min(8 * self.most_looks);
                self.hits -= self.hits / 16;
            }
        }
        if self.hits >= ENOUGH {
            // Switched off again soon, it is not tried again soon: so `next_skip` falls only while polling pays.
            if self.polls.is_multiple_of(MEASURE_EVERY) {
                self.next_skip = SKIP.0;
            }
        } else {
            self.switch_off();
        }
    }

    fn switch_off(&mut self) {
        self.hits = 0;
        self.skip = self.next_skip;
        self.next_skip = (self.next_skip * 2).min(SKIP.1);
    }

    /// Learns how long looks take.
    fn measure(&mut self, took: Duration, looks: u32) {
        let possible = self.most.as_nanos() * u128::from(looks) / took.as_nanos().max(1);
        let possible = u32::try_from(possible).unwrap_or(u32::MAX).clamp(1, 1 << 20);
        // A few looks are measured badly.
        if looks >= LEAST {
            self.most_looks = u32::midpoint(self.most_looks, possible).max(1);
        }
    }
}

/// Processor time of this thread. Unlike the time on the wall it does not count what others took.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Rounds between two looks at the clock.
const CLOCK_EVERY: u32 = 16;
/// How long one way is tried, with how many commands at least; a period that is much longer saw a pause, and says nothing.
const PERIOD: Duration = Duration::from_millis(40);
const COMMANDS: u32 = 64;
const PAUSE: Duration = Duration::from_millis(400);
/// Periods of a trial, which are polling and not polling in turn, and periods until the next one.
const TRIAL: u32 = 6;
const SETTLED: u32 = 60;
/// Polling has to get so much more done, in percent, since it takes a processor.
const GAIN: u64 = 15;
/// A rate that is so many times as high or as low as before, in percent: something else is going on, which calls for a new trial.
const CHANGED: u64 = 160;

/// Which of two ways gets more commands done.
#[derive(Debug)]
struct Trial {
    /// Commands come often enough for a trial. Where they don't, polls are made while they find something.
    dense: bool,
    /// Periods since the trial began.
    period: u32,
    /// Nanoseconds and commands of the periods of a trial: with polling, and without.
    with: (u64, u64),
    without: (u64, u64),
    /// What the last trial found.
    better: bool,
    /// Commands a second, as found by it.
    rate: u64,
    start: Option<Instant>,
    commands: u32,
    rounds: u32,
}

impl Trial {
    fn new() -> Trial {
        Trial {
            dense: false,
            period: 0,
            with: (0, 0),
            without: (0, 0),
            better: false,
            rate: 0,
            start: None,
            commands: 0,
            rounds: 0,
        }
    }

    /// Whether to poll now.
    fn polls(&self) -> bool {
        if !self.dense {
            return true;
        }
        if self.period < TRIAL { self.period.is_multiple_of(2) } else { self.better }
    }

    /// Whether it is not settled yet.
    fn is_on(&self) -> bool {
        self.dense && self.period < TRIAL
    }

    /// Whether a period ended.
    fn did(&mut self, commands: u32) -> bool {
        self.commands = self.commands.saturating_add(commands);
        self.rounds += 1;
        if self.rounds < CLOCK_EVERY {
            return false;
        }
        self.rounds = 0;
        let now = Instant::now();
        let Some(start) = self.start else {
            (self.start, self.commands) = (Some(now), 0);
            return false;
        };
        let took = now - start;
        if took > PAUSE {
            *self = Trial { start: Some(now), ..Trial::new() };
            return false;
        }
        let ended = took >= PERIOD && self.commands >= COMMANDS;
        if ended {
            if self.dense {
                self.ended(took, self.commands);
            }
            (self.dense, self.start, self.commands) = (true, Some(now), 0);
        }
        ended
    }

    /// A period ended.
    fn ended(&mut self, took: Duration, commands: u32) {
        let time = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let rate = |(time, commands): (u64, u64)| commands.saturating_mul(1_000_000_000) / time.max(1);
        let now = rate((time, commands.into()));
        if self.period < TRIAL {
            let sum = if self.polls() { &mut self.with } else { &mut self.without };
            *sum = (sum.0 + time, sum.1 + u64::from(commands));
        }
        self.period += 1;
        if self.period == TRIAL {
            let (with, without) = (rate(self.with), rate(self.without));
            self.better = with * 100 >= without * (100 + GAIN);
            self.rate = if self.better { with } else { without };
        } else if self.period > TRIAL {
            let changed = now * 100 > self.rate * CHANGED || self.rate * 100 > now * CHANGED;
            if changed || self.period > TRIAL + SETTLED {
                (self.period, self.with, self.without) = (0, (0, 0), (0, 0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const MOST: Duration = Duration::from_millis(1);

    /// As after a trial that polling won.
    fn settled(mut polling: Polling) -> Polling {
        (polling.trial.dense, polling.trial.period, polling.trial.better) = (true, TRIAL, true);
        polling
    }

    #[test]
    fn a_trial_polls_every_time() {
        let mut polling = Polling::new(MOST);
        polling.trial.dense = true;
        assert_eq!(tries(&mut polling, 1000), 1000);
    }

    #[test]
    fn without_many_commands_there_is_no_trial() {
        let mut polling = Polling::new(MOST);
        for _ in 0..10_000 {
            polling.look(|| false);
        }
        assert!(tries(&mut polling, 4000) <= 2, "{polling:?}");
    }

    /// Sleeps of which polling was tried before, of so many in which nothing comes.
    fn tries(polling: &mut Polling, sleeps: u32) -> u32 {
        (0..sleeps)
            .filter(|_| {
                let mut tried = false;
                assert!(!polling.look(|| {
                    tried = true;
                    false
                }));
                tried
            })
            .count() as u32
    }

    #[test]
    fn what_comes_is_found() {
        let (mut polling, mut looks) = (settled(Polling::new(MOST)), 0);
        for _ in 0..1000 {
            looks = 0;
            assert!(polling.look(|| {
                looks += 1;
                looks == 20
            }));
        }
        assert!(looks == 20 && polling.hits > ENOUGH);
    }

    #[test]
    fn off_is_off() {
        assert!(!Polling::new(Duration::ZERO).look(|| -> bool { panic!("it looked") }));
    }

    #[test]
    fn what_never_comes_is_looked_for_ever_less_often() {
        let mut polling = settled(Polling::new(MOST));
        assert!(tries(&mut polling, 100) >= 3);
        tries(&mut polling, 20_000);
        assert!(tries(&mut polling, 10_000) <= 4, "{polling:?}");
    }

    #[test]
    fn polling_stops_when_it_does_not_pay_and_starts_when_it_does() {
        let mut polling = settled(Polling::new(MOST));
        for _ in 0..1000 {
            polling.look(|| true);
        }
        let tried = tries(&mut polling, 200);
        assert!(tried < 40, "{tried}");
        let mut found = 0;
        for _ in 0..10_000 {
            found += u32::from(polling.look(|| true));
        }
        assert!(found > 5000, "{found}");
    }

    #[test]
    fn what_gets_more_done_is_done() {
        // Commands a second with polling and without, and whether to poll.
        for (with, without, better) in [(2000, 1000, true), (1000, 2000, false), (1010, 1000, false), (1000, 1000, false)] {
            let mut trial = Trial { dense: true, ..Trial::new() };
            let mut polled = 0;
            let periods = 10 * (TRIAL + SETTLED);
            for _ in 0..periods {
                polled += u32::from(trial.polls());
                let rate = if trial.polls() { with } else { without };
                trial.ended(Duration::from_secs(1), rate);
            }
            let share = polled * 100 / periods;
            assert!(if better { share >= 94 } else { share <= 6 }, "{with} against {without}: {share} %");
        }
    }

    #[test]
    fn a_change_calls_for_a_new_trial() {
        let mut trial = Trial { dense: true, ..Trial::new() };
        (0..TRIAL + 2).for_each(|_| trial.ended(Duration::from_secs(1), 1000));
        assert!(trial.period > TRIAL);
        trial.ended(Duration::from_secs(1), 3000);
        assert_eq!(trial.period, 0);
    }

    #[test]
    fn a_poll_is_no_longer_than_it_may_be() {
        let mut polling = settled(Polling::new(Duration::from_micros(50)));
        for _ in 0..200 {
            polling.look(|| true);
        }
        // On by now; looks are measured while nothing comes for long, as by the tries of one that is off.
        for _ in 0..20_000 {
            polling.look(|| false);
        }
        polling.skip = 0;
        let start = Instant::now();
        polling.look(|| false);
        // Generous: whoever runs this may be preempted.
        assert!(start.elapsed() < Duration::from_millis(50), "{polling:?}");
    }
}
