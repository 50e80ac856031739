//! A command as it was fetched: copied out of the ring, where its entry will be overwritten.
use std::fmt;

use super::MAX_CDB;

/// A command in flight: the kernel's id, and which life of the ring it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId {
    /// The kernel's `cmd_id`.
    pub id: u16,
    pub(super) generation: u32,
}

/// A command as it was fetched: all that is needed of it, copied out of the ring. Reused, so that nothing is allocated in the long run.
///
/// What most commands need, up to the first 16 bytes of the CDB, is in one cache line.
#[repr(C, align(64))]
pub struct Fetched {
    /// To complete it by.
    pub id: CommandId,
    pub(super) data_len: u64,
    pub(super) bidi: u32,
    pub(super) cdb_len: u32,
    pub(super) iovecs: Vec<libc::iovec>,
    pub(super) cdb: [u8; MAX_CDB],
}

const _: () = assert!(std::mem::offset_of!(Fetched, cdb) + 16 <= 64);

// SAFETY: the iovecs point into the mapping, which any thread may use; whoever holds a `Fetched` holds its ring's mapping too.
unsafe impl Send for Fetched {}

impl Default for Fetched {
    fn default() -> Fetched {
        Fetched {
            id: CommandId { id: 0, generation: 0 },
            data_len: 0,
            bidi: 0,
            cdb_len: 0,
            iovecs: Vec::with_capacity(32),
            cdb: [0; MAX_CDB],
        }
    }
}

impl Fetched {
    /// The command descriptor block, as long as its operation code says (vendor specific ones: as long as the entry has room for, 16
    /// at most).
    #[inline]
    pub fn cdb(&self) -> &[u8] {
        &self.cdb[..self.cdb_len as usize]
    }

    /// The first bytes of the CDB; those behind its end mean nothing. Where the operation code tells a length, it has that.
    #[inline]
    pub(crate) fn cdb_start(&self) -> &[u8; 16] {
        const { assert!(MAX_CDB >= 16) };
        self.cdb.first_chunk().unwrap_or(&[0; 16])
    }

    /// The data buffer: Data-In or Data-Out, or the Data-Out of a bidirectional command. Pointers into the mapping.
    #[inline]
    pub fn data(&self) -> &[libc::iovec] {
        &self.iovecs[..self.iovecs.len() - self.bidi as usize]
    }

    /// Bytes of the data buffer.
    #[inline]
    pub fn data_len(&self) -> u64 {
        self.data_len
    }

    /// Whether the command has buffers for both directions.
    #[inline]
    pub(crate) fn is_bidi(&self) -> bool {
        self.bidi != 0
    }

    /// The Data-In buffer of a bidirectional command.
    #[inline]
    pub fn bidi(&self) -> &[libc::iovec] {
        &self.iovecs[self.iovecs.len() - self.bidi as usize..]
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command {} {:02x?}, {} segments", self.id.id, self.cdb(), self.iovecs.len())
    }
}
