//! Requests as owned values that are completed exactly once.
use std::{
    fmt,
    mem::ManuallyDrop,
    os::fd::{AsRawFd, BorrowedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::{self, NonNull},
    slice,
};

use crate::{
    abi,
    plugin::{Buffer, Error, log},
};

/// What a request wants done. Offsets and lengths are bytes; see the `TCMU_OP_*` constants in [`abi`] for the exact meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Read into the buffer.
    Read,
    /// Write from the buffer.
    Write,
    /// Bring completed writes to stable storage.
    Flush,
    /// Deallocate.
    Unmap,
    /// Make it read as zeros.
    WriteZeroes,
    /// Repeat the one block in the buffer.
    WriteSame,
    /// Compare the first half of the buffer, then write the second.
    CompareAndWrite,
    /// Copy within the device, from [`Request::source_offset`].
    Copy,
    /// Tell how ranges are provisioned.
    Extents,
    /// Will be read soon.
    Prefetch,
    /// A whole SCSI command.
    Scsi,
    /// Something that a newer host knows; complete it with [`Error::UNSUPPORTED`].
    Unknown(u32),
}

impl From<u32> for Operation {
    fn from(op: u32) -> Operation {
        match op {
            abi::TCMU_OP_READ => Operation::Read,
            abi::TCMU_OP_WRITE => Operation::Write,
            abi::TCMU_OP_FLUSH => Operation::Flush,
            abi::TCMU_OP_UNMAP => Operation::Unmap,
            abi::TCMU_OP_WRITE_ZEROES => Operation::WriteZeroes,
            abi::TCMU_OP_WRITE_SAME => Operation::WriteSame,
            abi::TCMU_OP_COMPARE_AND_WRITE => Operation::CompareAndWrite,
            abi::TCMU_OP_COPY => Operation::Copy,
            abi::TCMU_OP_EXTENTS => Operation::Extents,
            abi::TCMU_OP_PREFETCH => Operation::Prefetch,
            abi::TCMU_OP_SCSI => Operation::Scsi,
            other => Operation::Unknown(other),
        }
    }
}

bitflags::bitflags! {
    /// The set of operations that a device takes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Operations: u64 {
        /// [`Operation::Read`]
        const READ = 1 << abi::TCMU_OP_READ;
        /// [`Operation::Write`]
        const WRITE = 1 << abi::TCMU_OP_WRITE;
        /// [`Operation::Flush`]
        const FLUSH = 1 << abi::TCMU_OP_FLUSH;
        /// [`Operation::Unmap`]
        const UNMAP = 1 << abi::TCMU_OP_UNMAP;
        /// [`Operation::WriteZeroes`]
        const WRITE_ZEROES = 1 << abi::TCMU_OP_WRITE_ZEROES;
        /// [`Operation::WriteSame`]
        const WRITE_SAME = 1 << abi::TCMU_OP_WRITE_SAME;
        /// [`Operation::CompareAndWrite`]
        const COMPARE_AND_WRITE = 1 << abi::TCMU_OP_COMPARE_AND_WRITE;
        /// [`Operation::Copy`]
        const COPY = 1 << abi::TCMU_OP_COPY;
        /// [`Operation::Extents`]
        const EXTENTS = 1 << abi::TCMU_OP_EXTENTS;
        /// [`Operation::Prefetch`]
        const PREFETCH = 1 << abi::TCMU_OP_PREFETCH;
        const _ = !0;
    }
}

bitflags::bitflags! {
    /// How a request wants it done.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RequestFlags: u32 {
        /// Complete only when the data is on stable storage.
        const FUA = abi::TCMU_REQ_FUA;
        /// The data is unlikely to be used again soon.
        const DPO = abi::TCMU_REQ_DPO;
        /// Zeroing may deallocate.
        const MAY_UNMAP = abi::TCMU_REQ_MAY_UNMAP;
        /// All or nothing survives a crash.
        const ATOMIC = abi::TCMU_REQ_ATOMIC;
        const _ = !0;
    }
}

/// Which request it is, until it is completed: what [`Device::cancel`](crate::plugin::Device::cancel) names it by. Later ones may get the
/// same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(usize);

impl RequestId {
    pub(super) fn of(raw: *const abi::tcmu_request) -> RequestId {
        RequestId(raw.addr())
    }
}

/// One thing to do, owned until it is completed. Dropping it completes it as an internal failure, so none is ever lost.
pub struct Request(NonNull<abi::tcmu_request>);

// SAFETY: the ABI allows every use of a request on any thread, by one owner at a time.
unsafe impl Send for Request {}
// SAFETY: `&Request` only reads fields that nobody changes before the completion.
unsafe impl Sync for Request {}

impl Request {
    /// Takes a request over from C.
    ///
    /// # Safety
    /// `raw` was submitted to this handler and is not completed; nobody else will complete it.
    pub unsafe fn from_raw(raw: *mut abi::tcmu_request) -> Request {
        debug_assert!(!raw.is_null());
        // SAFETY: a submitted request is never null.
        Request(unsafe { NonNull::new_unchecked(raw) })
    }

    /// Gives the request away to code that completes it by its pointer.
    pub fn into_raw(self) -> *mut abi::tcmu_request {
        ManuallyDrop::new(self).0.as_ptr()
    }

    fn raw(&self) -> &abi::tcmu_request {
        // SAFETY: valid until completed, and completion consumes `self`.
        unsafe { self.0.as_ref() }
    }

    /// To recognise it by when it is cancelled.
    pub fn id(&self) -> RequestId {
        RequestId::of(self.0.as_ptr())
    }

    /// What to do.
    pub fn operation(&self) -> Operation {
        self.raw().op.into()
    }

    /// How to do it.
    pub fn flags(&self) -> RequestFlags {
        RequestFlags::from_bits_retain(self.raw().flags)
    }

    /// First byte on the device.
    pub fn offset(&self) -> u64 {
        self.raw().offset
    }

    /// Bytes on the device.
    pub fn length(&self) -> u64 {
        self.raw().length
    }

    /// First byte of the source of a [`Operation::Copy`].
    pub fn source_offset(&self) -> u64 {
        self.raw().source_offset
    }

    /// The data.
    pub fn buffer(&self) -> Buffer<'_> {
        // SAFETY: the segments of a request are valid until its completion, and nobody holds references to that memory.
        unsafe { Buffer::from_raw(self.raw().iov, self.raw().iov_count) }
    }

    /// Data-In of a bidirectional SCSI command.
    pub fn bidi_buffer(&self) -> Buffer<'_> {
        // SAFETY: as in `buffer`.
        unsafe { Buffer::from_raw(self.raw().bidi_iov, self.raw().bidi_iov_count) }
    }

    /// The CDB of a [`Operation::Scsi`], else empty.
    pub fn cdb(&self) -> &[u8] {
        let raw = self.raw();
        if raw.cdb.is_null() {
            return &[];
        }
        // SAFETY: the CDB is valid until the completion.
        unsafe { slice::from_raw_parts(raw.cdb, raw.cdb_length as usize) }
    }

    /// Stores sense data (fixed or descriptor format, at most 96 bytes) to complete with [`Error::Sense`].
    pub fn set_sense(&mut self, sense: &[u8]) {
        let sense = &sense[..sense.len().min(abi::TCMU_SENSE_SIZE as usize)];
        // SAFETY: the request is ours, and its sense buffer has TCMU_SENSE_SIZE bytes.
        unsafe {
            let raw = self.0.as_mut();
            raw.sense.copy_from_nonoverlapping(sense.as_ptr(), sense.len());
            raw.sense_length = sense.len() as u32;
        }
    }

    /// Sets the result: for [`Operation::Scsi`] the number of valid Data-In bytes, for [`Operation::Extents`] the number of entries.
    pub fn set_result(&mut self, result: u64) {
        // SAFETY: the request is ours.
        unsafe { self.0.as_mut().result = result }
    }

    /// Stores the answer of an [`Operation::Extents`], as many as the buffer has room for; how many that were is the result to set.
    pub fn put_extents(&self, extents: &[abi::tcmu_extent]) -> usize {
        put_extents(&self.buffer(), extents)
    }

    /// Completes the request. Any thread; never blocks.
    pub fn complete(mut self, outcome: Result<(), Error>) {
        let status = match outcome {
            Ok(()) => abi::TCMU_STATUS_OK,
            Err(error) => {
                let (status, result) = error.status();
                if let Some(result) = result {
                    self.set_result(result);
                }
                status
            }
        };
        let raw = self.into_raw();
        // SAFETY: ours and not completed yet; `into_raw` made sure that we won't do it again.
        unsafe { ((*raw).complete)(raw, status) }
    }

    /// Hands the request back to the host: *do this I/O on that descriptor and complete me by its outcome*.
    pub fn io(self, io: FileIo<'_>) {
        let Some(host) = log::host() else { return self.complete(Err(Error::UNSUPPORTED)) };
        let mut raw_io = io.raw();
        let raw = self.into_raw();
        // SAFETY: the host copies `raw_io` because `done` is null; the request is now the host's.
        unsafe { (host.io)(raw, &raw mut raw_io) }
    }

    /// Lets the host do an I/O and then goes on with `then`. Allocates; for metadata and rare paths.
    pub fn io_then<F>(self, io: FileIo<'_>, then: F)
    where
        F: FnOnce(Request, Result<(), Error>) + Send + 'static,
    {
        struct Pending<F> {
            io: abi::tcmu_io,
            then: F,
        }
        unsafe extern "C" fn done<F>(io: *mut abi::tcmu_io, request: *mut abi::tcmu_request, status: i32)
        where
            F: FnOnce(Request, Result<(), Error>) + Send + 'static,
        {
            // SAFETY: `handler_data` is the box that `io_then` leaked, and `done` is called once.
            let pending = unsafe { Box::from_raw((*io).handler_data.cast::<Pending<F>>()) };
            // SAFETY: the host gives the request back with `done`.
            let request = unsafe { Request::from_raw(request) };
            let outcome = if status == 0 { Ok(()) } else { Err(Error::Errno(-status)) };
            if catch_unwind(AssertUnwindSafe(|| (pending.then)(request, outcome))).is_err() {
                log::error(None, "a handler panicked after an I/O");
            }
        }
        let Some(host) = log::host() else { return self.complete(Err(Error::UNSUPPORTED)) };
        let pending = Box::into_raw(Box::new(Pending { io: io.raw(), then }));
        let raw = self.into_raw();
        // SAFETY: the box lives until `done`; the request is now the host's.
        unsafe {
            (*pending).io.done = Some(done::<F>);
            (*pending).io.handler_data = pending.cast();
            (host.io)(raw, &raw mut (*pending).io);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let raw = self.0.as_ptr();
        // SAFETY: a request that is dropped was neither completed nor given away (both forget it).
        unsafe { ((*raw).complete)(raw, -libc::ENOTRECOVERABLE) }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}+{}", self.operation(), self.offset(), self.length())
    }
}

/// Stores extents as the ABI has them; how many there was room for.
pub(crate) fn put_extents(buffer: &Buffer<'_>, extents: &[abi::tcmu_extent]) -> usize {
    let size = size_of::<abi::tcmu_extent>();
    let count = extents.len().min(buffer.len() / size);
    for (n, extent) in extents[..count].iter().enumerate() {
        let mut bytes = [0; size_of::<abi::tcmu_extent>()];
        bytes[0..8].copy_from_slice(&extent.offset.to_ne_bytes());
        bytes[8..16].copy_from_slice(&extent.length.to_ne_bytes());
        bytes[16..20].copy_from_slice(&extent.state.to_ne_bytes());
        buffer.copy_from_at(n * size, &bytes);
    }
    count
}

/// An I/O on a file descriptor for the host to do. The descriptor stays open until the device is closed.
#[derive(Clone, Copy, Debug)]
pub struct FileIo<'fd> {
    fd: BorrowedFd<'fd>,
    op: u32,
    flags: u32,
    offset: u64,
    length: u64,
    source: u64,
}

impl<'fd> FileIo<'fd> {
    /// Reads `length` bytes at `offset` of the file into the request's buffer.
    pub fn read(fd: BorrowedFd<'fd>, offset: u64, length: u64) -> FileIo<'fd> {
        FileIo { fd, op: abi::TCMU_IO_READ, flags: 0, offset, length, source: 0 }
    }

    /// Writes the request's buffer, `length` bytes, at `offset` of the file.
    pub fn write(fd: BorrowedFd<'fd>, offset: u64, length: u64) -> FileIo<'fd> {
        FileIo { fd, op: abi::TCMU_IO_WRITE, flags: 0, offset, length, source: 0 }
    }

    /// `fdatasync`.
    pub fn datasync(fd: BorrowedFd<'fd>) -> FileIo<'fd> {
        FileIo { fd, op: abi::TCMU_IO_DATASYNC, flags: 0, offset: 0, length: 0, source: 0 }
    }

    /// Punches a hole, keeping the file's size.
    pub fn punch_hole(fd: BorrowedFd<'fd>, offset: u64, length: u64) -> FileIo<'fd> {
        FileIo { fd, op: abi::TCMU_IO_PUNCH_HOLE, flags: 0, offset, length, source: 0 }
    }

    /// Zeroes a range, keeping its space.
    pub fn zero_range(fd: BorrowedFd<'fd>, offset: u64, length: u64) -> FileIo<'fd> {
        FileIo { fd, op: abi::TCMU_IO_ZERO_RANGE, flags: 0, offset, length, source: 0 }
    }

    /// Copies within the file. The ranges may overlap.
    pub fn copy(fd: BorrowedFd<'fd>, source: u64, offset: u64, length: u64) -> FileIo<'fd> {
        FileIo { fd, op: abi::TCMU_IO_COPY, flags: 0, offset, length, source }
    }

    /// Answers an [`Operation::Extents`] with what the file system knows.
    pub fn extents(fd: BorrowedFd<'fd>, offset: u64, length: u64) -> FileIo<'fd> {
        FileIo { fd, op: abi::TCMU_IO_EXTENTS, flags: 0, offset, length, source: 0 }
    }

    /// Done only when the data is on stable storage.
    pub fn durable(mut self, durable: bool) -> FileIo<'fd> {
        if durable {
            self.flags |= abi::TCMU_IO_FLAG_DSYNC;
        }
        self
    }

    /// On a descriptor with `O_DIRECT`: it will take its time.
    pub fn uncached(mut self, uncached: bool) -> FileIo<'fd> {
        if uncached {
            self.flags |= abi::TCMU_IO_FLAG_UNCACHED;
        }
        self
    }

    fn raw(&self) -> abi::tcmu_io {
        abi::tcmu_io {
            op: self.op,
            fd: self.fd.as_raw_fd(),
            flags: self.flags,
            iov_count: 0,
            iov: ptr::null(),
            offset: self.offset,
            length: self.length,
            source_offset: self.source,
            done: None,
            handler_data: ptr::null_mut(),
            host_data: [ptr::null_mut(); 6],
        }
    }
}

/// The requests of one call of `submit`. What isn't taken out is completed as an internal failure.
pub struct Batch<'a>(slice::Iter<'a, *mut abi::tcmu_request>);

impl<'a> Batch<'a> {
    /// # Safety
    /// `requests` points to `count` requests that were submitted to this handler.
    pub(crate) unsafe fn from_raw(requests: *const *mut abi::tcmu_request, count: u32) -> Batch<'a> {
        // SAFETY: by contract.
        Batch(unsafe { slice::from_raw_parts(requests, count as usize) }.iter())
    }
}

impl Iterator for Batch<'_> {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        // SAFETY: each pointer is handed out once.
        self.0.next().map(|raw| unsafe { Request::from_raw(*raw) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Batch<'_> {}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch of {}", self.len())
    }
}
