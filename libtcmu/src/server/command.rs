//! A command in flight: the serving thread's own half of it.
use std::{
    ptr::{self, NonNull},
    sync::{Arc, Mutex},
};

use tcmu_handler_api::{abi, plugin::Buffer};

use super::{
    peer::Piece,
    slot::{Shared, Slot},
};
use crate::{
    engine::{Answer, Plain, Task, Work, WorkData},
    ring::Fetched,
};

/// A command in flight. Never moves, since its request points into it.
pub(super) struct Command {
    slot: NonNull<Slot>,
    pub(super) fetched: Fetched,
    /// What the engine is doing with it.
    pub(super) task: Option<Task>,
    /// The segments of a request whose data is in the task's memory, or only the beginning of the command's.
    segments: Vec<libc::iovec>,
    /// It needs no task.
    pub(super) plain: Option<Plain>,
    /// 0: free. Else it is in use; [`DeviceServer::grow_older`](super::DeviceServer) counts up for how many of its calls.
    pub(super) age: u8,
    /// When the turn began that took it; see `device::timing`.
    pub(super) begun: u64,
    /// Its entry on the ring is completed; what it began goes on.
    pub(super) detached: bool,
    /// Nobody waits for it any more: it goes no further than what its handler has by now.
    pub(super) aborted: bool,
    /// Where another thread puts what it found out.
    pub(super) answer: Option<Arc<Mutex<Option<Answer>>>>,
    /// Where another unit puts the memory of a piece that it did.
    pub(super) returned: Option<Arc<Mutex<Vec<u8>>>>,
    /// It is a piece of another unit's copy: whom to tell.
    pub(super) piece: Option<Piece>,
}

impl Command {
    pub(super) fn new(shared: *const Shared, index: usize) -> Box<Command> {
        Box::new(Command {
            slot: NonNull::from(Box::leak(Slot::new(shared, index))),
            fetched: Fetched::default(),
            task: None,
            plain: None,
            segments: Vec::new(),
            age: 0,
            begun: 0,
            detached: false,
            aborted: false,
            answer: None,
            returned: None,
            piece: None,
        })
    }

    /// Lets go of the entry on the ring: its buffer is another command's from now on.
    pub(super) fn detach(&mut self) {
        self.fetched = Fetched::default();
        self.detached = true;
    }

    /// The half that the handler sees. Only while the handler doesn't have it: before `arm`, and after the completion came back.
    pub(super) fn slot(&mut self) -> &mut Slot {
        // SAFETY: allocated in `new`, freed in `drop`; callers keep the rule above.
        unsafe { self.slot.as_mut() }
    }

    /// As [`Command::slot`], to read.
    pub(super) fn completed(&self) -> &Slot {
        // SAFETY: as in `slot`.
        unsafe { self.slot.as_ref() }
    }

    /// The request's address, to name it to the handler.
    pub(super) fn request(&self) -> *mut abi::tcmu_request {
        self.slot.as_ptr().cast()
    }

    /// The command's data.
    pub(super) fn buffer(&self) -> Buffer<'_> {
        let data = self.fetched.data();
        // SAFETY: the command is in flight, so its segments are the device's; there are no references to that memory.
        unsafe { Buffer::from_raw(data.as_ptr(), data.len() as u32) }
    }

    /// Where the Data-In of a bidirectional command goes.
    pub(super) fn bidi_buffer(&self) -> Buffer<'_> {
        let data = self.fetched.bidi();
        // SAFETY: as in `buffer`.
        unsafe { Buffer::from_raw(data.as_ptr(), data.len() as u32) }
    }

    /// Makes a request for a piece of work; from now on it is the handler's.
    pub(super) fn arm(&mut self, work: Work) -> *mut abi::tcmu_request {
        let (iov, count) = match work.data {
            WorkData::None => (ptr::null(), 0),
            WorkData::Command(len) if self.buffer().len() == len => (self.fetched.data().as_ptr(), self.fetched.data().len()),
            WorkData::Command(mut len) => {
                self.segments.clear();
                for segment in self.fetched.data() {
                    let iov_len = segment.iov_len.min(len);
                    len -= iov_len;
                    if iov_len > 0 {
                        self.segments.push(libc::iovec { iov_len, ..*segment });
                    }
                }
                (self.segments.as_ptr(), self.segments.len())
            }
            WorkData::Memory(len) => {
                let memory = self.task.as_mut().map_or(&mut [][..], |task| &mut task.memory[..]);
                self.segments.clear();
                self.segments.push(libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: len.min(memory.len()) });
                (self.segments.as_ptr(), 1)
            }
        };
        let slot = self.slot();
        let request = &mut slot.request;
        request.op = work.op;
        request.flags = work.flags;
        request.offset = work.offset;
        request.length = work.length;
        request.source_offset = work.source;
        request.iov = iov;
        request.iov_count = count as u32;
        request.result = 0;
        slot.arm()
    }

    /// Makes a request for a plain command; from now on it is the handler's.
    #[inline]
    pub(super) fn arm_plain(&mut self, plain: Plain) -> *mut abi::tcmu_request {
        self.plain = Some(plain);
        let (iov, count) = (self.fetched.data().as_ptr(), self.fetched.data().len());
        let slot = self.slot();
        let request = &mut slot.request;
        request.op = if plain.write { abi::TCMU_OP_WRITE } else { abi::TCMU_OP_READ };
        request.flags = plain.flags;
        (request.offset, request.length, request.source_offset) = (plain.offset, plain.length, 0);
        (request.iov, request.iov_count) = (iov, count as u32);
        request.result = 0;
        slot.arm()
    }

    /// A plain command's request failed: it gets the task that it lacked.
    #[cold]
    pub(super) fn plain_failed(&mut self) {
        self.task = self.plain.take().map(|plain| plain.task());
    }

    /// A request that no handler gets: another thread completes it when it has found something out.
    pub(super) fn arm_question(&mut self) -> *mut abi::tcmu_request {
        let slot = self.slot();
        slot.request.op = 0;
        slot.arm()
    }

    /// Makes a request of the whole CDB.
    pub(super) fn arm_cdb(&mut self) -> *mut abi::tcmu_request {
        let (cdb, data, bidi) = (self.fetched.cdb(), self.fetched.data(), self.fetched.bidi());
        let (cdb, cdb_length) = (cdb.as_ptr(), cdb.len() as u32);
        let (iov, iov_count) = (data.as_ptr(), data.len() as u32);
        let (bidi_iov, bidi_iov_count) = (bidi.as_ptr(), bidi.len() as u32);
        let length = data.iter().map(|s| s.iov_len as u64).sum();
        let slot = self.slot();
        let request = &mut slot.request;
        request.op = abi::TCMU_OP_SCSI;
        request.flags = 0;
        (request.offset, request.length) = (0, 0);
        (request.cdb, request.cdb_length) = (cdb, cdb_length);
        (request.iov, request.iov_count) = (iov, iov_count);
        (request.bidi_iov, request.bidi_iov_count) = (bidi_iov, bidi_iov_count);
        request.result = length;
        slot.arm()
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        // SAFETY: made by `Box::leak`; a device with requests out is not dropped but leaked.
        drop(unsafe { Box::from_raw(self.slot.as_ptr()) });
    }
}
