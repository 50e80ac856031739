use super::{
    holds::{AVERAGED, SETTLED},
    *,
};

impl Trial {
    /// It is this way's turn.
    pub(in crate::server) fn tries(&mut self, way: Way) {
        (self.dense, self.turn) = (true, way);
    }

    /// This won.
    pub(in crate::server) fn won(&mut self, way: Way) {
        (self.dense, self.settled, self.best) = (true, true, way);
    }

    /// The period is older than it is.
    pub(in crate::server) fn grow_older(&mut self, by: Duration) {
        self.start = self.start.map(|(start, worked)| (start - by, worked));
    }
}

const IDLE: Duration = PERIOD.checked_div(10).unwrap();

/// A trial of all ways, with enough commands for it.
fn dense() -> Trial {
    Trial { dense: true, ..Trial::new(true, true, true) }
}

fn period(worked: Duration, commands: u32) -> Sum {
    Sum::of(PERIOD, worked, commands)
}

/// What a trial does in most of many periods, where so many commands are done in each by each way, and so much of it is worked.
fn does(rates: Each<u32>, worked: Duration) -> Option<Way> {
    most_of(dense(), rates, worked)
}

fn most_of(mut trial: Trial, rates: Each<u32>, worked: Duration) -> Option<Way> {
    let mut times: Each<u32> = Each::default();
    let periods = 4000;
    for _ in 0..periods {
        let way = trial.way();
        times[way as usize] += 1;
        trial.ended(period(worked, rates[way as usize]));
    }
    WAYS.into_iter().find(|way| times[*way as usize] * 100 >= periods * 95)
}

#[test]
fn what_gets_more_done_is_done() {
    assert_eq!(does([1000, 900, 900, 2000], IDLE), Some(Way::Poll));
    assert_eq!(does([2000, 1000, 1900, 1000], IDLE), Some(Way::Sleep));
    assert_eq!(does([1000, 900, 900, 1010], IDLE), Some(Way::Sleep), "polling has its price");
    assert_eq!(does([1000, 900, 900, 1200], IDLE), Some(Way::Sleep), "so much is not enough");
    assert_eq!(does([1000, 1500, 900, 1000], IDLE), Some(Way::Stay));
    assert_eq!(does([1000, 1050, 900, 1000], IDLE), Some(Way::Sleep), "who stays cannot go where there is more room");
    assert_eq!(does([1000, 1500, 900, 1600], IDLE), Some(Way::Stay), "and takes no processor");
    assert_eq!(does([1000, 1500, 900, 2000], IDLE), Some(Way::Poll));
    assert_eq!(does([1000, 1500, 300, 1000], IDLE), Some(Way::Stay), "others keep the processors busy");
    assert_eq!(does([1000, 1000, 1000, 1000], IDLE), Some(Way::Defer), "as much for less");
    assert_eq!(does([1000, 1000, 1200, 1000], IDLE), Some(Way::Defer));
    assert_eq!(does([1000, 1600, 1700, 1800], IDLE), Some(Way::Defer), "it takes no processor");
    assert_eq!(does([1000, 500, 2000, 1000], IDLE), Some(Way::Defer), "staying alone does not help");
}

#[test]
fn who_has_it_done_elsewhere_does_not_give_way_nor_stay() {
    let mut trial = dense();
    for (way, gives_way) in [(Way::Stay, false), (Way::Defer, true)] {
        let mut trial = dense();
        trial.won(way);
        assert_eq!((trial.gives_way(), trial.stays()), (gives_way, true));
        trial.elsewhere();
        assert_eq!((trial.way(), trial.gives_way(), trial.stays()), (Way::Sleep, false, false));
    }
    trial.won(Way::Defer);
    trial.elsewhere();
    // For the rest of the period, and the next one.
    let mut end_period = || {
        trial.grow_older(2 * PERIOD);
        (0..CLOCK_EVERY * COMMANDS).for_each(|_| trial.did(1, false));
        trial.way()
    };
    // The first one has no beginning.
    assert_eq!([end_period(), end_period(), end_period()], [Way::Sleep, Way::Sleep, Way::Defer]);
    trial.won(Way::Poll);
    assert_eq!((trial.gives_way(), trial.stays()), (true, false), "who polls takes the processor from nobody");
    let mut keeps = Trial::new(true, true, false);
    keeps.won(Way::Poll);
    assert!(!keeps.gives_way(), "who keeps its priority is not starved by that");
    trial.elsewhere();
    assert_eq!((trial.way(), trial.gives_way()), (Way::Poll, false));
    trial = Trial { dense: true, ..dense() };
    trial.elsewhere();
    assert!(!trial.is_worth_trying(Way::Defer) && !trial.is_worth_trying(Way::Stay));
}

#[test]
fn who_starves_when_it_lets_others_go_first_gives_that_up() {
    for way in [Way::Defer, Way::Poll] {
        let mut trial = dense();
        trial.tries(way);
        trial.rounds.had_its_turn(Way::Sleep, period(IDLE, 100));
        trial.did(1, true);
        // A device that is no faster than this is not kept from anything.
        trial.grow_older(2 * PERIOD);
        trial.did(150, true);
        assert_eq!(trial.way(), way, "{trial:?}");
        trial.tries(way);
        trial.grow_older(10 * PERIOD);
        trial.did(1, true);
        assert!(trial.way() != way && !trial.is_worth_trying(way), "{trial:?}");
    }
    // What won, too.
    let mut trial = dense();
    trial.won(Way::Defer);
    (0..AVERAGED).for_each(|_| trial.after(period(IDLE, 1000)));
    trial.after(period(IDLE, 400));
    assert!(trial.gives_way());
    trial.after(period(IDLE, 300));
    trial.after(period(IDLE, 1000));
    trial.after(period(IDLE, 300));
    assert!(trial.gives_way(), "now and then");
    trial.after(period(IDLE, 300));
    assert!(!trial.gives_way());
}

#[test]
fn who_is_kept_from_the_processor_soon_looks_at_the_clock() {
    let mut trial = dense();
    trial.won(Way::Defer);
    // Each round takes long, as where others take the processor: the second one sees that.
    trial.did(1, true);
    trial.grow_older(2 * PAUSE);
    trial.did(1, true);
    assert!(!trial.gives_way(), "{trial:?}");
}

#[test]
fn who_is_busy_does_not_poll() {
    assert_eq!(does([1000, 900, 900, 2000], PERIOD / 2), Some(Way::Sleep));
    assert_eq!(does([1000, 1500, 900, 2000], PERIOD / 2), Some(Way::Stay));
}

#[test]
fn a_poll_may_cost_about_what_it_brings() {
    // 4 us for each of 1000 commands where nobody polls.
    let polls = |commands: u32, each: u64| {
        let mut trial = dense();
        (0..4000).for_each(|_| {
            let (commands, each) = if trial.way() == Way::Poll { (commands, each) } else { (1000, 4000) };
            trial.ended(Sum::of(PERIOD, Duration::from_nanos(each) * commands, commands));
        });
        trial.best == Way::Poll
    };
    assert!(polls(2000, 9800) && !polls(2000, 10_200), "twice as much gets done");
    assert!(polls(1300, 6300) && !polls(1300, 6700), "a third more");
}

#[test]
fn what_may_not_be_done_is_not_done() {
    let only = |looks, stays, gives_way| Trial { dense: true, ..Trial::new(looks, stays, gives_way) };
    assert_eq!(most_of(only(true, false, false), [1000, 3000, 3000, 2000], IDLE), Some(Way::Poll));
    assert_eq!(most_of(only(false, true, false), [1000, 2000, 3000, 3000], IDLE), Some(Way::Stay));
    assert_eq!(most_of(only(false, false, true), [1000, 3000, 2000, 3000], IDLE), Some(Way::Defer));
    // Who defers stays only where it may, and who polls keeps its priority where it has to.
    for (stays, gives_way) in [(false, true), (true, false)] {
        let mut trial = only(true, stays, gives_way);
        trial.won(Way::Defer);
        assert_eq!((trial.stays(), trial.gives_way()), (stays, gives_way));
    }
}

#[test]
fn what_was_found_before_is_soon_confirmed() {
    let rounds = |mut trial: Trial, rates: Each<u32>| {
        while !trial.is_settled() {
            let way = trial.way() as usize;
            trial.ended(period(IDLE, rates[way]));
        }
        trial
    };
    let polls = [1000, 1000, 1000, 2000];
    let first = rounds(dense(), polls);
    assert_eq!((first.rounds.over(), first.best), (ROUNDS, Way::Poll));
    let again = |rates| {
        let mut trial = rounds(dense(), polls);
        trial.begin_trial();
        rounds(trial, rates)
    };
    assert_eq!((again(polls).rounds.over(), again(polls).best), (1, Way::Poll));
    // But not what is new, nor what was doubted, nor after a change.
    assert!(again([1000, 1000, 1000, 1000]).rounds.over() >= ROUNDS);
    let mut doubted = rounds(dense(), polls);
    while doubted.is_settled() {
        doubted.ended(period(IDLE, 1000));
    }
    assert!(doubted.holds.is_doubted());
    assert_eq!(rounds(doubted, polls).rounds.over(), ROUNDS);
    let mut changed = rounds(dense(), polls);
    (0..2 * AVERAGED).for_each(|_| changed.ended(period(IDLE, 2000)));
    while changed.is_settled() {
        changed.ended(period(IDLE, 8000));
    }
    assert_eq!(rounds(changed, [4000, 4000, 4000, 8000]).rounds.over(), ROUNDS);
}

#[test]
fn after_a_pause_what_was_best_takes_one_round_and_is_not_held_against_another_load() {
    // As found with one command at a time, and with many.
    let (one, many) = ([1000, 1500, 1100, 3500], [1000, 600, 2000, 1000]);
    for (before, after, best, rounds) in
        [(one, one, Way::Poll, 1), (many, many, Way::Defer, 1), (one, many, Way::Defer, ROUNDS), (many, one, Way::Poll, ROUNDS)]
    {
        let mut trial = dense();
        for rates in [before, after] {
            while !trial.is_settled() {
                trial.ended(period(IDLE, rates[trial.way() as usize]));
            }
            if rates == before && trial.rounds.over() > 1 {
                trial.pauses(Instant::now());
                assert_eq!((trial.way(), trial.is_settled()), (Way::Sleep, false), "until there are more commands");
                trial.dense = true;
            }
        }
        assert_eq!((trial.best, trial.rounds.over()), (best, rounds), "{before:?}, then {after:?}");
    }
}

/// What a trial finds, and for how long that holds, where deferring gets so much done in each round, in percent of what the others do.
fn finds(trial: &mut Trial, deferring: [u32; ROUNDS as usize]) -> (Way, Duration) {
    while !trial.is_settled() {
        let percent = if trial.way() == Way::Defer { deferring[trial.rounds.over() as usize] } else { 100 };
        trial.ended(period(IDLE, 1000 * percent / 100));
    }
    let best = trial.best;
    let settled = (0..).take_while(|_| {
        trial.ended(period(IDLE, 1000));
        trial.is_settled()
    });
    (best, PERIOD * settled.count() as u32)
}

#[test]
fn what_was_found_by_chance_does_not_hold_for_long() {
    let mut trial = dense();
    // Where deferring gets three times as much done, but was unlucky in most of the trial.
    let (best, held) = finds(&mut trial, [50, 300, 30]);
    assert_eq!(best, Way::Sleep);
    assert!(held <= 3 * SETTLED, "{held:?}");
    // What is found then is another thing, although neither takes a processor.
    let (best, held) = finds(&mut trial, [300, 300, 50]);
    assert_eq!(best, Way::Defer);
    assert!(held <= 5 * SETTLED, "{held:?}");
    // Where it matters little which is found, each round may find another thing.
    let (best, held) = finds(&mut dense(), [102, 92, 102]);
    assert_eq!(best, Way::Defer);
    assert!(held >= 2 * SETTLED, "{held:?}");
}

#[test]
fn a_trial_that_disagrees_costs_little_too() {
    // Polling is far better, but not so sure: in each trial staying is once.
    let (mut trial, mut tried, periods) = (dense(), 0, 4000);
    for _ in 0..periods {
        tried += u32::from(!trial.is_settled());
        let lucky = trial.rounds.over() == 1;
        trial.ended(match trial.way() {
            Way::Stay if lucky => period(IDLE, 1900),
            Way::Poll => period(IDLE, 2000),
            _ => period(IDLE, 1000),
        });
    }
    assert_eq!(trial.best, Way::Poll);
    assert!(tried < periods / 10, "{tried} of {periods} periods were tried in");
}

#[test]
fn what_is_hopeless_is_seldom_tried() {
    // As is a poll that brings nothing.
    for (hopeless, commands) in [(Way::Stay, 500), (Way::Poll, 950)] {
        let (mut trial, mut tried) = (dense(), 0);
        for _ in 0..10_000 {
            let way = trial.way();
            tried += u32::from(way == hopeless);
            trial.ended(period(IDLE, if way == hopeless { commands } else { 1000 }));
        }
        assert!((3..15).contains(&tried), "{hopeless:?} in {tried} of 10000 periods");
    }
}

#[test]
fn a_change_calls_for_a_new_trial() {
    let mut trial = dense();
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
    // In a trial it is far better, afterwards it is not.
    for (better, afterwards) in [(Way::Stay, 1000), (Way::Defer, 800), (Way::Poll, 1000)] {
        let mut trial = dense();
        let mut done = 0;
        for _ in 0..1000 {
            let way = trial.way();
            done += u32::from(way == better);
            let commands = match () {
                () if way != better => 1000,
                () if trial.is_settled() => afterwards,
                () => 2000,
            };
            trial.ended(period(IDLE, commands));
        }
        assert!(done < 400, "{better:?} in {done} of 1000 periods");
    }
}

/// Periods that are half as good or half as bad again by chance, as on a machine with few processors.
#[test]
fn noise_is_no_change() {
    let (mut tried, mut dear, mut periods) = (0, 0, 0);
    for seed in 1..=8_u32 {
        let (mut trial, mut random) = (dense(), seed);
        for _ in 0..4000 {
            periods += 1;
            tried += u32::from(!trial.is_settled());
            dear += u32::from(trial.way() == Way::Poll);
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            trial.ended(period(IDLE, 1000 + (random >> 12) % 2000));
        }
    }
    assert!(tried < periods / 20, "{tried} of {periods} periods were tried in");
    assert!(dear < periods / 12, "polled in {dear} of {periods} periods");
}

/// In how many percent of many periods each way is used where others make the machine up to four times as slow, and fast again, every
/// few periods.
fn with_neighbours(rates: Each<u32>) -> Each<u32> {
    let mut times: Each<u32> = Each::default();
    for seed in 1..=8_u32 {
        let (mut trial, mut random, mut speed) = (dense(), seed * 77_777, 100);
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
            trial.ended(period(IDLE, rates[way] * speed / 100 * (90 + next(20)) / 100));
        }
    }
    times.map(|periods| periods / 80)
}

#[test]
fn neighbours_do_not_hide_what_is_better() {
    let times = with_neighbours([1000, 1000, 1000, 1400]);
    // The rest are mostly trials, which each change of the machine calls for.
    assert!(times[Way::Poll as usize] >= 65, "{times:?}");
    let times = with_neighbours([1000, 1000, 1000, 1100]);
    assert!(times[Way::Poll as usize] <= 20, "{times:?}");
}

#[test]
fn how_long_a_trial_holds_is_told_by_the_clock() {
    // The longest periods there are.
    let slow = Sum::of(PAUSE, PAUSE / 10, COMMANDS);
    let mut trial = dense();
    (0..ROUNDS * WAYS.len() as u32).for_each(|_| trial.ended(slow));
    let settled = (0..).take_while(|_| {
        trial.ended(slow);
        trial.is_settled()
    });
    let holds = PAUSE * settled.count() as u32;
    assert!((SETTLED..=3 * SETTLED).contains(&holds), "{holds:?}");
}

#[test]
fn trials_cost_little_of_what_they_find() {
    // Commands and milliseconds of the processor in a period, of sleeping and of polling; and what is found.
    for (sleeps, polls, found) in [
        ((1000, 10), (1300, 14), Way::Poll),
        ((1000, 10), (5000, 20), Way::Poll),
        ((1000, 10), (1100, 36), Way::Defer),
        ((1000, 10), (900, 10), Way::Defer),
    ] {
        let (mut trial, mut done, mut worked, mut periods) = (dense(), 0, 0_u64, 0_u32);
        // A trial, and what is done until the next one.
        for settled in [false, true] {
            while trial.is_settled() == settled {
                let (commands, milliseconds) = if trial.way() == Way::Poll { polls } else { sleeps };
                trial.ended(period(Duration::from_millis(milliseconds), commands));
                (done, worked, periods) = (done + commands, worked + milliseconds, periods + 1);
            }
        }
        let (commands, milliseconds) = if found == Way::Poll { polls } else { sleeps };
        assert_eq!(trial.best, found);
        assert!(done * 100 >= periods * commands * 97, "{found:?}: {done} in {periods} periods");
        let most = u64::from(periods) * (100 * milliseconds + 3 * PERIOD.as_millis() as u64);
        assert!(found == Way::Poll || worked * 100 <= most, "{worked} ms in {periods} periods");
    }
}

/// The machine gets slower just when a trial is over, so that polling does not do what it promised: it is held against sleeping on the slower
/// machine, not on the one before.
#[test]
fn a_machine_that_gets_slower_does_not_end_what_is_better() {
    let (mut trial, mut polled) = (dense(), 0);
    for _ in 0..200 {
        let way = trial.way();
        polled += u32::from(way == Way::Poll);
        let slower = if trial.best == Way::Poll { 2 } else { 1 };
        trial.ended(period(IDLE, if way == Way::Poll { 2000 } else { 1000 } / slower));
    }
    assert!(polled > 160, "polled in {polled} of 200 periods: {trial:?}");
}
