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
    stopping: bool,
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
            queue: Mutex::new(Queue { jobs: VecDeque::with_capacity(256), idle: 0, stopping: false }),
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
        let mut queue = lock(&self.queue);
        queue.jobs.push_back(job);
        let wake = queue.idle > 0;
        drop(queue);
        if wake {
            self.ready.notify_one();
        }
    }

    /// Submits a request to a handler that may block.
    pub(super) fn submit(&self, lane: &Arc<Lane>, request: *mut abi::tcmu_request) {
        let mut state = lock(&lane.state);
        if state.running < lane.limit {
            state.running += 1;
            drop(state);
            self.push(Job::Submit(lane.clone(), request));
        } else {
            state.waiting.push_back(request);
        }
    }

    fn work(&self) {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
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
            }
        }
    }
}

/// Runs a request and those that wait behind it.
fn run_lane(lane: &Lane, mut request: *mut abi::tcmu_request) {
    loop {
        // SAFETY: armed by the device server for this device; worker threads are what its thread model asks for.
        unsafe { lane.device.submit(&[request]) };
        let mut state = lock(&lane.state);
        match state.waiting.pop_front() {
            Some(next) => request = next,
            None => {
                state.running -= 1;
                return;
            }
        }
    }
}
