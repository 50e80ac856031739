//! A command entry of the ring (`struct tcmu_cmd_entry`): the memory of a request, which a response will be written over.
//!
//! Its range is checked once, when it is made; after that the fixed fields need no checks, since an entry is never shorter than
//! a response, and what is variable is checked against the entry's own length.
use std::{marker::PhantomData, ptr::NonNull};

use super::{
    MAX_CDB,
    layout::{self, header, response},
};
use crate::mapping::Mapping;

/// A command entry. At least [`response::END`] bytes, at a multiple of 8.
#[derive(Clone, Copy)]
pub(super) struct Entry<'m> {
    start: NonNull<u8>,
    len: usize,
    _map: PhantomData<&'m Mapping>,
}

impl<'m> Entry<'m> {
    /// The entry of `len` bytes at this place in the mapping. `None` if it is not within it, not aligned, or too short.
    #[inline]
    pub(super) fn new(map: &'m Mapping, place: u64, len: u32) -> Option<Entry<'m>> {
        let start = map.at(place, u64::from(len)).ok()?;
        let sound = len >= response::END && place.is_multiple_of(u64::from(layout::ALIGN));
        sound.then_some(Entry { start, len: len as usize, _map: PhantomData })
    }

    /// The word at this byte. Each is to be loaded once, so that what is checked is what is used.
    #[inline]
    pub(super) fn word<const AT: u64>(&self) -> u64 {
        const { assert!(AT + 8 <= response::END as u64 && AT.is_multiple_of(8)) };
        // SAFETY: within the entry, which is at least so long, and aligned; volatile, since the other side may write to it.
        unsafe { self.start.add(AT as usize).cast::<u64>().read_volatile() }
    }

    /// Base and length of the iovecs that begin at byte `from`, a multiple of 8. `None` if the entry does not hold so many.
    #[inline]
    pub(super) fn iovecs(&self, from: u64, count: u64) -> Option<impl Iterator<Item = (usize, usize)> + use<'m>> {
        let room = (self.len as u64).checked_sub(from)?;
        if count > room / layout::IOVEC || !from.is_multiple_of(8) {
            return None;
        }
        // SAFETY: `from` is within the entry.
        let first = unsafe { self.start.add(from as usize) }.cast::<[usize; 2]>();
        Some((0..count as usize).map(move |n| {
            // SAFETY: checked above; a word of the native size is aligned at a multiple of 8.
            let [base, length] = unsafe { first.add(n).read_volatile() };
            (base, length)
        }))
    }

    /// Copies the CDB that begins at byte `at`. Its first byte tells how long it is; where that doesn't, it goes to the entry's end, or
    /// 16 bytes. `None` if the entry does not hold it.
    #[inline]
    pub(super) fn cdb(&self, at: u64, into: &mut [u8; MAX_CDB]) -> Option<usize> {
        let at = usize::try_from(at).ok()?;
        let room = self.len.checked_sub(at).filter(|room| *room > 0)?;
        if room >= 16 {
            self.copy::<16>(at, into)?;
        } else {
            // Entries are multiples of 8 bytes long, and so is where the kernel puts a CDB.
            self.copy::<8>(at, into)?;
        }
        let len = match into[0] >> 5 {
            0 => 6,
            1 | 2 => 10,
            4 => 16,
            5 => 12,
            // One that is longer than the longest is cut, and unknown to whoever decodes it.
            3 if into[0] == 0x7f => (8 + usize::from(into[7])).min(MAX_CDB),
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
    fn copy<const N: usize>(&self, at: usize, into: &mut [u8]) -> Option<()> {
        if at.checked_add(N)? > self.len {
            return None;
        }
        // SAFETY: within the entry; `into` is private memory and so does not overlap.
        let bytes = unsafe { self.start.add(at).cast::<[u8; N]>().read_unaligned() };
        into.get_mut(..N)?.copy_from_slice(&bytes);
        Some(())
    }

    /// Writes a response. `read_len` is what the kernel takes if `uflags` says so; of `sense`, at most 96 bytes.
    #[inline]
    pub(super) fn respond(&self, id: u16, uflags: u8, status: u8, read_len: u32, sense: &[u8]) {
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
    fn put<const N: usize>(&self, at: usize, bytes: [u8; N]) {
        debug_assert!(at + N <= response::END as usize);
        if at + N <= response::END as usize {
            // SAFETY: within the entry, which is at least so long.
            unsafe { self.start.add(at).cast::<[u8; N]>().write_unaligned(bytes) }
        }
    }
}
