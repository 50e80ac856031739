//! The rounds of a trial, in each of which every way has its turn, and what they found.
use std::time::Duration;

use super::{
    measured::{Beside, Sum, part},
    way::{Each, GAINS, WAYS, Way},
};

/// A trial has so many rounds.
pub(super) const ROUNDS: u32 = 3;
/// A poll is not worth it that makes a command so much dearer, in percent: its processor time grows by a larger factor than commands a second
/// do, times this. A little more would get done for a whole processor.
const DEAR: u32 = 125;
/// Of two ways that take no processor, it matters little which is chosen if one gets so much of what the other does, in percent.
const ALIKE: u32 = 87;

/// Of this trial, and what is left of those before.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// How many are over.
    over: u32,
    /// What the ways did in this round, those that had their turn.
    turns: Each<Sum>,
    /// What each did in this trial.
    done: Each<Sum>,
    /// In how many rounds of this trial each did so much more than sleeping that it might be chosen.
    passed: Each<u32>,
    /// In how many each would have won by itself, or been about as good as what did.
    fitted: Each<u32>,
    /// What they did in this trial and, half as much each time, in those before.
    beside: Each<Beside>,
}

impl Rounds {
    /// The first one of the next trial begins.
    pub(super) fn begin(&mut self) {
        *self = Rounds { beside: self.beside.map(Beside::halved), ..Rounds::default() };
    }

    /// How many are over.
    pub(super) fn over(&self) -> u32 {
        self.over
    }

    /// A way had its turn.
    pub(super) fn had_its_turn(&mut self, way: Way, turn: Sum) {
        let way = way as usize;
        (self.turns[way], self.done[way]) = (turn, self.done[way].and(turn));
    }

    /// What a way did in this round.
    pub(super) fn turn(&self, way: Way) -> Sum {
        self.turns[way as usize]
    }

    /// What sleeping did in this trial.
    pub(super) fn sleeping(&self) -> Sum {
        self.done[Way::Sleep as usize]
    }

    /// Each way had its turn: what wins by this round alone.
    pub(super) fn end(&mut self) -> Way {
        let turns = std::mem::take(&mut self.turns);
        let mut alone: Each<Beside> = Each::default();
        for way in (1..WAYS.len()).filter(|way| turns[*way].commands > 0) {
            // The best of several that differ by chance only would seldom be beaten.
            let (rate, sleeping) = (turns[way].rate(), turns[Way::Sleep as usize]);
            for beside in [&mut alone[way], &mut self.beside[way]] {
                beside.add(turns[way], sleeping);
            }
            self.passed[way] += u32::from(rate * 100 >= sleeping.rate() * u64::from(GAINS[way].wins));
        }
        self.over += 1;
        let (found, _) = winner(&alone, |way| turns[way as usize].commands > 0);
        for way in WAYS.into_iter().filter(|way| turns[*way as usize].commands > 0) {
            self.fitted[way as usize] += u32::from(are_alike(&alone, way, found));
        }
        found
    }

    /// Each of them found this, or what is about as good.
    pub(super) fn agree_on(&self, best: Way) -> bool {
        self.fitted[best as usize] == self.over
    }

    /// By all of them, it matters little which of these is chosen.
    pub(super) fn are_alike(&self, way: Way, other: Way) -> bool {
        are_alike(&self.beside, way, other)
    }

    /// What wins, and how many times as much gets done by it as by sleeping. What has a price does not win by chance: by most rounds, not only
    /// by one in which it did much.
    pub(super) fn winner(&self) -> (Way, f64) {
        let tried = |way: Way| self.done[way as usize].commands > 0;
        winner(&self.beside, |way| tried(way) && (way.is_free() || 2 * self.passed[way as usize] > self.over))
    }

    /// A way was tried in vain, where the best one does so many times as much as sleeping.
    pub(super) fn is_hopeless(&self, way: Way, best: f64) -> bool {
        let at = way as usize;
        self.done[at].commands > 0 && self.passed[at] == 0 && self.beside[at].rate() < best * part(GAINS[at].hopeless)
    }

    /// What this trial cost, beside doing what it found: the time in which less was done, or in which a processor was taken for it.
    pub(super) fn cost(&self, best: Way) -> Duration {
        let best = self.done[best as usize];
        WAYS.into_iter().map(|way| self.done[way as usize].lost_beside(best, way.changing() * self.over)).sum()
    }

    /// Tells what was found.
    pub(super) fn log(&self, best: Way, busy: bool) {
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
            rounds = self.over,
            busy,
            ?best,
            "commands a second of a reactor that sleeps, and what the other ways do beside that"
        );
    }
}

/// What wins of those that may, and how many times as much gets done by it as by sleeping.
fn winner(beside: &Each<Beside>, may: impl Fn(Way) -> bool) -> (Way, f64) {
    let mut winner = (Way::Sleep, 1.0);
    for way in WAYS.into_iter().skip(1).filter(|way| may(*way)) {
        let (beside, wins) = (beside[way as usize], GAINS[way as usize].wins);
        let dear = !way.is_free() && beside.work() > beside.rate() * part(DEAR);
        if !dear && beside.rate() >= winner.1 * part(wins) {
            winner = (way, beside.rate());
        }
    }
    winner
}

/// It matters little which of these is chosen.
fn are_alike(beside: &Each<Beside>, way: Way, other: Way) -> bool {
    let rates = [way, other].map(|way| beside[way as usize].rate());
    way == other || way.is_free() && other.is_free() && rates[0].min(rates[1]) >= rates[0].max(rates[1]) * part(ALIKE)
}
