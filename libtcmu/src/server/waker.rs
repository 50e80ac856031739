//! How requests that were completed on other threads come back to the thread that serves their device: two lock-free stacks and an
//! eventfd. Nothing is allocated; the nodes are the requests and I/Os themselves.
use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::event::{EventfdFlags, eventfd};
use tcmu_handler_api::abi;

use super::{
    signal::{Descriptor, Signal},
    slot::Slot,
    stack::{Node, Stack},
};

/// Where completions from other threads arrive.
pub struct Waker {
    slots: Stack<Slot>,
    ios: Stack<abi::tcmu_io>,
    signal: Signal<Eventfd>,
}

struct Eventfd(OwnedFd);

impl Descriptor for Eventfd {
    fn ring(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn silence(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

impl Node for Slot {
    #[inline]
    unsafe fn next(slot: *mut Slot) -> *mut Slot {
        // SAFETY: the caller's.
        unsafe { (*slot).next }
    }

    #[inline]
    unsafe fn set_next(slot: *mut Slot, next: *mut Slot) {
        // SAFETY: the caller's.
        unsafe { (*slot).next = next }
    }
}

/// `host_data`: 0 next, 1 request, 2 status.
impl Node for abi::tcmu_io {
    unsafe fn next(io: *mut abi::tcmu_io) -> *mut abi::tcmu_io {
        // SAFETY: the caller's, and the host's until `done`.
        unsafe { (*io).host_data[0].cast() }
    }

    unsafe fn set_next(io: *mut abi::tcmu_io, next: *mut abi::tcmu_io) {
        // SAFETY: as above.
        unsafe { (*io).host_data[0] = next.cast() }
    }
}

impl Waker {
    /// A waker with a descriptor of its own.
    pub fn new() -> io::Result<Waker> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker { slots: Stack::new(), ios: Stack::new(), signal: Signal::new(Eventfd(fd)) })
    }

    /// Makes the descriptor readable.
    pub fn wake(&self) {
        self.signal.wake();
    }

    /// Makes the descriptor unreadable. To be called before the stacks are emptied. A system call only if it was readable.
    pub fn clear(&self) {
        self.signal.clear();
    }

    /// Hands a completed slot over.
    ///
    /// # Safety
    /// The slot stays where it is until it was taken out again, and is in no other list.
    pub(super) unsafe fn push_slot(&self, slot: *mut Slot) {
        // SAFETY: by contract.
        if unsafe { self.slots.push(slot) } {
            self.signal.wake_a_sleeper();
        }
    }

    /// Takes all slots, newest first; a list by [`Slot::next`].
    pub(super) fn take_slots(&self) -> *mut Slot {
        self.slots.take()
    }

    /// Hands an I/O over whose `done` is to be called on the serving thread.
    ///
    /// # Safety
    /// The I/O stays where it is until it was taken out again.
    pub(super) unsafe fn push_io(&self, io: *mut abi::tcmu_io) {
        // SAFETY: by contract.
        if unsafe { self.ios.push(io) } {
            self.signal.wake_a_sleeper();
        }
    }

    /// The one who waits is about to sleep; `false` if there is something to do first.
    pub(super) fn falls_asleep(&self) -> bool {
        self.signal.falls_asleep(|| self.has_arrivals())
    }

    /// The one who waits is awake: nobody needs to wake it before it `falls_asleep`.
    pub(super) fn is_awake(&self) {
        self.signal.is_awake();
    }

    /// Whether something came back, or there is a message.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.has_arrivals() || self.signal.is_rung()
    }

    #[inline]
    fn has_arrivals(&self) -> bool {
        !self.slots.is_empty() || !self.ios.is_empty()
    }

    /// Calls `done` of all I/Os that came back.
    pub(super) fn run_ios(&self) {
        let mut io = self.ios.take();
        while !io.is_null() {
            // SAFETY: pushed by `push_io`, ours until `done` is called.
            unsafe {
                let next = Node::next(io);
                let (request, status) = ((*io).host_data[1].cast(), (*io).host_data[2] as isize as i32);
                tcmu_handler_api::host::finish(request, io, status);
                io = next;
            }
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.descriptor().0.as_fd()
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}
