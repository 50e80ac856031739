//! Worker threads for what blocks: handlers that said so, and file I/O that could not be done at once.
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use tcmu_handler_api::{abi, host::OpenDevice};

/// Something to do on a worker thread.
pub(super) enum Job {
    /// Submit one request to a handler that may block.
    Submit(Arc<Lane>, *mut abi::tcmu_request),
    /// An I/O for a request, from a copy or where the handler keeps it.
    Io(*mut abi::tcmu_request, Io),
}

/// Where the I/O is described.
pub(super) enum Io {
    /// The host's copy; the request is completed by the outcome.
    Copy(abi::tcmu_io),
    /// The handler's; its `done` is called.
    Kept(*mut abi::tcmu_io),
}

// SAFETY: requests and I/Os are the host's until they are completed, on whatever thread.
unsafe impl Send for Job {}

/// A device whose handler may block: how many of its requests run at a time.
pub(super) struct Lane {
    pub(super) device: Arc<OpenDevice>,
    /// `usize::MAX`: as many as there are threads; nothing is counted then.
    limit: usize,
    state: Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    running: usize,
    waiting: VecDeque<*mut abi::tcmu_request>,
}

// SAFETY: as for `Job`.
unsafe impl Send for LaneState {}

impl Lane {
    /// A lane that runs at most `limit` requests at a time, in the order they came.
    pub(super) fn new(device: Arc<OpenDevice>, limit: usize) -> Arc<Lane> {
        Arc::new(Lane { device, limit: limit.max(1), state: Mutex::default() })
    }

    /// How many of these requests may run now, the first ones; the others wait.
    fn admit(&self, requests: &[*mut abi::tcmu_request]) -> usize {
        if self.limit == usize::MAX {
            return requests.len();
        }
        let mut state = lock(&self.state);
        let now = requests.len().min(self.limit - state.running);
        state.running += now;
        state.waiting.extend(&requests[now..]);
        now
    }

    /// Forgets a request that waits; whether it did.
    fn forget(&self, request: *mut abi::tcmu_request) -> bool {
        let mut state = lock(&self.state);
        let at = state.waiting.iter().position(|waiting| *waiting == request);
        at.and_then(|at| state.waiting.remove(at)).is_some()
    }

    /// A request ended; the one that may run in its place.
    fn ended(&self) -> Option<*mut abi::tcmu_request> {
        if self.limit == usize::MAX {
            return None;
        }
        let mut state = lock(&self.state);
        let next = state.waiting.pop_front();
        state.running -= usize::from(next.is_none());
        next
    }
}

/// The worker threads.
pub struct Pool {
    queue: Mutex<Queue>,
    ready: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    /// An idle thread was woken, and hasn't come yet.
    coming: bool,
    stopping: bool,
}

impl Queue {
    /// Whether to wake a thread. One comes at a time, and wakes the next one if there is something left to do by then: short jobs are
    /// done by few threads, none of which is woken for nothing or has to wait for the others; long ones by as many as there are.
    fn wakes(&mut self) -> bool {
        let wakes = !self.coming && self.idle > 0 && !self.jobs.is_empty();
        self.coming |= wakes;
        wakes
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Starts the threads.
    pub fn start(threads: usize) -> io::Result<Arc<Pool>> {
        let pool = Arc::new(Pool {
            queue: Mutex::new(Queue { jobs: VecDeque::with_capacity(256), idle: 0, coming: false, stopping: false }),
            ready: Condvar::new(),
            threads: Mutex::default(),
        });
        for n in 0..threads.max(1) {
            let worker = pool.clone();
            let thread = thread::Builder::new().name(format!("tcmu-worker-{n}")).spawn(move || worker.work())?;
            lock(&pool.threads).push(thread);
        }
        Ok(pool)
    }

    /// Lets the threads finish what there is, and end.
    pub(super) fn stop(&self) {
        lock(&self.queue).stopping = true;
        self.ready.notify_all();
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join();
        }
    }

    pub(super) fn push(&self, job: Job) {
        self.push_all([job]);
    }

    fn push_all(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut queue = lock(&self.queue);
        queue.jobs.extend(jobs);
        let wake = queue.wakes();
        drop(queue);
        if wake {
            self.ready.notify_one();
        }
    }

    /// Submits requests to a handler that may block, in this order.
    pub(super) fn submit(&self, lane: &Arc<Lane>, requests: &[*mut abi::tcmu_request]) {
        let now = lane.admit(requests);
        self.push_all(requests[..now].iter().map(|request| Job::Submit(lane.clone(), *request)));
    }

    /// Takes a request back that its handler has not got yet; whether that was so. It can only go from here to the handler meanwhile.
    pub(super) fn withdraw(&self, lane: &Arc<Lane>, request: *mut abi::tcmu_request) -> bool {
        if lane.forget(request) {
            return true;
        }
        let mut queue = lock(&self.queue);
        let at = queue.jobs.iter().position(|job| matches!(job, Job::Submit(_, queued) if *queued == request));
        let withdrawn = at.and_then(|at| queue.jobs.remove(at)).is_some();
        drop(queue);
        if withdrawn && let Some(next) = lane.ended() {
            self.push(Job::Submit(lane.clone(), next));
        }
        withdrawn
    }

    fn work(&self) {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                let wake = queue.wakes();
                drop(queue);
                if wake {
                    self.ready.notify_one();
                }
                match job {
                    Job::Submit(lane, request) => run_lane(&lane, request),
                    Job::Io(request, io) => super::io::run(request, io),
                }
                queue = lock(&self.queue);
            } else if queue.stopping {
                return;
            } else {
                queue.idle += 1;
                queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
                queue.coming = false;
            }
        }
    }
}

/// Runs a request and those that wait behind it.
fn run_lane(lane: &Lane, request: *mut abi::tcmu_request) {
    let mut next = Some(request);
    while let Some(request) = next {
        // SAFETY: armed by the device server for this device; worker threads are what its thread model asks for.
        unsafe { lane.device.submit(&[request]) };
        next = lane.ended();
    }
}
