//! Copies within a descriptor, and what is known of its holes.
use std::io;

use libc::off_t;

use super::io::retry;
use crate::{
    abi,
    plugin::{Buffer, request::put_extents},
};

/// Bytes that are copied at a time where the file system can't.
const CHUNK: u64 = 1 << 20;

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

fn place(offset: u64) -> io::Result<off_t> {
    off_t::try_from(offset).map_err(|_| error(libc::EINVAL))
}

/// [`abi::TCMU_IO_COPY`]
pub(super) fn copy(io: &abi::tcmu_io) -> io::Result<()> {
    let (from, to, length) = (io.source_offset, io.offset, io.length);
    place(from.checked_add(length).ok_or_else(|| error(libc::EINVAL))?)?;
    place(to.checked_add(length).ok_or_else(|| error(libc::EINVAL))?)?;
    let done = by_file_system(io.fd, from, to, length)?;
    by_reading(io.fd, from + done, to + done, length - done)?;
    if io.flags & abi::TCMU_IO_FLAG_DSYNC != 0 {
        // SAFETY: a plain system call.
        retry(|| unsafe { libc::fdatasync(io.fd) } as isize)?;
    }
    Ok(())
}

/// `copy_file_range`, as far as it goes: not at all for block devices, ranges that overlap, and some file systems.
fn by_file_system(fd: i32, from: u64, to: u64, length: u64) -> io::Result<u64> {
    let mut done = 0;
    while done < length {
        let (mut source, mut target) = (place(from + done)?, place(to + done)?);
        let most = usize::try_from(length - done).unwrap_or(usize::MAX).min(1 << 30);
        // SAFETY: the offsets are valid places; the kernel checks everything else.
        let copied = retry(|| unsafe { libc::copy_file_range(fd, &raw mut source, fd, &raw mut target, most, 0) });
        match copied {
            Ok(0) => return Err(error(libc::EIO)), // the file ends before the data does
            Ok(copied) => done += copied as u64,
            Err(failed) => match failed.raw_os_error() {
                Some(libc::EINVAL | libc::EXDEV | libc::ENOSYS | libc::EOPNOTSUPP | libc::EBADF | libc::EPERM) => break,
                _ => return Err(failed),
            },
        }
    }
    Ok(done)
}

/// By a buffer, from the end if the beginning of the source would be overwritten.
fn by_reading(fd: i32, from: u64, to: u64, length: u64) -> io::Result<()> {
    let backward = to > from && to - from < length;
    let mut buffer = vec![0; length.min(CHUNK) as usize];
    let mut left = length;
    while left > 0 {
        let piece = left.min(CHUNK);
        let at = if backward { left - piece } else { length - left };
        let buffer = &mut buffer[..piece as usize];
        whole(buffer.len(), from + at, |done, offset| {
            let rest = &mut buffer[done..];
            // SAFETY: the buffer is as long as it says.
            unsafe { libc::pread(fd, rest.as_mut_ptr().cast(), rest.len(), offset) }
        })?;
        whole(buffer.len(), to + at, |done, offset| {
            let rest = &buffer[done..];
            // SAFETY: the buffer is as long as it says.
            unsafe { libc::pwrite(fd, rest.as_ptr().cast(), rest.len(), offset) }
        })?;
        left -= piece;
    }
    Ok(())
}

/// Calls until all of it is done.
fn whole(length: usize, offset: u64, mut call: impl FnMut(usize, off_t) -> isize) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        let at = place(offset + done as u64)?;
        match retry(|| call(done, at))? {
            0 => return Err(error(libc::EIO)),
            n => done += n,
        }
    }
    Ok(())
}

/// [`abi::TCMU_IO_EXTENTS`]: how many extents were stored. `from` is the request's offset, which the answer is in terms of. What a
/// descriptor can't tell counts as data.
pub(super) fn extents(io: &abi::tcmu_io, from: u64, answer: &Buffer<'_>) -> io::Result<usize> {
    let most = answer.len() / size_of::<abi::tcmu_extent>();
    let end = io.offset.checked_add(io.length).ok_or_else(|| error(libc::EINVAL))?;
    let mut extents: Vec<abi::tcmu_extent> = Vec::new();
    let mut at = io.offset;
    while at < end && extents.len() < most {
        let data = seek(io.fd, at, libc::SEEK_DATA)?.unwrap_or(end).clamp(at, end);
        let (next, state) = if data > at {
            (data, abi::TCMU_EXTENT_DEALLOCATED)
        } else {
            // There is always a hole, at the end of the file at the latest.
            (seek(io.fd, at, libc::SEEK_HOLE)?.unwrap_or(end).clamp(at + 1, end), abi::TCMU_EXTENT_MAPPED)
        };
        extents.push(abi::tcmu_extent { offset: from + (at - io.offset), length: next - at, state, reserved: 0 });
        at = next;
    }
    Ok(put_extents(answer, &extents))
}

/// The next data or hole; `None` if there is none before the end.
fn seek(fd: i32, at: u64, what: i32) -> io::Result<Option<u64>> {
    let at = place(at)?;
    // SAFETY: a plain system call. Nobody uses the descriptor's own position.
    match retry(|| unsafe { libc::lseek(fd, at, what) } as isize) {
        Ok(found) => Ok(Some(found as u64)),
        Err(failed) if failed.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        // No holes here, as of a block device: all of it is data.
        Err(failed) if failed.raw_os_error() == Some(libc::EINVAL) => {
            Ok(Some(if what == libc::SEEK_DATA { at as u64 } else { u64::MAX }))
        }
        Err(failed) => Err(failed),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsRawFd};

    use proptest::prelude::*;

    use super::*;

    fn io(file: &fs::File, source_offset: u64, offset: u64, length: u64) -> abi::tcmu_io {
        abi::tcmu_io {
            op: abi::TCMU_IO_COPY,
            fd: file.as_raw_fd(),
            flags: 0,
            iov_count: 0,
            iov: std::ptr::null(),
            offset,
            length,
            source_offset,
            done: None,
            handler_data: std::ptr::null_mut(),
            host_data: [std::ptr::null_mut(); 6],
        }
    }

    fn file() -> (tempfile::TempDir, fs::File, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        (dir, file, path)
    }

    proptest! {
        #[test]
        fn a_copy_is_as_memmove_has_it(from in 0usize..3000, to in 0usize..3000, length in 0usize..3000) {
            let (_dir, file, path) = file();
            let mut model: Vec<u8> = (0..6000).map(|n| (n % 251) as u8).collect();
            fs::write(&path, &model).unwrap();
            copy(&io(&file, from as u64, to as u64, length as u64)).unwrap();
            model.copy_within(from..from + length, to);
            prop_assert_eq!(fs::read(&path).unwrap(), model);
        }
    }

    #[test]
    fn long_ranges_that_overlap_are_copied_from_the_right_end() {
        let (_dir, file, path) = file();
        let mut model: Vec<u8> = (0..3 << 20).map(|n: u32| (n % 65521) as u8).collect();
        for (from, to) in [(0, 512), (512, 0)] {
            fs::write(&path, &model).unwrap();
            let length = model.len() - 512;
            copy(&io(&file, from, to, length as u64)).unwrap();
            model.copy_within(from as usize..from as usize + length, to as usize);
            assert!(fs::read(&path).unwrap() == model);
        }
        assert!(copy(&io(&file, 3 << 20, 0, 512)).is_err(), "beyond the end");
    }

    #[test]
    fn holes_are_told_in_terms_of_the_device() {
        let (_dir, file, _) = file();
        file.set_len(4 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 65536], 1 << 20).unwrap();
        let mut memory = vec![0u8; 24 * 8];
        let iov = [libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() }];
        // SAFETY: `memory` outlives the buffer and is touched by nobody else.
        let answer = unsafe { Buffer::from_raw(iov.as_ptr(), 1) };
        let io = abi::tcmu_io { op: abi::TCMU_IO_EXTENTS, ..io(&file, 0, 0, 4 << 20) };
        let count = extents(&io, 0, &answer).unwrap();
        let bytes = answer.to_vec();
        let read = |n: usize, at: usize| u64::from_ne_bytes(bytes[24 * n + at..24 * n + at + 8].try_into().unwrap());
        let told: Vec<_> = (0..count).map(|n| (read(n, 0), read(n, 8), read(n, 16) as u32)).collect();
        assert_eq!(told, [(0, 1 << 20, 1), (1 << 20, 65536, 0), ((1 << 20) + 65536, (3 << 20) - 65536, 1)]);
    }
}
