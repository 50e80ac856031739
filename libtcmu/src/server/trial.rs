//! Which way of waiting gets more commands done: each is tried for a moment, again and again.
mod measured;

use std::time::{Duration, Instant};

use measured::{Beside, Sum};
use rustix::time::{ClockId, clock_gettime};

/// Rounds between two looks at the clock.
const CLOCK_EVERY: u32 = 16;
/// How long one way is tried, with how many commands at least; a period that is much longer saw a pause, and says nothing. What is done
/// before it, right after a change, is not counted: that is still the way before.
const PERIOD: Duration = Duration::from_millis(40);
const CHANGING: Duration = Duration::from_millis(15);
const COMMANDS: u32 = 64;
const PAUSE: Duration = Duration::from_millis(400);
/// A turn in which it lets others go first is over after so long if less than one in so many commands gets done that sleeping did: others want
/// the processor. So it is, where that won a trial, when two periods in a row have less than one in so many of what it had then.
const STARVED: Duration = Duration::from_millis(80);
const STALLED: u64 = 3;
/// Rounds of a trial, in which each way has its turn: more where they do not agree.
const ROUNDS: u32 = 3;
const MOST_ROUNDS: u32 = 5;
/// How long after a trial the next one is: twice as long each time that it finds the same, half as long when it does not; and where all its
/// rounds did, at least so many times as long as what it cost.
const SETTLED: Duration = Duration::from_millis(800);
const MOST_SETTLED: Duration = Duration::from_millis(38_400);
const COST: u32 = 50;
/// What each way has to get done to win, in percent of what those that cost less do; and afterwards, of what sleeping did, or the trial was
/// wrong. Giving way costs nothing as long as it gets as much done: a nap keeps somebody waiting, and a poll takes a processor.
const GAINS: Each<Gain> = [
    Gain { wins: 100, keeps: 100 },
    Gain { wins: 101, keeps: 90 },
    Gain { wins: 110, keeps: 104 },
    Gain { wins: 125, keeps: 112 },
];
/// Who works for more than so much of its time, in percent, does not poll.
const BUSY: u64 = 45;
/// Nor is a poll worth it that makes a command so much dearer, in percent: its processor time grows by a larger factor than commands a second
/// do, times this. A little more would get done for a whole processor.
const DEAR: u32 = 125;
/// Naps are tried where so many commands were taken at once, which shows that as many are under way. A nap is for one of so many of them,
/// but no more than so many.
const DEEP: u32 = 8;
const GATHERED: u32 = 4;
const MOST_GATHERED: u32 = 32;
/// They are not tried where a reactor that sleeps at once takes so many at once on average, and one in so many of the most that it took.
const PLENTY: u64 = 6;
const SHARE: u64 = 8;
/// Where so many naps in a row bring no more commands than this, nobody naps for the rest of the period: fewer are under way than before.
const VAIN: u32 = 4;
const FEW: u32 = 2;
/// A way that gets less than so much of what the best one does, in percent, is left out of so many trials.
const HOPELESS: u32 = 75;
const LEFT_OUT: u32 = 6;
/// A rate that is so many times as high or as low as it was after the trial, in percent: something else is going on, which calls for a new
/// trial. Single periods differ as much by chance, so it is the average of about so many that counts.
const CHANGED: u64 = 160;
const AVERAGED: u64 = 8;

/// What to do when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Sleep at once.
    Sleep,
    /// Sleep at once, and let others have the processor first.
    Defer,
    /// Sleep at once, and nap after being woken.
    Gather,
    /// Look as long as it is allowed, and nobody else wants the processor.
    Poll,
}

const WAYS: [Way; 4] = [Way::Sleep, Way::Defer, Way::Gather, Way::Poll];

impl Way {
    /// It keeps nobody waiting, and takes no processor: no more depends on the choice between two of these than what they get done.
    fn is_free(self) -> bool {
        matches!(self, Way::Sleep | Way::Defer)
    }
}

/// Something of each way, in that order.
type Each<T> = [T; WAYS.len()];
/// Of these, where nothing else may be tried.
const ONLY_SLEEP: Each<bool> = [true, false, false, false];

/// What a way has to bring.
struct Gain {
    wins: u32,
    keeps: u32,
}

/// Which of the ways gets more commands done.
#[derive(Debug)]
pub(super) struct Trial {
    /// Those that may be tried.
    may: Each<bool>,
    /// Commands come often enough for a trial. Where they don't, nobody polls.
    dense: bool,
    /// It is over, and the next one has not begun.
    settled: bool,
    /// Rounds of this trial that are over, and the way whose turn it is.
    round: u32,
    turn: Way,
    /// Its period has begun.
    begun: bool,
    /// What the ways did in this round, those that had their turn.
    turns: Each<Sum>,
    /// In how many rounds of this trial each did so much more than all that cost less that it might be chosen.
    passed: Each<u32>,
    /// What they did in this trial and, half as much each time, in those before.
    beside: Each<Beside>,
    /// What each did in this trial.
    done: Each<Sum>,
    /// Time and periods since the last trial ended, and the time until the next one.
    since: Duration,
    periods: u64,
    pause: Duration,
    /// Trials that each way is left out of.
    left_out: Each<u32>,
    /// It works for much of its time.
    busy: bool,
    /// The most commands that were taken at once since the trial began, or half of that in the one before.
    deep: u32,
    /// Several devices had commands in this period, or the one before: a nap for one would keep the others waiting.
    shared: (bool, bool),
    /// Commands were done on other threads, or by io_uring, in this period, or the one before: threads that are started now for that would
    /// keep the priority of who starts them.
    elsewhere: (bool, bool),
    /// It napped in this round; and how many naps in a row brought few commands.
    napped: bool,
    vain: u32,
    /// The time on the wall for each command in the last period.
    each: Duration,
    /// What the last trial found.
    best: Way,
    /// What won a trial got less done afterwards, which called for another one; and after that too.
    doubted: bool,
    broken: bool,
    /// It let others go first in the last period, and got far less done.
    stalled: bool,
    /// Commands a second after it, and on average of late.
    rate: u64,
    average: u64,
    /// When the period began, and this thread's processor time then.
    start: Option<(Instant, Duration)>,
    commands: u32,
    batches: u32,
    rounds: u32,
}

impl Trial {
    /// Of sleeping, and of looking, napping and giving way where that may be done.
    pub(super) fn new(looks: bool, naps: bool, gives_way: bool) -> Trial {
        Trial::of([true, gives_way, naps, looks])
    }

    fn of(may: Each<bool>) -> Trial {
        Trial {
            may,
            dense: false,
            settled: false,
            round: 0,
            turn: Way::Sleep,
            begun: false,
            turns: Each::default(),
            passed: Each::default(),
            beside: Each::default(),
            done: Each::default(),
            since: Duration::ZERO,
            periods: 0,
            pause: SETTLED,
            left_out: Each::default(),
            busy: false,
            deep: 0,
            shared: (false, false),
            elsewhere: (false, false),
            napped: false,
            vain: 0,
            each: Duration::ZERO,
            best: Way::Sleep,
            doubted: false,
            broken: false,
            stalled: false,
            rate: 0,
            average: 0,
            start: None,
            commands: 0,
            batches: 0,
            rounds: 0,
        }
    }

    /// What to do now.
    pub(super) fn way(&self) -> Way {
        let way = match () {
            () if !self.dense => Way::Sleep,
            () if self.is_settled() => self.best,
            () => self.turn,
        };
        match way {
            Way::Gather if self.is_shared() || self.vain >= VAIN => Way::Sleep,
            Way::Defer if self.is_elsewhere() => Way::Sleep,
            way => way,
        }
    }

    /// Whether it may have the lowest priority now.
    pub(super) fn gives_way(&self) -> bool {
        self.may[Way::Defer as usize] && matches!(self.way(), Way::Defer | Way::Poll) && !self.is_elsewhere()
    }

    /// A trial is over, and the next one has not begun.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// How long a nap should be: as long as a few of the commands under way take, at the rate of the moment.
    pub(super) fn nap(&self) -> Duration {
        self.each * (self.deep / GATHERED).clamp(1, MOST_GATHERED)
    }

    /// It naps now: what this round takes is what came meanwhile.
    pub(super) fn naps(&mut self) {
        self.napped = true;
    }

    /// Commands are done on other threads, or by io_uring.
    pub(super) fn elsewhere(&mut self) {
        self.elsewhere.0 = true;
    }

    fn is_elsewhere(&self) -> bool {
        self.elsewhere.0 || self.elsewhere.1
    }

    fn is_shared(&self) -> bool {
        self.shared.0 || self.shared.1
    }

    /// A round took so many commands; `others`: of another device than the ones before; `slow`: rounds may take long.
    #[inline]
    pub(super) fn did(&mut self, commands: u32, others: bool, slow: bool) {
        if self.may == ONLY_SLEEP {
            return;
        }
        self.commands = self.commands.saturating_add(commands);
        self.batches = self.batches.saturating_add(u32::from(commands > 0));
        self.deep = self.deep.max(commands);
        self.shared.0 |= others;
        if std::mem::take(&mut self.napped) {
            self.vain = if commands > FEW { 0 } else { self.vain + 1 };
        }
        self.rounds += 1;
        if slow || self.rounds >= CLOCK_EVERY {
            self.rounds = 0;
            self.look_at_the_clock();
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        let Some((start, worked)) = self.start else {
            self.begin(now, processor_time());
            return;
        };
        let took = now - start;
        if self.starves(took) {
            // Who waits for the commands must not pay for it in the next rounds too.
            self.left_out[self.turn as usize] = LEFT_OUT;
            let work = processor_time();
            self.ended(Sum::of(took, work.saturating_sub(worked), self.commands, self.batches));
            self.begin(now, work);
        } else if took > PAUSE {
            *self = Trial { start: Some((now, processor_time())), ..Trial::of(self.may) };
        } else if self.dense && !self.is_settled() && !self.begun {
            if took >= CHANGING {
                (self.begun, self.vain) = (true, 0);
                self.begin(now, processor_time());
            }
        } else if took >= PERIOD && self.commands >= COMMANDS {
            let work = processor_time();
            self.each = took / self.commands;
            if self.dense {
                self.ended(Sum::of(took, work.saturating_sub(worked), self.commands, self.batches));
            }
            (self.shared, self.elsewhere, self.vain) = ((false, self.shared.0), (false, self.elsewhere.0), 0);
            self.dense = true;
            self.begin(now, work);
        }
    }

    /// In a turn of a way that lets others go first, they do so for long. The turn may not have begun yet, or never get through enough
    /// commands.
    fn starves(&self, took: Duration) -> bool {
        let rate = Sum::of(took, Duration::ZERO, self.commands, 0).rate();
        !self.is_settled() && self.gives_way() && took > STARVED && rate < self.turns[Way::Sleep as usize].rate() / STALLED
    }

    /// A period begins.
    fn begin(&mut self, now: Instant, worked: Duration) {
        (self.start, self.commands, self.batches) = (Some((now, worked)), 0, 0);
    }

    fn ended(&mut self, period: Sum) {
        if self.is_settled() {
            self.after(period);
            return;
        }
        let way = self.turn as usize;
        self.turns[way] = period;
        self.done[way] = self.done[way].and(period);
        if self.turn == Way::Sleep {
            self.busy = period.worked.saturating_mul(100) > period.took.saturating_mul(BUSY);
        }
        self.begun = false;
        let next = WAYS[way + 1..].iter().copied().find(|way| self.is_worth_trying(*way));
        self.turn = next.unwrap_or(Way::Sleep);
        if next.is_none() {
            self.end_round();
        }
    }

    fn is_worth_trying(&self, way: Way) -> bool {
        let likely = match way {
            Way::Sleep => true,
            Way::Defer => !self.is_elsewhere(),
            Way::Gather => {
                self.deep >= DEEP && !self.is_shared() && self.sleeping().batch() < PLENTY.max(u64::from(self.deep) / SHARE)
            }
            Way::Poll => !self.busy,
        };
        likely && self.may[way as usize] && self.left_out[way as usize] == 0
    }

    /// Each way had its turn.
    fn end_round(&mut self) {
        let turns = std::mem::take(&mut self.turns);
        for way in (1..WAYS.len()).filter(|way| turns[*way].commands > 0) {
            // The better of two that differ by chance only would seldom be beaten: where it is giving way, the average decides.
            let cheaper = (0..way).filter(|way| *way != Way::Defer as usize).map(|way| turns[way].rate()).max().unwrap_or(0);
            let rate = turns[way].rate();
            self.beside[way].add(turns[way], turns[Way::Sleep as usize]);
            self.passed[way] += u32::from(rate * 100 >= cheaper * u64::from(GAINS[way].wins));
        }
        self.round += 1;
        if self.round == MOST_ROUNDS || self.round >= ROUNDS && self.agreed() {
            self.judge();
        }
    }

    /// All rounds of this trial found the same of the ways that have a price.
    fn agreed(&self) -> bool {
        let priced = WAYS.into_iter().filter(|way| !way.is_free());
        priced.map(|way| self.passed[way as usize]).all(|passed| passed == 0 || passed == self.round)
    }

    fn sleeping(&self) -> Sum {
        self.done[Way::Sleep as usize]
    }

    /// What this trial cost, beside doing what it found: the time in which less was done, or in which a processor was taken for it.
    fn cost(&self) -> Duration {
        let best = self.done[self.best as usize];
        self.done.iter().map(|done| done.lost_beside(best)).sum()
    }

    /// The trial is over: what it found.
    fn judge(&mut self) {
        let before = self.best;
        let (mut best, mut rate) = (Way::Sleep, 1.0);
        for way in [Way::Defer, Way::Gather, Way::Poll] {
            let (at, found) = (way as usize, self.beside[way as usize]);
            let dear = way == Way::Poll && found.work() > found.rate() * part(DEAR);
            // What has a price must not win by chance: in most rounds, not only in one by much.
            if !dear && 2 * self.passed[at] > self.round && found.rate() >= rate * part(GAINS[at].wins) {
                (best, rate) = (way, found.rate());
            }
        }
        self.best = best;
        for way in 1..WAYS.len() {
            let (found, left_out) = (self.beside[way], &mut self.left_out[way]);
            let hopeless = *left_out == 0 && found.rounds > 0.0 && found.rate() < rate * part(HOPELESS);
            *left_out = if hopeless { LEFT_OUT } else { left_out.saturating_sub(1) };
        }
        let [_, give_way, gather, poll] = self.beside;
        tracing::debug!(
            sleep = self.sleeping().rate(),
            give_way = give_way.rate(),
            gather = gather.rate(),
            poll = poll.rate(),
            work = self.sleeping().work(),
            giving_way = give_way.work(),
            polling = poll.work(),
            rounds = self.round,
            batch = self.sleeping().batch(),
            busy = self.busy,
            deep = self.deep,
            ?best,
            "commands a second of a reactor that sleeps, and what the other ways do beside that"
        );
        if !self.doubted {
            let same = before == best || before.is_free() && best.is_free();
            self.pause = if same || self.broken { 2 * self.pause } else { self.pause / 2 }.clamp(SETTLED, MOST_SETTLED);
            if self.agreed() {
                self.pause = self.pause.max(COST * self.cost()).min(MOST_SETTLED);
            }
        }
        self.doubted &= before == best;
        (self.settled, self.since, self.periods) = (true, Duration::ZERO, 0);
    }

    /// A period after the trial ended.
    fn after(&mut self, period: Sum) {
        let (now, periods) = (period.rate(), self.periods);
        self.average = (self.average * periods.min(AVERAGED - 1) + now) / (periods + 1).min(AVERAGED);
        self.periods += 1;
        self.since += Duration::from_nanos(period.took);
        if periods < AVERAGED {
            self.rate = self.average;
        }
        let mut doubts = false;
        if periods == 2 * AVERAGED && self.best != Way::Sleep {
            // By what a trial does to the load, or because the machine is slower now.
            let keeps = u64::from(GAINS[self.best as usize].keeps);
            let less = self.average * 100 < self.sleeping().rate() * keeps;
            if less && self.doubted {
                (self.best, self.broken) = (Way::Sleep, true);
            }
            doubts = less && !self.doubted;
            self.doubted = doubts;
        }
        // Once may be chance.
        let stalls = self.gives_way() && now < self.rate / STALLED;
        let changed =
            stalls && self.stalled || self.average * 100 > self.rate * CHANGED || self.rate * 100 > self.average * CHANGED;
        if changed {
            (self.pause, self.beside, self.left_out) = (SETTLED, Each::default(), Each::default());
            (self.doubted, self.broken) = (false, false);
        }
        self.stalled = stalls && !changed;
        if changed || doubts || self.since > self.pause {
            self.deep = if changed { 0 } else { self.deep / 2 };
            self.begin_trial();
        }
    }

    fn begin_trial(&mut self) {
        self.beside = self.beside.map(Beside::halved);
        (self.settled, self.round, self.turn, self.begun) = (false, 0, Way::Sleep, false);
        (self.passed, self.done) = (Each::default(), Each::default());
    }
}

/// Of a whole.
fn part(percent: u32) -> f64 {
    f64::from(percent) / 100.0
}

/// Processor time of this thread. Unlike the time on the wall it does not count what others took.
pub(super) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests;
