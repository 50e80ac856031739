//! Threads for work that may block, for any time: a piece of it never waits for long because of another. When much comes at once, as when
//! thousands of devices are taken over, a few threads do it one after the other, which costs less than a thread for each.
use std::{
    collections::VecDeque,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Threads that are there at once, unless they are stuck.
const AT_ONCE: usize = 4;
/// When nothing was finished for this long, though something waits, there are more threads: one, then two, four, and so on.
const STUCK: Duration = Duration::from_millis(10);
/// How long a thread waits for more.
const KEPT: Duration = Duration::from_secs(1);

type Work = Box<dyn FnOnce() + Send>;

/// The threads. Work that was given to it is done also when this value is gone.
pub(crate) struct Crew(Arc<Shared>);

struct Shared {
    name: &'static str,
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    /// How much was finished, ever. What was begun does not count: each thread that is added begins something.
    finished: u64,
    threads: usize,
    /// Of these, those that wait.
    idle: usize,
    /// Whether somebody looks after those that are stuck.
    watched: bool,
}

impl Crew {
    /// Without a thread. Those that will be are called so.
    pub(crate) fn new(name: &'static str) -> Crew {
        Crew(Arc::new(Shared { name, state: Mutex::default(), more: Condvar::new() }))
    }

    /// Does this soon, on another thread.
    pub(crate) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        state.waiting.push_back(Box::new(work));
        if state.idle >= state.waiting.len() {
            self.0.more.notify_one();
        } else if state.threads < AT_ONCE {
            self.0.add_thread(&mut state);
        } else if !state.watched {
            let shared = self.0.clone();
            state.watched = start(self.0.name, move || shared.watch());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_thread(self: &Arc<Shared>, state: &mut State) {
        let shared = self.clone();
        state.threads += usize::from(start(self.name, move || shared.work()));
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.waiting.pop_front() {
                drop(state);
                // It was told of; the thread goes on with the next.
                let _ = panic::catch_unwind(AssertUnwindSafe(work));
                state = self.lock();
                state.finished += 1;
                continue;
            }
            state.idle += 1;
            let (next, waited) = self.more.wait_timeout(state, KEPT).unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.idle -= 1;
            if waited.timed_out() && state.waiting.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    /// Adds threads while those that are there are stuck, as long as something waits.
    fn watch(self: &Arc<Shared>) {
        let mut growth = Growth { finished: self.lock().finished, add: 1 };
        loop {
            thread::sleep(STUCK);
            let mut state = self.lock();
            if state.waiting.is_empty() {
                state.watched = false;
                return;
            }
            for _ in 0..growth.more(state.finished).min(state.waiting.len()) {
                self.add_thread(&mut state);
            }
        }
    }
}

/// How many threads to add.
struct Growth {
    finished: u64,
    add: usize,
}

impl Growth {
    /// So much was finished until now.
    fn more(&mut self, finished: u64) -> usize {
        let stuck = finished == self.finished;
        self.finished = finished;
        let more = if stuck { self.add } else { 0 };
        self.add = if stuck { self.add.saturating_mul(2) } else { 1 };
        more
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> bool {
    let started = thread::Builder::new().name(name.into()).spawn(run);
    started.map_err(|error| tracing::error!(%error, "no thread")).is_ok()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::mpsc,
        time::{Duration, Instant},
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn much_at_once_is_done_by_few_threads() {
        let (crew, (done, all)) = (Crew::new("test"), mpsc::channel());
        for n in 0..1000 {
            let done = done.clone();
            crew.spawn(move || done.send((n, thread::current().id())).unwrap());
        }
        drop((crew, done));
        let (numbers, threads): (HashSet<_>, HashSet<_>) = all.iter().unzip();
        assert_eq!(numbers.len(), 1000);
        assert!(threads.len() < 100, "{} threads", threads.len());
    }

    #[test]
    fn what_is_stuck_keeps_nothing_else() {
        let (crew, (release, stuck)) = (Crew::new("test"), mpsc::channel::<()>());
        let stuck = Arc::new(Mutex::new(stuck));
        for _ in 0..200 {
            let stuck = stuck.clone();
            crew.spawn(move || {
                let _ = stuck.lock().unwrap().recv();
            });
        }
        let (done, other) = mpsc::channel();
        crew.spawn(move || done.send(()).unwrap());
        other.recv_timeout(LONG).unwrap();
        drop(release);
    }

    #[test]
    fn there_are_twice_as_many_more_each_time_until_something_is_finished() {
        let mut growth = Growth { finished: 7, add: 1 };
        assert_eq!([7, 7, 7, 7, 8, 8, 8, 9].map(|finished| growth.more(finished)), [1, 2, 4, 8, 0, 1, 2, 0]);
    }

    #[test]
    fn threads_end_when_there_is_nothing_to_do() {
        let crew = Crew::new("test");
        for _ in 0..50 {
            crew.spawn(|| thread::sleep(Duration::from_millis(1)));
        }
        let end = Instant::now() + LONG;
        while crew.0.lock().threads > 0 || crew.0.lock().watched {
            assert!(Instant::now() < end);
            thread::sleep(Duration::from_millis(10));
        }
        let (done, other) = mpsc::channel();
        crew.spawn(move || done.send(()).unwrap());
        other.recv_timeout(LONG).unwrap();
    }
}
