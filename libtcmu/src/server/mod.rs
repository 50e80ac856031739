//! The device server: ring → SCSI engine → handler → ring.
//!
//! | module | subject |
//! |---|---|
//! | `attach` | what is to be known of a device that is to be served |
//! | `device` | one device: entries become commands, commands become requests for its handler |
//! | `device::completion` | the way back |
//! | `device::plain` | the quick way, there and back, for plain reads and writes |
//! | `device::elsewhere` | requests that somebody else than the handler completes |
//! | `device::management` | aborted commands |
//! | `command`, `slot` | a command in flight: our half, and the half that its handler sees |
//! | `reactor` | a thread that serves many devices |
//! | `wait` | where such a thread sleeps |
//! | `uring` | I/O by io_uring |
//! | `pacing` | looking at the rings for a while before that, or letting them fill after it |
//! | `trial` | which of these pays |
//! | `waker` | completions from other threads |
//! | `stack`, `signal`, `sync` | what that is made of: every interleaving of these is tried by `tests/loom` |
//! | `pool` | threads for what blocks |
//! | `io` | the I/O service for handlers |
//! | `lost` | what a failed flush means |
//! | `peer` | units that may be copied to and from each other |
//! | `solo` | a device in a program's own event loop |
//! | `counters` | what was done for a device |
//! | `device::timing` | how long commands took |
//! | `observe` | those who look at single commands |
mod affinity;
mod attach;
mod command;
pub mod counters;
mod device;
mod io;
mod lost;
mod observe;
mod pacing;
mod peer;
mod pool;
mod priority;
mod reactor;
mod signal;
mod slot;
mod solo;
mod stack;
mod sync;
mod trial;
mod uring;
mod wait;
mod waker;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

pub use attach::Attach;
pub use counters::Counters;
use counters::Page;
pub use device::{DeviceServer, ServeError, Turn};
pub use observe::{Completed, Observe};
use peer::{Neighbours, Piece};
use pool::Pool;
use reactor::{Message, Reactor};
pub use solo::Solo;
use tcmu_handler_api::{
    abi,
    host::OpenDevice,
    plugin::{Change, DeviceFlags, DeviceInfo, Operations, Refusal},
};
pub use wait::IoEngine;

use crate::{
    engine::{Unit, Work},
    mapping::Mapping,
};

/// How long a medium may be kept in by those who only look at it (udev, after each write) before its exchange is refused.
const LOOKED_AT: Duration = Duration::from_secs(2);
const LOCKED_IN: &str = "an initiator keeps the medium from being removed (PREVENT ALLOW MEDIUM REMOVAL), as for a mounted disk";

/// How a server is made.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// Threads that serve rings; 0: one for each core, at most 4.
    pub reactors: usize,
    /// Threads for handlers that block and for file I/O; 0: four for each core, at most 32.
    pub workers: usize,
    /// How I/O that may block is done.
    pub engine: IoEngine,
    /// The longest time that a reactor looks at its busy rings before it sleeps. Zero: it sleeps at once.
    pub poll: Duration,
    /// Whether a reactor that sleeps may keep itself on one processor while more gets done by that.
    pub stay_put: bool,
    /// Whether a reactor may make its priority the lowest while more gets done by that. It needs the right to take it back (`RLIMIT_NICE` or
    /// `CAP_SYS_NICE`); without, it does not.
    pub give_way: bool,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            reactors: 0,
            workers: 0,
            engine: IoEngine::Auto,
            poll: Duration::from_micros(1000),
            stay_put: true,
            give_way: true,
        }
    }
}

/// Threads that serve devices. Clones share them; they end with the last one.
#[derive(Clone)]
pub struct Server(Arc<Threads>);

struct Threads {
    reactors: Vec<Arc<Reactor>>,
    pool: Arc<Pool>,
    neighbours: Arc<Neighbours>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.reactors.iter().for_each(|reactor| reactor.stop());
        self.pool.stop();
    }
}

static NEXT_KEY: AtomicUsize = AtomicUsize::new(1);

impl Server {
    /// Starts the threads.
    pub fn start(options: ServerOptions) -> Result<Server, ServeError> {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let reactors = if options.reactors == 0 { cores.min(4) } else { options.reactors };
        let workers = if options.workers == 0 { (4 * cores).min(32) } else { options.workers };
        let pool = Pool::start(workers)?;
        let reactors = (0..reactors).map(|number| Reactor::start(number, options)).collect::<Result<_, _>>()?;
        Ok(Server(Arc::new(Threads { reactors, pool, neighbours: Arc::default() })))
    }

    /// Makes every command in flight one call older: called at regular intervals, [`Counters::oldest`] tells in these how long the oldest
    /// command of a device takes. Never blocks, whatever handlers do.
    pub fn grow_older(&self) {
        self.0.reactors.iter().for_each(|reactor| reactor.grow_older());
    }

    /// The services to load plugins and embed devices with; the same for all servers of a process.
    pub fn services() -> &'static abi::tcmu_host {
        io::services()
    }

    /// Begins to serve a device. `on_failure` is called at most once, from the thread that serves it, when that can't go on.
    pub fn attach(&self, attach: Attach, on_failure: impl FnOnce(&str) + Send + 'static) -> Result<Box<Attached>, ServeError> {
        self.attach_with(attach, on_failure, DeviceServer::new)
    }

    /// As [`Server::attach`], on memory that is mapped already: the simulated kernel's.
    pub fn attach_mapped(
        &self,
        map: Arc<Mapping>,
        attach: Attach,
        on_failure: impl FnOnce(&str) + Send + 'static,
    ) -> Result<Box<Attached>, ServeError> {
        self.attach_with(attach, on_failure, |attach, waker, pool, key| DeviceServer::on(map, attach, waker, pool, key))
    }

    fn attach_with(
        &self,
        attach: Attach,
        on_failure: impl FnOnce(&str) + Send + 'static,
        make: impl FnOnce(Attach, Arc<waker::Waker>, Arc<Pool>, usize) -> Result<DeviceServer, ServeError>,
    ) -> Result<Box<Attached>, ServeError> {
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        let reactor = self.0.reactors.iter().min_by_key(|reactor| reactor.devices.load(Ordering::Relaxed));
        let Some(reactor) = reactor else { return Err(std::io::Error::other("no reactor").into()) };
        let (name, target, names) = (attach.name.clone(), attach.target.clone(), attach.copies_with.clone());
        let mut server = make(attach, reactor.waker.clone(), self.0.pool.clone(), key)?;
        let (device, counters) = (server.device().clone(), server.page());
        server.copies_with(&self.0.neighbours, names);
        self.0.neighbours.add(&name, key, reactor.clone(), *device.info(), target);
        let info = Mutex::new(*device.info());
        let (added, outcome) = mpsc::channel();
        reactor.send(Message::Add(key, Box::new(server), Box::new(on_failure), added));
        outcome.recv().map_err(|_| std::io::Error::other("the reactor ended"))??;
        Ok(Box::new(Attached {
            key,
            reactor: reactor.clone(),
            device,
            info,
            changes: Mutex::default(),
            counters,
            server: self.clone(),
        }))
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({} reactors)", self.0.reactors.len())
    }
}

/// A device that is being served.
pub struct Attached {
    key: usize,
    reactor: Arc<Reactor>,
    device: Arc<OpenDevice>,
    info: Mutex<DeviceInfo>,
    /// Held during a change, also while the serving thread is waited for: it may want the above.
    changes: Mutex<()>,
    counters: Arc<Page>,
    /// Keeps the threads.
    server: Server,
}

impl Attached {
    /// What the device is and can do now.
    pub fn info(&self) -> DeviceInfo {
        *self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was done so far. Never blocks.
    pub fn counters(&self) -> Counters {
        Counters { oldest: self.oldest(), ..self.counters.read() }
    }

    /// [`Counters::oldest`] alone, for who looks at many devices often. Never blocks.
    pub fn oldest(&self) -> u64 {
        // A handler that keeps the serving thread keeps it from counting too.
        self.counters.cells().oldest.get() + u64::from(self.reactor.is_late())
    }

    /// Lines of `key=value` from the handler about the device's state.
    pub fn describe(&self) -> String {
        self.device.describe()
    }

    /// Changes the device while I/O runs: the next command sees it, and initiators get the unit attention that is due. Blocks as long as
    /// the handler does, and for up to 2 s while initiators keep a medium in, so it is not for threads that serve; changes of one device come
    /// one after the other. A medium is exchanged between commands: those in flight end first, for which it takes up to 2 s more, and the
    /// next ones wait. On failure all is as before.
    pub fn reconfigure(&self, change: &Change<'_>) -> Result<(), Refusal> {
        let _changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let info = self.info();
        let mut preset = info;
        let block_size = info.block_size();
        if let Change::Size(bytes) = *change {
            // File offsets are signed.
            if bytes == 0 || bytes % u64::from(block_size) != 0 || i64::try_from(bytes).is_err() {
                return Err(Refusal::invalid(format!(
                    "size {bytes}: a multiple of the block size {block_size} is needed, below 2^63"
                )));
            }
            if bytes == info.size() {
                return Ok(());
            }
            preset.0.size = bytes;
        }
        let mut held = None;
        if let Change::Medium { size, .. } = *change {
            self.check_medium(&info)?;
            held = Some(self.hold()?);
            preset.0.size = size;
        }
        let medium = held.is_some();
        match self.device.reconfigure(change, preset) {
            Ok(changed) if changed.block_size() != block_size => {
                Err(Refusal::invalid("the handler changed the block size, which initiators could not notice"))
            }
            Ok(changed) => {
                *self.info.lock().unwrap_or_else(PoisonError::into_inner) = changed;
                self.server.0.neighbours.change(self.key, changed);
                self.with_unit(move |unit| if medium { unit.change_medium(changed) } else { unit.change(changed) })
            }
            Err(refusal) if refusal.errno() == libc::EOPNOTSUPP => {
                let Change::WriteCache(on) = *change else { return Err(refusal) };
                let has_one = info.flags().contains(DeviceFlags::WRITE_CACHE);
                if has_one && info.operations().contains(Operations::FLUSH) {
                    // The handler can't, but the server can make every write durable.
                    self.switch_write_cache(on)
                } else if has_one || on {
                    Err(refusal)
                } else {
                    Ok(())
                }
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Without the write cache every write is made durable, and what was written before is so too.
    fn switch_write_cache(&self, on: bool) -> Result<(), Refusal> {
        let before = self.with_unit(move |unit| {
            let before = unit.write_cache();
            unit.set_write_cache(on && before);
            before
        })?;
        if !on {
            let (done, status) = mpsc::channel();
            let flush = Piece::new(Work::flush(), move |status| {
                let _ = done.send(status);
            });
            self.reactor.send(Message::Piece(self.key, flush));
            let status = status.recv().unwrap_or(-libc::ENODEV);
            if status != 0 {
                self.with_unit(move |unit| unit.set_write_cache(before))?;
                let error = std::io::Error::from_raw_os_error(status.saturating_abs());
                return Err(Refusal::io("the write cache cannot be flushed", &error));
            }
        }
        self.with_unit(move |unit| unit.write_cache_was_switched(before, on))
    }

    /// Has the serving thread do something, and waits for it.
    fn with_unit<T: Send + 'static>(&self, run: impl FnOnce(&mut Unit) -> T + Send + 'static) -> Result<T, Refusal> {
        let (tell, done) = mpsc::channel();
        self.reactor.send(Message::With(
            self.key,
            Box::new(move |server| {
                let _ = tell.send(server.with_unit(run));
            }),
        ));
        done.recv().map_err(|_| Refusal::new(libc::ENODEV, "the device is gone"))
    }

    /// Keeps new commands on the ring until the result is dropped, once those in flight are done.
    fn hold(&self) -> Result<Holding<'_>, Refusal> {
        let (tell, idle) = mpsc::channel();
        self.reactor.send(Message::Hold(self.key, tell));
        let holding = Holding(self);
        match idle.recv_timeout(LOOKED_AT) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => {
                return Err(Refusal::new(libc::EBUSY, "commands that are in flight take too long to end; try again"));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(Refusal::new(libc::ENODEV, "the device is gone")),
        }
        // One of those may have been it.
        if self.with_unit(|unit| unit.is_locked_in())? {
            return Err(Refusal::new(libc::EBUSY, LOCKED_IN));
        }
        Ok(holding)
    }

    /// Whether the medium may be exchanged now.
    fn check_medium(&self, info: &DeviceInfo) -> Result<(), Refusal> {
        if !info.flags().contains(DeviceFlags::REMOVABLE) {
            return Err(Refusal::unsupported("the device has no medium that could be changed: it is not a removable one"));
        }
        let end = Instant::now() + LOOKED_AT;
        while self.with_unit(|unit| unit.is_locked_in())? {
            if Instant::now() >= end {
                return Err(Refusal::new(libc::EBUSY, LOCKED_IN));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The handler says that the medium was changed or removed.
    pub fn medium_changed(&self) {
        let info = self.info();
        self.reactor.send(Message::With(self.key, Box::new(move |server| server.with_unit(|unit| unit.change_medium(info)))));
    }

    /// The handler says that the device's size became `bytes`.
    pub fn size_changed(&self, bytes: u64) {
        let mut info = self.info.lock().unwrap_or_else(PoisonError::into_inner);
        info.0.size = bytes;
        let changed = *info;
        self.server.0.neighbours.change(self.key, changed);
        self.reactor.send(Message::With(self.key, Box::new(move |server| server.change(changed))));
    }

    /// The handler says that another node took the exclusive lock.
    pub fn lock_lost(&self) {
        self.reactor.send(Message::With(self.key, Box::new(DeviceServer::lock_lost)));
    }

    /// Takes no more commands from the ring, lets those in flight finish, closes the handler's device and the UIO descriptor. When they
    /// don't finish in time the device goes on as before and is given back.
    pub fn stop(self: Box<Self>, within: Duration) -> Result<(), Box<Attached>> {
        let (stop, stopped) = mpsc::channel();
        self.reactor.send(Message::Stop(self.key, stop));
        let server = match stopped.recv_timeout(within) {
            Ok(server) => server,
            Err(_) => {
                let (done, went_on) = mpsc::channel();
                self.reactor.send(Message::GoOn(self.key, done));
                let _ = went_on.recv();
                // It may have become idle at the last moment.
                match stopped.try_recv() {
                    Ok(server) => server,
                    Err(_) => return Err(self),
                }
            }
        };
        drop(server);
        Ok(())
    }
}

/// A device that takes no commands until this is dropped.
struct Holding<'a>(&'a Attached);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        let (done, _) = mpsc::channel();
        self.0.reactor.send(Message::GoOn(self.0.key, done));
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.server.0.neighbours.remove(self.key);
    }
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").field("info", &self.info()).finish_non_exhaustive()
    }
}
