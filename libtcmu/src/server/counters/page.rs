//! The memory that a device's counters are in: this process's own, or a page that it shares with those who read them.
use std::{
    fmt, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr::NonNull,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};

use super::{Cells, Counters, WORDS};

/// Bytes of a page, whatever the machine's pages are.
const SIZE: usize = 4096;
const _: () = assert!(size_of::<Cells>() <= SIZE && size_of::<Cells>() == WORDS * 8);

/// Where the counters of a device are.
pub struct Page {
    cells: NonNull<Cells>,
    /// `None`: the cells are in a box of our own.
    map: Option<memmap2::MmapRaw>,
}

/// A shared page that stays in memory as long as this is there ([`Page::hold`]).
#[derive(Debug)]
pub struct Hold(#[allow(dead_code, reason = "held for its drop")] memmap2::MmapRaw);

// SAFETY: the cells are atomics.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    /// Memory of this process.
    pub fn private() -> Page {
        Page { cells: NonNull::from(Box::leak(Box::<Cells>::default())), map: None }
    }

    /// A page of zeros to be shared: nobody can make it shorter, so that those who map it are safe. Counters in there last as long as
    /// somebody has the descriptor.
    pub fn create() -> io::Result<OwnedFd> {
        let fd = memfd_create("tcmu-counters", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, SIZE as u64)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(fd)
    }

    /// A page that [`Page::create`] made. What is counted goes on from what is in there.
    pub fn shared(fd: impl AsFd) -> io::Result<Page> {
        let fd = fd.as_fd();
        if fstat(fd)?.st_size < SIZE as i64 {
            return Err(io::Error::other("the page of counters is too short"));
        }
        let map = memmap2::MmapOptions::new().len(SIZE).map_raw(fd.as_raw_fd())?;
        let cells = NonNull::new(map.as_mut_ptr()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Page { cells: cells.cast(), map: Some(map) })
    }

    /// Keeps a shared page in memory, whoever maps it or does not: swapped out while nobody did, it could be on a disk that waits for whoever
    /// is to count in it. Nothing in there is looked at.
    pub fn hold(fd: impl AsFd) -> io::Result<Hold> {
        let map = memmap2::MmapOptions::new().len(SIZE).map_raw(fd.as_fd().as_raw_fd())?;
        map.lock()?;
        Ok(Hold(map))
    }

    /// Reads a shared page without mapping it: whoever else has it can do no harm. `InvalidData` if its counters are laid out otherwise.
    pub fn read_from(fd: impl AsFd) -> io::Result<Counters> {
        let mut bytes = [0; WORDS * 8];
        if rustix::io::pread(fd, &mut bytes, 0)? < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let words = std::array::from_fn(|word| {
            let bytes = bytes[8 * word..].first_chunk();
            u64::from_ne_bytes(*bytes.unwrap_or(&[0; 8]))
        });
        Counters::of_words(&words).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "another version's counters"))
    }

    /// What is in there now.
    pub fn read(&self) -> Counters {
        let words: NonNull<super::Cell> = self.cells.cast();
        // SAFETY: `Cells` is nothing but so many cells, one after the other.
        let words = std::array::from_fn(|word| unsafe { words.add(word).as_ref() }.get());
        Counters::of_words(&words).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn cells(&self) -> &Cells {
        // SAFETY: valid as long as `self`: a leaked box, or a mapping that can't get shorter; only atomics, so others may write too.
        unsafe { self.cells.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if self.map.is_none() {
            // SAFETY: leaked in `private`.
            drop(unsafe { Box::from_raw(self.cells.as_ptr()) });
        }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("shared", &self.map.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::counters::Kind;

    #[test]
    fn what_one_counts_the_other_reads_and_the_next_goes_on_with() {
        let fd = Page::create().unwrap();
        assert_eq!(Page::read_from(&fd).unwrap(), Counters::default());
        for times in 1..=2 {
            let page = Page::shared(&fd).unwrap();
            page.cells().begin(7);
            page.cells().commands.add(3);
            page.cells().ended(Kind::Flush, 5000, 1);
            let counters = Page::read_from(&fd).unwrap();
            assert_eq!(counters, page.read());
            assert_eq!((counters.commands, counters.latency[Kind::Flush as usize].count()), (3 * times, times));
        }
    }

    #[test]
    fn a_page_that_is_held_is_locked_and_can_be_used() {
        let fd = Page::create().unwrap();
        let held = Page::hold(&fd).unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mapping = format!("{:x}-", held.0.as_ptr() as usize);
        let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&mapping));
        assert!(lines.next().unwrap().contains("tcmu-counters"));
        assert!(lines.find(|line| line.starts_with("VmFlags")).unwrap().contains(" lo"));
        Page::shared(&fd).unwrap().cells().begin(1);
    }

    #[test]
    fn nobody_can_take_the_page_away() {
        let fd = Page::create().unwrap();
        assert!(ftruncate(&fd, 0).is_err());
        let empty = tempfile::tempfile().unwrap();
        assert!(Page::shared(&empty).is_err() && Page::read_from(&empty).is_err());
    }
}
