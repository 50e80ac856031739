//! A UIO descriptor's two words: `read` says that something happened, `write` says that we did something (`drivers/uio/uio.c`).
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// The device was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the UIO device is gone")]
pub struct Gone;

/// A nonblocking UIO descriptor.
#[derive(Debug)]
pub struct Doorbell(OwnedFd);

impl Doorbell {
    /// Takes the descriptor over.
    pub fn new(fd: OwnedFd) -> Doorbell {
        Doorbell(fd)
    }

    /// Takes note of all events so far, so that the descriptor becomes readable again only by a new one. To be called *before* the ring
    /// is scanned, or a wake-up is lost. Whether there was any.
    pub fn clear(&self) -> Result<bool, Gone> {
        loop {
            match rustix::io::read(&self.0, &mut [0u8; 4]) {
                Ok(0) => return Err(Gone),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(_) => return Err(Gone),
            }
        }
    }

    /// Tells the kernel to look at `cmd_tail`. The kernel handles the completions before this returns.
    pub fn kick(&self) -> Result<(), Gone> {
        loop {
            match rustix::io::write(&self.0, &1u32.to_ne_bytes()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                // Only a simulated kernel's socket can be full, and then there are kicks in it already.
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Gone),
            }
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
