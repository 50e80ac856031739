//! Which way of waiting gets more commands done: each is tried for a moment, again and again.
mod holds;
mod measured;
mod rounds;
mod way;

use std::time::{Duration, Instant};

use holds::{Found, Holds, STALLED};
use measured::Sum;
use rounds::{ROUNDS, Rounds};
use rustix::time::{ClockId, clock_gettime};
pub(super) use way::Way;
use way::{Each, ONLY_SLEEP, WAYS};

/// Rounds of the reactor between two looks at the clock.
const CLOCK_EVERY: u32 = 16;
/// How long one way is tried, with how many commands at least; a period that is much longer saw a pause, and says nothing. What is done
/// right after a change is not counted: that is still the way before.
const PERIOD: Duration = Duration::from_millis(40);
const COMMANDS: u32 = 64;
const PAUSE: Duration = Duration::from_millis(400);
/// A turn in which it lets others go first is over after so long if far less gets done than sleeping did: others want the processor.
const STARVED: Duration = Duration::from_millis(80);
/// Who works for more than so much of its time, in percent, does not poll.
const BUSY: u64 = 45;
/// A way that is hopeless is left out of so many trials.
const LEFT_OUT: u32 = 6;
/// For so many periods nobody knows what other threads were started for.
const ELSEWHERE: u32 = 2;

/// Which of the ways gets more commands done.
#[derive(Debug)]
pub(super) struct Trial {
    /// Those that may be tried.
    may: Each<bool>,
    /// Commands come often enough for a trial. Where they don't, nobody polls.
    dense: bool,
    /// It is over, and the next one has not begun.
    settled: bool,
    /// The way whose turn it is, and whether its period has begun.
    turn: Way,
    begun: bool,
    rounds: Rounds,
    holds: Holds,
    /// Trials that each way is left out of.
    left_out: Each<u32>,
    /// It works for much of its time.
    busy: bool,
    /// Commands were done on other threads, or by io_uring, in this period, or the one before; periods until that is over. Threads that are
    /// started now for that would keep the priority and the processor of who starts them.
    elsewhere: u32,
    /// What the last trial found; and whether there was one.
    best: Way,
    known: bool,
    /// When the period began, and this thread's processor time then.
    start: Option<(Instant, Duration)>,
    /// Commands since then, and the reactor's rounds since the clock was looked at.
    commands: u32,
    unlooked: u32,
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
            turn: Way::Sleep,
            begun: false,
            rounds: Rounds::default(),
            holds: Holds::new(),
            left_out: Each::default(),
            busy: false,
            elsewhere: 0,
            best: Way::Sleep,
            known: false,
            start: None,
            commands: 0,
            unlooked: 0,
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
        self.elsewhere = ELSEWHERE;
    }

    fn is_elsewhere(&self) -> bool {
        self.elsewhere > 0
    }

    /// A round took so many commands; `slow`: rounds may take long.
    #[inline]
    pub(super) fn did(&mut self, commands: u32, slow: bool) {
        if self.may == ONLY_SLEEP {
            return;
        }
        self.commands = self.commands.saturating_add(commands);
        self.unlooked += 1;
        if slow || self.unlooked >= CLOCK_EVERY {
            self.unlooked = 0;
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
            if took >= self.way().changing() {
                self.begun = true;
                self.begin(now, processor_time());
            }
        } else if took >= PERIOD && self.commands >= COMMANDS {
            let work = processor_time();
            if self.dense {
                self.ended(Sum::of(took, work.saturating_sub(worked), self.commands));
            }
            self.elsewhere = self.elsewhere.saturating_sub(1);
            self.dense = true;
            self.begin(now, work);
        }
    }

    /// Commands came seldom, or none. What was best may still be so when there are more, and takes one round to be seen.
    fn pauses(&mut self, now: Instant) {
        let mut rounds = std::mem::take(&mut self.rounds);
        // The load may be another one: what was found counts as much as if there had been a trial in between.
        (0..2).for_each(|_| rounds.begin());
        let (start, best, known) = (Some((now, processor_time())), self.best, self.known);
        *self = Trial { start, best, known, rounds, ..Trial::of(self.may) };
    }

    /// In a turn of a way that lets others go first, they do so for long. The turn may not have begun yet, or never get through enough
    /// commands.
    fn starves(&self, took: Duration) -> bool {
        let rate = Sum::of(took, Duration::ZERO, self.commands).rate();
        !self.is_settled() && self.gives_way() && took > STARVED && rate < self.rounds.turn(Way::Sleep).rate() / STALLED
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
        self.rounds.had_its_turn(self.turn, period);
        if self.turn == Way::Sleep {
            self.busy = period.worked.saturating_mul(100) > period.took.saturating_mul(BUSY);
        }
        self.begun = false;
        let next = WAYS[self.turn as usize + 1..].iter().copied().find(|way| self.is_worth_trying(*way));
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
        let found = self.rounds.end();
        // What was found before takes one round that finds it too.
        let confirms = self.known && !self.holds.is_doubted() && self.rounds.over() == 1 && found == self.best;
        if confirms || self.rounds.over() == ROUNDS {
            self.judge();
        }
    }

    /// The trial is over.
    fn judge(&mut self) {
        let (best, rate) = self.rounds.winner();
        for way in WAYS.into_iter().skip(1) {
            let left_out = &mut self.left_out[way as usize];
            *left_out = if self.rounds.is_hopeless(way, rate) { LEFT_OUT } else { left_out.saturating_sub(1) };
        }
        let (alike, agreed) = (self.rounds.are_alike(best, self.best), self.rounds.agree_on(best));
        self.holds.judged(best == self.best, alike, agreed, self.rounds.cost(best));
        self.rounds.log(best, self.busy);
        (self.best, self.known, self.settled) = (best, true, true);
    }

    /// A period after the trial ended.
    fn after(&mut self, period: Sum) {
        match self.holds.after(self.best, self.rounds.sleeping(), period) {
            Found::Holds => {}
            Found::Broken => self.best = Way::Sleep,
            Found::Old => self.begin_trial(),
            Found::Changed => {
                (self.rounds, self.left_out, self.known) = (Rounds::default(), Each::default(), false);
                self.begin_trial();
            }
        }
    }

    fn begin_trial(&mut self) {
        self.rounds.begin();
        // Its first turn is nothing new to who slept before.
        (self.settled, self.turn, self.begun) = (false, Way::Sleep, self.best == Way::Sleep);
    }
}

/// Processor time of this thread. Unlike the time on the wall it does not count what others took.
pub(super) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests;
