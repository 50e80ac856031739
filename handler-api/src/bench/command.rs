//! What is sent to a device, and what comes back.
use std::fmt;

use super::memory::Cut;
use crate::{
    abi,
    plugin::{Error, Operation, RequestFlags},
};

/// A request for a device, with its data. Offsets and lengths are bytes and reach the handler as they are: the bench checks nothing,
/// so that a test can also send what no host would.
#[derive(Clone, Debug)]
pub struct Command {
    pub(super) op: u32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) source_offset: u64,
    /// What the buffer holds at submission; `None`: `buffer` bytes that hold a pattern.
    pub(super) data: Option<Vec<u8>>,
    pub(super) buffer: usize,
    pub(super) bidi: usize,
    pub(super) cdb: Vec<u8>,
    pub(super) cut: Cut,
}

impl Command {
    /// A request of any operation code (`TCMU_OP_*` or unknown) without a buffer.
    pub fn new(op: u32, offset: u64, length: u64) -> Command {
        Command {
            op,
            flags: 0,
            offset,
            length,
            source_offset: 0,
            data: None,
            buffer: 0,
            bidi: 0,
            cdb: Vec::new(),
            cut: Cut::default(),
        }
    }

    /// Reads `length` bytes at `offset`; they come back in [`Answer::data`].
    pub fn read(offset: u64, length: u64) -> Command {
        Command { buffer: length as usize, ..Command::new(abi::TCMU_OP_READ, offset, length) }
    }

    /// Writes `data` at `offset`.
    pub fn write(offset: u64, data: &[u8]) -> Command {
        Command { data: Some(data.to_vec()), ..Command::new(abi::TCMU_OP_WRITE, offset, data.len() as u64) }
    }

    /// Brings completed writes to stable storage.
    pub fn flush() -> Command {
        Command::new(abi::TCMU_OP_FLUSH, 0, 0)
    }

    /// Deallocates.
    pub fn unmap(offset: u64, length: u64) -> Command {
        Command::new(abi::TCMU_OP_UNMAP, offset, length)
    }

    /// Makes a range read as zeros; with [`RequestFlags::MAY_UNMAP`] by deallocation.
    pub fn write_zeroes(offset: u64, length: u64) -> Command {
        Command::new(abi::TCMU_OP_WRITE_ZEROES, offset, length)
    }

    /// Repeats `pattern` (one block) over a range.
    pub fn write_same(offset: u64, length: u64, pattern: &[u8]) -> Command {
        Command { data: Some(pattern.to_vec()), ..Command::new(abi::TCMU_OP_WRITE_SAME, offset, length) }
    }

    /// Compares `expected` with what is at `offset` and if equal writes `new` there; both of the same length.
    pub fn compare_and_write(offset: u64, expected: &[u8], new: &[u8]) -> Command {
        let data = [expected, new].concat();
        Command { data: Some(data), ..Command::new(abi::TCMU_OP_COMPARE_AND_WRITE, offset, expected.len() as u64) }
    }

    /// Copies `length` bytes from `from` to `to`.
    pub fn copy(from: u64, to: u64, length: u64) -> Command {
        Command { source_offset: from, ..Command::new(abi::TCMU_OP_COPY, to, length) }
    }

    /// Asks how a range is provisioned, for at most `entries` extents; see [`Answer::extents`].
    pub fn extents(offset: u64, length: u64, entries: usize) -> Command {
        Command { buffer: entries * size_of::<abi::tcmu_extent>(), ..Command::new(abi::TCMU_OP_EXTENTS, offset, length) }
    }

    /// Announces a read.
    pub fn prefetch(offset: u64, length: u64) -> Command {
        Command::new(abi::TCMU_OP_PREFETCH, offset, length)
    }

    /// A whole SCSI command without data.
    pub fn scsi(cdb: &[u8]) -> Command {
        Command { cdb: cdb.to_vec(), ..Command::new(abi::TCMU_OP_SCSI, 0, 0) }
    }

    /// With a buffer of `length` bytes for Data-In, where there is none yet.
    pub fn data_in(self, length: usize) -> Command {
        Command { data: None, buffer: length, ..self }
    }

    /// With this Data-Out.
    pub fn data_out(self, data: &[u8]) -> Command {
        Command { data: Some(data.to_vec()), ..self }
    }

    /// With a second buffer of `length` bytes, for the Data-In of a bidirectional SCSI command.
    pub fn bidi(self, length: usize) -> Command {
        Command { bidi: length, ..self }
    }

    /// With flags.
    pub fn flags(self, flags: RequestFlags) -> Command {
        Command { flags: flags.bits(), ..self }
    }

    /// With the data in segments of these lengths, the last of which repeats until the end. `&[1]` is a segment for each byte. Where
    /// the handler announced a buffer alignment, lengths are rounded up to it, as a host would do.
    pub fn segments(mut self, lengths: &[usize]) -> Command {
        self.cut.lengths = lengths.to_vec();
        self
    }

    /// With each segment `bytes` behind a 64-byte boundary (unless the handler announced a buffer alignment).
    pub fn misaligned(mut self, bytes: usize) -> Command {
        self.cut.misalign = bytes;
        self
    }

    /// Bytes in the buffer.
    pub(super) fn buffer_len(&self) -> usize {
        self.data.as_ref().map_or(self.buffer, Vec::len)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Operation::from(self.op) {
            Operation::Scsi => {
                f.write_str("SCSI command")?;
                for byte in &self.cdb {
                    write!(f, " {byte:02x}")?;
                }
                Ok(())
            }
            Operation::Flush => f.write_str("flush"),
            Operation::Copy => write!(f, "copy of {} bytes from {} to {}", self.length, self.source_offset, self.offset),
            Operation::Unknown(op) => write!(f, "unknown operation {op}"),
            operation => {
                let name = match operation {
                    Operation::Read => "read",
                    Operation::Write => "write",
                    Operation::Unmap => "unmap",
                    Operation::WriteZeroes => "write zeroes",
                    Operation::WriteSame => "write same",
                    Operation::CompareAndWrite => "compare and write",
                    Operation::Extents => "extents",
                    _ => "prefetch",
                };
                write!(f, "{name} of {} bytes at {}", self.length, self.offset)
            }
        }
    }
}

/// What came back for a [`Command`].
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was sent, for messages.
    pub command: String,
    /// `TCMU_STATUS_*` or a negative `errno`.
    pub status: i32,
    /// The `result` field.
    pub result: u64,
    /// Sense data; empty unless the status is `TCMU_STATUS_SENSE`.
    pub sense: Vec<u8>,
    /// The buffer.
    pub data: Vec<u8>,
    /// The second buffer.
    pub bidi: Vec<u8>,
}

/// A command failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The handler completed it with an error.
    #[error("{command} was completed with {error}")]
    Status {
        /// What was sent.
        command: String,
        /// How it ended.
        error: Error,
    },
    /// No completion came within the timeout.
    #[error("{command} was not completed within {seconds} s")]
    TimedOut {
        /// What was sent.
        command: String,
        /// The timeout.
        seconds: f32,
    },
}

impl Failure {
    /// The handler's error; `None` if it never came.
    pub fn error(&self) -> Option<Error> {
        match self {
            Failure::Status { error, .. } => Some(*error),
            Failure::TimedOut { .. } => None,
        }
    }
}

impl Answer {
    /// The error that the status stands for.
    pub fn error(&self) -> Option<Error> {
        Some(match self.status {
            abi::TCMU_STATUS_OK => return None,
            abi::TCMU_STATUS_BUSY => Error::Busy,
            abi::TCMU_STATUS_TASK_SET_FULL => Error::TaskSetFull,
            abi::TCMU_STATUS_MISCOMPARE => Error::Miscompare { offset: self.result },
            abi::TCMU_STATUS_SENSE => Error::Sense,
            abi::TCMU_STATUS_NOT_HANDLED => Error::NotHandled,
            abi::TCMU_STATUS_FENCED => Error::Fenced,
            abi::TCMU_STATUS_TRANSITION => Error::Transition,
            abi::TCMU_STATUS_ABORTED => Error::Aborted,
            status if status < 0 => Error::Errno(status.checked_neg().unwrap_or(libc::EIO)),
            status => Error::Scsi(u8::try_from(status - abi::TCMU_STATUS_SCSI).unwrap_or(0xff)),
        })
    }

    /// Whether the status is one that the ABI knows.
    pub(super) fn is_known(&self) -> bool {
        const LAST_SCSI: i32 = abi::TCMU_STATUS_SCSI + 0xff;
        matches!(self.status, -4095..=abi::TCMU_STATUS_ABORTED | abi::TCMU_STATUS_SCSI..=LAST_SCSI)
    }

    /// The extents of a [`Command::extents`]; as many as `result` says and the buffer holds.
    pub fn extents(&self) -> Vec<abi::tcmu_extent> {
        let word = |entry: &[u8], at: usize| u64::from_ne_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
        let half = |entry: &[u8], at: usize| u32::from_ne_bytes(entry[at..at + 4].try_into().expect("four bytes"));
        self.data
            .chunks_exact(size_of::<abi::tcmu_extent>())
            .take(usize::try_from(self.result).unwrap_or(usize::MAX))
            .map(|e| abi::tcmu_extent { offset: word(e, 0), length: word(e, 8), state: half(e, 16), reserved: half(e, 20) })
            .collect()
    }
}
