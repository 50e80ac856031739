//! An eventfd, and the two ways to wait for it.
use loom::sync::{Condvar, Mutex};

use crate::signal::Descriptor;

pub(crate) struct Eventfd {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    readable: bool,
    /// It was written to since the last look.
    news: bool,
}

impl Eventfd {
    pub(crate) fn new() -> Eventfd {
        Eventfd { state: Mutex::new(State::default()), changed: Condvar::new() }
    }

    /// As an edge-triggered epoll set does: each write is told of once.
    pub(crate) fn wait_for_news(&self, block: bool) -> bool {
        let mut state = self.state.lock().unwrap();
        while block && !state.news {
            state = self.changed.wait(state).unwrap();
        }
        std::mem::take(&mut state.news)
    }

    /// As poll does.
    pub(crate) fn wait_readable(&self) {
        let mut state = self.state.lock().unwrap();
        while !state.readable {
            state = self.changed.wait(state).unwrap();
        }
    }
}

impl Descriptor for Eventfd {
    fn ring(&self) {
        *self.state.lock().unwrap() = State { readable: true, news: true };
        self.changed.notify_one();
    }

    fn silence(&self) {
        self.state.lock().unwrap().readable = false;
    }
}
