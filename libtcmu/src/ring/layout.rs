//! The layout of mailbox and ring entries (`include/uapi/linux/target_core_user.h`). Offsets in bytes; fields in native byte order.
use std::mem::size_of;

/// `TCMU_MAILBOX_VERSION`
pub const MAILBOX_VERSION: u16 = 2;

/// Offsets within `struct tcmu_mailbox`.
pub mod mailbox {
    /// u16
    pub const VERSION: u64 = 0;
    /// u16
    pub const FLAGS: u64 = 2;
    /// u32, from the start of the mapping
    pub const CMDR_OFF: u64 = 4;
    /// u32
    pub const CMDR_SIZE: u64 = 8;
    /// u32, written by the kernel
    pub const CMD_HEAD: u64 = 12;
    /// u32, written by us, on a cache line of its own
    pub const CMD_TAIL: u64 = 64;
    /// Size of the struct.
    pub const SIZE: u64 = 128;
}

bitflags::bitflags! {
    /// `TCMU_MAILBOX_FLAG_CAP_*`: what the kernel's side can do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MailboxFlags: u16 {
        /// Completions in any order.
        const OUT_OF_ORDER = 1 << 0;
        /// Completions may say how much was read.
        const READ_LEN = 1 << 1;
        /// Task management notifications may come.
        const TASK_MANAGEMENT = 1 << 2;
        /// Data buffers may be kept beyond the completion.
        const KEEP_BUF = 1 << 3;
        const _ = !0;
    }
}

/// `enum tcmu_opcode`, the low bits of `len_op`.
pub mod op {
    /// Filler up to the end of the ring.
    pub const PAD: u32 = 0;
    /// A SCSI command.
    pub const CMD: u32 = 1;
    /// A task management notification.
    pub const TMR: u32 = 2;
    /// The bits of `len_op` that hold the opcode; the others hold the length.
    pub const MASK: u32 = 7;
}

/// Entries are aligned to, and as long as a multiple of, this.
pub const ALIGN: u32 = 8;

/// Offsets within `struct tcmu_cmd_entry_hdr`.
pub mod header {
    /// u32: length and opcode
    pub const LEN_OP: u64 = 0;
    /// u16
    pub const CMD_ID: u64 = 4;
    /// u8, ours
    pub const UFLAGS: u64 = 7;
    /// Size of the header, and the least length of an entry.
    pub const SIZE: u32 = 8;
}

/// `TCMU_UFLAG_*`: what we say of an entry.
pub mod uflag {
    /// We don't know this opcode.
    pub const UNKNOWN_OP: u8 = 1;
    /// `read_len` is valid.
    pub const READ_LEN: u8 = 2;
}

/// The native layout of a request's fixed part, up to its iovecs. Only used for its offsets.
#[repr(C)]
struct Request {
    iov_cnt: u32,
    iov_bidi_cnt: u32,
    iov_dif_cnt: u32,
    cdb_off: u64,
    _pad: [u64; 2],
    iov: [libc::iovec; 0],
}

/// Offsets within `struct tcmu_cmd_entry`.
pub mod request {
    use std::mem::offset_of;

    use super::{Request, header};

    /// u32
    pub const IOV_CNT: u64 = header::SIZE as u64 + offset_of!(Request, iov_cnt) as u64;
    /// u32
    pub const IOV_BIDI_CNT: u64 = header::SIZE as u64 + offset_of!(Request, iov_bidi_cnt) as u64;
    /// u64, from the start of the mapping
    pub const CDB_OFF: u64 = header::SIZE as u64 + offset_of!(Request, cdb_off) as u64;
    /// native iovecs, whose bases are offsets from the start of the mapping
    pub const IOV: u64 = header::SIZE as u64 + offset_of!(Request, iov) as u64;
}

/// Offsets within the response, which overlays the request.
pub mod response {
    /// u8
    pub const SCSI_STATUS: u64 = 8;
    /// u32
    pub const READ_LEN: u64 = 12;
    /// Sense data.
    pub const SENSE: u64 = 16;
    /// `TCMU_SENSE_BUFFERSIZE`
    pub const SENSE_SIZE: usize = 96;
    /// Bytes from the entry's start to the end of the response.
    pub const END: u32 = 16 + SENSE_SIZE as u32;
}

/// Offsets within `struct tcmu_tmr_entry`.
pub mod tmr {
    /// u8
    pub const TYPE: u64 = 8;
    /// u32
    pub const CMD_CNT: u64 = 12;
    /// u16 each
    pub const CMD_IDS: u64 = 32;
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(request::CDB_OFF == 24);
    assert!(request::IOV == 48);
    assert!(size_of::<libc::iovec>() == 16);
};

/// Bytes of one iovec.
pub const IOVEC: u64 = size_of::<libc::iovec>() as u64;
