//! The memory that the kernel and this process share: mailbox, command ring, data area.
//!
//! The other side writes to it whenever it likes, so there is never a Rust reference to it: only raw pointers from checked ranges,
//! atomic loads and stores, and copies.
use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    fmt, io,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};

/// A shared region. Unmapped when the last owner goes.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    memory: Memory,
}

enum Memory {
    /// A UIO device's map0.
    Mapped,
    /// Plain memory, for the simulated kernel.
    Heap(Layout),
}

// SAFETY: the region is only reached through raw pointers, atomics and copies, which any thread may use.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// A range that isn't within the mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at offset {offset} are not within the {map} bytes of the mapping")]
pub struct OutOfMapping {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Bytes of the mapping.
    pub map: u64,
}

impl Mapping {
    /// Maps a UIO device. `len` must be exactly the size in `maps/map0/size`, else the kernel refuses (`drivers/uio/uio.c`,
    /// `uio_mmap`).
    pub fn of_uio(fd: impl AsFd, len: usize) -> io::Result<Mapping> {
        // Nothing may be reached at first: where the process locks its memory as it is used (`MCL_FUTURE | MCL_ONFAULT`), Linux (6.1)
        // touches each page of a mapping that can't be locked, as this one, and here complains of those of the data area that do not
        // exist yet. It leaves those alone that may not be read.
        // SAFETY: a new mapping, wherever the kernel wants it, of memory that Rust knows nothing of.
        let base = unsafe { mmap(ptr::null_mut(), len, ProtFlags::empty(), MapFlags::SHARED, fd, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        let mapping = Mapping { base, len, memory: Memory::Mapped };
        // SAFETY: the mapping from above, which nobody has a pointer to.
        unsafe { mprotect(base.as_ptr().cast(), len, MprotectFlags::READ | MprotectFlags::WRITE)? };
        Ok(mapping)
    }

    /// A region of zeros in plain memory, aligned to a page.
    pub fn of_memory(len: usize) -> io::Result<Mapping> {
        let layout = Layout::from_size_align(len.max(1), 4096).map_err(io::Error::other)?;
        // SAFETY: the layout isn't of size zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len, memory: Memory::Heap(layout) })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A pointer to `len` bytes at `offset`. Valid as long as the mapping; others may write there at any time.
    #[inline]
    pub fn at(&self, offset: u64, len: u64) -> Result<NonNull<u8>, OutOfMapping> {
        match offset.checked_add(len) {
            // SAFETY: within the region.
            Some(end) if end <= self.len as u64 => Ok(unsafe { self.base.add(offset as usize) }),
            _ => Err(OutOfMapping { offset, len, map: self.len as u64 }),
        }
    }

    /// Copies out of the region.
    #[inline]
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfMapping> {
        let from = self.at(offset, into.len() as u64)?;
        // SAFETY: checked by `at`; the slice is private memory and so does not overlap.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies into the region.
    #[inline]
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfMapping> {
        let to = self.at(offset, from.len() as u64)?;
        // SAFETY: as in `read`.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), from.len()) };
        Ok(())
    }

    /// A plain value, in native byte order.
    #[inline]
    pub fn load<const N: usize>(&self, offset: u64) -> Result<[u8; N], OutOfMapping> {
        let from = self.at(offset, N as u64)?;
        // SAFETY: checked by `at`; volatile, because the value is used to decide and must be read once.
        Ok(unsafe { from.as_ptr().cast::<[u8; N]>().read_volatile() })
    }

    /// Loads a 32-bit index that the other side stores.
    #[inline]
    pub fn load_u32(&self, offset: u64, order: Ordering) -> Result<u32, OutOfMapping> {
        Ok(self.atomic(offset)?.load(order))
    }

    /// Stores a 32-bit index that the other side loads.
    #[inline]
    pub fn store_u32(&self, offset: u64, value: u32, order: Ordering) -> Result<(), OutOfMapping> {
        self.atomic(offset)?.store(value, order);
        Ok(())
    }

    #[inline]
    fn atomic(&self, offset: u64) -> Result<&AtomicU32, OutOfMapping> {
        let at = self.at(offset, 4)?;
        if !offset.is_multiple_of(4) {
            return Err(OutOfMapping { offset, len: 4, map: self.len as u64 });
        }
        // SAFETY: within the region, aligned (the base is aligned to a page); both sides use it atomically.
        Ok(unsafe { AtomicU32::from_ptr(at.as_ptr().cast()) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        match self.memory {
            Memory::Mapped => {
                // SAFETY: mapped with this length; no pointer outlives the mapping.
                let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
            }
            // SAFETY: allocated with this layout.
            Memory::Heap(layout) => unsafe { dealloc(self.base.as_ptr(), layout) },
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_outside_are_refused() {
        let map = Mapping::of_memory(4096).unwrap();
        assert!(map.at(4096, 0).is_ok());
        assert!(map.at(4095, 2).is_err());
        assert!(map.at(u64::MAX, 2).is_err());
        assert!(map.load_u32(2, Ordering::Relaxed).is_err(), "unaligned");
    }
}
