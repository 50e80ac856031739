//! A disk in memory that answers late, from a thread of its own: how a handler with its own event loop completes requests.
use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tcmu_handler_api::prelude::*;

/// A device: the way to its thread. The thread ends when `requests` is dropped.
struct Delay {
    requests: Option<Sender<(Instant, Request)>>,
    thread: Option<JoinHandle<()>>,
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
        let (requests, queue) = channel();
        info.supports(Operations::FLUSH);
        Ok(Delay { requests: Some(requests), thread: Some(thread::spawn(move || serve(bytes, delay, &queue))) })
    }
}

impl Device for Delay {
    /// `submit` only puts requests into a queue, so it may run right on the thread that serves the ring.
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        let Some(requests) = &self.requests else { return };
        for request in batch {
            // A request that can't be sent is dropped, and so completed as a failure.
            let _ = requests.send((Instant::now(), request));
        }
    }
}

fn serve(mut bytes: Vec<u8>, delay: Duration, queue: &Receiver<(Instant, Request)>) {
    for (arrived, request) in queue {
        thread::sleep(delay.saturating_sub(arrived.elapsed()));
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
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

export_handler!(Delay);
