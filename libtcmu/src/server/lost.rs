//! Writes that were lost behind the page cache.
//!
//! Where the kernel cannot write a dirty page back, it says so once, to the next `fdatasync`, and forgets the data: the one after that
//! succeeds. An initiator that sends a failed SYNCHRONIZE CACHE again, as Linux does for MEDIUM ERROR, would be told that all is well. So a
//! device whose flush failed fails every flush, until it is opened again: then whoever opens it knows.
use std::{
    io,
    sync::atomic::{AtomicI32, Ordering},
};

use tcmu_handler_api::abi;

/// Whether a device lost writes.
pub(super) struct Lost {
    device: String,
    /// The `errno` of the flush that failed; 0: none has.
    errno: AtomicI32,
}

impl Lost {
    pub(super) fn new(device: String) -> Lost {
        Lost { device, errno: AtomicI32::new(0) }
    }

    /// What flushes fail with, if writes were lost: a negative `errno`.
    pub(super) fn status(&self) -> Option<i32> {
        let errno = self.errno.load(Ordering::Acquire);
        (errno != 0).then_some(-errno)
    }

    /// An I/O ended with `status`; what its request is to be told.
    pub(super) fn judge(&self, io: &abi::tcmu_io, status: i32) -> i32 {
        if io.op != abi::TCMU_IO_DATASYNC {
            return status;
        }
        // Of several at the same time, the kernel may have told another one.
        if let Some(status) = self.status() {
            return status;
        }
        // The last two: there is nothing that could be flushed.
        if status == 0 || matches!(-status, libc::EINVAL | libc::EOPNOTSUPP) {
            return status;
        }
        self.errno.store(-status, Ordering::Release);
        // What is in the cache, but not on the disk, must not be read as if it were there, until memory is short.
        // SAFETY: a plain system call.
        unsafe { libc::posix_fadvise(io.fd, 0, 0, libc::POSIX_FADV_DONTNEED) };
        let error = io::Error::from_raw_os_error(-status);
        tracing::error!(
            device = self.device,
            %error,
            "a flush failed: writes since the last one may be lost; flushes fail until the device is opened again (tcmuctl handler restart)"
        );
        status
    }
}
