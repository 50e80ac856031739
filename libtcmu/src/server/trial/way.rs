//! What a reactor may do when there is nothing to do, and what that has to bring.

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
}

/// Something of each way, in that order.
pub(super) type Each<T> = [T; WAYS.len()];
/// Of these, where nothing else may be tried.
pub(super) const ONLY_SLEEP: Each<bool> = [true, false, false, false];

/// What a way has to get done to win, in percent of what sleeping did in most rounds, and on average of what the best of those before it did;
/// and afterwards, of what sleeping did, or the trial was wrong. Giving way makes each command cheaper, so that it need not get more done; who stays cannot go where there is more room; a poll
/// takes a processor.
pub(super) const GAINS: Each<Gain> = [
    Gain { wins: 100, keeps: 100 },
    Gain { wins: 110, keeps: 104 },
    Gain { wins: 97, keeps: 90 },
    Gain { wins: 125, keeps: 112 },
];

/// What a way has to bring.
pub(super) struct Gain {
    pub(super) wins: u32,
    pub(super) keeps: u32,
}
