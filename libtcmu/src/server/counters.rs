//! What was done for a device.
use std::sync::atomic::{AtomicU64, Ordering};

/// A reading of a device's counters, since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commands taken from the ring.
    pub commands: u64,
    /// READ commands that went to the handler.
    pub reads: u64,
    /// WRITE commands that went to the handler.
    pub writes: u64,
    /// Bytes of those reads.
    pub bytes_read: u64,
    /// Bytes of those writes.
    pub bytes_written: u64,
    /// Commands that ended with anything but GOOD.
    pub errors: u64,
    /// Commands taken and not completed.
    pub in_flight: u64,
    /// Turns in which there was something to do.
    pub batches: u64,
    /// System calls that told the kernel of completions.
    pub kicks: u64,
    /// For how many calls of [`Server::grow_older`](super::Server::grow_older) the oldest command has been in flight.
    pub oldest: u64,
}

macro_rules! cells {
    ($($name:ident),*) => {
        /// The counters as the serving thread keeps them: it alone writes, anyone reads.
        #[derive(Debug, Default)]
        pub(super) struct Cells { $(pub(super) $name: Cell),* }

        impl Cells {
            pub(super) fn read(&self) -> Counters {
                Counters { $($name: self.$name.0.load(Ordering::Relaxed)),* }
            }
        }
    };
}

cells!(commands, reads, writes, bytes_read, bytes_written, errors, in_flight, batches, kicks, oldest);

#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    /// Adds without a locked instruction: there is one writer.
    #[inline]
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
}
