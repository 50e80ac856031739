//! The SCSI model: bytes in, values out. Pure: no I/O, no `unsafe`, no panic on any input.
//!
//! | module | subject | standard |
//! |---|---|---|
//! | [`units`] | logical block addresses, counts and sizes that can't be mixed up | SBC-4 4.5 |
//! | [`opcode`] | the one table of commands: parsing, reserved bits, REPORT SUPPORTED OPERATION CODES | SPC-6 6.35 |
//! | [`command`] | from a CDB to a typed [`Command`] | SPC-6, SBC-4 clause 5 |
//! | [`sense`] | status, sense keys, sense data in both formats | SPC-6 4.4 |
//! | [`facts`] | what a logical unit says of itself: the input of all pages | |
//! | [`inquiry`], [`vpd`] | standard INQUIRY data and vital product data | SPC-6 6.7, 7.7; SBC-4 6.6 |
//! | [`mode`] | mode pages, both ways | SPC-6 7.5, SBC-4 6.5 |
//! | [`capacity`] | READ CAPACITY data, REPORT LUNS data | SBC-4 5.20, 5.21 |
//! | [`report`] | REPORT SUPPORTED OPERATION CODES data | SPC-6 6.35 |
//! | [`unmap`], [`format`] | parameter lists of UNMAP, FORMAT UNIT, SANITIZE | SBC-4 5.35, 5.4, 5.30 |
//! | [`log`] | log pages | SPC-6 7.3 |
//! | [`copy`], [`token`] | third-party copy, with lists and with tokens | SPC-4 6.4, SBC-4 4.28 |
//! | [`describe`](mod@describe) | commands and sense data in words | |
//! | [`alua`] | asymmetric access: target port groups | SPC-6 5.15 |
#![forbid(unsafe_code)]

pub mod alua;
pub mod capacity;
pub mod command;
pub mod copy;
pub mod describe;
pub mod facts;
pub mod format;
pub mod inquiry;
pub mod log;
pub mod mode;
pub mod opcode;
pub mod report;
pub mod sense;
mod third_party;
pub mod token;
pub mod units;
pub mod unmap;
pub mod vpd;

pub use command::Command;
pub use describe::describe;
pub use facts::UnitFacts;
pub use sense::{AdditionalSense, FieldPointer, Sense, SenseKey, Specific, Status};
pub use units::{BlockSize, Blocks, Lba};

/// Big-endian fields of CDBs and parameter lists. What lies beyond the end reads as zero.
pub(crate) mod be {
    #[inline]
    fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
        if let Some(bytes) = from.get(at..at + N).and_then(|bytes| bytes.first_chunk()) {
            return *bytes;
        }
        let mut out = [0; N];
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = from.get(at + i).copied().unwrap_or(0);
        }
        out
    }

    #[inline]
    pub(crate) fn u8(from: &[u8], at: usize) -> u8 {
        from.get(at).copied().unwrap_or(0)
    }

    #[inline]
    pub(crate) fn u16(from: &[u8], at: usize) -> u16 {
        u16::from_be_bytes(bytes(from, at))
    }

    #[inline]
    pub(crate) fn u32(from: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes(from, at))
    }

    #[inline]
    pub(crate) fn u64(from: &[u8], at: usize) -> u64 {
        u64::from_be_bytes(bytes(from, at))
    }
}
