//! What was done in a period of a trial, and how ways are compared by it.
use std::time::Duration;

/// Nanoseconds on the wall and of the processor, and the commands that were done in them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) took: u64,
    pub(super) worked: u64,
    pub(super) commands: u64,
}

impl Sum {
    pub(super) fn of(took: Duration, worked: Duration, commands: u32) -> Sum {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Sum { took: nanoseconds(took), worked: nanoseconds(worked), commands: commands.into() }
    }

    pub(super) fn and(self, more: Sum) -> Sum {
        Sum { took: self.took + more.took, worked: self.worked + more.worked, commands: self.commands + more.commands }
    }

    /// Commands a second.
    pub(super) fn rate(self) -> u64 {
        self.commands.saturating_mul(1_000_000_000) / self.took.max(1)
    }

    /// Nanoseconds of the processor for each command.
    pub(super) fn work(self) -> u64 {
        self.worked / self.commands.max(1)
    }

    /// How much of this time, and of some before it that went the same way, was lost, if `best` is what could have been done in it: by fewer
    /// commands, or by more of a processor.
    pub(super) fn lost_beside(self, best: Sum, before: Duration) -> Duration {
        if self.took == 0 {
            return Duration::ZERO;
        }
        let part = |a: u64, b: u64| a as f64 / b.max(1) as f64;
        let fewer = 1.0 - part(self.rate(), best.rate());
        let busier = part(self.worked, self.took) - part(best.worked, best.took);
        (before + Duration::from_nanos(self.took)).mul_f64(fewer.max(busier).clamp(0.0, 1.0))
    }
}

/// What a way does, beside what sleeping did in the same rounds: on a machine that others share everything may be half as fast in the next
/// one. Logarithms of factors, so that a round in which it was twice as much and one in which it was half as much cancel out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beside {
    rate: f64,
    work: f64,
    pub(super) rounds: f64,
}

impl Beside {
    pub(super) fn add(&mut self, turn: Sum, sleeping: Sum) {
        let factor = |a: u64, b: u64| (a.max(1) as f64 / b.max(1) as f64).ln();
        self.rate += factor(turn.rate(), sleeping.rate());
        self.work += factor(turn.work(), sleeping.work());
        self.rounds += 1.0;
    }

    pub(super) fn halved(self) -> Beside {
        Beside { rate: self.rate / 2.0, work: self.work / 2.0, rounds: self.rounds / 2.0 }
    }

    /// How many times as many commands a second.
    pub(super) fn rate(self) -> f64 {
        (self.rate / self.rounds.max(0.1)).exp()
    }

    /// How many times as much of the processor for each.
    pub(super) fn work(self) -> f64 {
        (self.work / self.rounds.max(0.1)).exp()
    }
}

/// Of a whole.
pub(super) fn part(percent: u32) -> f64 {
    f64::from(percent) / 100.0
}
