//! A thread that serves devices: it waits for their descriptors and for completions from elsewhere, and gives each its turn.
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use super::{
    ServerOptions,
    device::{DeviceServer, ServeError, Turn},
    pacing::{Pacing, Step},
    peer::Piece,
    uring::{Done, Queued},
    wait::Waiter,
    waker::Waker,
};

/// Told once when a device can't be served any more.
pub(super) type OnFailure = Box<dyn FnOnce(&str) + Send>;

/// What a reactor is told by other threads.
pub(super) enum Message {
    Add(usize, Box<DeviceServer>, OnFailure, Sender<Result<(), ServeError>>),
    /// Take no more commands; hand the device back when it is idle.
    Stop(usize, Sender<Box<DeviceServer>>),
    /// Take no more commands, and say when the device is idle.
    Hold(usize, Sender<()>),
    /// Forget a `Hold`, or a `Stop` unless the device was handed back already.
    GoOn(usize, Sender<()>),
    /// Run this with the device, if it is there.
    With(usize, Box<dyn FnOnce(&mut DeviceServer) + Send>),
    Quit,
    /// Look how old the commands of all devices are.
    GrowOlder,
    /// A piece of another device's copy.
    Piece(usize, Piece),
}

/// The other threads' side of a reactor.
pub(super) struct Reactor {
    pub(super) waker: Arc<Waker>,
    messages: Mutex<VecDeque<Message>>,
    pub(super) devices: AtomicUsize,
    /// Calls of [`Reactor::grow_older`] since the thread did it last.
    behind: AtomicU32,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The waker's key where descriptors are waited for; devices count from 1.
const WAKER: u64 = 0;

impl Reactor {
    /// Starts the thread.
    pub(super) fn start(number: usize, options: ServerOptions) -> io::Result<Arc<Reactor>> {
        let reactor = Arc::new(Reactor {
            waker: Arc::new(Waker::new()?),
            messages: Mutex::default(),
            devices: AtomicUsize::new(0),
            behind: AtomicU32::new(0),
            thread: Mutex::default(),
        });
        let (started, outcome) = mpsc::channel();
        let serving = reactor.clone();
        let run = move || match Serving::new(serving, &options) {
            Ok(serving) => {
                let _ = started.send(Ok(()));
                serving.run();
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        };
        let thread = thread::Builder::new().name(format!("tcmu-reactor-{number}")).spawn(run)?;
        outcome.recv().map_err(|_| io::Error::other("a reactor's thread ended"))??;
        *reactor.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(reactor)
    }

    pub(super) fn send(&self, message: Message) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
        self.waker.wake();
    }

    /// Lets the thread look how old commands are, unless it has not done so since it was asked last: a handler may keep it.
    pub(super) fn grow_older(&self) {
        if self.behind.fetch_add(1, Ordering::Relaxed) == 0 {
            self.send(Message::GrowOlder);
        }
    }

    /// How many calls of [`Reactor::grow_older`] the thread is late by; 1 is none.
    pub(super) fn is_late(&self) -> u32 {
        self.behind.load(Ordering::Relaxed).saturating_sub(1)
    }

    pub(super) fn stop(&self) {
        self.send(Message::Quit);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

struct Served {
    server: Box<DeviceServer>,
    on_failure: Option<OnFailure>,
    stop: Option<Sender<Box<DeviceServer>>>,
    held: Option<Held>,
    failed: bool,
}

/// A device that takes no commands for the moment.
struct Held {
    /// Who waits for it to be idle.
    idle: Option<Sender<()>>,
}

/// The thread's own side.
struct Serving {
    reactor: Arc<Reactor>,
    waiter: Waiter,
    pacing: Pacing,
    devices: BTreeMap<usize, Served>,
    /// Devices whose last turn left entries behind.
    more: Vec<usize>,
    /// Devices that had something to do since the thread slept last: their rings are looked at before it sleeps again.
    busy: Vec<usize>,
    /// Commands taken in this round.
    taken: u32,
}

/// Rings that are looked at while polling.
const MOST_BUSY: usize = 16;

impl Serving {
    fn new(reactor: Arc<Reactor>, options: &ServerOptions) -> io::Result<Serving> {
        let mut waiter = Waiter::new(options.engine)?;
        waiter.add(reactor.waker.as_fd(), WAKER)?;
        Ok(Serving {
            reactor,
            waiter,
            pacing: Pacing::new(options.poll, options.stay_put, options.give_way),
            devices: BTreeMap::new(),
            more: Vec::new(),
            busy: Vec::with_capacity(MOST_BUSY),
            taken: 0,
        })
    }

    fn run(mut self) {
        let (mut ready, mut worked) = (Vec::with_capacity(256), false);
        loop {
            let taken = std::mem::take(&mut self.taken);
            self.pacing.did(taken);
            let found = match self.pause(worked || taken > 0, &mut ready) {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(%error, "a reactor cannot wait for events");
                    return;
                }
            };
            for key in std::mem::take(&mut self.more) {
                self.serve(key, DeviceServer::work);
            }
            if found {
                for at in 0..self.busy.len() {
                    self.serve(self.busy[at], DeviceServer::work);
                }
            }
            let mut told = self.reactor.waker.has_news();
            for key in ready.drain(..) {
                match key {
                    WAKER => told = true,
                    key => {
                        let key = key as usize;
                        if self.busy.len() < MOST_BUSY && !self.busy.contains(&key) {
                            self.busy.push(key);
                        }
                        self.serve(key, DeviceServer::woken);
                    }
                }
            }
            let ended = self.take_done();
            told |= self.reactor.waker.has_news();
            worked = told || ended;
            if told {
                self.reactor.waker.clear();
                self.take_back();
                if !self.take_messages() {
                    return;
                }
            }
        }
    }

    /// Looks or sleeps, or neither, until there is something to do; whether looking found it. `worked`: the last round did something.
    fn pause(&mut self, worked: bool, ready: &mut Vec<u64>) -> io::Result<bool> {
        let idle = self.more.is_empty();
        let step = if idle && !self.waiter.has_io() { self.pacing.step(worked) } else { Step::Sleep };
        if step == Step::Ask {
            self.waiter.wait(false, ready)?;
            if !ready.is_empty() {
                return Ok(false);
            }
        }
        let found = step != Step::Sleep && self.look();
        if !found {
            self.wait(idle, ready)?;
        }
        Ok(found)
    }

    /// Looks at the busy rings for a while; whether there is something to do.
    fn look(&mut self) -> bool {
        self.busy.retain(|key| self.devices.contains_key(key));
        let Serving { pacing, devices, busy, reactor, .. } = self;
        if busy.is_empty() {
            return false;
        }
        let mut servers = [None; MOST_BUSY];
        for (server, key) in servers.iter_mut().zip(busy.iter()) {
            *server = devices.get(key).map(|served| &*served.server);
        }
        pacing.look(|| reactor.waker.has_news() || servers.iter().map_while(|server| *server).any(DeviceServer::has_entries))
    }

    /// Sleeps, if `idle`, until there is something to do.
    fn wait(&mut self, idle: bool, ready: &mut Vec<u64>) -> io::Result<()> {
        if self.waiter.has_io() {
            self.pacing.elsewhere();
        }
        let sleeps = idle && self.reactor.waker.falls_asleep();
        if sleeps && !self.waiter.has_io() {
            self.busy.clear();
        }
        let outcome = self.waiter.wait(sleeps, ready);
        self.reactor.waker.is_awake();
        outcome
    }

    /// Tells handlers of I/O that io_uring did; whether there was any.
    fn take_done(&mut self) -> bool {
        let mut ended = false;
        while let Some(Done { queued: Queued { request, io }, status }) = self.waiter.take_done() {
            match status {
                Some(status) => super::io::end(request, io, status),
                None => super::io::hand_over(request, io),
            }
            ended = true;
        }
        ended
    }

    /// Completions from other threads: first all of them, then a turn for each device concerned.
    fn take_back(&mut self) {
        self.reactor.waker.run_ios();
        let mut slot = self.reactor.waker.take_slots();
        if !slot.is_null() {
            self.pacing.elsewhere();
        }
        let mut touched = Vec::new();
        while !slot.is_null() {
            // SAFETY: a completed slot, whose device is here until it is idle.
            let (next, key) = unsafe { ((*slot).next, (*(*slot).shared).key) };
            if let Some(served) = self.devices.get_mut(&key) {
                if let Err(error) = served.server.take_back(slot) {
                    fail(served, &error);
                }
                if !touched.contains(&key) {
                    touched.push(key);
                }
            }
            slot = next;
        }
        for key in touched {
            self.serve(key, DeviceServer::work);
        }
    }

    /// Gives a device its turn, and lets it go if it was to stop and is idle.
    fn serve(&mut self, key: usize, turn: impl FnOnce(&mut DeviceServer) -> Result<Turn, ServeError>) {
        let Some(served) = self.devices.get_mut(&key) else { return };
        if !served.failed || served.stop.is_some() {
            let outcome = turn(&mut served.server);
            self.taken += served.server.take_taken();
            match outcome {
                Ok(Turn::More) => self.more.push(key),
                Ok(Turn::Idle) => {}
                Err(error) => {
                    self.waiter.remove(served.server.uio());
                    fail(served, &error);
                }
            }
        }
        self.let_go(key);
    }

    fn let_go(&mut self, key: usize) {
        let Some(served) = self.devices.get_mut(&key).filter(|served| served.server.is_idle()) else { return };
        if let Some(idle) = served.held.as_mut().and_then(|held| held.idle.take()) {
            let _ = idle.send(());
        }
        let stops = served.stop.is_some();
        if let Some(served) = stops.then(|| self.devices.remove(&key)).flatten() {
            self.waiter.remove(served.server.uio());
            self.reactor.devices.fetch_sub(1, Ordering::Relaxed);
            if let Some(stop) = served.stop {
                let _ = stop.send(served.server);
            }
        }
    }

    /// Does what other threads asked for; `false` to quit.
    fn take_messages(&mut self) -> bool {
        loop {
            let message = self.reactor.messages.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match message {
                None => return true,
                Some(Message::Quit) => return false,
                Some(Message::GrowOlder) => {
                    self.devices.values_mut().for_each(|served| served.server.grow_older());
                    self.reactor.behind.store(0, Ordering::Relaxed);
                }
                Some(Message::Add(key, server, on_failure, added)) => {
                    if let Err(error) = self.waiter.add(server.uio(), key as u64) {
                        let _ = added.send(Err(ServeError::System(error)));
                        continue;
                    }
                    self.reactor.devices.fetch_add(1, Ordering::Relaxed);
                    self.devices
                        .insert(key, Served { server, on_failure: Some(on_failure), stop: None, held: None, failed: false });
                    let _ = added.send(Ok(()));
                    // Entries that were there before the descriptor was opened ring no bell.
                    self.serve(key, DeviceServer::turn);
                }
                Some(Message::Stop(key, stop)) => {
                    if let Some(served) = self.devices.get_mut(&key) {
                        served.server.stop_fetching(true);
                        served.stop = Some(stop);
                    }
                    self.let_go(key);
                }
                Some(Message::Hold(key, idle)) => {
                    if let Some(served) = self.devices.get_mut(&key) {
                        served.server.stop_fetching(true);
                        served.held = Some(Held { idle: Some(idle) });
                    }
                    self.let_go(key);
                }
                Some(Message::GoOn(key, done)) => {
                    if let Some(served) = self.devices.get_mut(&key) {
                        served.server.stop_fetching(false);
                        (served.stop, served.held) = (None, None);
                        self.serve(key, DeviceServer::turn);
                    }
                    let _ = done.send(());
                }
                Some(Message::Piece(key, piece)) => {
                    let takes = |served: &&mut Served| served.stop.is_none() && served.held.is_none() && !served.failed;
                    if let Some(served) = self.devices.get_mut(&key).filter(takes) {
                        served.server.piece(piece);
                        self.serve(key, DeviceServer::work);
                    }
                }
                Some(Message::With(key, run)) => {
                    if let Some(served) = self.devices.get_mut(&key) {
                        run(&mut served.server);
                    }
                }
            }
        }
    }
}

fn fail(served: &mut Served, error: &ServeError) {
    if std::mem::replace(&mut served.failed, true) {
        return;
    }
    served.server.stop_fetching(true);
    tracing::error!(device = served.server.name(), %error, "the device cannot be served any more");
    if let Some(on_failure) = served.on_failure.take() {
        on_failure(&error.to_string());
    }
}
