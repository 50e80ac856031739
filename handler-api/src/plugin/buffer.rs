//! The data of a request: segments of memory shared with the kernel.
use std::{fmt, marker::PhantomData, slice};

use libc::iovec;

/// The data of a request, in segments of any length and alignment, just where the kernel put it.
///
/// The memory is shared with the kernel, so there is no slice of it to be had: copy in, copy out, or pass [`Buffer::iovecs`] to a
/// system call.
#[derive(Clone, Copy)]
pub struct Buffer<'a> {
    segments: &'a [iovec],
    _data: PhantomData<&'a [u8]>,
}

// SAFETY: a buffer is a view of memory that its request owns; the pointers in it are as good on one thread as on another.
unsafe impl Send for Buffer<'_> {}
// SAFETY: as above; copies race only with copies that the handler itself makes, as with any shared memory.
unsafe impl Sync for Buffer<'_> {}

impl<'a> Buffer<'a> {
    /// A buffer over segments.
    ///
    /// # Safety
    /// Each segment points to `iov_len` bytes that can be read and written for `'a` and to which no Rust reference exists.
    pub unsafe fn from_raw(segments: *const iovec, count: u32) -> Buffer<'a> {
        let segments = if segments.is_null() || count == 0 {
            &[]
        } else {
            // SAFETY: by this function's contract.
            unsafe { slice::from_raw_parts(segments, count as usize) }
        };
        Buffer { segments, _data: PhantomData }
    }

    /// Bytes in all segments together.
    #[inline]
    pub fn len(&self) -> usize {
        self.segments.iter().map(|s| s.iov_len).sum()
    }

    /// Whether there are more bytes in it than so many. Quicker than [`Buffer::len`] where there are many segments.
    #[inline]
    pub fn has_more_than(&self, bytes: usize) -> bool {
        let mut left = bytes;
        self.segments.iter().any(|segment| match left.checked_sub(segment.iov_len) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.segments.iter().all(|s| s.iov_len == 0)
    }

    /// The segments, for system calls like `preadv`. They are valid as long as the request.
    pub fn iovecs(&self) -> &'a [iovec] {
        self.segments
    }

    /// Fills the buffer from its start with `source`. Returns the number of bytes copied, the shorter of both lengths.
    pub fn copy_from(&self, source: &[u8]) -> usize {
        self.copy_from_at(0, source)
    }

    /// Fills the buffer from byte `at` on with `source`. Returns the number of bytes copied.
    pub fn copy_from_at(&self, at: usize, source: &[u8]) -> usize {
        let mut done = 0;
        self.each(at, source.len(), |data, len| {
            // SAFETY: `each` yields segments of this buffer, `len` is within both; a slice never overlaps shared memory.
            unsafe { source[done..].as_ptr().copy_to_nonoverlapping(data, len) };
            done += len;
        });
        done
    }

    /// Copies the buffer's start to `target`. Returns the number of bytes copied, the shorter of both lengths.
    pub fn copy_to(&self, target: &mut [u8]) -> usize {
        self.copy_to_at(0, target)
    }

    /// Copies what is at byte `at` of the buffer to `target`. Returns the number of bytes copied.
    pub fn copy_to_at(&self, at: usize, target: &mut [u8]) -> usize {
        let mut done = 0;
        self.each(at, target.len(), |data, len| {
            // SAFETY: as in `copy_from_at`.
            unsafe { target[done..].as_mut_ptr().copy_from_nonoverlapping(data, len) };
            done += len;
        });
        done
    }

    /// Fills the whole buffer with one byte.
    pub fn fill(&self, byte: u8) {
        // SAFETY: `each` yields segments of this buffer.
        self.each(0, usize::MAX, |data, len| unsafe { data.write_bytes(byte, len) });
    }

    /// Fills `len` bytes from byte `at` on.
    pub fn fill_at(&self, at: usize, len: usize, byte: u8) {
        // SAFETY: `each` yields segments of this buffer.
        self.each(at, len, |data, len| unsafe { data.write_bytes(byte, len) });
    }

    /// A copy of the whole.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = vec![0; self.len()];
        self.copy_to(&mut copy);
        copy
    }

    /// Calls `with` for each run of memory of the `len` bytes from `at` on.
    fn each(&self, mut at: usize, mut len: usize, mut with: impl FnMut(*mut u8, usize)) {
        for segment in self.segments {
            if len == 0 {
                break;
            }
            if at >= segment.iov_len {
                at -= segment.iov_len;
                continue;
            }
            let run = (segment.iov_len - at).min(len);
            with(segment.iov_base.cast::<u8>().wrapping_add(at), run);
            len -= run;
            at = 0;
        }
    }
}

impl fmt::Debug for Buffer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes in {} segments)", self.len(), self.segments.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(parts: &mut [Vec<u8>]) -> Vec<iovec> {
        parts.iter_mut().map(|p| iovec { iov_base: p.as_mut_ptr().cast(), iov_len: p.len() }).collect()
    }

    #[test]
    fn copies_cross_segments_and_stop_at_the_shorter_end() {
        let mut parts = [vec![0u8; 3], vec![], vec![0u8; 5]];
        let iov = over(&mut parts);
        // SAFETY: the vectors outlive the buffer and are not touched through references while it exists.
        let buffer = unsafe { Buffer::from_raw(iov.as_ptr(), iov.len() as u32) };
        assert_eq!(buffer.len(), 8);
        assert!(buffer.has_more_than(7) && !buffer.has_more_than(8));
        assert_eq!(buffer.copy_from_at(2, &[1, 2, 3, 4]), 4);
        assert_eq!(buffer.to_vec(), [0, 0, 1, 2, 3, 4, 0, 0]);
        assert_eq!(buffer.copy_from_at(6, &[9, 9, 9]), 2);
        let mut out = [0; 16];
        assert_eq!(buffer.copy_to_at(5, &mut out), 3);
        assert_eq!(out[..3], [4, 9, 9]);
        buffer.fill_at(1, 4, 7);
        assert_eq!(buffer.to_vec(), [0, 7, 7, 7, 7, 4, 9, 9]);
        assert_eq!(buffer.copy_from_at(100, &[1]), 0);
    }
}
