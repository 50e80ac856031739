//! The host's services as the bench gives them.
use std::{
    ffi::{CStr, c_char},
    path::Path,
    ptr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::Ordering,
        mpsc::{Sender, channel},
    },
    thread,
};

use super::{device::Shared, slot::lock};
use crate::{
    abi,
    host::{LoadError, Plugin, finish, new_services, perform},
    plugin::{Handler, Threads, handler_table},
};

/// The services that a plugin is to be loaded with for the bench. I/O on descriptors is done on the calling thread, or by another
/// thread while the handler goes on ([`super::Bench::deferred_io`]): a handler must be right with both.
pub fn services() -> &'static abi::tcmu_host {
    static SERVICES: abi::tcmu_host = new_services(io, find_handler);
    &SERVICES
}

/// Loads a plugin for the bench.
pub fn load(path: &Path) -> Result<Plugin, LoadError> {
    Plugin::load(path, services())
}

/// A Rust handler of this program as a plugin for the bench.
pub fn linked<H: Handler>() -> Result<Plugin, LoadError> {
    Plugin::linked(handler_table::<H>(), services())
}

static OFFERED: Mutex<Vec<Plugin>> = Mutex::new(Vec::new());

/// Lets filters find this handler by its subtype.
pub fn offer(plugin: Plugin) {
    lock(&OFFERED).push(plugin);
}

unsafe extern "C" fn find_handler(subtype: *const c_char) -> *const abi::tcmu_handler {
    if subtype.is_null() {
        return ptr::null();
    }
    // SAFETY: a string, by the ABI.
    let subtype = unsafe { CStr::from_ptr(subtype) }.to_string_lossy();
    lock(&OFFERED).iter().rev().find(|p| p.subtype() == subtype).map_or(ptr::null(), |p| ptr::from_ref(p.table()))
}

/// An I/O that is underway.
pub(super) struct IoJob {
    request: *mut abi::tcmu_request,
    io: *mut abi::tcmu_io,
    /// The copy behind `io` where the handler did not keep its own.
    copy: Option<Box<abi::tcmu_io>>,
    status: i32,
    shared: Arc<Shared>,
}

// SAFETY: by the ABI both pointers are the host's until it calls `done` or completes the request, on any thread.
unsafe impl Send for IoJob {}

impl IoJob {
    /// Tells the handler.
    pub(super) fn finish(self) {
        // SAFETY: valid by the ABI until now; this is the I/O's only end.
        unsafe { finish(self.request, self.io, self.status) }
        drop(self.copy);
    }
}

unsafe extern "C" fn io(request: *mut abi::tcmu_request, file_io: *mut abi::tcmu_io) {
    // SAFETY: a request of the bench, or of a filter that copied the owner.
    let owner = unsafe { (*request).owner }.cast_const().cast::<Shared>();
    // SAFETY: the owner is kept as long as one of its requests.
    let shared = unsafe { owner.as_ref() };
    if let Some(shared) = shared {
        shared.ios.fetch_add(1, Ordering::Relaxed);
    }
    if !shared.is_some_and(|s| s.deferred) {
        // SAFETY: valid by the ABI.
        unsafe { finish(request, file_io, perform(request, file_io)) }
        return;
    }
    // SAFETY: the owner pointer is that of an `Arc` whose count is not 0, as its request is outstanding.
    let shared = unsafe {
        Arc::increment_strong_count(owner);
        Arc::from_raw(owner)
    };
    // SAFETY: a valid struct of plain data.
    let copied = unsafe { (*file_io).done.is_none().then(|| Box::new(ptr::read(file_io))) };
    let mut job = IoJob { request, io: file_io, copy: copied, status: 0, shared };
    if let Some(copy) = &mut job.copy {
        job.io = &raw mut **copy;
    }
    // The receiver never ends.
    let _ = io_thread().send(job);
}

/// One thread does all deferred I/O of this process. What `done` may count on holds: with `Threads::Inline` it runs on the thread that
/// serves the device.
fn io_thread() -> &'static Sender<IoJob> {
    static SENDER: OnceLock<Sender<IoJob>> = OnceLock::new();
    SENDER.get_or_init(|| {
        let (sender, jobs) = channel::<IoJob>();
        thread::spawn(move || {
            for mut job in jobs {
                // SAFETY: valid by the ABI.
                job.status = unsafe { perform(job.request, job.io) };
                if job.shared.threads == Threads::Inline {
                    let shared = job.shared.clone();
                    shared.push_io(job);
                } else {
                    job.finish();
                }
            }
        });
        sender
    })
}
