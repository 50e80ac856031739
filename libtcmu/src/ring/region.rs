//! The shared region behind the mailbox, as it was found sound when the ring was attached: the command ring, and the data area after it.
//!
//! Here numbers become pointers. What is at a [`Place`] can be loaded without another look, and an [`Entry`] was checked once for all
//! that is done with it.
use std::{
    ptr::NonNull,
    sync::{Arc, atomic::Ordering},
};

use super::{
    RingError,
    entry::Entry,
    layout::{self, header, mailbox, op, response},
};
use crate::mapping::Mapping;

/// A place in the ring where an entry can be: a multiple of 8 below the ring's size, which is one too. So there are 8 bytes at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// The ring's beginning.
    pub(super) const START: Place = Place(0);

    /// Bytes from the ring's beginning.
    #[inline]
    pub(super) fn get(self) -> u32 {
        self.0
    }
}

/// The first word of an entry (`struct tcmu_cmd_entry_hdr`), loaded at once, so that what is checked is what is used.
#[derive(Clone, Copy)]
pub(super) struct Header(u64);

impl Header {
    /// `enum tcmu_opcode`
    #[inline]
    pub(super) fn opcode(self) -> u32 {
        half(self.0, header::LEN_OP as usize) & op::MASK
    }

    /// Bytes of the entry, as it says; a multiple of 8.
    #[inline]
    pub(super) fn len(self) -> u32 {
        half(self.0, header::LEN_OP as usize) & !op::MASK
    }

    /// `cmd_id`
    #[inline]
    pub(super) fn id(self) -> u16 {
        let bytes = self.0.to_ne_bytes();
        u16::from_ne_bytes([bytes[header::CMD_ID as usize], bytes[header::CMD_ID as usize + 1]])
    }
}

/// Ring and data area.
pub(super) struct Region {
    map: Arc<Mapping>,
    /// Where the ring begins in the mapping.
    offset: u32,
    /// Bytes of the ring.
    size: u32,
    ring: NonNull<u8>,
    data: NonNull<u8>,
    /// Bytes of the data area: from the ring's end to the mapping's.
    data_len: u64,
}

// SAFETY: the pointers are into the mapping, which any thread may use.
unsafe impl Send for Region {}

impl Region {
    /// The region as the mailbox describes it.
    pub(super) fn new(map: Arc<Mapping>) -> Result<Region, RingError> {
        let all = map.len() as u64;
        let load = |at| map.load_u32(at, Ordering::Relaxed).unwrap_or(0);
        let (offset, size) = (load(mailbox::CMDR_OFF), load(mailbox::CMDR_SIZE));
        let wrong = RingError::Geometry { offset, size, map: all };
        let sound = u64::from(offset) >= mailbox::SIZE
            && size >= 2 * response::END
            && offset.is_multiple_of(layout::ALIGN)
            && size.is_multiple_of(layout::ALIGN);
        let end = u64::from(offset) + u64::from(size);
        let data_len = all.checked_sub(end).filter(|_| sound).ok_or(wrong)?;
        let ring = map.at(u64::from(offset), u64::from(size)).map_err(|_| wrong)?;
        let data = map.at(end, data_len).map_err(|_| wrong)?;
        Ok(Region { map, offset, size, ring, data, data_len })
    }

    pub(super) fn mapping(&self) -> &Arc<Mapping> {
        &self.map
    }

    /// Bytes of the ring.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// The place with this index, if it is one.
    #[inline]
    pub(super) fn place(&self, index: u32) -> Option<Place> {
        (index < self.size && index.is_multiple_of(layout::ALIGN)).then_some(Place(index))
    }

    /// The place in terms of the mapping.
    #[inline]
    pub(super) fn offset(&self, at: Place) -> u64 {
        u64::from(self.offset) + u64::from(at.0)
    }

    /// The place behind an entry with this header, or the ring's beginning.
    #[inline]
    pub(super) fn after(&self, at: Place, header: Header) -> Place {
        // A place whatever the length is: a multiple of 8.
        let next = at.0.wrapping_add(header.len());
        if next < self.size { Place(next) } else { Place::START }
    }

    /// Bytes from a place to `end`; or to the ring's end, where the other is not behind it. At most that.
    #[inline]
    pub(super) fn room(&self, at: Place, end: Place) -> u32 {
        if end.0 > at.0 { end.0 - at.0 } else { self.size - at.0 }
    }

    /// Loads the header of the entry at a place.
    #[inline]
    pub(super) fn header(&self, at: Place) -> Header {
        // SAFETY: a place has 8 bytes within the ring, and is aligned, as the ring is; volatile, since the other side may write to it.
        Header(unsafe { self.ring.add(at.0 as usize).cast::<u64>().read_volatile() })
    }

    /// The command entry of `len` bytes at a place. `None` if it is too short for a response, or reaches past `end` (as in
    /// [`Region::room`]).
    #[inline]
    pub(super) fn entry(&self, at: Place, len: u32, end: Place) -> Option<Entry<'_>> {
        let sound = len >= response::END && len <= self.room(at, end);
        // SAFETY: so many bytes are within the ring, which is mapped as long as `self.map` lives; a place is a multiple of 8, and the
        // ring's beginning is one.
        sound.then(|| unsafe { Entry::new(self.ring.add(at.0 as usize), len) })
    }

    /// Where in memory so many bytes of data at an offset of the mapping are. `None` if not all of them are in the data area: a buffer
    /// in the ring would let a read overwrite what decides. No bytes at all may be anywhere.
    #[inline]
    pub(super) fn data(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let begin = u64::from(self.offset) + u64::from(self.size);
        // Of what is before the area, this wraps, and is too large.
        let from = (offset as u64).wrapping_sub(begin);
        if from <= self.data_len && len as u64 <= self.data_len - from {
            // SAFETY: within the data area.
            return Some(unsafe { self.data.add(from as usize) });
        }
        self.map.at(offset as u64, 0).ok().filter(|_| len == 0)
    }
}

/// The 32-bit field at this byte of a word as it is in memory.
#[inline]
pub(super) fn half(word: u64, at: usize) -> u32 {
    let bytes = word.to_ne_bytes();
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
