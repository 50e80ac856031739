//! A UIO descriptor's two words: `read` says that something happened, `write` says that we did something (`drivers/uio/uio.c`).
use std::{
    fs::File,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
};

use rustix::io::Errno;

/// The device was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the UIO device is gone")]
pub struct Gone;

/// A nonblocking UIO descriptor.
#[derive(Debug)]
pub struct Doorbell {
    fd: OwnedFd,
    /// It is a UIO device, and not a simulated kernel's socket.
    uio: bool,
}

impl Doorbell {
    /// Takes the descriptor over.
    pub fn new(fd: OwnedFd) -> Doorbell {
        let file = File::from(fd);
        // Miri has no UIO devices, and doesn't know what a socket is.
        let uio = !cfg!(miri) && file.metadata().is_ok_and(|metadata| metadata.file_type().is_char_device());
        Doorbell { fd: file.into(), uio }
    }

    /// Whether events that nobody reads get in the way of new ones: they fill a socket; a UIO device just counts.
    pub fn fills_up(&self) -> bool {
        !self.uio
    }

    /// Takes note of all events so far, so that the descriptor becomes readable again only by a new one. To be called *before* the ring
    /// is scanned, or a wake-up is lost. Whether there was any.
    pub fn clear(&self) -> Result<bool, Gone> {
        // A UIO device takes nothing but 4; of a simulated kernel's socket, all that is in it.
        let mut events = [MaybeUninit::<u8>::uninit(); 4096];
        let size = if self.uio { 4 } else { events.len() };
        loop {
            match rustix::io::read(&self.fd, &mut events[..size]) {
                Ok(([], _)) => return Err(Gone),
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
            match rustix::io::write(&self.fd, &1u32.to_ne_bytes()) {
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
        self.fd.as_fd()
    }
}
