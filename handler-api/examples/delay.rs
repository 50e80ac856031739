//! A disk in memory that answers late, from a thread of its own: how a handler with its own event loop completes requests, and lets go of
//! those that nobody waits for any more.
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tcmu_handler_api::prelude::*;

/// A device, and the thread that does what is asked of it.
struct Delay {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

/// What waits to be done.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// When it came, and what it is.
    requests: VecDeque<(Instant, Request)>,
    closing: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next request that has been here long enough; `None` when the device is closed.
    fn next(&self, delay: Duration) -> Option<Request> {
        let mut state = self.lock();
        loop {
            let left = state.requests.front().map(|(arrived, _)| delay.saturating_sub(arrived.elapsed()));
            state = match left {
                Some(left) if left.is_zero() => return state.requests.pop_front().map(|(_, request)| request),
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None if state.closing => return None,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// The config string: how many milliseconds each request takes.
fn milliseconds(config: &str) -> Result<u64, Refusal> {
    match config.parse() {
        Ok(ms @ 0..=10_000) => Ok(ms),
        _ => Err(Refusal::invalid(format!("delay {config:?}: milliseconds from 0 to 10000 are needed, as in delay/5"))),
    }
}

impl Handler for Delay {
    const INFO: HandlerInfo = HandlerInfo {
        subtype: c"delay",
        name: c"Slow RAM disk",
        version: c"1.0",
        config_desc: c"delay/<ms>: a disk in memory where each request takes that many milliseconds",
    };

    fn check_config(config: &str) -> Result<(), Refusal> {
        milliseconds(config).map(|_| ())
    }

    fn open(open: &Open<'_>, info: &mut DeviceInfo) -> Result<Delay, Refusal> {
        let delay = Duration::from_millis(milliseconds(open.config())?);
        let bytes = vec![0; info.size() as usize];
        let queue = Arc::new(Queue::default());
        let served = queue.clone();
        info.supports(Operations::FLUSH);
        Ok(Delay { queue, thread: Some(thread::spawn(move || serve(bytes, delay, &served))) })
    }
}

impl Device for Delay {
    /// `submit` only puts requests into a queue, so it may run right on the thread that serves the ring.
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        let now = Instant::now();
        self.queue.lock().requests.extend(batch.map(|request| (now, request)));
        self.queue.changed.notify_one();
    }

    /// One that is not in the queue is done already, or at this moment.
    fn cancel(&self, request: RequestId) {
        let mut state = self.queue.lock();
        let at = state.requests.iter().position(|(_, waiting)| waiting.id() == request);
        let cancelled = at.and_then(|at| state.requests.remove(at));
        drop(state);
        if let Some((_, request)) = cancelled {
            request.complete(Err(Error::Aborted));
        }
    }
}

fn serve(mut bytes: Vec<u8>, delay: Duration, queue: &Queue) {
    while let Some(request) = queue.next(delay) {
        let at = request.offset() as usize;
        let outcome = match request.operation() {
            Operation::Read => Ok(request.buffer().copy_from(&bytes[at..])),
            Operation::Write => Ok(request.buffer().copy_to(&mut bytes[at..])),
            Operation::Flush => Ok(0),
            _ => Err(Error::UNSUPPORTED),
        };
        request.complete(outcome.map(|_bytes| ()));
    }
}

/// The host closes a device only when nothing is outstanding: the queue is empty by then.
impl Drop for Delay {
    fn drop(&mut self) {
        self.queue.lock().closing = true;
        self.queue.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

export_handler!(Delay);
