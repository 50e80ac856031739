//! Writes traces: a thread takes records from a queue of bounded length, so that no command waits for the file.
use std::{
    fs::File,
    io::{BufWriter, Write},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tcmu::server::{Completed, Observe};
use tcmu_handler_api::plugin::Refusal;

use super::Host;
use crate::trace::{HEADER, Header, RECORD, Record};

/// Records that may wait for the file.
const QUEUE: usize = 16 << 10;
/// How often what was written is handed to the kernel, when little happens.
const FLUSH: Duration = Duration::from_millis(500);
/// How long the end of a trace is waited for.
const END: Duration = Duration::from_secs(5);

/// A trace that is being written.
pub(super) struct Trace {
    /// Ends with the trace.
    ended: Receiver<()>,
}

struct Recorder {
    queue: SyncSender<Record>,
    missing: Arc<AtomicU64>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

impl Observe for Recorder {
    fn completed(&self, command: &Completed<'_>) {
        if self.queue.try_send(Record::new(now(), command)).is_err() {
            self.missing.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Host {
    /// Begins to write each command of a device to a file, up to so many bytes.
    pub(super) fn start_trace(self: &Arc<Host>, name: &str, file: Option<OwnedFd>, limit: u64) -> Result<(), Refusal> {
        let file = file.ok_or_else(|| Refusal::invalid("the file is missing"))?;
        let mut traces = self.traces();
        if traces.get(name).is_some_and(|trace| trace.ended.try_recv() == Err(mpsc::TryRecvError::Empty)) {
            return Err(Refusal::new(libc::EBUSY, "a trace of this device is being written; `tcmuctl trace stop` ends it"));
        }
        let (queue, records) = mpsc::sync_channel(QUEUE);
        let missing = Arc::new(AtomicU64::new(0));
        let recorder = Arc::new(Recorder { queue, missing: missing.clone() });
        let block_size = self.with_attached(name, |attached| attached.info().block_size());
        let block_size = block_size.ok_or_else(|| Refusal::new(libc::EBUSY, "the device is not being served at the moment"))?;
        let header = Header { began: now(), block_size, device: name.to_owned() };
        let (end, ended) = mpsc::channel();
        let (host, device) = (Arc::downgrade(self), name.to_owned());
        let write = move || {
            if let Err(error) = write(file, &header, &records, &missing, limit) {
                tracing::error!(device, "its trace ends: {error}");
            }
            // Nobody needs to look at its commands any more, unless this was the reason.
            if let Some(host) = host.upgrade() {
                host.with_attached(&device, |attached| attached.observe(None));
            }
            drop(end);
        };
        thread::Builder::new()
            .name("tcmu-trace".into())
            .spawn(write)
            .map_err(|error| Refusal::new(libc::EAGAIN, error.to_string()))?;
        self.with_attached(name, |attached| attached.observe(Some(recorder)));
        traces.insert(name.to_owned(), Trace { ended });
        tracing::info!(device = name, limit, "its commands are traced");
        Ok(())
    }

    /// Ends a trace, and waits until all is in the file.
    pub(super) fn stop_trace(&self, name: &str) -> Result<(), Refusal> {
        let trace = self.traces().remove(name);
        let trace = trace.ok_or_else(|| Refusal::new(libc::ENOENT, "no trace of this device is being written"))?;
        self.with_attached(name, |attached| attached.observe(None));
        match trace.ended.recv_timeout(END) {
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(Refusal::new(libc::ETIMEDOUT, "the file cannot be written fast enough; it goes on"))
            }
            _ => Ok(()),
        }
    }
}

fn write(file: OwnedFd, header: &Header, records: &Receiver<Record>, missing: &AtomicU64, limit: u64) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::from(file));
    file.write_all(&header.encode())?;
    let mut written = HEADER as u64;
    loop {
        let record = match records.recv_timeout(FLUSH) {
            Ok(record) => Some(record),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        };
        // Behind those that were in the queue then, about.
        let missing = missing.swap(0, Ordering::Relaxed);
        let gap = (missing > 0).then(|| Record::gap(now(), missing));
        if record.is_none() && gap.is_none() {
            file.flush()?;
        }
        for record in record.into_iter().chain(gap) {
            if written + RECORD as u64 > limit {
                tracing::info!(device = header.device, limit, "its trace has reached its limit and ends");
                return file.flush();
            }
            file.write_all(&record.encode())?;
            written += RECORD as u64;
        }
    }
    let missing = missing.swap(0, Ordering::Relaxed);
    if missing > 0 {
        file.write_all(&Record::gap(now(), missing).encode())?;
    }
    file.flush()
}
