//! io_uring: reads, writes and the like that can't be done at once, a batch of them in one system call.
use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use io_uring::{IoUring, Probe, opcode, squeue, types};
use tcmu_handler_api::abi;

use super::pool::Io;

/// Entries of the submission queue: what goes out in one system call; more takes a second one.
const ENTRIES: u32 = 256;

/// An I/O on its way.
pub(super) struct Queued {
    pub(super) request: *mut abi::tcmu_request,
    pub(super) io: Io,
}

impl Queued {
    fn description(&self) -> *const abi::tcmu_io {
        match &self.io {
            Io::Copy(io) => io,
            Io::Kept(io) => *io,
        }
    }
}

/// An I/O that ended.
pub(super) struct Done {
    pub(super) queued: Queued,
    /// Its status; `None`: it was done in part or not at all, and is to be done by a thread.
    pub(super) status: Option<i32>,
}

thread_local! {
    /// I/O that the handlers of this thread's devices asked for, if this thread has an io_uring.
    static QUEUE: RefCell<Option<Vec<Queued>>> = const { RefCell::new(None) };
}

/// Queues an I/O on the calling thread's io_uring; it comes back if there is none, or if it is not for io_uring.
pub(super) fn queue(queued: Queued) -> Option<Queued> {
    // SAFETY: the I/O and its request are the host's until it ends.
    let can = unsafe {
        let io = &*queued.description();
        match io.op {
            abi::TCMU_IO_READ | abi::TCMU_IO_WRITE => super::io::whole_segments(io, &*queued.request).is_some(),
            abi::TCMU_IO_DATASYNC | abi::TCMU_IO_PUNCH_HOLE | abi::TCMU_IO_ZERO_RANGE => true,
            _ => false,
        }
    };
    if !can {
        return Some(queued);
    }
    QUEUE.with_borrow_mut(|queue| match queue {
        Some(queue) => {
            queue.push(queued);
            None
        }
        None => Some(queued),
    })
}

pub(super) struct Uring {
    ring: IoUring,
    /// I/O under way, by user data.
    under_way: Vec<Option<Queued>>,
    free: Vec<usize>,
    /// I/O to be queued, taken from `QUEUE`; kept for its memory.
    queue: Vec<Queued>,
    done: VecDeque<Done>,
}

impl Uring {
    /// The calling thread's. Fails where the kernel refuses it, or can't do all that is needed.
    pub(super) fn new() -> io::Result<Uring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_cqsize(4 * ENTRIES)
            .build(ENTRIES)
            .or_else(|_| IoUring::builder().setup_cqsize(4 * ENTRIES).build(ENTRIES))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let needed = [opcode::Readv::CODE, opcode::Writev::CODE, opcode::Fsync::CODE, opcode::Fallocate::CODE];
        if !ring.params().is_feature_nodrop() || !needed.iter().all(|code| probe.is_supported(*code)) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's io_uring is older than Linux 5.6"));
        }
        QUEUE.set(Some(Vec::with_capacity(ENTRIES as usize)));
        Ok(Uring {
            ring,
            under_way: Vec::new(),
            free: Vec::new(),
            queue: Vec::with_capacity(ENTRIES as usize),
            done: VecDeque::with_capacity(ENTRIES as usize),
        })
    }

    pub(super) fn has_io(&self) -> bool {
        self.under_way.len() > self.free.len() || QUEUE.with_borrow(|queue| queue.as_ref().is_some_and(|queue| !queue.is_empty()))
    }

    pub(super) fn take_done(&mut self) -> Option<Done> {
        self.done.pop_front()
    }

    /// Submits what was queued. Whether something ended that nobody has taken.
    pub(super) fn submit(&mut self) -> io::Result<bool> {
        if QUEUE.with_borrow(|queue| queue.as_ref().is_some_and(|queue| !queue.is_empty())) {
            self.submit_queue()?;
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(!self.done.is_empty() || !self.ring.submission().is_empty())
    }

    /// Makes entries of what the handlers asked for.
    fn submit_queue(&mut self) -> io::Result<()> {
        let mut queue = std::mem::take(&mut self.queue);
        QUEUE.with_borrow_mut(|waiting| {
            if let Some(waiting) = waiting {
                std::mem::swap(waiting, &mut queue);
            }
        });
        let mut outcome = Ok(());
        for queued in queue.drain(..) {
            let index = self.free.pop().unwrap_or_else(|| {
                self.under_way.push(None);
                self.under_way.len() - 1
            });
            // SAFETY: the I/O is the host's until it ends, and so are its segments.
            let entry = unsafe { entry(&queued) };
            self.under_way[index] = Some(queued);
            if let Err(error) = self.push(entry.user_data(index as u64)) {
                if let Some(queued) = self.under_way[index].take() {
                    self.done.push_back(Done { queued, status: None });
                }
                self.free.push(index);
                outcome = Err(error);
            }
        }
        self.queue = queue;
        outcome
    }

    /// Adds an entry; makes room by submitting what is there.
    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        for _ in 0..1000 {
            // SAFETY: what an entry points to lives until it ended: I/O in `under_way`.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            match self.ring.submit() {
                Ok(_) => {}
                // Too much has ended that nobody looked at.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)) => self.harvest(),
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("io_uring takes no entries"))
    }

    /// Looks at what ended.
    pub(super) fn harvest(&mut self) {
        for entry in self.ring.completion() {
            let index = entry.user_data() as usize;
            if let Some(queued) = self.under_way.get_mut(index).and_then(Option::take) {
                self.free.push(index);
                let status = status(&queued, entry.result());
                self.done.push_back(Done { queued, status });
            }
        }
    }
}

impl AsFd for Uring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's, which lives as long as this.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        QUEUE.set(None);
        // The kernel may still write to the buffers of what is under way: those are never freed.
        if self.under_way.len() > self.free.len() {
            std::mem::forget(std::mem::take(&mut self.under_way));
        }
    }
}

/// # Safety
/// The I/O and its request are valid, and so are the segments.
unsafe fn entry(queued: &Queued) -> squeue::Entry {
    // SAFETY: by contract.
    let (io, request) = unsafe { (&*queued.description(), &*queued.request) };
    let fd = types::Fd(io.fd);
    let (iov, count) = if io.iov.is_null() { (request.iov, request.iov_count) } else { (io.iov, io.iov_count) };
    match io.op {
        abi::TCMU_IO_READ => opcode::Readv::new(fd, iov, count).offset(io.offset).build(),
        abi::TCMU_IO_WRITE => {
            let flags = if io.flags & abi::TCMU_IO_FLAG_DSYNC != 0 { libc::RWF_DSYNC } else { 0 };
            opcode::Writev::new(fd, iov, count).offset(io.offset).rw_flags(flags).build()
        }
        abi::TCMU_IO_PUNCH_HOLE => {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            opcode::Fallocate::new(fd, io.length).offset(io.offset).mode(mode).build()
        }
        abi::TCMU_IO_ZERO_RANGE => {
            let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
            opcode::Fallocate::new(fd, io.length).offset(io.offset).mode(mode).build()
        }
        _ => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
    }
}

/// What became of it. A short transfer, and errors that a second try may not meet, are for a thread: it knows about ends of files.
fn status(queued: &Queued, result: i32) -> Option<i32> {
    // SAFETY: the I/O is the host's until it ends.
    let io = unsafe { &*queued.description() };
    match result {
        error if matches!(-error, libc::EAGAIN | libc::EINTR | libc::EINVAL | libc::EOPNOTSUPP | libc::ECANCELED) => None,
        error if error < 0 => Some(error),
        bytes if matches!(io.op, abi::TCMU_IO_READ | abi::TCMU_IO_WRITE) => {
            (u64::from(bytes.unsigned_abs()) == io.length).then_some(0)
        }
        _ => Some(0),
    }
}
