//! `tcmu_host::io`: an I/O on a descriptor, for a handler. First tried without blocking on the serving thread; what would block goes to
//! a worker.
use std::sync::atomic::Ordering;

use tcmu_handler_api::{abi, host};

use super::{
    pool::{Io, Job},
    slot::Shared,
};

/// The services that the device server gives to handlers.
static SERVICES: abi::tcmu_host = host::new_services(io, host::no_filters);

/// See [`super::Server::services`].
pub(super) fn services() -> &'static abi::tcmu_host {
    &SERVICES
}

unsafe extern "C" fn io(request: *mut abi::tcmu_request, file_io: *mut abi::tcmu_io) {
    // SAFETY: a valid request by the ABI; its owner is null or the `Shared` of an open device, since only we set it and filters copy it.
    let shared = unsafe { (*request).owner.cast::<Shared>().as_ref() };
    let Some(shared) = shared else {
        // SAFETY: as the ABI has it. A request without an owner has no thread to come back to.
        return unsafe { host::finish(request, file_io, host::perform(request, file_io)) };
    };
    // SAFETY: valid by the ABI.
    if let Some(status) = unsafe { at_once(shared, request, file_io) } {
        // SAFETY: this is the I/O's only end.
        return unsafe { host::finish(request, file_io, status) };
    }
    // SAFETY: valid by the ABI; without `done` it may vanish when we return, so it is copied.
    let io = unsafe {
        if (*file_io).done.is_none() {
            Io::Copy(abi::tcmu_io { host_data: (*file_io).host_data, ..std::ptr::read(file_io) })
        } else {
            Io::Kept(file_io)
        }
    };
    shared.pool.push(Job::Io(request, io));
}

/// Tries a read or write that does not block. `None`: it would, or can't be known.
///
/// # Safety
/// Both are valid.
unsafe fn at_once(shared: &Shared, request: *const abi::tcmu_request, io: *const abi::tcmu_io) -> Option<i32> {
    // SAFETY: valid by contract.
    let (io, request) = unsafe { (&*io, &*request) };
    let hopeless = match io.op {
        abi::TCMU_IO_READ => &shared.blocking_reads,
        abi::TCMU_IO_WRITE if io.flags & abi::TCMU_IO_FLAG_DSYNC == 0 => &shared.blocking_writes,
        _ => return None,
    };
    if hopeless.load(Ordering::Relaxed) || !shared.is_served_here() {
        return None;
    }
    let (iov, count) = if io.iov.is_null() { (request.iov, request.iov_count) } else { (io.iov, io.iov_count) };
    let (count, offset) = (i32::try_from(count).ok().filter(|n| (1..=1024).contains(n))?, i64::try_from(io.offset).ok()?);
    // SAFETY: the segments are valid until the request is completed.
    let done = unsafe {
        if io.op == abi::TCMU_IO_READ {
            libc::preadv2(io.fd, iov, count, offset, libc::RWF_NOWAIT)
        } else {
            libc::pwritev2(io.fd, iov, count, offset, libc::RWF_NOWAIT)
        }
    };
    if u64::try_from(done).is_ok_and(|done| done == io.length) {
        return Some(0);
    }
    if done < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EOPNOTSUPP) {
        hopeless.store(true, Ordering::Relaxed);
    }
    // Short, or would block: the worker does the whole again, which is harmless for both.
    None
}

/// Does an I/O on a worker thread.
pub(super) fn run(request: *mut abi::tcmu_request, io: Io) {
    match io {
        Io::Copy(mut io) => {
            // SAFETY: the request is the host's until this I/O is done.
            unsafe { host::finish(request, &raw mut io, host::perform(request, &raw const io)) }
        }
        Io::Kept(io) => {
            // SAFETY: as above, and the handler keeps the I/O until `done`.
            unsafe {
                let status = host::perform(request, io);
                match (*request).owner.cast::<Shared>().as_ref() {
                    Some(shared) if shared.inline => {
                        (*io).host_data[1] = request.cast();
                        (*io).host_data[2] = status as isize as *mut _;
                        shared.waker.push_io(io);
                    }
                    _ => host::finish(request, io, status),
                }
            }
        }
    }
}
