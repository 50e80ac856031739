//! Which way of waiting gets more commands done: each is tried for a moment, again and again.
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Rounds between two looks at the clock.
const CLOCK_EVERY: u32 = 16;
/// How long one way is tried, with how many commands at least; a period that is much longer saw a pause, and says nothing. What is done
/// before it, right after a change, is not counted: that is still the way before.
const PERIOD: Duration = Duration::from_millis(40);
const CHANGING: Duration = Duration::from_millis(15);
const COMMANDS: u32 = 64;
const PAUSE: Duration = Duration::from_millis(400);
/// Rounds of a trial, in which each way has its turn: more where they do not agree.
const ROUNDS: u32 = 3;
const MOST_ROUNDS: u32 = 5;
/// How long after a trial the next one is: twice as long each time that it finds the same, half as long when it does not, and at least so
/// many times as long where all its rounds did.
const SETTLED: Duration = Duration::from_millis(800);
const MOST_SETTLED: Duration = Duration::from_millis(38_400);
const UNANIMOUS: u32 = 3;
/// Naps have to get so much more done than sleeping at once, in percent, and polling so much more than both; afterwards at least so much, or
/// the trial was wrong.
const GAINS: Each<Gain> = [Gain { wins: 0, keeps: 0 }, Gain { wins: 10, keeps: 4 }, Gain { wins: 25, keeps: 12 }];
/// Who works for more than so much of its time, in percent, does not poll.
const BUSY: u64 = 45;
/// Nor is a poll worth it that makes a command so much dearer, in percent: its processor time grows by a larger factor than commands a second
/// do, times this. A little more would get done for a whole processor.
const DEAR: u32 = 170;
/// Naps are tried where so many commands were taken at once, which shows that as many are under way. A nap is for one of so many of them,
/// but no more than so many.
const DEEP: u32 = 8;
const GATHERED: u32 = 4;
const MOST_GATHERED: u32 = 8;
/// They are not tried where a reactor that sleeps at once takes so many at once on average.
const PLENTY: u64 = 6;
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
    /// Sleep at once, and nap after being woken.
    Gather,
    /// Look as long as it is allowed.
    Poll,
}

const WAYS: [Way; 3] = [Way::Sleep, Way::Gather, Way::Poll];
/// Something of each way, in that order.
type Each<T> = [T; WAYS.len()];
/// Of these, where nothing else may be tried.
const ONLY_SLEEP: Each<bool> = [true, false, false];

/// What a way that has a price has to bring, in percent.
struct Gain {
    wins: u32,
    keeps: u32,
}

/// Nanoseconds on the wall and of the processor, the commands that were done in them, and how often some were taken.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    took: u64,
    worked: u64,
    commands: u64,
    batches: u64,
}

impl Sum {
    fn of(took: Duration, worked: Duration, commands: u32, batches: u32) -> Sum {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Sum { took: nanoseconds(took), worked: nanoseconds(worked), commands: commands.into(), batches: batches.into() }
    }

    fn and(self, more: Sum) -> Sum {
        Sum {
            took: self.took + more.took,
            worked: self.worked + more.worked,
            commands: self.commands + more.commands,
            batches: self.batches + more.batches,
        }
    }

    /// Commands a second.
    fn rate(self) -> u64 {
        self.commands.saturating_mul(1_000_000_000) / self.took.max(1)
    }

    /// Nanoseconds of the processor for each command.
    fn work(self) -> u64 {
        self.worked / self.commands.max(1)
    }

    /// Commands that were taken at once, on average.
    fn batch(self) -> u64 {
        self.commands / self.batches.max(1)
    }
}

/// What a way does, beside what sleeping did in the same rounds: on a machine that others share everything may be half as fast in the next
/// one. Logarithms of factors, so that a round in which it was twice as much and one in which it was half as much cancel out.
#[derive(Clone, Copy, Debug, Default)]
struct Beside {
    rate: f64,
    work: f64,
    rounds: f64,
}

impl Beside {
    fn add(&mut self, turn: Sum, sleeping: Sum) {
        let factor = |a: u64, b: u64| (a.max(1) as f64 / b.max(1) as f64).ln();
        self.rate += factor(turn.rate(), sleeping.rate());
        self.work += factor(turn.work(), sleeping.work());
        self.rounds += 1.0;
    }

    fn halved(self) -> Beside {
        Beside { rate: self.rate / 2.0, work: self.work / 2.0, rounds: self.rounds / 2.0 }
    }

    /// How many times as many commands a second.
    fn rate(self) -> f64 {
        (self.rate / self.rounds.max(0.1)).exp()
    }

    /// How many times as much of the processor for each.
    fn work(self) -> f64 {
        (self.work / self.rounds.max(0.1)).exp()
    }
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
    /// What sleeping did in this trial.
    sleeping: Sum,
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
    /// Of sleeping, and of looking and napping where that may be done.
    pub(super) fn new(looks: bool, naps: bool) -> Trial {
        Trial::of([true, naps, looks])
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
            sleeping: Sum::default(),
            since: Duration::ZERO,
            periods: 0,
            pause: SETTLED,
            left_out: Each::default(),
            busy: false,
            deep: 0,
            shared: (false, false),
            napped: false,
            vain: 0,
            each: Duration::ZERO,
            best: Way::Sleep,
            doubted: false,
            broken: false,
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
        if way == Way::Gather && (self.is_shared() || self.vain >= VAIN) { Way::Sleep } else { way }
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

    fn is_shared(&self) -> bool {
        self.shared.0 || self.shared.1
    }

    /// A round took so many commands; `others`: of another device than the ones before.
    #[inline]
    pub(super) fn did(&mut self, commands: u32, others: bool) {
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
        if self.rounds >= CLOCK_EVERY {
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
        if took > PAUSE {
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
            (self.shared, self.vain) = ((false, self.shared.0), 0);
            self.dense = true;
            self.begin(now, work);
        }
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
        if self.turn == Way::Sleep {
            self.busy = period.worked.saturating_mul(100) > period.took.saturating_mul(BUSY);
            self.sleeping = self.sleeping.and(period);
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
            Way::Gather => self.deep >= DEEP && !self.is_shared() && self.sleeping.batch() < PLENTY,
            Way::Poll => !self.busy,
        };
        likely && self.may[way as usize] && self.left_out[way as usize] == 0
    }

    /// Each way had its turn.
    fn end_round(&mut self) {
        let turns = std::mem::take(&mut self.turns);
        for way in (1..WAYS.len()).filter(|way| turns[*way].commands > 0) {
            let (rate, cheaper) = (turns[way].rate(), turns[..way].iter().map(|turn| turn.rate()).max().unwrap_or(0));
            self.beside[way].add(turns[way], turns[Way::Sleep as usize]);
            self.passed[way] += u32::from(rate * 100 >= cheaper * u64::from(100 + GAINS[way].wins));
        }
        self.round += 1;
        let agreed = self.passed.iter().all(|passed| *passed == 0 || *passed == self.round);
        if self.round == MOST_ROUNDS || self.round >= ROUNDS && agreed {
            self.judge();
        }
    }

    /// The trial is over: what it found.
    fn judge(&mut self) {
        let before = self.best;
        let (mut best, mut rate, mut work) = (Way::Sleep, 1.0, 1.0);
        for way in [Way::Gather, Way::Poll] {
            let (at, found) = (way as usize, self.beside[way as usize]);
            let dear = way == Way::Poll && found.work() / work > found.rate() / rate * part(DEAR);
            // What has a price must not win by chance: in most rounds, not only in one by much.
            if !dear && 2 * self.passed[at] > self.round && found.rate() >= rate * part(100 + GAINS[at].wins) {
                (best, rate, work) = (way, found.rate(), found.work());
            }
        }
        self.best = best;
        for way in 1..WAYS.len() {
            let (found, left_out) = (self.beside[way], &mut self.left_out[way]);
            let hopeless = *left_out == 0 && found.rounds > 0.0 && found.rate() < rate * part(HOPELESS);
            *left_out = if hopeless { LEFT_OUT } else { left_out.saturating_sub(1) };
        }
        let [_, gather, poll] = self.beside;
        tracing::debug!(
            sleep = self.sleeping.rate(),
            gather = gather.rate(),
            poll = poll.rate(),
            work = self.sleeping.work(),
            polling = poll.work(),
            rounds = self.round,
            batch = self.sleeping.batch(),
            busy = self.busy,
            deep = self.deep,
            ?best,
            "commands a second of a reactor that sleeps, and what the other ways do beside that"
        );
        if !self.doubted {
            self.pause = if before == best || self.broken { 2 * self.pause } else { self.pause / 2 }.clamp(SETTLED, MOST_SETTLED);
            if best != Way::Sleep && self.passed[best as usize] == self.round {
                self.pause = self.pause.max(UNANIMOUS * SETTLED);
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
            let keeps = u64::from(100 + GAINS[self.best as usize].keeps);
            let less = self.average * 100 < self.sleeping.rate() * keeps;
            if less && self.doubted {
                (self.best, self.broken) = (Way::Sleep, true);
            }
            doubts = less && !self.doubted;
            self.doubted = doubts;
        }
        let changed = self.average * 100 > self.rate * CHANGED || self.rate * 100 > self.average * CHANGED;
        if changed {
            (self.pause, self.beside, self.left_out) = (SETTLED, Each::default(), Each::default());
            (self.doubted, self.broken) = (false, false);
        }
        if changed || doubts || self.since > self.pause {
            self.deep = if changed { 0 } else { self.deep / 2 };
            self.begin_trial();
        }
    }

    fn begin_trial(&mut self) {
        self.beside = self.beside.map(Beside::halved);
        (self.settled, self.round, self.turn, self.begun) = (false, 0, Way::Sleep, false);
        (self.passed, self.sleeping) = (Each::default(), Sum::default());
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
impl Trial {
    /// It is this way's turn.
    pub(super) fn tries(&mut self, way: Way) {
        (self.dense, self.turn) = (true, way);
    }

    /// This won.
    pub(super) fn found(&mut self, way: Way) {
        (self.dense, self.settled, self.best) = (true, true, way);
    }

    /// This won, a command takes so long, and `DEEP` are under way.
    pub(super) fn finds(&mut self, way: Way, each: Duration) {
        self.found(way);
        (self.each, self.deep) = (each, DEEP);
    }

    /// The period is older than it is.
    pub(super) fn grow_older(&mut self, by: Duration) {
        self.start = self.start.map(|(start, worked)| (start - by, worked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = PERIOD.checked_div(10).unwrap();

    /// A trial of all ways, with many commands under way.
    fn deep() -> Trial {
        Trial { dense: true, deep: 32, ..Trial::new(true, true) }
    }

    /// A period in which commands came one by one.
    fn period(worked: Duration, commands: u32) -> Sum {
        Sum::of(PERIOD, worked, commands, commands)
    }

    /// What a trial does in most of many periods, where so many commands are done in each by each way, and so much of it is worked.
    fn does(rates: Each<u32>, worked: Duration) -> Option<Way> {
        most_of(deep(), rates, worked, 32)
    }

    fn most_of(mut trial: Trial, rates: Each<u32>, worked: Duration, deep: u32) -> Option<Way> {
        let mut times: Each<u32> = Each::default();
        let periods = 4000;
        for _ in 0..periods {
            let way = trial.way();
            times[way as usize] += 1;
            trial.deep = deep;
            trial.ended(period(worked, rates[way as usize]));
        }
        WAYS.into_iter().find(|way| times[*way as usize] * 100 >= periods * 95)
    }

    #[test]
    fn what_gets_more_done_is_done() {
        assert_eq!(does([1000, 1000, 2000], IDLE), Some(Way::Poll));
        assert_eq!(does([2000, 1000, 1000], IDLE), Some(Way::Sleep));
        assert_eq!(does([1000, 1000, 1010], IDLE), Some(Way::Sleep), "polling has its price");
        assert_eq!(does([1000, 1000, 1200], IDLE), Some(Way::Sleep), "so much is not enough");
        assert_eq!(does([1000, 1000, 1000], IDLE), Some(Way::Sleep));
        assert_eq!(does([1000, 1500, 1000], IDLE), Some(Way::Gather));
        assert_eq!(does([1000, 1050, 1000], IDLE), Some(Way::Sleep), "a nap keeps somebody waiting");
        assert_eq!(does([1000, 1500, 1600], IDLE), Some(Way::Gather), "and takes no processor");
        assert_eq!(does([1000, 1500, 2000], IDLE), Some(Way::Poll));
    }

    #[test]
    fn who_is_busy_does_not_poll() {
        assert_eq!(does([1000, 1000, 2000], PERIOD / 2), Some(Way::Sleep));
        assert_eq!(does([1000, 1500, 2000], PERIOD / 2), Some(Way::Gather));
    }

    #[test]
    fn a_poll_may_cost_about_what_it_brings() {
        // 4 us for each of 1000 commands where nobody polls.
        let polls = |commands: u32, each: u64| {
            let mut trial = deep();
            (0..4000).for_each(|_| {
                let (commands, each) = if trial.way() == Way::Poll { (commands, each) } else { (1000, 4000) };
                trial.ended(Sum::of(PERIOD, Duration::from_nanos(each) * commands, commands, commands));
            });
            trial.best == Way::Poll
        };
        assert!(polls(2000, 13_200) && !polls(2000, 14_000), "twice as much gets done");
        assert!(polls(1300, 8600) && !polls(1300, 9200), "a third more");
    }

    #[test]
    fn nobody_naps_with_few_commands_under_way() {
        assert_eq!(most_of(deep(), [1000, 2000, 1000], IDLE, DEEP - 1), Some(Way::Sleep));
    }

    #[test]
    fn who_takes_many_at_once_does_not_nap() {
        let naps = |batch: u32| {
            let mut trial = deep();
            (0..4000).for_each(|_| {
                let commands = if trial.way() == Way::Gather { 2000 } else { 1000 };
                trial.deep = 128;
                trial.ended(Sum::of(PERIOD, IDLE, commands, commands / batch));
            });
            trial.best == Way::Gather
        };
        assert!(naps(1) && naps(5) && !naps(6) && !naps(20));
    }

    #[test]
    fn what_may_not_be_done_is_not_done() {
        let only = |looks, naps| Trial { dense: true, ..Trial::new(looks, naps) };
        assert_eq!(most_of(only(true, false), [1000, 3000, 2000], IDLE, 32), Some(Way::Poll));
        assert_eq!(most_of(only(false, true), [1000, 2000, 3000], IDLE, 32), Some(Way::Gather));
    }

    #[test]
    fn a_nap_does_not_keep_other_devices_waiting() {
        let mut trial = deep();
        trial.found(Way::Gather);
        assert_eq!(trial.way(), Way::Gather);
        trial.did(1, true);
        assert_eq!(trial.way(), Way::Sleep);
        // For the rest of the period, and the next one.
        let mut end_period = || {
            trial.grow_older(2 * PERIOD);
            (0..CLOCK_EVERY * COMMANDS).for_each(|_| trial.did(1, false));
            trial.way()
        };
        // The first one has no beginning.
        assert_eq!([end_period(), end_period(), end_period()], [Way::Sleep, Way::Sleep, Way::Gather]);
    }

    #[test]
    fn naps_end_when_fewer_commands_are_under_way() {
        let mut trial = deep();
        trial.found(Way::Gather);
        let mut nap = |commands| {
            trial.naps();
            trial.did(commands, false);
            trial.way()
        };
        assert_eq!([nap(1), nap(2), nap(1), nap(9), nap(1), nap(1), nap(1)], [Way::Gather; 7]);
        assert_eq!(nap(1), Way::Sleep);
        trial.grow_older(2 * PERIOD);
        (0..2 * CLOCK_EVERY * COMMANDS).for_each(|_| trial.did(1, false));
        trial.grow_older(2 * PERIOD);
        (0..CLOCK_EVERY).for_each(|_| trial.did(1, false));
        assert_eq!(trial.way(), Way::Gather, "the next period tries it again");
    }

    #[test]
    fn what_is_hopeless_is_seldom_tried() {
        let mut trial = deep();
        let mut tried = 0;
        for _ in 0..10_000 {
            let way = trial.way();
            tried += u32::from(way == Way::Gather);
            trial.deep = 32;
            trial.ended(period(IDLE, if way == Way::Gather { 500 } else { 1000 }));
        }
        assert!((3..15).contains(&tried), "{tried} of 10000 periods");
    }

    #[test]
    fn a_change_calls_for_a_new_trial() {
        let mut trial = deep();
        while !trial.is_settled() {
            trial.ended(period(IDLE, 1000));
        }
        (0..AVERAGED + 2).for_each(|_| trial.ended(period(IDLE, 1000)));
        trial.ended(period(IDLE, 3000));
        assert!(trial.is_settled(), "that was one period");
        let periods = (1..).take_while(|_| {
            trial.ended(period(IDLE, 3000));
            trial.is_settled()
        });
        assert!(periods.count() < 8, "{trial:?}");
    }

    #[test]
    fn what_won_keeps_what_it_promised_or_is_left() {
        for dear in [Way::Gather, Way::Poll] {
            let mut trial = deep();
            let mut done = 0;
            for _ in 0..1000 {
                let way = trial.way();
                done += u32::from(way == dear);
                trial.deep = 32;
                // In a trial it is far better, afterwards it is not.
                let commands = if way == dear && !trial.is_settled() { 2000 } else { 1000 };
                trial.ended(period(IDLE, commands));
            }
            assert!(done < 400, "{dear:?} in {done} of 1000 periods");
        }
    }

    /// Periods that are half as good or half as bad again by chance, as on a machine with few processors.
    #[test]
    fn noise_is_no_change() {
        let (mut tried, mut dear, mut periods) = (0, 0, 0);
        for seed in 1..=8_u32 {
            let (mut trial, mut random) = (deep(), seed);
            for _ in 0..4000 {
                periods += 1;
                tried += u32::from(!trial.is_settled());
                dear += u32::from(matches!(trial.way(), Way::Gather | Way::Poll));
                trial.deep = 32;
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                trial.ended(period(IDLE, 1000 + (random >> 12) % 2000));
            }
        }
        assert!(tried < periods / 20, "{tried} of {periods} periods were tried in");
        assert!(dear < periods / 12, "polled or napped in {dear} of {periods} periods");
    }

    /// In how many percent of many periods each way is used where others make the machine up to four times as slow, and fast again, every
    /// few periods.
    fn with_neighbours(rates: Each<u32>) -> Each<u32> {
        let mut times: Each<u32> = Each::default();
        for seed in 1..=8_u32 {
            let (mut trial, mut random, mut speed) = (deep(), seed * 77_777, 100);
            let mut next = |below: u32| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (random >> 12) % below
            };
            for _ in 0..1000 {
                if next(4) == 0 {
                    speed = 100 + next(300);
                }
                let way = trial.way() as usize;
                times[way] += 1;
                trial.deep = 32;
                trial.ended(period(IDLE, rates[way] * speed / 100 * (90 + next(20)) / 100));
            }
        }
        times.map(|periods| periods / 80)
    }

    #[test]
    fn neighbours_do_not_hide_what_is_better() {
        let times = with_neighbours([1000, 1000, 1400]);
        assert!(times[Way::Poll as usize] >= 78, "{times:?}");
        let times = with_neighbours([1000, 1000, 1100]);
        assert!(times[Way::Sleep as usize] >= 80, "{times:?}");
    }

    #[test]
    fn how_long_a_trial_holds_is_told_by_the_clock() {
        // The longest periods there are.
        let slow = Sum::of(PAUSE, PAUSE / 10, COMMANDS, COMMANDS);
        let mut trial = deep();
        (0..ROUNDS * WAYS.len() as u32).for_each(|_| trial.ended(slow));
        let settled = (0..).take_while(|_| {
            trial.ended(slow);
            trial.is_settled()
        });
        let holds = PAUSE * settled.count() as u32;
        assert!((SETTLED..=3 * SETTLED).contains(&holds), "{holds:?}");
    }
}
