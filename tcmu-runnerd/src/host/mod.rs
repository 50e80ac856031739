//! A handler host: the process that loads one plugin and serves its devices.
//!
//! The supervisor starts it with a listening socket as its standard input, connects to that, and tells it what to open. When the
//! supervisor goes, the host serves on, and waits for the next one to connect. It ends when it is told to, or when it has neither a
//! supervisor nor a device for a while.
//!
//! | module | subject |
//! |---|---|
//! | `devices` | the devices, and what the supervisor wants of them |
//! | `line` | who the supervisor is |
//! | `recorder` | writes traces |
mod devices;
mod line;
mod recorder;

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Sender},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use devices::{Held, refused};
use line::{Line, Lines};
use recorder::Trace;
use tcmu::server::{IoEngine, Server, ServerOptions};
use tcmu_handler_api::{
    host::{Level, Plugin, log_to},
    plugin::Refusal,
};

use crate::{
    crew::Crew,
    logging,
    process::{self, Confinement},
    protocol::{Channel, FileStamp, FromHost, HandlerFacts, HostFacts, Listener, Outcome, ToHost},
};

/// How long a host without a supervisor and without a device waits for either.
const ORPHAN: Duration = Duration::from_secs(60);
/// Devices that one [`FromHost::Alive`] tells of.
const LATE: usize = 500;

/// How a host is started.
#[derive(Clone, Copy, Debug)]
pub struct HostOptions<'a> {
    /// The plugin.
    pub plugin: &'a Path,
    /// See [`crate::config::Config`].
    pub log_level: &'a str,
    /// See [`crate::config::Config`].
    pub reactors: usize,
    /// See [`crate::config::Config`].
    pub workers: usize,
    /// See [`crate::config::Config`].
    pub io_engine: IoEngine,
    /// The longest poll.
    pub poll: Duration,
    /// Whether reactors may keep themselves on one processor.
    pub stay_put: bool,
    /// Whether reactors may lower their priority.
    pub give_way: bool,
    /// The only device that it is for.
    pub device: Option<&'a str>,
    /// Whom it runs as, if not as who started it.
    pub user: Option<&'a str>,
    /// Whether it is refused what its plugin does not declare.
    pub confined: bool,
    /// See [`crate::config::Config`].
    pub lock_memory: bool,
}

/// Loads a plugin as a host would, tells on the connection that is the standard input what it is, and returns.
pub fn probe(plugin: &Path) -> anyhow::Result<()> {
    let confinement = Confinement::begin(None, true)?;
    let channel = Channel::from_fd(io::stdin().as_fd().try_clone_to_owned()?);
    let said = match confinement.load(plugin, Server::services(), |_| ()) {
        Ok(loaded) => FromHost::Ready(HostFacts {
            handler: handler_facts(&loaded, false),
            plugin: plugin.to_owned(),
            stamp: None,
            device: None,
            user: None,
        }),
        Err(error) => FromHost::Unloadable { reason: error.to_string() },
    };
    Ok(channel.send(&said, None)?)
}

fn handler_facts(plugin: &Plugin, io_flusher: bool) -> HandlerFacts {
    HandlerFacts {
        subtype: plugin.subtype().into(),
        name: plugin.name().into(),
        version: plugin.version().into(),
        config_desc: plugin.config_desc().into(),
        abi: plugin.table().abi,
        io_flusher,
    }
}

/// Runs a host on the socket that is its standard input. Returns when it is not needed any more.
pub fn run(options: HostOptions<'_>) -> anyhow::Result<()> {
    let io_flusher = process::set_io_flusher();
    let locked = if options.lock_memory { process::lock_memory() } else { Ok(()) };
    let starter = rustix::process::geteuid();
    let confinement = Confinement::begin(options.user, options.confined)?;
    // Ctrl-C and the service manager mean the supervisor, which lets commands finish before it lets us go.
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    let listener = Listener::from_fd(io::stdin().as_fd().try_clone_to_owned()?);
    // From here on, those who connect are told that we listen, and not who made the socket.
    listener.listen()?;
    let mut lines = Lines::new(listener, starter);
    let stamp = FileStamp::of(options.plugin).ok();
    let start_logging = |subtype: &str| logging::start(options.log_level, subtype);
    let plugin = match confinement.load(options.plugin, Server::services(), start_logging) {
        Ok(plugin) => plugin,
        Err(error) => {
            let channel = lines.first()?;
            channel.send(&FromHost::Unloadable { reason: error.to_string() }, None)?;
            return Ok(());
        }
    };
    logging::write_later()?;
    log_to(|level, message| to_tracing(level, None, message));
    if !io_flusher {
        tracing::warn!(
            "PR_SET_IO_FLUSHER is not in force (needs CAP_SYS_RESOURCE): a disk that this machine itself uses may deadlock under memory pressure"
        );
    }
    if let Err(error) = locked {
        tracing::warn!(%error, "memory is not locked: a disk that this machine itself swaps to may deadlock under memory pressure");
    }
    let server = Server::start(ServerOptions {
        reactors: options.reactors,
        workers: options.workers,
        engine: options.io_engine,
        poll: options.poll,
        stay_put: options.stay_put,
        give_way: options.give_way,
    })?;
    let facts = HostFacts {
        handler: handler_facts(&plugin, io_flusher),
        plugin: options.plugin.to_owned(),
        stamp,
        device: options.device.map(str::to_owned),
        user: options.user.map(str::to_owned),
    };
    let (failures, failed) = mpsc::channel::<(String, String)>();
    let host = Arc::new(Host {
        plugin,
        server,
        crew: Crew::new("tcmu-control"),
        line: Mutex::default(),
        devices: Mutex::default(),
        failures,
        traces: Mutex::default(),
        alive_ms: AtomicU64::new(5000),
        watch: OnceLock::new(),
    });
    let telling = host.clone();
    thread::Builder::new()
        .name("tcmu-failures".into())
        .spawn(move || failed.into_iter().for_each(|(device, reason)| telling.failed(device, reason)))?;
    let watching = host.clone();
    let watch = thread::Builder::new().name("tcmu-watch".into()).spawn(move || watching.watch())?;
    let _ = host.watch.set(watch.thread().clone());
    host.listen(&mut lines, &facts)
}

struct Host {
    plugin: Plugin,
    server: Server,
    /// Does what may block: handlers' functions, and files.
    crew: Crew,
    /// Locked before `devices` where both are.
    line: Mutex<Line>,
    /// Never locked while a handler is called.
    devices: Mutex<HashMap<String, Held>>,
    failures: Sender<(String, String)>,
    /// By device.
    traces: Mutex<HashMap<String, Trace>>,
    /// See [`ToHost::Settings`].
    alive_ms: AtomicU64,
    /// The thread that counts by it.
    watch: OnceLock<Thread>,
}

impl Host {
    /// Does what supervisors ask, until one says that this is the end.
    fn listen(self: &Arc<Host>, lines: &mut Lines, facts: &HostFacts) -> anyhow::Result<()> {
        let mut orphan: Option<Instant> = None;
        loop {
            match lines.next(ORPHAN / 4)? {
                line::Event::Said(ToHost::End, _) => return Ok(()),
                line::Event::Said(message, fds) => self.handle(message, fds),
                line::Event::Supervisor(channel) => {
                    orphan = None;
                    self.greet(channel, facts)?;
                }
                line::Event::Alone => {
                    self.line().hang_up();
                    orphan = Some(Instant::now());
                    tracing::warn!("the supervisor is gone; serving on without it");
                }
                line::Event::Nothing => {}
            }
            // One that never had a supervisor counts as well: it is not there to be forgotten.
            let alone = lines.is_alone().then(|| *orphan.get_or_insert_with(Instant::now));
            if alone.is_some_and(|since| since.elapsed() >= ORPHAN) && self.devices().is_empty() {
                tracing::info!("nobody needs this host; it ends");
                return Ok(());
            }
        }
    }

    /// A new supervisor: tells it what this is and has.
    fn greet(&self, channel: Channel, facts: &HostFacts) -> io::Result<()> {
        let mut line = self.line();
        line.connect(channel);
        line.say(&FromHost::Ready(facts.clone()));
        for held in self.devices().values() {
            let fds: Vec<_> = [&held.fd].into_iter().chain(&held.page).map(|fd| fd.as_fd()).collect();
            line.say_with(&FromHost::Has { device: held.spec.clone(), doing: held.doing.clone() }, &fds);
        }
        line.say(&FromHost::ThatIsAll);
        Ok(())
    }

    fn handle(self: &Arc<Host>, message: ToHost, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        match message {
            ToHost::Settings { log_level, alive_ms } => {
                logging::set_level(&log_level);
                self.alive_ms.store(alive_ms.clamp(100, 60_000), Ordering::Relaxed);
                self.watch.get().into_iter().for_each(Thread::unpark);
            }
            ToHost::CheckConfig { id, config } => {
                let host = self.clone();
                self.crew.spawn(move || host.answer(id, &host.plugin.check_config(&config)));
            }
            ToHost::Open { id, device } => self.open(id, device, fds.next(), fds.next()),
            ToHost::Close { id, device, within_ms } => self.close(id, &device, Duration::from_millis(within_ms)),
            ToHost::Reconfigure { id, device, change } => self.reconfigure(id, &device, change),
            ToHost::SlowCommand { device, ms } => self.set_slow(&device, ms),
            ToHost::StartTrace { id, device, limit } => self.answer(id, &self.start_trace(&device, fds.next(), limit)),
            ToHost::StopTrace { id, device } => {
                // It waits for the file.
                let host = self.clone();
                self.crew.spawn(move || host.answer(id, &host.stop_trace(&device)));
            }
            ToHost::Hello { .. } | ToHost::End => {}
        }
    }

    fn answer(&self, id: u64, outcome: &Result<(), Refusal>) {
        let outcome = outcome.as_ref().map_or_else(refused, |()| Outcome::Done);
        self.line().say(&FromHost::Answer { id, outcome });
    }

    /// Tells every now and then that the process is there, and which devices have commands that take long. Serves nothing itself, and
    /// waits for no thread that does.
    fn watch(&self) {
        loop {
            let period = Duration::from_millis(self.alive_ms.load(Ordering::Relaxed));
            let begin = Instant::now();
            thread::park_timeout(period);
            // The period changed, or it was nothing at all.
            if begin.elapsed() < period {
                continue;
            }
            self.server.grow_older();
            let mut late = self.each(|name, attached| {
                let periods = attached.oldest();
                (periods >= 2).then(|| (name.to_owned(), periods.saturating_mul(period.as_millis() as u64)))
            });
            late.truncate(LATE);
            self.line().say_now(&FromHost::Alive { late });
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traces(&self) -> MutexGuard<'_, HashMap<String, Trace>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn devices(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn to_tracing(level: Level, device: Option<&str>, message: &str) {
    match level {
        Level::Error => tracing::error!(device, "{message}"),
        Level::Warn => tracing::warn!(device, "{message}"),
        Level::Info => tracing::info!(device, "{message}"),
        Level::Debug => tracing::debug!(device, "{message}"),
        Level::Trace => tracing::trace!(device, "{message}"),
    }
}
