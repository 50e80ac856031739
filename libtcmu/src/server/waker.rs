//! How requests that were completed on other threads come back to the thread that serves their device: two lock-free stacks and an
//! eventfd. Nothing is allocated; the nodes are the requests and I/Os themselves.
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, Ordering, fence},
};

use rustix::event::{EventfdFlags, eventfd};
use tcmu_handler_api::abi;

use super::slot::Slot;

/// Where completions from other threads arrive.
#[derive(Debug)]
pub struct Waker {
    slots: AtomicPtr<Slot>,
    ios: AtomicPtr<abi::tcmu_io>,
    /// The descriptor was made readable.
    rung: AtomicBool,
    /// Whoever waits is awake, and will look at the stacks before it sleeps.
    awake: AtomicBool,
    fd: OwnedFd,
}

impl Waker {
    /// A waker with a descriptor of its own.
    pub fn new() -> io::Result<Waker> {
        Ok(Waker {
            slots: AtomicPtr::new(ptr::null_mut()),
            ios: AtomicPtr::new(ptr::null_mut()),
            rung: AtomicBool::new(false),
            awake: AtomicBool::new(false),
            fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Makes the descriptor readable.
    pub fn wake(&self) {
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        // After the write: who sees this finds the descriptor readable, and who doesn't yet is woken once more.
        self.rung.store(true, Ordering::Release);
    }

    /// Makes the descriptor unreadable. To be called before the stacks are emptied. A system call only if it was readable.
    pub fn clear(&self) {
        if self.rung.load(Ordering::Acquire) {
            self.rung.store(false, Ordering::Relaxed);
            let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
        }
    }

    /// Hands a completed slot over.
    ///
    /// # Safety
    /// The slot stays where it is until it was taken out again, and is in no other list.
    pub(super) unsafe fn push_slot(&self, slot: *mut Slot) {
        let mut head = self.slots.load(Ordering::Relaxed);
        loop {
            // SAFETY: the slot is the caller's until the exchange succeeds.
            unsafe { (*slot).next = head };
            match self.slots.compare_exchange_weak(head, slot, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(seen) => head = seen,
            }
        }
        if head.is_null() {
            self.wake_a_sleeper();
        }
    }

    /// Takes all slots, newest first; a list by [`Slot::next`].
    pub(super) fn take_slots(&self) -> *mut Slot {
        self.slots.swap(ptr::null_mut(), Ordering::Acquire)
    }

    /// Hands an I/O over whose `done` is to be called on the serving thread. `host_data`: 0 next, 1 request, 2 status.
    ///
    /// # Safety
    /// The I/O stays where it is until it was taken out again.
    pub(super) unsafe fn push_io(&self, io: *mut abi::tcmu_io) {
        let mut head = self.ios.load(Ordering::Relaxed);
        loop {
            // SAFETY: the I/O is the host's until `done`.
            unsafe { (*io).host_data[0] = head.cast() };
            match self.ios.compare_exchange_weak(head, io, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(seen) => head = seen,
            }
        }
        if head.is_null() {
            self.wake_a_sleeper();
        }
    }

    /// Something was pushed on an empty stack.
    fn wake_a_sleeper(&self) {
        // Pairs with the fence in `falls_asleep`: one of the two sees what the other did.
        fence(Ordering::SeqCst);
        if !self.awake.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// The one who waits is about to sleep; `false` if there is something to do first.
    pub(super) fn falls_asleep(&self) -> bool {
        self.awake.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !self.has_news()
    }

    /// The one who waits is awake: nobody needs to wake it before it `falls_asleep`.
    pub(super) fn is_awake(&self) {
        self.awake.store(true, Ordering::Relaxed);
    }

    /// Whether something came back, or there is a message.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        !self.slots.load(Ordering::Relaxed).is_null()
            || !self.ios.load(Ordering::Relaxed).is_null()
            || self.rung.load(Ordering::Relaxed)
    }

    /// Calls `done` of all I/Os that came back.
    pub(super) fn run_ios(&self) {
        let mut io = self.ios.swap(ptr::null_mut(), Ordering::Acquire);
        while !io.is_null() {
            // SAFETY: pushed by `push_io`, ours until `done` is called.
            unsafe {
                let next = (*io).host_data[0].cast();
                let (request, status) = ((*io).host_data[1].cast(), (*io).host_data[2] as isize as i32);
                tcmu_handler_api::host::finish(request, io, status);
                io = next;
            }
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
