//! The memory that a command in flight shares with its handler, and the way its request comes back.
use std::{
    cell::Cell,
    ffi::c_void,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use tcmu_handler_api::abi;

use super::{lost::Lost, pool::Pool, waker::Waker};

/// What the requests of one device share; `tcmu_request::owner` points here.
pub(super) struct Shared {
    pub(super) waker: Arc<Waker>,
    pub(super) pool: Arc<Pool>,
    /// Which device of its waker this is.
    pub(super) key: usize,
    /// Whether `done` of I/Os must run on the serving thread.
    pub(super) inline: bool,
    /// How the file's reads and writes can be tried without blocking: see `io::attempt`.
    pub(super) reads: AtomicU8,
    pub(super) writes: AtomicU8,
    pub(super) lost: Lost,
    /// Slots that were completed on the serving thread, newest first. Touched by that thread alone.
    local: Cell<*mut Slot>,
}

// SAFETY: `local` is only touched by the thread that serves the device, which `CURRENT` tells; the rest is `Sync` by itself.
unsafe impl Sync for Shared {}
// SAFETY: a device is moved between threads only while none serves it.
unsafe impl Send for Shared {}

thread_local! {
    /// The device that this thread serves at the moment. Only ever compared.
    static CURRENT: Cell<*const Shared> = const { Cell::new(ptr::null()) };
}

impl Shared {
    /// Of a device with this name.
    pub(super) fn new(name: &str, waker: Arc<Waker>, pool: Arc<Pool>, key: usize, inline: bool) -> Shared {
        Shared {
            waker,
            pool,
            key,
            inline,
            reads: AtomicU8::new(0),
            writes: AtomicU8::new(0),
            lost: Lost::new(name.to_owned()),
            local: Cell::new(ptr::null_mut()),
        }
    }

    /// The calling thread serves this device until the guard is dropped.
    pub(super) fn serve(&self) -> Serving {
        Serving { before: CURRENT.replace(self) }
    }

    /// Whether the calling thread serves this device at the moment.
    pub(super) fn is_served_here(&self) -> bool {
        ptr::eq(CURRENT.get(), self)
    }

    /// Takes the slots that were completed on this thread.
    pub(super) fn take_local(&self) -> *mut Slot {
        debug_assert!(self.is_served_here());
        self.local.replace(ptr::null_mut())
    }
}

/// The calling thread serves a device.
pub(super) struct Serving {
    before: *const Shared,
}

impl Drop for Serving {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// Who has a slot's request.
mod state {
    pub(super) const IDLE: u8 = 0;
    pub(super) const SUBMITTED: u8 = 1;
}

/// What a command in flight shares with its handler. Allocated once and reused; never moves. While its request is submitted, only the
/// handler and `complete` touch it.
#[repr(C)]
pub(super) struct Slot {
    /// First, so that a pointer to the request is one to the slot.
    pub(super) request: abi::tcmu_request,
    pub(super) next: *mut Slot,
    pub(super) shared: *const Shared,
    state: AtomicU8,
    pub(super) status: i32,
    pub(super) index: usize,
    pub(super) sense: [u8; abi::TCMU_SENSE_SIZE as usize],
}

impl Slot {
    pub(super) fn new(shared: *const Shared, index: usize) -> Box<Slot> {
        Box::new(Slot {
            request: abi::tcmu_request {
                complete,
                owner: shared.cast_mut().cast::<c_void>(),
                handler_data: [ptr::null_mut(); 2],
                op: 0,
                flags: 0,
                offset: 0,
                length: 0,
                source_offset: 0,
                iov: ptr::null(),
                bidi_iov: ptr::null(),
                iov_count: 0,
                bidi_iov_count: 0,
                cdb: ptr::null(),
                cdb_length: 0,
                sense_length: 0,
                sense: ptr::null_mut(),
                result: 0,
            },
            next: ptr::null_mut(),
            shared,
            state: AtomicU8::new(state::IDLE),
            status: 0,
            index,
            sense: [0; abi::TCMU_SENSE_SIZE as usize],
        })
    }

    /// Gets the request ready to be submitted; from now on it is the handler's.
    pub(super) fn arm(&mut self) -> *mut abi::tcmu_request {
        self.request.handler_data = [ptr::null_mut(); 2];
        self.request.sense = self.sense.as_mut_ptr();
        self.request.sense_length = 0;
        self.state.store(state::SUBMITTED, Ordering::Relaxed);
        // Of the whole slot, since `complete` goes from the request to the slot.
        ptr::from_mut(self).cast()
    }
}

/// `tcmu_request::complete` of all requests of the device server.
unsafe extern "C" fn complete(request: *mut abi::tcmu_request, status: i32) {
    let slot = request.cast::<Slot>();
    // SAFETY: requests with this function are the first field of a slot, and slots live as long as their device, as `shared` does.
    let (state, shared) = unsafe { (&(*slot).state, &*(*slot).shared) };
    let here = shared.is_served_here();
    // A handler that completes twice does so on one thread, or else races in its own memory: on the serving thread, where most
    // requests end, a locked instruction is saved.
    let had = if here {
        let had = state.load(Ordering::Relaxed);
        state.store(state::IDLE, Ordering::Relaxed);
        had
    } else {
        state.swap(state::IDLE, Ordering::Relaxed)
    };
    if had != state::SUBMITTED {
        tracing::error!("a handler completed a request that it did not have; that is a bug in the handler");
        return;
    }
    // SAFETY: the request was submitted, so the completer is the only one to touch it.
    unsafe {
        (*slot).status = status;
        if here {
            (*slot).next = shared.local.replace(slot);
        } else {
            // As soon as the slot is pushed its device may be completed, stopped and freed, and `shared` with it; but the waker is still
            // needed to wake whoever sleeps.
            let waker = shared.waker.clone();
            waker.push_slot(slot);
        }
    }
}
