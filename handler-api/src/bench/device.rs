//! An open device with the threads that serve it.
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    command::{Answer, Command, Failure},
    services::{IoJob, services},
    slot::{Slot, lock},
};
use crate::{
    host::{Events, Level, OpenDevice, OpenSpec, Plugin},
    plugin::{Device, DeviceFlags, DeviceInfo, Refusal, Threads},
};

/// Pool threads where the handler leaves their number to the host.
const POOL: u32 = 4;
/// Bytes of completed requests that a device keeps to see late writes and completions.
const KEPT: usize = 64 << 20;

/// What a handler did to a request or its memory that it may not do.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// Completed more than once.
    Twice,
    /// Not completed.
    Never,
    /// Wrote outside of a buffer.
    Trespass,
    /// Wrote to data that it may only read.
    Altered,
    /// Wrote after the completion.
    Late,
    /// An unknown status or length.
    Status,
}

/// Why a device of the bench could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The handler refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A call did not return; its thread is left behind.
    #[error("`{call}` did not return within {seconds} s")]
    Hung {
        /// Which.
        call: &'static str,
        /// The timeout.
        seconds: f32,
    },
    /// A request was never completed, so that the device can't be closed.
    #[error("the device can't be closed: {0}")]
    Outstanding(String),
}

/// How a device is opened for tests: a builder.
#[derive(Clone, Debug)]
pub struct Bench {
    plugin: Plugin,
    config: String,
    name: String,
    info: DeviceInfo,
    take_over: bool,
    timeout: Duration,
    deferred: bool,
}

impl Bench {
    /// A device of 16 MiB in blocks of 512 bytes, without a write cache.
    pub fn new(plugin: Plugin, config: &str) -> Bench {
        Bench {
            plugin,
            config: config.to_owned(),
            name: "user_0/bench".to_owned(),
            info: DeviceInfo::new(16 << 20, 512),
            take_over: false,
            timeout: Duration::from_secs(10),
            deferred: false,
        }
    }

    /// The capacity that the kernel was told, in bytes.
    pub fn size(mut self, bytes: u64) -> Bench {
        self.info.0.size = bytes;
        self
    }

    /// The logical block size that the kernel was told, in bytes.
    pub fn block_size(mut self, bytes: u32) -> Bench {
        self.info.0.block_size = bytes;
        self
    }

    /// Whether the kernel was told of a volatile write cache.
    pub fn write_cache(mut self, on: bool) -> Bench {
        self.info.set_flags(DeviceFlags::WRITE_CACHE, on);
        self
    }

    /// The kernel's name of the device.
    pub fn name(mut self, name: &str) -> Bench {
        self.name = name.to_owned();
        self
    }

    /// As if an earlier process had served the device.
    pub fn take_over(mut self, yes: bool) -> Bench {
        self.take_over = yes;
        self
    }

    /// How long a call or a completion may take; 10 s at first.
    pub fn timeout(mut self, timeout: Duration) -> Bench {
        self.timeout = timeout;
        self
    }

    /// Whether I/O that the handler gives back to the host ends later, on another thread, instead of at once. Needs a plugin that was
    /// loaded with [`services`].
    pub fn deferred_io(mut self, yes: bool) -> Bench {
        self.deferred = yes;
        self
    }

    /// Opens the device and starts its threads.
    pub fn open(&self) -> Result<BenchDevice, BenchError> {
        let this = self.clone();
        let log = Arc::new(Log::default());
        let events = log.clone();
        let device = control("open", self.timeout, move || {
            let Bench { plugin, config, name, info, take_over, .. } = &this;
            plugin.open(OpenSpec { config, name, take_over: *take_over, info: *info }, events)
        })??;
        Ok(BenchDevice::start(device, log, self.timeout, self.deferred))
    }

    /// A device that the program made itself.
    pub fn embed<D: Device>(device: D, info: DeviceInfo) -> Result<BenchDevice, BenchError> {
        let log = Arc::new(Log::default());
        let device = OpenDevice::embed(device, info, log.clone(), services())?;
        Ok(BenchDevice::start(device, log, Duration::from_secs(10), false))
    }
}

/// Runs a control call on a thread of its own, which is left behind when it does not come back.
pub(super) fn control<T: Send + 'static>(
    call: &'static str,
    timeout: Duration,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BenchError> {
    let (sender, result) = channel();
    thread::spawn(move || {
        // Nobody listens any more after the timeout.
        let _ = sender.send(run());
    });
    match result.recv_timeout(timeout) {
        Ok(value) => Ok(value),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(BenchError::Hung { call, seconds: timeout.as_secs_f32() })
        }
    }
}

/// What a device said: log lines and events.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn add(&self, line: String) {
        lock(&self.0).push(line);
    }
}

impl Events for Log {
    fn size_changed(&self, bytes: u64) {
        self.add(format!("event: the size became {bytes} bytes"));
    }

    fn lock_lost(&self) {
        self.add("event: the exclusive lock was lost".to_owned());
    }

    fn connected(&self, reachable: bool) {
        self.add(format!("event: the backing store {} be reached", if reachable { "can" } else { "can't" }));
    }

    fn medium_changed(&self) {
        self.add("event: the medium was changed".to_owned());
    }

    fn log(&self, level: Level, message: &str) {
        self.add(format!("{level:?}: {message}"));
    }
}

/// What the requests, the threads and the services of a device share.
pub(super) struct Shared {
    pub(super) threads: Threads,
    pub(super) deferred: bool,
    /// Alignment that data segments need.
    pub(super) alignment: usize,
    /// How many I/Os the handler gave back to the host.
    pub(super) ios: AtomicU64,
    queue: Mutex<Queue>,
    wake: Condvar,
    slots: Mutex<Slots>,
    faults: Mutex<Vec<Fault>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
    /// Threads that still run.
    running: u32,
}

enum Job {
    Submit(Vec<Arc<Slot>>),
    Io(IoJob),
}

/// The memory of all requests that may still be touched.
#[derive(Default)]
struct Slots {
    kept: VecDeque<Arc<Slot>>,
    bytes: usize,
}

impl Shared {
    pub(super) fn fault(&self, fault: Fault) {
        lock(&self.faults).push(fault);
    }

    pub(super) fn push_io(&self, job: IoJob) {
        lock(&self.queue).jobs.push_back(Job::Io(job));
        self.wake.notify_one();
    }

    /// Keeps a request, and lets go of the oldest that were completed when there are too many.
    fn keep(&self, slot: &Arc<Slot>) {
        let mut slots = lock(&self.slots);
        slots.bytes += slot.footprint();
        slots.kept.push_back(slot.clone());
        while slots.bytes > KEPT && slots.kept.front().is_some_and(|s| s.is_done()) {
            if let Some(old) = slots.kept.pop_front() {
                slots.bytes -= old.footprint();
                old.look_again();
            }
        }
    }
}

/// An open device of the bench. Commands go to it as a host sends them: on one thread with [`Threads::Inline`] and
/// [`Threads::Serial`], on several with [`Threads::Pool`].
pub struct BenchDevice {
    device: Option<Arc<OpenDevice>>,
    shared: Arc<Shared>,
    log: Arc<Log>,
    timeout: Duration,
}

impl BenchDevice {
    fn start(device: OpenDevice, log: Arc<Log>, timeout: Duration, deferred: bool) -> BenchDevice {
        let shared = Arc::new(Shared {
            threads: device.threads(),
            deferred,
            alignment: device.info().0.buffer_alignment.clamp(1, 1 << 20) as usize,
            ios: AtomicU64::new(0),
            queue: Mutex::default(),
            wake: Condvar::new(),
            slots: Mutex::default(),
            faults: Mutex::default(),
        });
        let workers = match (device.threads(), device.concurrency()) {
            (Threads::Pool, 0) => POOL,
            (Threads::Pool, wanted) => wanted.min(64),
            _ => 1,
        };
        let device = Arc::new(device);
        lock(&shared.queue).running = workers;
        for _ in 0..workers {
            let (device, shared) = (device.clone(), shared.clone());
            thread::spawn(move || serve(device, &shared));
        }
        BenchDevice { device: Some(device), shared, log, timeout }
    }

    fn device(&self) -> &Arc<OpenDevice> {
        self.device.as_ref().expect("there until it is closed")
    }

    /// What the device is and can do.
    pub fn info(&self) -> DeviceInfo {
        *self.device().info()
    }

    /// Lines that the handler logged for this device, and its events.
    pub fn log_lines(&self) -> Vec<String> {
        lock(&self.log.0).clone()
    }

    /// How many I/Os the handler has given back to the host so far.
    pub fn host_ios(&self) -> u64 {
        self.shared.ios.load(Ordering::Relaxed)
    }

    /// Submits one command.
    pub fn submit(&self, command: Command) -> Pending {
        self.submit_batch([command]).pop().expect("one for one")
    }

    /// Submits commands in one call of the handler's `submit` (one call each with [`Threads::Pool`]).
    pub fn submit_batch(&self, commands: impl IntoIterator<Item = Command>) -> Vec<Pending> {
        let slots: Vec<_> = commands.into_iter().map(|command| Slot::new(command, &self.shared)).collect();
        slots.iter().for_each(|slot| self.shared.keep(slot));
        let pending = slots.iter().map(|slot| Pending { slot: slot.clone(), timeout: self.timeout }).collect();
        let mut queue = lock(&self.shared.queue);
        if self.shared.threads == Threads::Pool {
            queue.jobs.extend(slots.into_iter().map(|slot| Job::Submit(vec![slot])));
        } else if !slots.is_empty() {
            queue.jobs.push_back(Job::Submit(slots));
        }
        drop(queue);
        self.shared.wake.notify_all();
        pending
    }

    /// Submits a command and waits for its answer, whatever it is; fails only when none comes.
    pub fn answer(&self, command: Command) -> Result<Answer, Failure> {
        self.submit(command).wait()
    }

    /// Submits a command, waits for its answer, and fails if that is not [`crate::abi::TCMU_STATUS_OK`].
    pub fn run(&self, command: Command) -> Result<Answer, Failure> {
        self.submit(command).wait_ok()
    }

    /// Tells the handler that the initiator gave up on a command.
    pub fn cancel(&self, pending: &Pending) {
        // SAFETY: submitted to this device, and `pending` keeps its memory.
        unsafe { self.device().cancel(Slot::raw(&pending.slot)) }
    }

    /// Makes a control call; it runs on a thread of its own.
    pub fn control<T: Send + 'static>(
        &self,
        call: &'static str,
        run: impl FnOnce(&OpenDevice) -> T + Send + 'static,
    ) -> Result<T, BenchError> {
        let device = self.device().clone();
        control(call, self.timeout, move || run(&device))
    }

    /// What the handler did to requests and buffers that it may not do, in words. Empties the list.
    pub fn take_faults(&self) -> Vec<String> {
        self.take_faults_by_kind().into_iter().map(|f| f.text).collect()
    }

    pub(super) fn take_faults_by_kind(&self) -> Vec<Fault> {
        std::mem::take(&mut lock(&self.shared.faults))
    }

    /// Waits for all requests, looks for late writes and closes the device. On failure the device is left behind as it is.
    pub fn close(mut self) -> Result<Vec<String>, BenchError> {
        self.shut()?;
        Ok(self.take_faults())
    }

    /// [`BenchDevice::close`] for those who look at the faults themselves.
    pub(super) fn shut(&mut self) -> Result<(), BenchError> {
        let Some(device) = self.device.take() else { return Ok(()) };
        match self.drain() {
            Ok(()) => {
                // The threads have let go of it, or the control call keeps it with them.
                let closed = control("close", self.timeout, move || drop(device));
                self.settle();
                closed
            }
            Err(error) => {
                // Whoever still has a request of this device may use all of it.
                std::mem::forget(device);
                std::mem::forget(std::mem::take(&mut *lock(&self.shared.slots)));
                Err(error)
            }
        }
    }

    /// Waits until no request is outstanding and no thread is in the handler.
    fn drain(&self) -> Result<(), BenchError> {
        let until = Instant::now() + self.timeout;
        let slots: Vec<_> = lock(&self.shared.slots).kept.iter().cloned().collect();
        let mut lost = None;
        for slot in &slots {
            if !slot.wait(until.saturating_duration_since(Instant::now())) {
                let text = format!("{}: never completed (waited {} s)", slot.command(), self.timeout.as_secs_f32());
                self.shared.fault(Fault { kind: FaultKind::Never, text: text.clone() });
                lost.get_or_insert(text);
            }
        }
        let mut queue = lock(&self.shared.queue);
        queue.closed = true;
        self.shared.wake.notify_all();
        let until =
            Instant::now() + self.timeout.min(Duration::from_secs(1)).max(until.saturating_duration_since(Instant::now()));
        while queue.running > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue = self.shared.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        match lost {
            Some(text) => Err(BenchError::Outstanding(text)),
            None if queue.running > 0 => Err(BenchError::Hung { call: "submit", seconds: self.timeout.as_secs_f32() }),
            None => Ok(()),
        }
    }

    /// Looks for late writes, then lets the memory go to where a late completion still finds it.
    fn settle(&self) {
        let slots = std::mem::take(&mut *lock(&self.shared.slots));
        for slot in &slots.kept {
            slot.answer();
            slot.look_again();
        }
        bury(slots);
    }
}

/// Requests of closed devices, kept for a while: a completion that comes after `close` must not be a crash.
fn bury(slots: Slots) {
    static GRAVES: Mutex<(VecDeque<Slots>, usize)> = Mutex::new((VecDeque::new(), 0));
    let mut graves = lock(&GRAVES);
    graves.1 += slots.bytes;
    graves.0.push_back(slots);
    while graves.1 > 2 * KEPT {
        let Some(old) = graves.0.pop_front() else { break };
        graves.1 -= old.bytes;
    }
}

impl Drop for BenchDevice {
    fn drop(&mut self) {
        // What went wrong was for whoever calls `close`.
        let _ = self.shut();
    }
}

impl fmt::Debug for BenchDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BenchDevice").field("device", &self.device).finish_non_exhaustive()
    }
}

/// A thread that serves a device.
fn serve(device: Arc<OpenDevice>, shared: &Shared) {
    let mut queue = lock(&shared.queue);
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            drop(queue);
            match job {
                Job::Submit(slots) => {
                    let requests: Vec<_> = slots.iter().map(Slot::raw).collect();
                    // SAFETY: the device keeps its requests' memory, and this is a thread of the handler's model.
                    unsafe { device.submit(&requests) }
                }
                Job::Io(io) => io.finish(),
            }
            queue = lock(&shared.queue);
        } else if queue.closed {
            break;
        } else {
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
    // Before the count: who sees no thread running may close the device.
    drop(device);
    queue.running -= 1;
    drop(queue);
    shared.wake.notify_all();
}

/// A command that was submitted.
#[must_use = "an answer that nobody waits for is only looked at when the device is closed"]
pub struct Pending {
    slot: Arc<Slot>,
    timeout: Duration,
}

impl Pending {
    /// Whether it is completed.
    pub fn is_done(&self) -> bool {
        self.slot.is_done()
    }

    /// Waits for the answer.
    pub fn wait(self) -> Result<Answer, Failure> {
        let timed_out = || Failure::TimedOut { command: self.slot.command().to_string(), seconds: self.timeout.as_secs_f32() };
        if !self.slot.wait(self.timeout) {
            return Err(timed_out());
        }
        self.slot.answer().ok_or_else(timed_out)
    }

    /// Waits for the answer and fails if that is not [`crate::abi::TCMU_STATUS_OK`].
    pub fn wait_ok(self) -> Result<Answer, Failure> {
        let answer = self.wait()?;
        match answer.error() {
            None => Ok(answer),
            Some(error) => Err(Failure::Status { command: answer.command, error }),
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({})", self.slot.command())
    }
}
