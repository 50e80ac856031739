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

/// Polls between two measurements of how long a look takes, which costs two system calls; and in a trial.
const MEASURE_EVERY: u32 = 64;
const MEASURE_IN_TRIAL: u32 = 8;
/// Looks that may be made before how long they take is known.
const UNKNOWN: u32 = 2048;
/// The shortest poll, in looks.
const LEAST: u32 = 64;
/// More looks than anybody makes in a poll.
const MOST_LOOKS: u32 = 1 << 20;
/// So many measured looks are remembered, or a little more.
const REMEMBERED: u32 = 256 * LEAST;
/// A glance: shorter than it takes to sleep and be woken.
const GLANCE: Duration = Duration::from_micros(20);

/// When to poll, and for how long.
#[derive(Debug)]
pub(super) struct Polling {
    /// The longest poll; zero: none.
    most: Duration,
    /// The same in looks.
    most_looks: u32,
    /// Looks that were measured of late, and how long they took together.
    measured: (u32, Duration),
    /// Average looks until something came, times 16.
    gap: u32,
    polls: u32,
    trial: Trial,
}

impl Polling {
    /// Polls for at most so long. To be called on the thread that will poll.
    pub(super) fn new(most: Duration) -> Polling {
        Polling { most, most_looks: UNKNOWN, measured: (0, Duration::ZERO), gap: 0, polls: 0, trial: Trial::new() }
    }

    /// There is nothing to do. Looks for something until it is there (`true`), or it is time to sleep.
    pub(super) fn look(&mut self, mut something: impl FnMut() -> bool) -> bool {
        if self.most.is_zero() {
            return false;
        }
        let most_looks = match self.trial.way() {
            Way::Sleep => return false,
            Way::Glance => self.looks_of(GLANCE),
            Way::Poll => self.most_looks,
        };
        // Twice the average gap finds nearly all; in a trial the gap is not known yet.
        let settled = self.trial.is_settled();
        let window = if settled { (self.gap / 8).clamp(LEAST.min(most_looks), most_looks) } else { most_looks };
        self.polls = self.polls.wrapping_add(1);
        let every = if settled { MEASURE_EVERY } else { MEASURE_IN_TRIAL };
        let measured = self.polls.is_multiple_of(every).then(processor_time);
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
        self.gap = match found {
            true if self.gap == 0 => 16 * looks,
            true => self.gap - self.gap / 16 + looks,
            // It may have come a little later.
            false => (self.gap + self.gap / 8 + LEAST).min(8 * self.most_looks),
        };
        found
    }

    /// So many commands were taken in a round.
    #[inline]
    pub(super) fn did(&mut self, commands: u32) {
        if !self.most.is_zero() {
            self.trial.did(commands);
        }
    }

    /// As many looks as fit into that time, but no more than are allowed.
    fn looks_of(&self, time: Duration) -> u32 {
        let looks = u128::from(self.most_looks) * time.min(self.most).as_nanos() / self.most.as_nanos().max(1);
        u32::try_from(looks).unwrap_or(self.most_looks).max(1)
    }

    /// Learns how long looks take. One measurement says little: the clock may have stood still meanwhile, or jumped.
    fn measure(&mut self, took: Duration, looks: u32) {
        self.measured = (self.measured.0 + looks, self.measured.1 + took);
        let (looks, took) = self.measured;
        if looks < 8 * LEAST {
            return;
        }
        let possible = self.most.as_nanos() * u128::from(looks) / took.as_nanos().max(1);
        self.most_looks = u32::try_from(possible).unwrap_or(u32::MAX).clamp(1, MOST_LOOKS);
        if looks >= REMEMBERED {
            self.measured = (looks / 2, took / 2);
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
/// Periods of a trial, in which each way has its turn, and periods until the next one: more each time that it finds the same.
const TRIAL: u32 = 9;
const SETTLED: u32 = 20;
const MOST_SETTLED: u32 = 960;
/// A glance has to get so much more done, in percent.
const GLANCE_GAIN: u64 = 3;
/// And polling so much more than what costs less, since it takes a processor; afterwards at least so much, or the trial was wrong.
const POLL_GAIN: u64 = 25;
const POLL_KEEPS: u64 = 12;
/// Who works for more than so much of its time, in percent, does not poll.
const BUSY: u128 = 45;
/// A rate that is so many times as high or as low as it was after the trial, in percent: something else is going on, which calls for a new
/// trial. Single periods differ as much by chance, so it is the average of about so many that counts.
const CHANGED: u64 = 160;
const AVERAGED: u64 = 8;

/// What to do when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Sleep at once.
    Sleep,
    /// Look for a moment.
    Glance,
    /// Look as long as it is allowed.
    Poll,
}

/// Which of the ways gets more commands done.
#[derive(Debug)]
struct Trial {
    /// Commands come often enough for a trial. Where they don't, nobody polls.
    dense: bool,
    /// Periods since the trial began.
    period: u32,
    /// Periods after the trial until the next one.
    settled: u32,
    /// Nanoseconds and commands of the periods of the trials, for each way; those of earlier trials count half as much each time.
    sums: [(u64, u64); 3],
    /// Commands a second in the last period of each way, and in how many rounds of this trial each was the best.
    last: [u64; 3],
    won: [u32; 3],
    /// It works for much of its time.
    busy: bool,
    /// What the last trial found, and what it found best of what takes no processor, with its commands a second.
    best: Way,
    cheap: (Way, u64),
    /// Polling won a trial and got less done afterwards.
    broken: bool,
    /// Commands a second after it, and on average of late.
    rate: u64,
    average: u64,
    /// When the period began, and this thread's processor time then.
    start: Option<(Instant, Duration)>,
    commands: u32,
    rounds: u32,
}

impl Trial {
    fn new() -> Trial {
        Trial {
            dense: false,
            period: 0,
            settled: SETTLED,
            sums: [(0, 0); 3],
            last: [0; 3],
            won: [0; 3],
            busy: false,
            best: Way::Sleep,
            cheap: (Way::Sleep, 0),
            broken: false,
            rate: 0,
            average: 0,
            start: None,
            commands: 0,
            rounds: 0,
        }
    }

    /// What to do now.
    fn way(&self) -> Way {
        match self.period {
            _ if !self.dense => Way::Sleep,
            TRIAL.. => self.best,
            period => match period % 3 {
                1 => Way::Glance,
                2 if !self.busy => Way::Poll,
                _ => Way::Sleep,
            },
        }
    }

    fn is_settled(&self) -> bool {
        self.period >= TRIAL
    }

    /// A round took so many commands.
    fn did(&mut self, commands: u32) {
        self.commands = self.commands.saturating_add(commands);
        self.rounds += 1;
        if self.rounds < CLOCK_EVERY {
            return;
        }
        self.rounds = 0;
        let now = Instant::now();
        let Some((start, worked)) = self.start else {
            (self.start, self.commands) = (Some((now, processor_time())), 0);
            return;
        };
        let took = now - start;
        if took > PAUSE {
            *self = Trial { start: Some((now, processor_time())), ..Trial::new() };
        } else if took >= PERIOD && self.commands >= COMMANDS {
            let work = processor_time();
            if self.dense {
                self.ended(took, work.saturating_sub(worked), self.commands);
            }
            (self.dense, self.start, self.commands) = (true, Some((now, work)), 0);
        }
    }

    /// A period ended, which took and worked so long.
    fn ended(&mut self, took: Duration, worked: Duration, commands: u32) {
        let time = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let rate = |(time, commands): (u64, u64)| commands.saturating_mul(1_000_000_000) / time.max(1);
        let now = rate((time, commands.into()));
        if self.period >= TRIAL {
            self.after(now);
            return;
        }
        let way = self.way();
        let sum = &mut self.sums[way as usize];
        *sum = (sum.0 + time, sum.1 + u64::from(commands));
        self.last[way as usize] = now;
        if way == Way::Sleep {
            self.busy = worked.as_nanos() * 100 > took.as_nanos() * BUSY;
        }
        self.period += 1;
        if self.period.is_multiple_of(3) {
            let best = (0..3).max_by_key(|way| self.last[*way]).unwrap_or(0);
            self.won[best] += 1;
            self.last = [0; 3];
        }
        if self.period < TRIAL {
            return;
        }
        let [sleep, glance, poll] = self.sums.map(rate);
        let polled = self.best == Way::Poll;
        let gains = glance * 100 >= sleep * (100 + GLANCE_GAIN);
        self.cheap = if gains { (Way::Glance, glance) } else { (Way::Sleep, sleep) };
        // What takes a processor must not win by chance: in most rounds, not only in one by much.
        let polls = poll * 100 >= self.cheap.1 * (100 + POLL_GAIN) && self.won[Way::Poll as usize] > TRIAL / 6;
        self.best = if polls { Way::Poll } else { self.cheap.0 };
        tracing::debug!(sleep, glance, poll, busy = self.busy, best = ?self.best, "commands a second, by how a reactor waits");
        self.settled = if polls == polled || self.broken { (2 * self.settled).min(MOST_SETTLED) } else { SETTLED };
    }

    /// A period after the trial ended, in which so many commands were done in a second.
    fn after(&mut self, now: u64) {
        let since = u64::from(self.period - TRIAL);
        self.average = (self.average * since.min(AVERAGED - 1) + now) / (since + 1).min(AVERAGED);
        self.period += 1;
        if since < AVERAGED {
            self.rate = self.average;
        }
        if since == 2 * AVERAGED && self.best == Way::Poll && self.average * 100 < self.cheap.1 * (100 + POLL_KEEPS) {
            // Nor by what a trial does to the load.
            (self.best, self.broken) = (self.cheap.0, true);
        }
        let changed = self.average * 100 > self.rate * CHANGED || self.rate * 100 > self.average * CHANGED;
        if changed {
            (self.settled, self.sums, self.broken) = (SETTLED, [(0, 0); 3], false);
        }
        if changed || since > u64::from(self.settled) {
            self.sums = self.sums.map(|(time, commands)| (time / 2, commands / 2));
            (self.period, self.won) = (0, [0; 3]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(1);

    /// As after a trial that polling won.
    fn settled(mut polling: Polling) -> Polling {
        (polling.trial.dense, polling.trial.period, polling.trial.best) = (true, TRIAL, Way::Poll);
        polling
    }

    /// Looks until a poll in which nothing comes is over.
    fn looks_in_vain(polling: &mut Polling) -> u32 {
        let mut looks = 0;
        assert!(!polling.look(|| {
            looks += 1;
            false
        }));
        looks
    }

    #[test]
    fn a_trial_polls_every_time_and_whole() {
        let mut polling = Polling::new(MOST);
        (polling.trial.dense, polling.trial.period) = (true, 2);
        assert!((0..1000).all(|_| looks_in_vain(&mut polling) >= LEAST), "{polling:?}");
    }

    #[test]
    fn a_glance_is_much_shorter_than_a_poll() {
        let mut polling = Polling::new(MOST);
        (polling.trial.dense, polling.trial.period) = (true, 1);
        let glance = polling.looks_of(GLANCE);
        assert_eq!(glance, polling.most_looks / 50);
        assert_eq!(looks_in_vain(&mut polling), glance);
        let short = Polling::new(Duration::from_micros(5));
        assert_eq!(short.looks_of(GLANCE), short.most_looks, "no longer than a poll may be");
    }

    #[test]
    fn without_many_commands_nobody_polls() {
        let mut polling = Polling::new(MOST);
        for _ in 0..10_000 {
            polling.did(1);
            polling.trial.start = polling.trial.start.map(|(start, worked)| (start - Duration::from_millis(50), worked));
            assert_eq!(looks_in_vain(&mut polling), 0, "{polling:?}");
        }
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
        assert_eq!(looks, 20);
    }

    #[test]
    fn off_is_off() {
        assert!(!settled(Polling::new(Duration::ZERO)).look(|| -> bool { panic!("it looked") }));
    }

    #[test]
    fn the_window_follows_the_gap() {
        let mut polling = settled(Polling::new(Duration::from_secs(1)));
        for _ in 0..1000 {
            let mut looks = 0;
            polling.look(|| {
                looks += 1;
                looks == 100
            });
        }
        let window = looks_in_vain(&mut polling);
        assert!((150..=250).contains(&window), "{window}");
        // What comes later than that is waited for longer, up to the limit.
        for _ in 0..200 {
            looks_in_vain(&mut polling);
        }
        assert_eq!(looks_in_vain(&mut polling), polling.most_looks);
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// What a trial does in most of many periods, where so many commands are done in a second by each way, and so much of a second is
    /// worked.
    fn does(rates: [u32; 3], worked: Duration) -> Option<Way> {
        let mut trial = Trial { dense: true, ..Trial::new() };
        let mut times = [0; 3];
        let periods = 2000;
        for _ in 0..periods {
            let way = trial.way();
            times[way as usize] += 1;
            trial.ended(SECOND, worked, rates[way as usize]);
        }
        [Way::Sleep, Way::Glance, Way::Poll].into_iter().find(|way| times[*way as usize] * 100 >= periods * 95)
    }

    #[test]
    fn what_gets_more_done_is_done() {
        let idle = SECOND / 10;
        assert_eq!(does([1000, 1000, 2000], idle), Some(Way::Poll));
        assert_eq!(does([1000, 1200, 2000], idle), Some(Way::Poll));
        assert_eq!(does([2000, 1000, 1000], idle), Some(Way::Sleep));
        assert_eq!(does([1000, 1000, 1010], idle), Some(Way::Sleep), "polling has its price");
        assert_eq!(does([1000, 1200, 1300], idle), Some(Way::Glance), "and must be worth that against a glance");
        assert_eq!(does([1000, 1000, 1000], idle), Some(Way::Sleep));
    }

    #[test]
    fn who_is_busy_does_not_poll() {
        assert_eq!(does([1000, 1000, 2000], SECOND / 2), Some(Way::Sleep));
        assert_eq!(does([1000, 1200, 2000], SECOND / 2), Some(Way::Glance));
    }

    #[test]
    fn a_change_calls_for_a_new_trial() {
        let mut trial = Trial { dense: true, ..Trial::new() };
        (0..TRIAL + 2).for_each(|_| trial.ended(SECOND, SECOND / 10, 1000));
        assert!(trial.is_settled());
        (0..AVERAGED).for_each(|_| trial.ended(SECOND, SECOND / 10, 1000));
        trial.ended(SECOND, SECOND / 10, 3000);
        assert!(trial.is_settled(), "that was one period");
        let periods = (1..).take_while(|_| {
            trial.ended(SECOND, SECOND / 10, 3000);
            trial.is_settled()
        });
        assert!(periods.count() < 8, "{trial:?}");
    }

    #[test]
    fn polling_keeps_what_it_promised_or_is_left() {
        let mut trial = Trial { dense: true, ..Trial::new() };
        let mut polled = 0;
        for _ in 0..1000 {
            let way = trial.way();
            polled += u32::from(way == Way::Poll);
            // In a trial polling is far better, afterwards it is not.
            let commands = if way == Way::Poll && !trial.is_settled() { 2000 } else { 1000 };
            trial.ended(SECOND, SECOND / 10, commands);
        }
        assert!(polled < 400, "polled in {polled} of 1000 periods");
    }

    /// Periods that are half as good or half as bad again by chance, as on a machine with few processors.
    #[test]
    fn noise_is_no_change() {
        let mut trial = Trial { dense: true, ..Trial::new() };
        let (mut random, mut tried, mut polled) = (1_u32, 0, 0);
        let periods = 4000;
        for _ in 0..periods {
            tried += u32::from(!trial.is_settled());
            polled += u32::from(trial.way() == Way::Poll);
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            trial.ended(SECOND, SECOND / 10, 1000 + random % 2000);
        }
        assert!(tried < periods / 20, "{tried} of {periods} periods were tried in");
        assert!(polled < periods / 20, "polled in {polled} of {periods} periods");
    }

    #[test]
    fn looks_are_counted_by_what_many_of_them_took() {
        let mut polling = Polling::new(MOST);
        // A clock that stands still, and then jumps: half a microsecond for each look.
        for n in 0..1000 {
            polling.measure(if n % 10 == 0 { Duration::from_micros(320) } else { Duration::ZERO }, 64);
        }
        assert!((1800..2300).contains(&polling.most_looks), "{polling:?}");
    }

    #[test]
    fn a_poll_is_no_longer_than_it_may_be() {
        let mut polling = Polling::new(Duration::from_micros(50));
        (polling.trial.dense, polling.trial.period) = (true, 2);
        // Looks are measured in a trial.
        for _ in 0..200 {
            looks_in_vain(&mut polling);
        }
        let start = processor_time();
        looks_in_vain(&mut polling);
        // Generous, but far from what as many looks as are made unmeasured by mistake would take.
        assert!(processor_time() - start < Duration::from_millis(5), "{polling:?}");
    }
}
