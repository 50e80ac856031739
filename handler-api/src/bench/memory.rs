//! Data buffers in segments, each between guard bytes.
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};

use libc::iovec;

/// Guard bytes before and after each segment, at least.
const GUARD: usize = 64;

/// How data is cut into segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// Lengths of the first segments; the last of them repeats. Empty: one segment.
    pub(super) lengths: Vec<usize>,
    /// Bytes by which each segment misses a 64-byte boundary.
    pub(super) misalign: usize,
    /// What the handler needs (a power of two); wins over the others.
    pub(super) alignment: usize,
}

impl Cut {
    /// The lengths of all segments of `len` bytes.
    fn split(&self, len: usize) -> Vec<usize> {
        let unit = self.alignment.max(1);
        let mut parts = Vec::new();
        let mut left = len;
        let mut wanted = self.lengths.iter();
        let mut size = 0;
        while left > 0 {
            if let Some(next) = wanted.next() {
                size = *next;
            }
            // Whole units only; no setting leads to an endless loop.
            let part = if size == 0 { left } else { size.max(1).next_multiple_of(unit) }.min(left);
            parts.push(part);
            left -= part;
        }
        parts
    }
}

/// Memory for one transfer. Only ever reached through raw pointers: the handler has them too.
#[derive(Debug)]
pub(super) struct Memory {
    arena: *mut u8,
    layout: Layout,
    iov: Vec<iovec>,
}

// SAFETY: plain memory, whose sharing with a handler follows the rules of the ABI.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// What an arena holds at first, over and over. Neighbours differ, so that a shifted guard is a changed one.
static PATTERN: [u8; 4096] = {
    let mut pattern = [0; 4096];
    let mut at = 0;
    while at < pattern.len() {
        pattern[at] = (at as u8).wrapping_mul(37) ^ 0xa5;
        at += 1;
    }
    pattern
};

impl Memory {
    /// `len` bytes, cut so. They hold the guard pattern until something is put there.
    pub(super) fn new(len: usize, cut: &Cut) -> Memory {
        let alignment = cut.alignment.max(64);
        let misalign = if cut.alignment > 1 { 0 } else { cut.misalign % 64 };
        let mut places = Vec::new();
        let mut end = 0;
        for part in cut.split(len) {
            let start = (end + GUARD).next_multiple_of(alignment) + misalign;
            places.push((start, part));
            end = start + part;
        }
        let layout = Layout::from_size_align(end + GUARD, alignment).expect("a transfer that fits in memory");
        // SAFETY: the size is at least GUARD, so not 0.
        let arena = unsafe { alloc(layout) };
        if arena.is_null() {
            handle_alloc_error(layout);
        }
        for at in (0..layout.size()).step_by(PATTERN.len()) {
            let len = PATTERN.len().min(layout.size() - at);
            // SAFETY: within the arena, which does not overlap a static.
            unsafe { PATTERN.as_ptr().copy_to_nonoverlapping(arena.add(at), len) };
        }
        let iov = places
            .into_iter()
            // SAFETY: within the arena.
            .map(|(start, part)| iovec { iov_base: unsafe { arena.add(start) }.cast(), iov_len: part })
            .collect();
        Memory { arena, layout, iov }
    }

    pub(super) fn iov(&self) -> &[iovec] {
        &self.iov
    }

    /// Bytes taken.
    pub(super) fn footprint(&self) -> usize {
        self.layout.size()
    }

    /// Puts data there, from the start.
    pub(super) fn put(&self, mut data: &[u8]) {
        for segment in &self.iov {
            let len = segment.iov_len.min(data.len());
            // SAFETY: our own segment; a slice never overlaps the arena.
            unsafe { data.as_ptr().copy_to_nonoverlapping(segment.iov_base.cast(), len) };
            data = &data[len..];
        }
    }

    /// A copy of what is there.
    pub(super) fn get(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.iov.iter().map(|s| s.iov_len).sum());
        for segment in &self.iov {
            // SAFETY: our own segment, initialised by `new`; the copy is made in one go, no reference stays.
            data.extend_from_slice(unsafe { std::slice::from_raw_parts(segment.iov_base.cast::<u8>(), segment.iov_len) });
        }
        data
    }

    /// What was written outside of the segments, if anything was.
    pub(super) fn trespass(&self) -> Option<String> {
        let mut at = 0;
        for (n, segment) in self.iov.iter().enumerate() {
            let start = segment.iov_base as usize - self.arena as usize;
            if let Some(hit) = self.changed(at, start) {
                return Some(format!("{} bytes before segment {} of {}", start - hit, n + 1, self.iov.len()));
            }
            at = start + segment.iov_len;
            let next = self.iov.get(n + 1).map_or(self.layout.size(), |s| s.iov_base as usize - self.arena as usize);
            if let Some(hit) = self.changed(at, next.min(at + GUARD)) {
                return Some(format!("{} bytes behind the end of segment {} of {}", hit - at, n + 1, self.iov.len()));
            }
        }
        self.changed(at, self.layout.size()).map(|_| "outside of the buffer".to_owned())
    }

    /// The first position from `from` to `to` that is not its guard byte.
    fn changed(&self, from: usize, to: usize) -> Option<usize> {
        let mut at = from;
        while at < to {
            let phase = at % PATTERN.len();
            let len = (PATTERN.len() - phase).min(to - at);
            // SAFETY: within the arena, which is initialised; no reference stays.
            let run = unsafe { std::slice::from_raw_parts(self.arena.add(at), len) };
            if *run != PATTERN[phase..phase + len] {
                return (0..len).find(|n| run[*n] != PATTERN[phase + n]).map(|n| at + n);
            }
            at += len;
        }
        None
    }

    /// All bytes, guards included.
    fn bytes(&self) -> &[u8] {
        // SAFETY: the whole arena is initialised. A handler that writes here now breaks its contract; callers copy or compare at once.
        unsafe { std::slice::from_raw_parts(self.arena, self.layout.size()) }
    }

    /// A copy of everything, to see later whether it has changed.
    pub(super) fn seal(&self) -> Box<[u8]> {
        self.bytes().into()
    }

    /// Whether nothing has changed since.
    pub(super) fn is_sealed(&self, seal: &[u8]) -> bool {
        self.bytes() == seal
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.arena, self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(lengths: &[usize], misalign: usize) -> Cut {
        Cut { lengths: lengths.to_vec(), misalign, alignment: 0 }
    }

    #[test]
    fn data_goes_through_any_cut() {
        let data: Vec<u8> = (0..=255).collect();
        for cut in [cut(&[], 0), cut(&[1], 3), cut(&[3, 5, 7], 1), cut(&[300], 0)] {
            let memory = Memory::new(256, &cut);
            memory.put(&data);
            assert_eq!(memory.get(), data, "{cut:?}");
            assert_eq!(memory.trespass(), None);
        }
        assert_eq!(Memory::new(256, &cut(&[1], 0)).iov().len(), 256);
        assert!(Memory::new(0, &cut(&[1], 0)).iov().is_empty());
    }

    #[test]
    fn an_alignment_wins_over_the_cut() {
        let memory = Memory::new(2048, &Cut { lengths: vec![1], misalign: 3, alignment: 512 });
        assert_eq!(memory.iov().len(), 4);
        assert!(memory.iov().iter().all(|s| (s.iov_base as usize).is_multiple_of(512)));
    }

    #[test]
    fn a_byte_written_outside_is_found_with_its_place() {
        let memory = Memory::new(8, &cut(&[4], 0));
        let (first, second) = (memory.iov()[0].iov_base.cast::<u8>(), memory.iov()[1].iov_base.cast::<u8>());
        let seal = memory.seal();
        assert!(memory.is_sealed(&seal));
        // SAFETY: guard bytes of the arena.
        unsafe { first.add(4).write(!first.add(4).read()) };
        assert_eq!(memory.trespass().as_deref(), Some("0 bytes behind the end of segment 1 of 2"));
        assert!(!memory.is_sealed(&seal));
        // SAFETY: as above.
        unsafe {
            first.add(4).write(!first.add(4).read());
            second.sub(2).write(!second.sub(2).read());
        }
        assert!(memory.trespass().is_some());
    }
}
