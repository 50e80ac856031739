//! An open device of a handler, to send requests to and to watch what becomes of them.
use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use libc::iovec;

use crate::{
    abi,
    host::{Events, Level, OpenDevice, OpenSpec, Plugin},
    plugin::{DeviceInfo, Refusal, Threads},
};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// `TCMU_STATUS_*` or a negative `errno`.
    pub status: i32,
    /// See [`abi::tcmu_request::result`].
    pub result: u64,
    /// The data afterwards.
    pub data: Vec<u8>,
    /// A byte outside the data was changed.
    pub spilled: bool,
}

/// How the data of a request is cut.
#[derive(Clone, Debug)]
pub enum Segments {
    /// In one piece.
    One,
    /// In pieces of these lengths, over and over, at odd addresses.
    Of(Vec<usize>),
}

/// Bytes around each segment that nobody may touch.
const GUARD: usize = 16;
const GUARD_BYTE: u8 = 0xa5;

/// A request with its memory. Never freed while the handler may have it: late second completions must be seen, not crash.
#[repr(C)]
struct Sent {
    request: abi::tcmu_request,
    completions: AtomicU32,
    status: Mutex<Option<i32>>,
    done: Arc<(Mutex<usize>, Condvar)>,
    memory: Vec<u8>,
    iov: Vec<iovec>,
    /// Where the segments are in `memory`.
    places: Vec<(usize, usize)>,
    sense: [u8; abi::TCMU_SENSE_SIZE as usize],
}

unsafe extern "C" fn complete(request: *mut abi::tcmu_request, status: i32) {
    // SAFETY: requests with this function are the first field of a `Sent`, which is never freed before it was completed and inspected.
    let sent = unsafe { &*request.cast::<Sent>() };
    if sent.completions.fetch_add(1, Ordering::AcqRel) == 0 {
        *sent.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        let (count, changed) = &*sent.done;
        *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        changed.notify_all();
    }
}

struct Lines(Mutex<Vec<String>>);

impl Events for Lines {
    fn log(&self, level: Level, message: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{level:?}: {message}"));
    }
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub(super) struct Send {
    pub(super) op: u32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) source: u64,
    pub(super) data: Vec<u8>,
    pub(super) segments: Segments,
    pub(super) cdb: Vec<u8>,
}

/// An open device under test.
pub struct BenchDevice {
    device: Arc<OpenDevice>,
    done: Arc<(Mutex<usize>, Condvar)>,
    /// Everything ever sent, in order.
    sent: Mutex<Vec<*mut Sent>>,
    timeout: Duration,
    hung: std::cell::Cell<bool>,
}

impl BenchDevice {
    /// Opens a device as a host would.
    pub fn open(plugin: &Plugin, config: &str, info: DeviceInfo) -> Result<BenchDevice, Refusal> {
        let spec = OpenSpec { config, name: "user_0/bench", take_over: false, info };
        let device = Arc::new(plugin.open(spec, Arc::new(Lines(Mutex::default())))?);
        Ok(BenchDevice {
            device,
            done: Arc::default(),
            sent: Mutex::default(),
            timeout: Duration::from_secs(10),
            hung: std::cell::Cell::new(false),
        })
    }

    /// What it said of itself.
    pub fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    /// The handler's device.
    pub fn device(&self) -> &OpenDevice {
        &self.device
    }

    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Reads.
    pub fn read(&self, offset: u64, length: usize) -> Option<Done> {
        self.one(Send::new(abi::TCMU_OP_READ, offset, length as u64).data(vec![0xcc; length]))
    }

    /// Writes.
    pub fn write(&self, offset: u64, data: &[u8]) -> Option<Done> {
        self.one(Send::new(abi::TCMU_OP_WRITE, offset, data.len() as u64).data(data.to_vec()))
    }

    /// Sends one request and waits for it. `None`: it was not completed in time.
    pub(super) fn one(&self, send: Send) -> Option<Done> {
        self.many(vec![send]).pop().flatten()
    }

    /// Sends requests together and waits for all of them.
    pub(super) fn many(&self, sends: Vec<Send>) -> Vec<Option<Done>> {
        let before = *self.done.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sent: Vec<*mut Sent> = sends.into_iter().map(|send| Box::into_raw(Sent::new(send, &self.done))).collect();
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).extend(&sent);
        let requests: Vec<*mut abi::tcmu_request> = sent.iter().map(|sent| sent.cast()).collect();
        self.submit(&requests);
        let end = Instant::now() + self.timeout;
        let (count, changed) = &*self.done;
        let mut done = count.lock().unwrap_or_else(PoisonError::into_inner);
        while *done - before < sent.len() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.hung.set(true);
                break;
            }
            done = changed.wait_timeout(done, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(done);
        // SAFETY: made by `Box::into_raw` above and never freed but by `close`.
        sent.iter().map(|sent| unsafe { &**sent }.outcome()).collect()
    }

    /// Calls `submit` on the threads that the handler asked for.
    fn submit(&self, requests: &[*mut abi::tcmu_request]) {
        struct Together(Vec<*mut abi::tcmu_request>);
        // SAFETY: a request may be submitted on any thread.
        unsafe impl std::marker::Send for Together {}
        let run = |requests: Together| {
            let device = self.device.clone();
            thread::spawn(move || {
                let requests = requests;
                // SAFETY: fresh requests whose memory is kept until they are completed.
                unsafe { device.submit(&requests.0) }
            });
        };
        match self.device.threads() {
            // One call with everything.
            Threads::Inline => run(Together(requests.to_vec())),
            Threads::Pool => requests.chunks(requests.len().div_ceil(8).max(1)).for_each(|chunk| {
                let device = self.device.clone();
                let chunk = Together(chunk.to_vec());
                thread::spawn(move || {
                    let chunk = chunk;
                    for request in chunk.0 {
                        // SAFETY: as above.
                        unsafe { device.submit(&[request]) }
                    }
                });
            }),
            Threads::Serial => {
                let device = self.device.clone();
                let all = Together(requests.to_vec());
                thread::spawn(move || {
                    let all = all;
                    for request in all.0 {
                        // SAFETY: as above.
                        unsafe { device.submit(&[request]) }
                    }
                });
            }
        }
    }

    /// Requests that were completed more than once so far.
    pub(super) fn completed_twice(&self) -> usize {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: as in `many`.
        sent.iter().filter(|sent| unsafe { &***sent }.completions.load(Ordering::Acquire) > 1).count()
    }

    /// Whether a request was not completed in time.
    pub fn hung(&self) -> bool {
        self.hung.get()
    }
}

impl Drop for BenchDevice {
    fn drop(&mut self) {
        if self.hung.get() {
            // The handler still has requests: neither may go.
            std::mem::forget(self.device.clone());
            return;
        }
        // Threads that called `submit` are about to let go of the device.
        let end = Instant::now() + Duration::from_secs(1);
        while Arc::strong_count(&self.device) > 1 && Instant::now() < end {
            thread::sleep(Duration::from_micros(100));
        }
        for sent in self.sent.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // SAFETY: made by `Box::into_raw`, completed, and this is the only place that frees it.
            drop(unsafe { Box::from_raw(sent) });
        }
    }
}

impl Send {
    pub(super) fn new(op: u32, offset: u64, length: u64) -> Send {
        Send { op, flags: 0, offset, length, source: 0, data: Vec::new(), segments: Segments::One, cdb: Vec::new() }
    }

    pub(super) fn data(self, data: Vec<u8>) -> Send {
        Send { data, ..self }
    }

    pub(super) fn flags(self, flags: u32) -> Send {
        Send { flags, ..self }
    }

    pub(super) fn segments(self, segments: Segments) -> Send {
        Send { segments, ..self }
    }
}

impl Sent {
    fn new(send: Send, done: &Arc<(Mutex<usize>, Condvar)>) -> Box<Sent> {
        let mut memory = vec![GUARD_BYTE; GUARD];
        let mut places = Vec::new();
        let mut rest = &send.data[..];
        let mut turn = 0;
        while !rest.is_empty() {
            let length = match &send.segments {
                Segments::One => rest.len(),
                Segments::Of(lengths) => {
                    // Odd addresses, too.
                    memory.push(GUARD_BYTE);
                    lengths[turn % lengths.len()].clamp(1, rest.len())
                }
            };
            turn += 1;
            places.push((memory.len(), length));
            memory.extend_from_slice(&rest[..length]);
            memory.extend_from_slice(&[GUARD_BYTE; GUARD]);
            rest = &rest[length..];
        }
        let cdb_at = memory.len();
        memory.extend_from_slice(&send.cdb);
        let base = memory.as_mut_ptr();
        let iov = places
            .iter()
            .map(|(at, length)| iovec { iov_base: base.wrapping_add(*at).cast(), iov_len: *length })
            .collect::<Vec<_>>();
        let mut sent = Box::new(Sent {
            request: abi::tcmu_request {
                complete,
                owner: std::ptr::null_mut(),
                handler_data: [std::ptr::null_mut(); 2],
                op: send.op,
                flags: send.flags,
                offset: send.offset,
                length: send.length,
                source_offset: send.source,
                iov: iov.as_ptr(),
                bidi_iov: std::ptr::null(),
                iov_count: iov.len() as u32,
                bidi_iov_count: 0,
                cdb: base.wrapping_add(cdb_at),
                cdb_length: send.cdb.len() as u32,
                sense_length: 0,
                sense: std::ptr::null_mut(),
                result: send.data.len() as u64,
            },
            completions: AtomicU32::new(0),
            status: Mutex::default(),
            done: done.clone(),
            memory,
            iov,
            places,
            sense: [0; abi::TCMU_SENSE_SIZE as usize],
        });
        sent.request.sense = sent.sense.as_mut_ptr();
        sent.request.iov = sent.iov.as_ptr();
        sent
    }

    fn outcome(&self) -> Option<Done> {
        let status = (*self.status.lock().unwrap_or_else(PoisonError::into_inner))?;
        let mut data = Vec::new();
        let mut guards = self.memory.clone();
        for (at, length) in &self.places {
            data.extend_from_slice(&self.memory[*at..at + length]);
            guards[*at..at + length].fill(GUARD_BYTE);
        }
        guards.truncate(guards.len() - self.request.cdb_length as usize);
        Some(Done { status, result: self.request.result, data, spilled: guards.iter().any(|byte| *byte != GUARD_BYTE) })
    }
}
