//! Which way of waiting gets more commands done: each is tried for a moment, again and again.
mod measured;
mod way;

use std::time::{Duration, Instant};

use measured::{Beside, Sum};
use rustix::time::{ClockId, clock_gettime};
pub(super) use way::Way;
use way::{Each, GAINS, ONLY_SLEEP, WAYS};

/// Rounds between two looks at the clock.
const CLOCK_EVERY: u32 = 16;
/// How long one way is tried, with how many commands at least; a period that is much longer saw a pause, and says nothing. What is done
/// before it, right after a change, is not counted: that is still the way before. Longest where nothing keeps it on its processor any more:
/// until the scheduler has moved it, and those whose commands it does, things are as they were.
const PERIOD: Duration = Duration::from_millis(40);
const CHANGING: Duration = Duration::from_millis(15);
const SCATTERING: Duration = Duration::from_millis(80);
const COMMANDS: u32 = 64;
const PAUSE: Duration = Duration::from_millis(400);
/// A turn in which it lets others go first is over after so long if less than one in so many commands gets done that sleeping did: others want
/// the processor. And what won a trial calls for another one when two periods in a row have less than one in so many of what it had then.
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
/// Who works for more than so much of its time, in percent, does not poll.
const BUSY: u64 = 45;
/// Nor is a poll worth it that makes a command so much dearer, in percent: its processor time grows by a larger factor than commands a second
/// do, times this. A little more would get done for a whole processor.
const DEAR: u32 = 125;
/// A way that gets less than so much of what the best one does, in percent, is left out of so many trials.
const HOPELESS: u32 = 75;
const LEFT_OUT: u32 = 6;
/// A rate that is so many times as high or as low as it was after the trial, in percent: something else is going on, which calls for a new
/// trial. Single periods differ as much by chance, so it is the average of about so many that counts.
const CHANGED: u64 = 160;
const AVERAGED: u64 = 8;

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
    /// In how many rounds of this trial each did so much more than sleeping that it might be chosen.
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
    /// Commands were done on other threads, or by io_uring, in this period, or the one before: threads that are started now for that would
    /// keep the priority and the processor of who starts them.
    elsewhere: (bool, bool),
    /// What the last trial found; and whether there was one.
    best: Way,
    known: bool,
    /// What won a trial got less done afterwards, which called for another one; and after that too.
    doubted: bool,
    broken: bool,
    /// What won the trial got far less done in the last period.
    stalled: bool,
    /// Commands a second after it, and on average of late.
    rate: u64,
    average: u64,
    /// When the period began, and this thread's processor time then.
    start: Option<(Instant, Duration)>,
    commands: u32,
    rounds: u32,
}

impl Trial {
    /// Of sleeping, and of looking, staying and giving way where that may be done.
    pub(super) fn new(looks: bool, stays: bool, gives_way: bool) -> Trial {
        Trial::of([true, stays, gives_way, looks])
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
            elsewhere: (false, false),
            best: Way::Sleep,
            known: false,
            doubted: false,
            broken: false,
            stalled: false,
            rate: 0,
            average: 0,
            start: None,
            commands: 0,
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
            Way::Stay | Way::Defer if self.is_elsewhere() => Way::Sleep,
            way => way,
        }
    }

    /// Whether it may have the lowest priority now.
    pub(super) fn gives_way(&self) -> bool {
        self.may[Way::Defer as usize] && self.way().gives_way() && !self.is_elsewhere()
    }

    /// Whether it may be kept on one processor now.
    pub(super) fn stays(&self) -> bool {
        self.may[Way::Stay as usize] && self.way().stays()
    }

    /// A trial is over, and the next one has not begun.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Commands are done on other threads, or by io_uring.
    pub(super) fn elsewhere(&mut self) {
        self.elsewhere.0 = true;
    }

    fn is_elsewhere(&self) -> bool {
        self.elsewhere.0 || self.elsewhere.1
    }

    /// A round took so many commands; `slow`: rounds may take long.
    #[inline]
    pub(super) fn did(&mut self, commands: u32, slow: bool) {
        if self.may == ONLY_SLEEP {
            return;
        }
        self.commands = self.commands.saturating_add(commands);
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
            self.ended(Sum::of(took, work.saturating_sub(worked), self.commands));
            self.begin(now, work);
        } else if took > PAUSE {
            self.pauses(now);
        } else if self.dense && !self.is_settled() && !self.begun {
            if took >= changing(self.way()) {
                self.begun = true;
                self.begin(now, processor_time());
            }
        } else if took >= PERIOD && self.commands >= COMMANDS {
            let work = processor_time();
            if self.dense {
                self.ended(Sum::of(took, work.saturating_sub(worked), self.commands));
            }
            self.elsewhere = (false, self.elsewhere.0);
            self.dense = true;
            self.begin(now, work);
        }
    }

    /// Commands came seldom, or none. What was best may still be so when there are more, and takes one round to be seen.
    fn pauses(&mut self, now: Instant) {
        let beside = self.beside.map(|beside| beside.halved().halved());
        let (start, best, known) = (Some((now, processor_time())), self.best, self.known);
        *self = Trial { start, best, known, beside, ..Trial::of(self.may) };
    }

    /// In a turn of a way that lets others go first, they do so for long. The turn may not have begun yet, or never get through enough
    /// commands.
    fn starves(&self, took: Duration) -> bool {
        let rate = Sum::of(took, Duration::ZERO, self.commands).rate();
        !self.is_settled() && self.gives_way() && took > STARVED && rate < self.turns[Way::Sleep as usize].rate() / STALLED
    }

    /// A period begins.
    fn begin(&mut self, now: Instant, worked: Duration) {
        (self.start, self.commands) = (Some((now, worked)), 0);
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
            Way::Stay | Way::Defer => !self.is_elsewhere(),
            Way::Poll => !self.busy,
        };
        likely && self.may[way as usize] && self.left_out[way as usize] == 0
    }

    /// Each way had its turn.
    fn end_round(&mut self) {
        let turns = std::mem::take(&mut self.turns);
        let mut alone: Each<Beside> = Each::default();
        for way in (1..WAYS.len()).filter(|way| turns[*way].commands > 0) {
            // The best of several that differ by chance only would seldom be beaten.
            let (rate, cheaper) = (turns[way].rate(), turns[Way::Sleep as usize].rate());
            for beside in [&mut alone[way], &mut self.beside[way]] {
                beside.add(turns[way], turns[Way::Sleep as usize]);
            }
            self.passed[way] += u32::from(rate * 100 >= cheaper * u64::from(GAINS[way].wins));
        }
        self.round += 1;
        // What was found before takes one round that finds it too.
        let confirms = self.known && !self.doubted && self.round == 1 && self.winner(&alone).0 == self.best;
        if confirms || self.round == MOST_ROUNDS || self.round >= ROUNDS && self.agreed() {
            self.judge();
        }
    }

    /// All rounds of this trial found the same of polling, which is what has a price.
    fn agreed(&self) -> bool {
        let passed = self.passed[Way::Poll as usize];
        passed == 0 || passed == self.round
    }

    fn sleeping(&self) -> Sum {
        self.done[Way::Sleep as usize]
    }

    /// What this trial cost, beside doing what it found: the time in which less was done, or in which a processor was taken for it.
    fn cost(&self) -> Duration {
        let best = self.done[self.best as usize];
        WAYS.into_iter().map(|way| self.done[way as usize].lost_beside(best, changing(way) * self.round)).sum()
    }

    /// What wins by that, and how many times as much gets done by it.
    fn winner(&self, beside: &Each<Beside>) -> (Way, f64) {
        let mut winner = (Way::Sleep, 1.0);
        for way in WAYS.into_iter().skip(1) {
            let (at, beside) = (way as usize, beside[way as usize]);
            let dear = !way.is_free() && beside.work() > beside.rate() * part(DEAR);
            // Not by chance: in most rounds, not only in one by much.
            if !dear && 2 * self.passed[at] > self.round && beside.rate() >= winner.1 * part(GAINS[at].wins) {
                winner = (way, beside.rate());
            }
        }
        winner
    }

    /// The trial is over.
    fn judge(&mut self) {
        let (before, (best, rate)) = (self.best, self.winner(&self.beside));
        self.best = best;
        for way in 1..WAYS.len() {
            let (found, left_out) = (self.beside[way], &mut self.left_out[way]);
            let hopeless = *left_out == 0 && found.rounds > 0.0 && found.rate() < rate * part(HOPELESS);
            *left_out = if hopeless { LEFT_OUT } else { left_out.saturating_sub(1) };
        }
        let [_, stay, defer, poll] = self.beside;
        tracing::debug!(
            sleep = self.sleeping().rate(),
            stay = stay.rate(),
            defer = defer.rate(),
            poll = poll.rate(),
            work = self.sleeping().work(),
            staying = stay.work(),
            deferring = defer.work(),
            polling = poll.work(),
            rounds = self.round,
            busy = self.busy,
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
        (self.known, self.settled, self.since, self.periods) = (true, true, Duration::ZERO, 0);
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
        let stalls = self.best != Way::Sleep && now < self.rate / STALLED;
        let changed =
            stalls && self.stalled || self.average * 100 > self.rate * CHANGED || self.rate * 100 > self.average * CHANGED;
        if changed {
            (self.pause, self.beside, self.left_out) = (SETTLED, Each::default(), Each::default());
            (self.known, self.doubted, self.broken) = (false, false, false);
        }
        self.stalled = stalls && !changed;
        if changed || doubts || self.since > self.pause {
            self.begin_trial();
        }
    }

    fn begin_trial(&mut self) {
        self.beside = self.beside.map(Beside::halved);
        (self.settled, self.round, self.turn, self.begun) = (false, 0, Way::Sleep, false);
        (self.passed, self.done) = (Each::default(), Each::default());
    }
}

/// How long it takes until things are as they are with this way.
fn changing(way: Way) -> Duration {
    if way == Way::Sleep { SCATTERING } else { CHANGING }
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
