//! A command entry of the ring (`struct tcmu_cmd_entry`): the memory of a request, which a response will be written over.
//!
//! Its range is checked once, by whoever makes it; after that the fixed fields need no checks, since an entry is never shorter than
//! a response, and what is variable is checked against the entry's own length.
use std::{marker::PhantomData, ptr::NonNull};

use super::{
    MAX_CDB,
    layout::{self, header, response},
    region::Region,
};

/// A command entry. At least [`response::END`] bytes, at a multiple of 8.
#[derive(Clone, Copy)]
pub(super) struct Entry<'m> {
    start: NonNull<u8>,
    len: usize,
    _region: PhantomData<&'m Region>,
}

/// How long a CDB is, by the upper bits of its first byte (SPC-6 4.2.5.1); 0 where these don't tell.
const CDB_LENGTH: [u8; 8] = [6, 10, 10, 0, 16, 12, 0, 0];

impl<'m> Entry<'m> {
    /// An entry.
    ///
    /// # Safety
    /// There are `len` bytes at `start`, which is a multiple of 8, in the region; and `len` is at least [`response::END`].
    #[inline]
    pub(super) unsafe fn new(start: NonNull<u8>, len: u32) -> Entry<'m> {
        debug_assert!(len >= response::END && start.as_ptr().addr().is_multiple_of(layout::ALIGN as usize));
        Entry { start, len: len as usize, _region: PhantomData }
    }

    /// The word at this byte. Each is to be loaded once, so that what is checked is what is used.
    #[inline]
    pub(super) fn word<const AT: u64>(self) -> u64 {
        const { assert!(AT + 8 <= response::END as u64 && AT.is_multiple_of(8)) };
        // SAFETY: within the entry, which is at least so long, and aligned; volatile, since the other side may write to it.
        unsafe { self.start.add(AT as usize).cast::<u64>().read_volatile() }
    }

    /// The iovecs that begin at byte `FROM`. `None` if the entry does not hold so many.
    #[inline]
    pub(super) fn iovecs<const FROM: u64>(self, count: u64) -> Option<Iovecs<'m>> {
        const { assert!(FROM <= response::END as u64 && FROM.is_multiple_of(8)) };
        if count > (self.len as u64 - FROM) / layout::IOVEC {
            return None;
        }
        // SAFETY: `FROM` is within the entry, which is at least so long.
        let next = unsafe { self.start.add(FROM as usize) }.cast();
        Some(Iovecs { next, left: count as usize, _region: PhantomData })
    }

    /// Copies the CDB that begins at byte `at`. Its first byte tells how long it is; where that doesn't, it goes to the entry's end, or
    /// 16 bytes. `None` if the entry does not hold it.
    #[inline]
    pub(super) fn cdb(self, at: u64, into: &mut [u8; MAX_CDB]) -> Option<usize> {
        let room = (self.len as u64).checked_sub(at)? as usize;
        if room < 16 {
            return self.short_cdb(at as usize, into);
        }
        self.copy::<16>(at as usize, into)?;
        match CDB_LENGTH[usize::from(into[0] >> 5)] {
            0 => self.odd_cdb(at as usize, room, into),
            len => Some(usize::from(len)),
        }
    }

    /// As [`Entry::cdb`], of one at the entry's end: such are multiples of 8 bytes long, and so is where the kernel puts a CDB.
    #[inline(never)]
    fn short_cdb(self, at: usize, into: &mut [u8; MAX_CDB]) -> Option<usize> {
        self.copy::<8>(at, into)?;
        let room = self.len - at;
        match usize::from(CDB_LENGTH[usize::from(into[0] >> 5)]) {
            0 => self.odd_cdb(at, room, into),
            len => (len <= room).then_some(len),
        }
    }

    /// The length of a CDB of which the first bytes are copied, and the rest of it.
    #[cold]
    #[inline(never)]
    fn odd_cdb(self, at: usize, room: usize, into: &mut [u8; MAX_CDB]) -> Option<usize> {
        let len = match into[0] {
            // One that is longer than the longest is cut, and unknown to whoever decodes it.
            0x7f => (8 + usize::from(into[7])).min(MAX_CDB),
            _ => room.min(16),
        };
        if len > room {
            return None;
        }
        for from in (16..len).step_by(8) {
            let mut word = [0; 8];
            self.copy::<8>(at + from, &mut word)?;
            let until = len.min(from + 8);
            into[from..until].copy_from_slice(&word[..until - from]);
        }
        Some(len)
    }

    /// Copies `N` bytes to the beginning of `into`.
    #[inline]
    fn copy<const N: usize>(self, at: usize, into: &mut [u8]) -> Option<()> {
        if N > self.len.checked_sub(at)? {
            return None;
        }
        // SAFETY: within the entry; `into` is private memory and so does not overlap.
        let bytes = unsafe { self.start.add(at).cast::<[u8; N]>().read_unaligned() };
        into.get_mut(..N)?.copy_from_slice(&bytes);
        Some(())
    }

    /// Writes a response. `read_len` is what the kernel takes if `uflags` says so; of `sense`, at most 96 bytes.
    #[inline]
    pub(super) fn respond(self, id: u16, uflags: u8, status: u8, read_len: u32, sense: &[u8]) {
        const { assert!(header::CMD_ID == 4 && response::SCSI_STATUS == 8 && response::READ_LEN == 12) };
        let [id, id_high] = id.to_ne_bytes();
        let [a, b, c, d] = read_len.to_ne_bytes();
        // cmd_id, kflags, uflags; scsi_status, padding, read_len
        self.put(header::CMD_ID as usize, [id, id_high, 0, uflags]);
        self.put(response::SCSI_STATUS as usize, [status, 0, 0, 0, a, b, c, d]);
        if status != 0 {
            let mut buffer = [0; response::SENSE_SIZE];
            let length = sense.len().min(buffer.len());
            buffer[..length].copy_from_slice(&sense[..length]);
            self.put(response::SENSE as usize, buffer);
        }
    }

    /// Writes bytes within the fixed part.
    #[inline]
    fn put<const N: usize>(self, at: usize, bytes: [u8; N]) {
        debug_assert!(at + N <= response::END as usize);
        if at + N <= response::END as usize {
            // SAFETY: within the entry, which is at least so long.
            unsafe { self.start.add(at).cast::<[u8; N]>().write_unaligned(bytes) }
        }
    }
}

/// Base and length of each iovec of an entry. `left` of them, at a multiple of 8, are within the entry.
pub(super) struct Iovecs<'m> {
    next: NonNull<[usize; 2]>,
    left: usize,
    _region: PhantomData<&'m Region>,
}

impl Iterator for Iovecs<'_> {
    type Item = [usize; 2];

    #[inline]
    fn next(&mut self) -> Option<[usize; 2]> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: there is one more; a word of the native size is aligned at a multiple of 8.
        unsafe {
            let iovec = self.next.read_volatile();
            self.next = self.next.add(1);
            Some(iovec)
        }
    }
}
