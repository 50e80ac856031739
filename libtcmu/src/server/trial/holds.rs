//! For how long what a trial found holds.
use std::time::Duration;

use super::{
    measured::Sum,
    way::{GAINS, Way},
};

/// How long after a trial the next one is: twice as long each time that it finds what is about the same, half as long when it does not; and
/// at least so many times as long as what it cost, where its rounds agree, and where they do not.
pub(super) const SETTLED: Duration = Duration::from_millis(800);
const MOST_SETTLED: Duration = Duration::from_millis(38_400);
const AGREED: u32 = 50;
const DISAGREED: u32 = 10;
/// A rate that is so many times as high or as low as it was after the trial, in percent: something else is going on, which calls for a new
/// trial. Single periods differ as much by chance, so it is the average of about so many that counts.
const CHANGED: u64 = 160;
pub(super) const AVERAGED: u64 = 8;
/// What won a trial calls for another one when two periods in a row have less than one in so many of what it had then.
pub(super) const STALLED: u64 = 3;

/// What has happened since a trial ended, and how much its word is worth.
#[derive(Debug)]
pub(super) struct Holds {
    /// Time and periods since then, and the time until the next trial.
    since: Duration,
    periods: u64,
    pause: Duration,
    /// Commands a second after it, and on average of late.
    rate: u64,
    average: u64,
    /// What won got far less done in the last period.
    stalled: bool,
    /// What won got less done afterwards, which called for another trial; and after that too.
    doubted: bool,
    broken: bool,
}

/// What a period says of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It holds.
    Holds,
    /// It did not keep what it promised, again.
    Broken,
    /// It is time for another trial.
    Old,
    /// Something else is going on.
    Changed,
}

impl Holds {
    /// Where no trial was made yet.
    pub(super) fn new() -> Holds {
        Holds {
            since: Duration::ZERO,
            periods: 0,
            pause: SETTLED,
            rate: 0,
            average: 0,
            stalled: false,
            doubted: false,
            broken: false,
        }
    }

    /// What was found before this trial was doubted.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// A trial is over, which found what the one before did, or what is about as good; whether its rounds agree on that, and what it cost.
    pub(super) fn judged(&mut self, same: bool, alike: bool, agreed: bool, cost: Duration) {
        if !self.doubted {
            self.pause = if alike || self.broken { 2 * self.pause } else { self.pause / 2 };
            let worth = cost * if agreed { AGREED } else { DISAGREED };
            self.pause = self.pause.max(worth).clamp(SETTLED, MOST_SETTLED);
        }
        self.doubted &= same;
        (self.since, self.periods) = (Duration::ZERO, 0);
    }

    /// A period of what won a trial in which sleeping did that.
    pub(super) fn after(&mut self, best: Way, sleeping: Sum, period: Sum) -> Found {
        let (now, periods) = (period.rate(), self.periods);
        self.average = (self.average * periods.min(AVERAGED - 1) + now) / (periods + 1).min(AVERAGED);
        self.periods += 1;
        self.since += Duration::from_nanos(period.took);
        if periods < AVERAGED {
            self.rate = self.average;
        }
        // Once may be chance.
        let stalls = best != Way::Sleep && now < self.rate / STALLED;
        let stalled = std::mem::replace(&mut self.stalled, stalls);
        if stalls && stalled || self.average * 100 > self.rate * CHANGED || self.rate * 100 > self.average * CHANGED {
            *self = Holds::new();
            return Found::Changed;
        }
        if periods == 2 * AVERAGED && best != Way::Sleep {
            // By what a trial does to the load, or because the machine is slower now.
            let less = self.average * 100 < sleeping.rate() * u64::from(GAINS[best as usize].keeps);
            let again = self.doubted;
            self.doubted = less && !again;
            if less {
                self.broken |= again;
                return if again { Found::Broken } else { Found::Old };
            }
        }
        if self.since > self.pause { Found::Old } else { Found::Holds }
    }
}
