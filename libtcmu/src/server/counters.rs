//! What was done for a device: counted by the thread that serves it, in memory that anyone may read at any time.
//!
//! | module | subject |
//! |---|---|
//! | `histogram` | how long commands took |
//! | `kind` | what commands are counted as |
//! | `page` | the memory, which can be shared with another process |
mod histogram;
mod kind;
mod page;

use std::sync::atomic::{AtomicU64, Ordering};

pub use histogram::{BUCKETS, Histogram};
pub use kind::{KINDS, Kind};
pub use page::{Hold, Page};

/// Sense keys there can be (SPC-6 table 56).
const SENSE_KEYS: usize = 16;

/// A reading of a device's counters. Those in a page that outlives the process which serves the device go on with the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Of those, the ones whose status was another one than CHECK CONDITION.
    pub other_status: u64,
    /// Commands taken and not completed.
    pub in_flight: u64,
    /// The most that there ever were.
    pub in_flight_max: u64,
    /// Turns in which there was something to do.
    pub batches: u64,
    /// System calls that told the kernel of completions.
    pub kicks: u64,
    /// For how many calls of [`Server::grow_older`](super::Server::grow_older) the oldest command has been in flight.
    pub oldest: u64,
    /// Commands that took longer than [`Attach::slow`](super::Attach::slow).
    pub slow: u64,
    /// The device's size in bytes.
    pub size: u64,
    /// Commands that ended with CHECK CONDITION, by sense key.
    pub sense_keys: [u64; SENSE_KEYS],
    /// How long commands took from the ring and back, by what they were.
    pub latency: [Histogram; KINDS],
}

impl Counters {
    /// Adds what another device did. What only makes sense of one (its size, the age of its oldest command) stays.
    pub fn add(&mut self, other: &Counters) {
        let pairs = [
            (&mut self.commands, other.commands),
            (&mut self.reads, other.reads),
            (&mut self.writes, other.writes),
            (&mut self.bytes_read, other.bytes_read),
            (&mut self.bytes_written, other.bytes_written),
            (&mut self.errors, other.errors),
            (&mut self.other_status, other.other_status),
            (&mut self.in_flight, other.in_flight),
            (&mut self.batches, other.batches),
            (&mut self.kicks, other.kicks),
            (&mut self.slow, other.slow),
        ];
        for (sum, more) in pairs.into_iter().chain(self.sense_keys.iter_mut().zip(other.sense_keys)) {
            *sum = sum.wrapping_add(more);
        }
        for (sum, more) in self.latency.iter_mut().zip(&other.latency) {
            sum.add(more);
        }
    }
}

macro_rules! cells {
    ($($name:ident),*) => {
        /// The counters as the serving thread keeps them: it alone writes, anyone reads. Words only, in the same order for all who map them.
        #[derive(Debug, Default)]
        #[repr(C)]
        pub(crate) struct Cells {
            layout: Cell,
            $(pub(super) $name: Cell,)*
            sense_keys: [Cell; SENSE_KEYS],
            latency: [[Cell; BUCKETS + 1]; KINDS],
        }

        impl Counters {
            /// From the words of [`Cells`]; `None` if they are laid out otherwise. A page that nobody wrote to is one of zeros.
            fn of_words(words: &[u64; WORDS]) -> Option<Counters> {
                let mut words = words.iter().copied();
                let mut next = || words.next().unwrap_or(0);
                if !matches!(next(), 0 | LAYOUT) {
                    return None;
                }
                Some(Counters {
                    $($name: next(),)*
                    sense_keys: std::array::from_fn(|_| next()),
                    latency: std::array::from_fn(|_| Histogram {
                        buckets: std::array::from_fn(|_| next()),
                        nanoseconds: next(),
                    }),
                })
            }
        }
    };
}

cells!(
    commands,
    reads,
    writes,
    bytes_read,
    bytes_written,
    errors,
    other_status,
    in_flight,
    in_flight_max,
    batches,
    kicks,
    oldest,
    slow,
    size
);

const WORDS: usize = size_of::<Cells>() / size_of::<u64>();

/// Which words are what: counted up when that changes.
const LAYOUT: u64 = 1;

impl Cells {
    /// A process begins to serve the device: nothing is in flight.
    pub(super) fn begin(&self, size: u64) {
        self.layout.set(LAYOUT);
        self.in_flight.set(0);
        self.oldest.set(0);
        self.size.set(size);
    }

    /// Commands ended that took that long.
    pub(super) fn ended(&self, kind: Kind, nanoseconds: u64, commands: u64) {
        let latency = &self.latency[kind as usize];
        latency[histogram::bucket(nanoseconds)].add(commands);
        latency[BUCKETS].add(nanoseconds.wrapping_mul(commands));
    }

    /// A command ended with a status that is not GOOD.
    pub(super) fn failed(&self, sense_key: Option<u8>) {
        self.errors.add(1);
        match sense_key {
            Some(key) => self.sense_keys[usize::from(key) % SENSE_KEYS].add(1),
            None => self.other_status.add(1),
        }
    }

    pub(super) fn in_flight(&self, commands: u64) {
        self.in_flight.set(commands);
        if commands > self.in_flight_max.get() {
            self.in_flight_max.set(commands);
        }
    }
}

#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    #[inline]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds without a locked instruction: there is one writer.
    #[inline]
    pub(super) fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    #[inline]
    pub(super) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_read_from_where_it_was_written() {
        let page = Page::private();
        let cells = page.cells();
        cells.begin(5 << 30);
        cells.commands.add(3);
        cells.in_flight(9);
        cells.in_flight(4);
        cells.failed(Some(3));
        cells.failed(Some(0xf));
        cells.failed(None);
        cells.ended(Kind::Other, 1_500_000, 2);
        let counters = page.read();
        assert_eq!((counters.commands, counters.size, counters.in_flight, counters.in_flight_max), (3, 5 << 30, 4, 9));
        assert_eq!((counters.errors, counters.other_status, counters.sense_keys[3], counters.sense_keys[15]), (3, 1, 1, 1));
        let other = &counters.latency[Kind::Other as usize];
        assert_eq!((other.count(), other.nanoseconds, other.buckets[11]), (2, 3_000_000, 2));
        assert_eq!(counters.latency[..Kind::Other as usize], [Histogram::default(); KINDS - 1]);
    }

    #[test]
    fn sums_are_of_all_that_can_be_added() {
        let cells = Page::private();
        cells.cells().commands.add(2);
        cells.cells().ended(Kind::Read, 10, 2);
        cells.cells().failed(Some(5));
        let mut sum = cells.read();
        sum.add(&cells.read());
        assert_eq!((sum.commands, sum.errors, sum.sense_keys[5], sum.latency[0].count()), (4, 2, 2, 4));
    }

    #[test]
    fn a_page_of_another_layout_is_not_misread() {
        let mut words = [0; WORDS];
        assert_eq!(Counters::of_words(&words), Some(Counters::default()));
        words[0] = LAYOUT + 1;
        assert_eq!(Counters::of_words(&words), None);
    }
}
