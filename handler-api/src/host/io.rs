//! Doing an I/O on a descriptor, synchronously.
use std::{io, slice};

use libc::{c_int, iovec, off_t};

use super::ranges;
use crate::{abi, plugin::Buffer};

/// The most segments that one system call takes.
const IOV_MAX: usize = 1024;

/// Does an I/O for a request on the calling thread; blocks. Returns 0 or a negative `errno`.
///
/// # Safety
/// Both are valid, as the ABI has it, and stay so during the call.
pub unsafe fn perform(request: *mut abi::tcmu_request, file_io: *const abi::tcmu_io) -> i32 {
    // SAFETY: valid by contract.
    let (io, (iov, count)) = unsafe {
        let io = &*file_io;
        (io, if io.iov.is_null() { ((*request).iov, (*request).iov_count) } else { (io.iov, io.iov_count) })
    };
    let outcome = match io.op {
        abi::TCMU_IO_READ | abi::TCMU_IO_WRITE => {
            let segments = if iov.is_null() || count == 0 {
                &[]
            } else {
                // SAFETY: the segments are valid by the ABI.
                unsafe { slice::from_raw_parts(iov, count as usize) }
            };
            transfer(io, segments)
        }
        // SAFETY: plain system calls.
        abi::TCMU_IO_DATASYNC => retry(|| unsafe { libc::fdatasync(io.fd) } as isize).map(|_| ()),
        abi::TCMU_IO_PUNCH_HOLE => allocate(io, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE),
        abi::TCMU_IO_ZERO_RANGE => allocate(io, libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE),
        abi::TCMU_IO_COPY => ranges::copy(io),
        abi::TCMU_IO_EXTENTS => {
            // SAFETY: the segments are valid by the ABI, and so is the request.
            unsafe {
                ranges::extents(io, (*request).offset, &Buffer::from_raw(iov, count))
                    .map(|count| (*request).result = count as u64)
            }
        }
        _ => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
    }
}

/// Tells the outcome of an I/O: to the handler's `done` if there is one, else by completing the request.
///
/// # Safety
/// Both are valid, and this is the I/O's only end.
pub unsafe fn finish(request: *mut abi::tcmu_request, file_io: *mut abi::tcmu_io, status: i32) {
    // SAFETY: valid by contract.
    unsafe {
        match (*file_io).done {
            Some(done) => done(file_io, request, status),
            None => ((*request).complete)(request, status),
        }
    }
}

/// Reads or writes `io.length` bytes, going on after short transfers.
fn transfer(io: &abi::tcmu_io, segments: &[iovec]) -> io::Result<()> {
    let write = io.op == abi::TCMU_IO_WRITE;
    let flags = if write && io.flags & abi::TCMU_IO_FLAG_DSYNC != 0 { libc::RWF_DSYNC } else { 0 };
    let mut rest: Vec<iovec>;
    let mut segments = segments;
    let (mut offset, mut left) = (io.offset, io.length as usize);
    if segments.iter().map(|s| s.iov_len).sum::<usize>() != left {
        rest = skip(segments, 0, left);
        segments = &rest;
        if segments.iter().map(|s| s.iov_len).sum::<usize>() != left {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
    }
    while left > 0 {
        let count = segments.len().min(IOV_MAX) as c_int;
        let at = off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: the segments are valid by the ABI; the kernel checks everything else.
        let done = retry(|| unsafe {
            if write {
                libc::pwritev2(io.fd, segments.as_ptr(), count, at, flags)
            } else {
                libc::preadv2(io.fd, segments.as_ptr(), count, at, flags)
            }
        })?;
        if done == 0 {
            // The file ends before the data does: that is not zeros, that is data lost.
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        left -= done.min(left);
        offset += done as u64;
        if left > 0 {
            rest = skip(segments, done, left);
            segments = &rest;
        }
    }
    Ok(())
}

/// What is left of the segments after `done` bytes, at most `left` bytes of it.
fn skip(segments: &[iovec], mut done: usize, mut left: usize) -> Vec<iovec> {
    let mut rest = Vec::with_capacity(segments.len());
    for segment in segments {
        if done >= segment.iov_len {
            done -= segment.iov_len;
            continue;
        }
        let len = (segment.iov_len - done).min(left);
        if len == 0 {
            break;
        }
        rest.push(iovec { iov_base: segment.iov_base.wrapping_byte_add(done), iov_len: len });
        left -= len;
        done = 0;
    }
    rest
}

fn allocate(io: &abi::tcmu_io, mode: c_int) -> io::Result<()> {
    let range = |n: u64| off_t::try_from(n).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
    let (offset, length) = (range(io.offset)?, range(io.length)?);
    // SAFETY: a plain system call.
    retry(|| unsafe { libc::fallocate(io.fd, mode, offset, length) } as isize).map(|_| ())
}

/// Calls until it is not interrupted.
pub(super) fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        let n = call();
        if n >= 0 {
            return Ok(n.unsigned_abs());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
