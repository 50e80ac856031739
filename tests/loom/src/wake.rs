//! Threads that complete requests, and the one that serves the device.
use loom::{
    cell::UnsafeCell,
    sync::{Arc, Mutex},
    thread,
};

use crate::{
    descriptor::Eventfd,
    signal::Signal,
    stack::{Node, Stack},
};

/// A request, with what its handler left in it.
struct Request {
    next: UnsafeCell<*mut Request>,
    status: UnsafeCell<u32>,
}

impl Node for Request {
    unsafe fn next(request: *mut Request) -> *mut Request {
        // SAFETY: the caller's.
        unsafe { (*request).next.with(|next| *next) }
    }

    unsafe fn set_next(request: *mut Request, next: *mut Request) {
        // SAFETY: the caller's.
        unsafe { (*request).next.with_mut(|place| *place = next) }
    }
}

/// As the server's `Waker`, with messages besides, as a reactor has them.
struct Waker {
    requests: Stack<Request>,
    messages: Mutex<u32>,
    signal: Signal<Eventfd>,
}

impl Waker {
    fn new() -> Arc<Waker> {
        Arc::new(Waker { requests: Stack::new(), messages: Mutex::new(0), signal: Signal::new(Eventfd::new()) })
    }

    /// What a handler's thread does.
    fn complete(&self, status: u32) {
        let request =
            Box::into_raw(Box::new(Request { next: UnsafeCell::new(std::ptr::null_mut()), status: UnsafeCell::new(0) }));
        // SAFETY: this thread's until it is pushed, and whoever takes it frees it.
        unsafe {
            (*request).status.with_mut(|place| *place = status);
            if self.requests.push(request) {
                self.signal.wake_a_sleeper();
            }
        }
    }

    /// What a thread with a message does.
    fn send(&self) {
        *self.messages.lock().unwrap() += 100;
        self.signal.wake();
    }

    /// The sum of what came.
    fn take(&self) -> u32 {
        let (mut request, mut sum) = (self.requests.take(), std::mem::take(&mut *self.messages.lock().unwrap()));
        while !request.is_null() {
            // SAFETY: taken, so this thread's.
            unsafe {
                let next = Node::next(request);
                sum += (*request).status.with(|status| *status);
                drop(Box::from_raw(request));
                request = next;
            }
        }
        sum
    }

    /// A reactor's loop, until all has come.
    fn react(&self, wanted: u32) {
        let mut sum = 0;
        while sum < wanted {
            let sleeps = self.signal.falls_asleep(|| !self.requests.is_empty());
            let told = self.signal.descriptor().wait_for_news(sleeps);
            self.signal.is_awake();
            if told || !self.requests.is_empty() || self.signal.is_rung() {
                self.signal.clear();
                sum += self.take();
            }
        }
        assert_eq!(sum, wanted);
    }

    /// A program's own loop, which never says that it is awake.
    fn turn(&self, wanted: u32) {
        let mut sum = 0;
        while sum < wanted {
            self.signal.descriptor().wait_readable();
            self.signal.clear();
            let came = self.take();
            if came == 0 {
                // Who rang has not said so yet, and the descriptor stays readable.
                thread::yield_now();
            }
            sum += came;
        }
        assert_eq!(sum, wanted);
    }
}

/// Every interleaving with at most so many switches away from a thread that could go on, or as many as `LOOM_MAX_PREEMPTIONS` says.
fn model(switches: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(switches));
    builder.check(run);
}

#[test]
fn what_was_done_before_a_push_is_seen_by_who_takes() {
    model(3, || {
        let waker = Waker::new();
        let threads: Vec<_> = [1, 2]
            .map(|status| {
                let waker = waker.clone();
                thread::spawn(move || waker.complete(status))
            })
            .into();
        let early = waker.take();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(early + waker.take(), 3);
    });
}

#[test]
fn a_reactor_misses_no_completion() {
    model(2, || {
        let waker = Waker::new();
        for status in [1, 2] {
            let waker = waker.clone();
            thread::spawn(move || waker.complete(status));
        }
        waker.react(3);
    });
}

#[test]
fn a_reactor_misses_no_completion_after_another() {
    model(3, || {
        let waker = Waker::new();
        let other = waker.clone();
        thread::spawn(move || {
            other.complete(1);
            other.complete(2);
        });
        waker.react(3);
    });
}

#[test]
fn a_reactor_misses_no_message() {
    model(2, || {
        let waker = Waker::new();
        let (completes, sends) = (waker.clone(), waker.clone());
        thread::spawn(move || completes.complete(1));
        thread::spawn(move || sends.send());
        waker.react(101);
    });
}

#[test]
fn a_program_that_waits_for_the_descriptor_misses_no_completion() {
    model(2, || {
        let waker = Waker::new();
        for status in [1, 2] {
            let waker = waker.clone();
            thread::spawn(move || waker.complete(status));
        }
        waker.turn(3);
    });
}
