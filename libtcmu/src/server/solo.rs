//! A device in a program's own event loop: two descriptors to wait for, one function to call.
use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use super::{Attach, Counters, DeviceServer, ServeError, Turn, pool::Pool, waker::Waker};
use crate::mapping::Mapping;

/// A device that a program serves on a thread of its own choice.
pub struct Solo {
    server: DeviceServer,
    waker: Arc<Waker>,
    pool: Arc<Pool>,
    /// The last turn took several commands.
    busy: bool,
    /// Turns since the UIO descriptor was read.
    unread: u32,
}

/// Turns that leave the UIO descriptor unread, before one reads it whatever there is.
const MOST_UNREAD: u32 = 64;

impl Solo {
    /// Maps the device. `workers` threads do what blocks.
    pub fn new(attach: Attach, workers: usize) -> Result<Solo, ServeError> {
        let waker = Arc::new(Waker::new()?);
        let pool = Pool::start(workers)?;
        let server = DeviceServer::new(attach, waker.clone(), pool.clone(), 0)?;
        Ok(Solo { server, waker, pool, busy: false, unread: 0 })
    }

    /// As [`Solo::new`], on memory that is mapped already: the simulated kernel's.
    pub fn mapped(map: Arc<Mapping>, attach: Attach, workers: usize) -> Result<Solo, ServeError> {
        let waker = Arc::new(Waker::new()?);
        let pool = Pool::start(workers)?;
        let server = DeviceServer::on(map, attach, waker.clone(), pool.clone(), 0)?;
        Ok(Solo { server, waker, pool, busy: false, unread: 0 })
    }

    /// The descriptors to wait for: readable means that [`Solo::turn`] has something to do. While commands come in batches the first one
    /// is not read each time, which saves a system call; it is still readable then, and a turn that finds nothing reads it.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.server.uio(), self.waker.as_fd()]
    }

    /// Does what there is to do. [`Turn::More`]: call it again before waiting. To be called once at the start, for entries that were
    /// there before the device was opened.
    pub fn turn(&mut self) -> Result<Turn, ServeError> {
        self.waker.clear();
        self.waker.run_ios();
        let mut slot = self.waker.take_slots();
        let mut taken_back = Ok(());
        while !slot.is_null() {
            // SAFETY: a completed slot of the one device of this waker.
            let next = unsafe { (*slot).next };
            if let Err(error) = self.server.take_back(slot) {
                taken_back = Err(error);
            }
            slot = next;
        }
        taken_back?;
        // Left readable, the descriptor will have this called once more: nothing that comes meanwhile is missed.
        let leave = self.busy && self.unread < MOST_UNREAD && self.server.has_entries();
        self.unread = if leave { self.unread + 1 } else { 0 };
        let turn = if leave { self.server.work() } else { self.server.turn() };
        self.busy = self.server.take_taken() > 1;
        turn
    }

    /// Takes no more commands from the ring. When [`Solo::is_idle`], it can be dropped.
    pub fn stop(&mut self) {
        self.server.stop_fetching(true);
    }

    /// Whether no command is in flight.
    pub fn is_idle(&self) -> bool {
        self.server.is_idle()
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.server.counters()
    }
}

impl Drop for Solo {
    fn drop(&mut self) {
        self.pool.stop();
    }
}

impl std::fmt::Debug for Solo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.server.fmt(f)
    }
}
