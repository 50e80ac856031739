//! What a reactor may do when there is nothing to do, and what that has to bring.
use std::time::Duration;

/// How long it takes until things are as they are with a way. Longest where nothing keeps it on its processor any more: until the scheduler
/// has moved it, and those whose commands it does, they are as they were.
const CHANGING: Duration = Duration::from_millis(15);
const SCATTERING: Duration = Duration::from_millis(80);

/// What to do when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Way {
    /// Sleep at once.
    Sleep,
    /// Sleep at once, and stay on one processor.
    Stay,
    /// Sleep at once, stay on one processor, and let others have it first.
    Defer,
    /// Look as long as it is allowed, and nobody else wants the processor.
    Poll,
}

pub(super) const WAYS: [Way; 4] = [Way::Sleep, Way::Stay, Way::Defer, Way::Poll];

impl Way {
    /// It takes no processor: no more depends on the choice between two of these than what they get done.
    pub(super) fn is_free(self) -> bool {
        self != Way::Poll
    }

    /// It lets others have the processor first.
    pub(super) fn gives_way(self) -> bool {
        matches!(self, Way::Defer | Way::Poll)
    }

    /// It stays on one processor.
    pub(super) fn stays(self) -> bool {
        matches!(self, Way::Stay | Way::Defer)
    }

    /// How long it takes until things are as they are with it.
    pub(super) fn changing(self) -> Duration {
        if self == Way::Sleep { SCATTERING } else { CHANGING }
    }
}

/// Something of each way, in that order.
pub(super) type Each<T> = [T; WAYS.len()];
/// Of these, where nothing else may be tried.
pub(super) const ONLY_SLEEP: Each<bool> = [true, false, false, false];

/// Giving way makes each command cheaper, so that it need not get more done; who stays cannot go where there is more room; a poll takes a
/// processor, and so does trying one that brings nothing.
pub(super) const GAINS: Each<Gain> = [
    Gain { wins: 100, keeps: 100, hopeless: 0 },
    Gain { wins: 110, keeps: 104, hopeless: 75 },
    Gain { wins: 97, keeps: 90, hopeless: 75 },
    Gain { wins: 125, keeps: 112, hopeless: 100 },
];

/// What a way has to bring, in percent.
pub(super) struct Gain {
    /// To win: on average, of what the best of those before it did; and if it takes a processor, of what sleeping did in most rounds.
    pub(super) wins: u32,
    /// Afterwards, of what sleeping did: or the trial was wrong.
    pub(super) keeps: u32,
    /// Of what the best one did: or, if it never passed, it is not tried for a while.
    pub(super) hopeless: u32,
}
