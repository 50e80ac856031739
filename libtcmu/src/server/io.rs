//! `tcmu_host::io`: an I/O on a descriptor, for a handler. First tried without blocking on the serving thread; what would block goes to
//! a worker.
use std::sync::atomic::Ordering;

use tcmu_handler_api::{abi, host};

use super::{
    pool::{Io, Job},
    slot::Shared,
    uring::{self, Queued},
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
    let mut queued = Some(Queued { request, io });
    if shared.is_served_here() {
        queued = queued.and_then(uring::queue);
    }
    if let Some(Queued { request, io }) = queued {
        shared.pool.push(Job::Io(request, io));
    }
}

/// Tells the outcome of an I/O, on the thread that serves its device.
pub(super) fn end(request: *mut abi::tcmu_request, io: Io, status: i32) {
    // SAFETY: only requests with an owner are queued, which lives as long as its device. The request is the host's until this I/O is done,
    // which it is now, once.
    unsafe {
        let shared = &*(*request).owner.cast::<Shared>();
        match io {
            Io::Copy(mut io) => host::finish(request, &raw mut io, shared.lost.judge(&io, status)),
            Io::Kept(io) => host::finish(request, io, shared.lost.judge(&*io, status)),
        }
    }
}

/// Has a thread do an I/O that io_uring did not do.
pub(super) fn hand_over(request: *mut abi::tcmu_request, io: Io) {
    // SAFETY: only requests with an owner are queued, which lives as long as its device.
    let shared = unsafe { &*(*request).owner.cast::<Shared>() };
    shared.pool.push(Job::Io(request, io));
}

/// How I/O on a device's file can be tried on the serving thread.
mod attempt {
    /// With `RWF_NOWAIT`, which gives up where it would block. Not known yet, or known to work.
    pub(super) const NO_WAIT: u8 = 0;
    /// Just so: its file system is in memory, where nothing blocks.
    pub(super) const PLAIN: u8 = 1;
    /// Not at all.
    pub(super) const NEVER: u8 = 2;
}

/// `TMPFS_MAGIC`, `RAMFS_MAGIC` and `HUGETLBFS_MAGIC` (include/uapi/linux/magic.h).
const IN_MEMORY: [i64; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// Does what does not block, and answers what is known already. `None`: it would block, or can't be known.
///
/// # Safety
/// Both are valid.
unsafe fn at_once(shared: &Shared, request: *mut abi::tcmu_request, file_io: *const abi::tcmu_io) -> Option<i32> {
    // SAFETY: valid by contract.
    let io = unsafe { &*file_io };
    if io.flags & abi::TCMU_IO_FLAG_UNCACHED != 0 {
        return None;
    }
    let how = match io.op {
        abi::TCMU_IO_READ => &shared.reads,
        abi::TCMU_IO_WRITE if io.flags & abi::TCMU_IO_FLAG_DSYNC == 0 => &shared.writes,
        abi::TCMU_IO_WRITE | abi::TCMU_IO_DATASYNC => {
            if let (abi::TCMU_IO_DATASYNC, Some(status)) = (io.op, shared.lost.status()) {
                return Some(status);
            }
            // What is never written back is as durable as it gets.
            let plain = shared.writes.load(Ordering::Relaxed) == attempt::PLAIN;
            let at_once = plain && shared.is_served_here() && is_in_memory(io.fd);
            // SAFETY: valid by contract.
            return at_once.then(|| shared.lost.judge(io, unsafe { host::perform(request, file_io) }));
        }
        _ => return None,
    };
    let flags = match how.load(Ordering::Relaxed) {
        attempt::NO_WAIT => libc::RWF_NOWAIT,
        attempt::PLAIN => 0,
        _ => return None,
    };
    if !shared.is_served_here() {
        return None;
    }
    // SAFETY: valid by contract.
    let segments = unsafe { whole_segments(io, &*request)? };
    let (iov, count, offset) = (segments.as_ptr(), segments.len() as i32, i64::try_from(io.offset).ok()?);
    // SAFETY: the segments are valid until the request is completed.
    let transfer = |flags| unsafe {
        if io.op == abi::TCMU_IO_READ {
            libc::preadv2(io.fd, iov, count, offset, flags)
        } else {
            libc::pwritev2(io.fd, iov, count, offset, flags)
        }
    };
    let mut done = transfer(flags);
    if done < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EOPNOTSUPP) {
        if !is_in_memory(io.fd) {
            how.store(attempt::NEVER, Ordering::Relaxed);
            return None;
        }
        how.store(attempt::PLAIN, Ordering::Relaxed);
        done = transfer(0);
    }
    // Short, or would block: the worker does the whole again, which is harmless for both.
    u64::try_from(done).is_ok_and(|done| done == io.length).then_some(0)
}

/// The segments of a transfer that takes all of them, in one system call. One that takes only a part of its segments is for
/// [`host::perform`], which cuts them: the kernel would write the rest as well.
///
/// # Safety
/// Both are valid.
pub(super) unsafe fn whole_segments<'a>(io: &'a abi::tcmu_io, request: &'a abi::tcmu_request) -> Option<&'a [libc::iovec]> {
    let (iov, count) = if io.iov.is_null() { (request.iov, request.iov_count) } else { (io.iov, io.iov_count) };
    // To io_uring an offset of -1 is the descriptor's own.
    if iov.is_null() || !(1..=1024).contains(&count) || i64::try_from(io.offset).is_err() {
        return None;
    }
    // SAFETY: so many segments by the ABI, until the I/O is done.
    let segments = unsafe { std::slice::from_raw_parts(iov, count as usize) };
    (segments.iter().map(|segment| segment.iov_len as u64).sum::<u64>() == io.length).then_some(segments)
}

fn is_in_memory(fd: i32) -> bool {
    // SAFETY: a plain system call that fills the struct.
    let found = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(fd, &raw mut found) == 0).then_some(found)
    };
    #[allow(clippy::unnecessary_cast)] // not everywhere is it an i64
    found.is_some_and(|found| IN_MEMORY.contains(&(found.f_type as i64)))
}

/// Does an I/O on a worker thread.
pub(super) fn run(request: *mut abi::tcmu_request, io: Io) {
    // SAFETY: the request is the host's until this I/O is done, and only those with an owner get here, which lives as long as its device. The
    // handler keeps an I/O of its own until `done`.
    unsafe {
        let shared = &*(*request).owner.cast::<Shared>();
        match io {
            Io::Copy(mut io) => {
                let status = shared.lost.judge(&io, host::perform(request, &raw const io));
                host::finish(request, &raw mut io, status);
            }
            Io::Kept(io) => {
                let status = shared.lost.judge(&*io, host::perform(request, io));
                if shared.inline {
                    (*io).host_data[1] = request.cast();
                    (*io).host_data[2] = status as isize as *mut _;
                    shared.waker.push_io(io);
                } else {
                    host::finish(request, io, status);
                }
            }
        }
    }
}
