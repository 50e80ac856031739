//! Lines for stderr, written by a thread of its own. Stderr may be a file on a disk of this very process, or one that was swapped out to it:
//! whoever serves or takes over disks must not wait for it. (`tracing-appender` has a writer like this one, which can be flushed only by
//! ending it: too soon for a process that goes on where the exchange of its program fails.)
use std::{
    io::{self, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::Duration,
};

/// So many may wait to be written; more are lost, and counted.
const LINES: usize = 1024;

enum Said {
    Line(Box<[u8]>),
    Flush(SyncSender<()>),
}

struct Queue {
    lines: SyncSender<Said>,
    lost: Arc<AtomicU64>,
}

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Where lines go: to stderr at once, until [`begin`].
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            None => io::stderr().write_all(line)?,
            Some(queue) => queue.say(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From now on nobody waits for stderr.
pub fn begin() -> io::Result<()> {
    let (queue, lines) = Queue::new();
    let lost = queue.lost.clone();
    thread::Builder::new().name("tcmu-log".into()).spawn(move || write_all(&lines, &lost, io::stderr()))?;
    let _ = QUEUE.set(queue);
    Ok(())
}

/// Waits until what was said is written, but not for long. Before a process ends, or becomes another program.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(Duration::from_secs(1));
    }
}

impl Queue {
    fn new() -> (Queue, Receiver<Said>) {
        let (sender, receiver) = mpsc::sync_channel(LINES);
        (Queue { lines: sender, lost: Arc::default() }, receiver)
    }

    fn say(&self, line: &[u8]) {
        if self.lines.try_send(Said::Line(line.into())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self, limit: Duration) {
        let (done, written) = mpsc::sync_channel(1);
        if self.lines.try_send(Said::Flush(done)).is_ok() {
            let _ = written.recv_timeout(limit);
        }
    }
}

/// Writes lines as long as there may be any. What cannot be written is nobody's business.
fn write_all(lines: &Receiver<Said>, lost: &AtomicU64, mut stderr: impl Write) {
    for said in lines {
        match said {
            Said::Line(line) => {
                let _ = stderr.write_all(&line);
            }
            Said::Flush(done) => {
                let _ = done.try_send(());
            }
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(stderr, "{lost} lines of the log are lost: stderr did not take them");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes nothing while it is locked.
    #[derive(Clone, Default)]
    struct File(Arc<Mutex<Vec<u8>>>);

    impl Write for File {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(data)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_file_that_takes_nothing_and_what_is_lost_is_counted() {
        let file = File::default();
        let (queue, lines) = Queue::new();
        let (lost, to) = (queue.lost.clone(), file.clone());
        let writer = thread::spawn(move || write_all(&lines, &lost, to));
        let stuck = file.0.lock().unwrap();
        for _ in 0..LINES + 10 {
            queue.say(b"line\n");
        }
        queue.flush(Duration::from_millis(1));
        let lost = queue.lost.load(Ordering::Relaxed);
        assert!((9..=10).contains(&lost), "{lost} lost: one may be with the writer");
        drop(stuck);
        queue.flush(Duration::from_secs(60));
        drop(queue);
        writer.join().unwrap();
        let text = String::from_utf8(file.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().filter(|line| *line == "line").count() as u64, LINES as u64 + 10 - lost);
        assert!(text.contains(&format!("{lost} lines of the log are lost")), "{text}");
    }
}
