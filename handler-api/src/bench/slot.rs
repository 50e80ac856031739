//! The memory of one request: kept long after its completion, so that a second one is seen instead of being a crash.
use std::{
    cell::UnsafeCell,
    ptr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    command::{Answer, Command},
    device::{Fault, FaultKind, Shared},
    memory::{Cut, Memory},
};
use crate::abi;

/// A request and everything that it points to.
#[repr(C)]
pub(super) struct Slot {
    /// First, so that a pointer to the request is one to the slot.
    request: UnsafeCell<abi::tcmu_request>,
    command: Command,
    data: Memory,
    bidi: Memory,
    sense: Memory,
    completions: AtomicU32,
    state: Mutex<State>,
    wake: Condvar,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct State {
    /// Status, result and length of the sense data of the first completion.
    done: Option<(i32, u64, u32)>,
    /// What the memory held when the bench had taken the answer: data, bidirectional data, sense.
    seal: Option<[Box<[u8]>; 3]>,
}

// SAFETY: the request is written by the handler before it completes it, and read here only afterwards; everything else is atomic,
// locked or plain memory.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    pub(super) fn new(mut command: Command, shared: &Arc<Shared>) -> Arc<Slot> {
        command.cut.alignment = shared.alignment;
        let data = Memory::new(command.buffer_len(), &command.cut);
        if let Some(bytes) = &command.data {
            data.put(bytes);
        }
        let bidi = Memory::new(command.bidi, &command.cut);
        let sense = Memory::new(abi::TCMU_SENSE_SIZE as usize, &Cut::default());
        let request = abi::tcmu_request {
            complete,
            owner: Arc::as_ptr(shared).cast_mut().cast(),
            handler_data: [ptr::null_mut(); 2],
            op: command.op,
            flags: command.flags,
            offset: command.offset,
            length: command.length,
            source_offset: command.source_offset,
            iov: if data.iov().is_empty() { ptr::null() } else { data.iov().as_ptr() },
            bidi_iov: if bidi.iov().is_empty() { ptr::null() } else { bidi.iov().as_ptr() },
            iov_count: data.iov().len() as u32,
            bidi_iov_count: bidi.iov().len() as u32,
            cdb: if command.cdb.is_empty() { ptr::null() } else { command.cdb.as_ptr() },
            cdb_length: command.cdb.len() as u32,
            sense_length: 0,
            sense: sense.iov()[0].iov_base.cast(),
            result: if command.op == abi::TCMU_OP_SCSI { command.buffer_len() as u64 } else { 0 },
        };
        Arc::new(Slot {
            request: UnsafeCell::new(request),
            command,
            data,
            bidi,
            sense,
            completions: AtomicU32::new(0),
            state: Mutex::default(),
            wake: Condvar::new(),
            shared: shared.clone(),
        })
    }

    /// The pointer for the handler. Good for the whole slot.
    pub(super) fn raw(this: &Arc<Slot>) -> *mut abi::tcmu_request {
        Arc::as_ptr(this).cast_mut().cast()
    }

    pub(super) fn command(&self) -> &Command {
        &self.command
    }

    pub(super) fn footprint(&self) -> usize {
        size_of::<Slot>() + 2 * (self.data.footprint() + self.bidi.footprint() + self.sense.footprint())
    }

    pub(super) fn is_done(&self) -> bool {
        lock(&self.state).done.is_some()
    }

    /// Waits for the completion; `false` if it did not come.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = lock(&self.state);
        while state.done.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The answer, once it is done, and a look at the memory: what was written where nothing should be?
    pub(super) fn answer(&self) -> Option<Answer> {
        let (status, result, sense_length) = lock(&self.state).done?;
        let command = self.command.to_string();
        let mut sense = if status == abi::TCMU_STATUS_SENSE { self.sense.get() } else { Vec::new() };
        sense.truncate(sense_length as usize);
        let answer = Answer { command, status, result, sense, data: self.data.get(), bidi: self.bidi.get() };
        let mut state = lock(&self.state);
        if state.seal.is_none() {
            state.seal = Some([self.data.seal(), self.bidi.seal(), self.sense.seal()]);
            drop(state);
            self.inspect(&answer, sense_length);
        }
        Some(answer)
    }

    fn inspect(&self, answer: &Answer, sense_length: u32) {
        for (what, memory) in [("data", &self.data), ("bidirectional data", &self.bidi), ("sense", &self.sense)] {
            if let Some(place) = memory.trespass() {
                self.fault(FaultKind::Trespass, &format!("the {what} buffer was overrun: bytes changed {place}"));
            }
        }
        if let Some(sent) = &self.command.data
            && self.command.op != abi::TCMU_OP_SCSI
            && *sent != answer.data
            && let Some(at) = (0..sent.len()).find(|at| answer.data[*at] != sent[*at])
        {
            self.fault(FaultKind::Altered, &format!("byte {at} of its data was changed, which it may only read"));
        }
        if !answer.is_known() {
            self.fault(FaultKind::Status, &format!("status {} is none that the ABI knows", answer.status));
        }
        if sense_length > abi::TCMU_SENSE_SIZE {
            self.fault(FaultKind::Status, &format!("sense_length {sense_length} is more than {}", abi::TCMU_SENSE_SIZE));
        }
        if answer.status == abi::TCMU_STATUS_NOT_HANDLED && self.command.op != abi::TCMU_OP_SCSI {
            self.fault(FaultKind::Status, "TCMU_STATUS_NOT_HANDLED is for TCMU_OP_SCSI only");
        }
    }

    /// Looks whether something wrote here since the answer was taken.
    pub(super) fn look_again(&self) {
        let seal = lock(&self.state).seal.take();
        if let Some(seal) = seal
            && [&self.data, &self.bidi, &self.sense].iter().zip(&seal).any(|(memory, seal)| !memory.is_sealed(seal))
        {
            self.fault(FaultKind::Late, "its memory was written to after the completion");
        }
    }

    fn fault(&self, kind: FaultKind, what: &str) {
        self.shared.fault(Fault { kind, text: format!("{}: {what}", self.command) });
    }
}

/// What the handler calls.
unsafe extern "C" fn complete(request: *mut abi::tcmu_request, status: i32) {
    // SAFETY: the request is the first field of a slot, which is kept (see `Slots` in `device`) while a completion may come.
    let slot = unsafe { &*request.cast_const().cast::<Slot>() };
    let before = slot.completions.fetch_add(1, Ordering::AcqRel);
    if before > 0 {
        slot.fault(FaultKind::Twice, &format!("completed again, with status {status} (completion {})", before + 1));
        return;
    }
    // SAFETY: the handler has given the request back with its first completion.
    let (result, sense_length) = unsafe { ((*slot.request.get()).result, (*slot.request.get()).sense_length) };
    lock(&slot.state).done = Some((status, result, sense_length));
    slot.wake.notify_all();
}
