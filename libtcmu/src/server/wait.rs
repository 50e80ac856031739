//! What a reactor waits at: descriptors that become readable, and, with io_uring, I/O that ends.
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::event::{Timespec, epoll};

use super::uring::{Done, Uring};

/// How I/O that may block is done, and where reactors wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoEngine {
    /// io_uring where the kernel lets us, else threads.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// Worker threads.
    Threads,
}

impl std::str::FromStr for IoEngine {
    type Err = String;

    fn from_str(name: &str) -> Result<IoEngine, String> {
        match name {
            "auto" => Ok(IoEngine::Auto),
            "io_uring" => Ok(IoEngine::Uring),
            "threads" => Ok(IoEngine::Threads),
            _ => Err(format!("{name:?}: \"auto\", \"io_uring\" or \"threads\" is needed")),
        }
    }
}

/// The one place where a reactor sleeps.
///
/// Descriptors are told once for each time that something happens to them, not as long as they are readable: so a UIO descriptor needs
/// no system call to become unreadable.
pub(super) enum Waiter {
    Epoll { epoll: OwnedFd, events: Vec<epoll::Event> },
    Uring(Box<Uring>),
}

impl Waiter {
    /// To be called on the thread that will wait.
    pub(super) fn new(engine: IoEngine) -> io::Result<Waiter> {
        match engine {
            IoEngine::Threads => Waiter::with_epoll(),
            IoEngine::Uring => Ok(Waiter::Uring(Box::new(Uring::new()?))),
            IoEngine::Auto => match Uring::new() {
                Ok(uring) => Ok(Waiter::Uring(Box::new(uring))),
                Err(error) => {
                    tracing::info!(%error, "io_uring is refused here: I/O that blocks is done by threads");
                    Waiter::with_epoll()
                }
            },
        }
    }

    fn with_epoll() -> io::Result<Waiter> {
        Ok(Waiter::Epoll { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(256) })
    }

    /// Waits for this descriptor too, from now on, and tells `key` when something happens to it. It must stay open until `remove`.
    pub(super) fn add(&mut self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        match self {
            Waiter::Epoll { epoll, .. } => {
                let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                Ok(epoll::add(epoll, fd, epoll::EventData::new_u64(key), flags)?)
            }
            Waiter::Uring(uring) => uring.watch(fd.as_raw_fd(), key),
        }
    }

    pub(super) fn remove(&mut self, fd: BorrowedFd<'_>, key: u64) {
        match self {
            Waiter::Epoll { epoll, .. } => {
                let _ = epoll::delete(epoll, fd);
            }
            Waiter::Uring(uring) => uring.unwatch(key),
        }
    }

    /// Submits the I/O that was queued, waits unless `block` is false, and adds the keys of descriptors with news to `ready`.
    pub(super) fn wait(&mut self, block: bool, ready: &mut Vec<u64>) -> io::Result<()> {
        match self {
            Waiter::Epoll { epoll, events } => {
                let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
                match epoll::wait(&*epoll, rustix::buffer::spare_capacity(events), (!block).then_some(&at_once)) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                ready.extend(events.drain(..).map(|event| event.data.u64()));
                Ok(())
            }
            Waiter::Uring(uring) => uring.wait(block, ready),
        }
    }

    /// Takes an I/O that ended, if there is one.
    pub(super) fn take_done(&mut self) -> Option<Done> {
        match self {
            Waiter::Epoll { .. } => None,
            Waiter::Uring(uring) => uring.take_done(),
        }
    }

    /// Whether I/O was queued or is under way.
    pub(super) fn has_io(&self) -> bool {
        match self {
            Waiter::Epoll { .. } => false,
            Waiter::Uring(uring) => uring.has_io(),
        }
    }
}
