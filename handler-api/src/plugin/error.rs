//! How a request fails, and how `open` and its like refuse.
use std::{fmt, io};

use crate::abi;

/// Why a request failed. The host turns it into a SCSI status and sense data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An `errno` value (positive); what it becomes depends on the operation, see [`abi::TCMU_STATUS_OK`].
    Errno(i32),
    /// BUSY: the initiator tries again.
    Busy,
    /// TASK SET FULL: the initiator tries again with fewer commands.
    TaskSetFull,
    /// COMPARE AND WRITE found a difference, `offset` bytes into the range.
    Miscompare {
        /// First differing byte, from the start of the compared range.
        offset: u64,
    },
    /// CHECK CONDITION with sense data that was written with [`super::Request::set_sense`].
    Sense,
    /// For whole SCSI commands: the host's SCSI engine shall answer.
    NotHandled,
    /// Another node holds the exclusive lock.
    Fenced,
    /// The exclusive lock is on its way.
    Transition,
    /// Cancelled before it had any effect.
    Aborted,
    /// Exactly this SCSI status byte (SAM-5 5.3.1).
    Scsi(u8),
}

impl Error {
    /// The medium failed: unrecovered read or write error.
    pub const IO: Error = Error::Errno(libc::EIO);
    /// The operation isn't there.
    pub const UNSUPPORTED: Error = Error::Errno(libc::EOPNOTSUPP);
    /// The backing store is full.
    pub const NO_SPACE: Error = Error::Errno(libc::ENOSPC);

    pub(crate) fn status(self) -> (i32, Option<u64>) {
        match self {
            Error::Errno(errno) => (if errno > 0 { -errno } else { -libc::EIO }, None),
            Error::Busy => (abi::TCMU_STATUS_BUSY, None),
            Error::TaskSetFull => (abi::TCMU_STATUS_TASK_SET_FULL, None),
            Error::Miscompare { offset } => (abi::TCMU_STATUS_MISCOMPARE, Some(offset)),
            Error::Sense => (abi::TCMU_STATUS_SENSE, None),
            Error::NotHandled => (abi::TCMU_STATUS_NOT_HANDLED, None),
            Error::Fenced => (abi::TCMU_STATUS_FENCED, None),
            Error::Transition => (abi::TCMU_STATUS_TRANSITION, None),
            Error::Aborted => (abi::TCMU_STATUS_ABORTED, None),
            Error::Scsi(status) => (abi::TCMU_STATUS_SCSI + i32::from(status), None),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Errno(errno) => write!(f, "{}", io::Error::from_raw_os_error(*errno)),
            Error::Miscompare { offset } => write!(f, "data differ at byte {offset}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Errno(errno_of(&error))
    }
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(match error.kind() {
        io::ErrorKind::StorageFull => libc::ENOSPC,
        io::ErrorKind::ReadOnlyFilesystem => libc::EROFS,
        io::ErrorKind::InvalidInput => libc::EINVAL,
        io::ErrorKind::Unsupported => libc::EOPNOTSUPP,
        io::ErrorKind::OutOfMemory => libc::ENOMEM,
        io::ErrorKind::TimedOut => libc::ETIMEDOUT,
        io::ErrorKind::NotFound => libc::ENOENT,
        io::ErrorKind::PermissionDenied => libc::EACCES,
        _ => libc::EIO,
    })
}

/// Why `open`, `check_config`, `reconfigure` or `lock` said no: an `errno` for programs and one line for people that says what is wrong
/// and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    errno: i32,
    message: String,
}

impl Refusal {
    /// A refusal with an `errno` (positive) and a line of text.
    pub fn new(errno: i32, message: impl Into<String>) -> Refusal {
        Refusal { errno: if errno > 0 { errno } else { libc::EIO }, message: message.into() }
    }

    /// `EINVAL`: the config string or a value is wrong.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(libc::EINVAL, message)
    }

    /// `EOPNOTSUPP`: this handler can't.
    pub fn unsupported(message: impl Into<String>) -> Refusal {
        Refusal::new(libc::EOPNOTSUPP, message)
    }

    /// A failed system call; `what` says on what.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Refusal {
        Refusal::new(errno_of(error), format!("{what}: {error}"))
    }

    /// The `errno`, positive.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// The line for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
