//! The states of a device, and the only ways from one to another. `docs/reliability.md` shows the same table; a test compares them.
use std::{fmt, time::Instant};

/// Where a device is in its life.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // of the variants' fields
pub enum State {
    /// Its facts are being read and its descriptor is being opened; after a take-over it is blocked and its ring is emptied.
    Preparing,
    /// Its handler's host isn't there.
    Waiting,
    /// Its handler opens it.
    Opening,
    /// It is served.
    Serving,
    /// It is being blocked before it is closed.
    Blocking,
    /// Its handler closes it.
    Closing,
    /// It can't be served; tried again at this time.
    Failed { reason: String, retry: Instant },
}

/// A [`State`] without what belongs to it, and the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Stage {
    New,
    Preparing,
    Waiting,
    Opening,
    Serving,
    Blocking,
    Closing,
    Failed,
    Gone,
}

use Stage::{Blocking, Closing, Failed, Gone, New, Opening, Preparing, Serving, Waiting};

/// What each may become.
pub const TABLE: [(Stage, &[Stage]); 8] = [
    // Serving, Opening and Closing: in a host that another supervisor started.
    (New, &[Preparing, Opening, Serving, Closing]),
    (Preparing, &[Waiting, Opening, Failed, Gone]),
    (Waiting, &[Opening, Preparing, Gone]),
    (Opening, &[Serving, Failed, Preparing, Gone]),
    (Serving, &[Blocking, Closing, Preparing]),
    (Blocking, &[Closing, Preparing, Gone]),
    (Closing, &[Closing, Preparing, Gone]),
    (Failed, &[Preparing, Gone]),
];

impl Stage {
    /// Whether there is a way.
    pub fn may_become(self, next: Stage) -> bool {
        TABLE.iter().any(|(stage, ways)| *stage == self && ways.contains(&next))
    }
}

impl State {
    /// Which state it is.
    pub fn stage(&self) -> Stage {
        match self {
            State::Preparing => Preparing,
            State::Waiting => Waiting,
            State::Opening => Opening,
            State::Serving => Serving,
            State::Blocking => Blocking,
            State::Closing => Closing,
            State::Failed { .. } => Failed,
        }
    }

    /// Whether its host has it.
    pub fn is_in_host(&self) -> bool {
        matches!(self, State::Opening | State::Serving | State::Blocking | State::Closing)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Waiting => f.write_str("waiting for its handler"),
            State::Failed { reason, .. } => write!(f, "failed: {reason}"),
            other => f.write_str(&format!("{:?}", other.stage()).to_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_shows_the_same_table() {
        let manual = include_str!("../../../../docs/reliability.md");
        for (stage, ways) in TABLE {
            let ways: Vec<String> = ways.iter().map(|way| format!("{way:?}")).collect();
            let row = format!("| {stage:?} | {} |", ways.join(", "));
            assert!(manual.lines().any(|line| line.starts_with(&row)), "docs/reliability.md lacks: {row}");
        }
        let rows = manual.lines().filter(|line| TABLE.iter().any(|(stage, _)| line.starts_with(&format!("| {stage:?} |"))));
        assert_eq!(rows.count(), TABLE.len(), "docs/reliability.md shows more");
    }
}
