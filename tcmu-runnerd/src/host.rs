//! A handler host: the process that loads one plugin and serves its devices.
//!
//! The supervisor starts it with a socket as its standard input and tells it what to open. It ends when the supervisor's end of the
//! socket is closed; its devices are then taken over by the next host.
use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tcmu::{
    BackstoreId, Roots,
    configfs::Backstore,
    server::{Attach, Attached, IoEngine, Server, ServerOptions},
};
use tcmu_handler_api::{
    host::{Events, Level, OpenSpec, Plugin, log_to},
    plugin::{Change, DeviceFlags, DeviceInfo, Refusal},
};

use crate::{
    logging, process,
    protocol::{Channel, Counters, DeviceChange, DeviceSpec, FromHost, HandlerFacts, Outcome, ToHost},
};

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
    /// Whom it runs as, if not as who started it.
    pub user: Option<&'a str>,
    /// Whether it is refused what its plugin does not declare.
    pub confined: bool,
}

/// Runs a host on the socket that is its standard input. Returns when the supervisor is gone.
pub fn run(options: HostOptions<'_>) -> anyhow::Result<()> {
    let io_flusher = process::set_io_flusher();
    let confinement = process::Confinement::begin(options.user, options.confined)?;
    // Ctrl-C and the service manager mean the supervisor, which lets commands finish before it lets us go.
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    let channel = Arc::new(Channel::from_fd(io::stdin().as_fd().try_clone_to_owned()?));
    let start_logging = |subtype: &str| logging::start(options.log_level, subtype);
    let plugin = match confinement.load(options.plugin, Server::services(), start_logging) {
        Ok(plugin) => plugin,
        Err(error) => {
            channel.send(&FromHost::Unloadable { reason: error.to_string() }, None)?;
            return Ok(());
        }
    };
    log_to(|level, message| to_tracing(level, None, message));
    if !io_flusher {
        tracing::warn!(
            "PR_SET_IO_FLUSHER is not in force (needs CAP_SYS_RESOURCE): a disk that this machine itself uses may deadlock under memory pressure"
        );
    }
    let server = Server::start(ServerOptions {
        reactors: options.reactors,
        workers: options.workers,
        engine: options.io_engine,
        poll: options.poll,
    })?;
    let facts = HandlerFacts {
        subtype: plugin.subtype().into(),
        name: plugin.name().into(),
        version: plugin.version().into(),
        config_desc: plugin.config_desc().into(),
        abi: plugin.table().abi,
        io_flusher,
    };
    channel.send(&FromHost::Ready(facts), None)?;
    let host = Arc::new(Host { plugin, server, channel: channel.clone(), devices: Mutex::default() });
    while let Some((message, fd)) = channel.receive::<ToHost>()? {
        host.clone().handle(message, fd);
    }
    // Nobody is left to tell; the next host takes the devices over as they are.
    std::process::exit(0)
}

/// A device that is being opened, served, or closed: locked meanwhile.
type Place = Arc<Mutex<Option<Box<Attached>>>>;

struct Host {
    plugin: Plugin,
    server: Server,
    channel: Arc<Channel>,
    devices: Mutex<HashMap<String, Place>>,
}

impl Host {
    /// Each request on a thread of its own: none can keep another device's waiting.
    fn handle(self: Arc<Host>, message: ToHost, fd: Option<OwnedFd>) {
        if let ToHost::SetLogLevel { level } = &message {
            return logging::set_level(level);
        }
        let work = move || {
            let (id, outcome) = match message {
                ToHost::CheckConfig { id, config } => (id, done(self.plugin.check_config(&config))),
                ToHost::Open { id, device } => (id, done(self.open(&device, fd))),
                ToHost::Close { id, device, within_ms } => (id, done(self.close(&device, Duration::from_millis(within_ms)))),
                ToHost::Reconfigure { id, device, change } => (id, done(self.reconfigure(&device, &change))),
                ToHost::Counters { id, device } => (id, self.counters(&device)),
                ToHost::SetLogLevel { .. } => return,
            };
            // When the supervisor is gone, so are we soon.
            let _ = self.channel.send(&FromHost::Answer { id, outcome }, None);
        };
        if let Err(error) = thread::Builder::new().name("tcmu-control".into()).spawn(work) {
            tracing::error!(%error, "no thread for a request of the supervisor");
        }
    }

    fn devices(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(self: &Arc<Host>, spec: &DeviceSpec, fd: Option<OwnedFd>) -> Result<(), Refusal> {
        let fd = fd.ok_or_else(|| Refusal::invalid("the UIO descriptor is missing"))?;
        let id: BackstoreId = spec.name.parse().map_err(|error| Refusal::invalid(format!("{error}")))?;
        let place = Arc::new(Mutex::new(None));
        // Held until the device is there, so that a close that comes early waits for it.
        let mut slot = place.lock().unwrap_or_else(PoisonError::into_inner);
        if self.devices().contains_key(&spec.name) {
            return Err(Refusal::new(libc::EEXIST, "the device is open already"));
        }
        self.devices().insert(spec.name.clone(), place.clone());
        let opened = self.attach(spec, &id, fd);
        match opened {
            Ok(attached) => {
                *slot = Some(attached);
                Ok(())
            }
            Err(refusal) => {
                self.devices().remove(&spec.name);
                Err(refusal)
            }
        }
    }

    fn attach(self: &Arc<Host>, spec: &DeviceSpec, id: &BackstoreId, fd: OwnedFd) -> Result<Box<Attached>, Refusal> {
        let mut info = DeviceInfo::new(spec.size, spec.block_size);
        info.set_flags(DeviceFlags::WRITE_CACHE, true);
        let events = Arc::new(DeviceEvents { name: spec.name.clone(), host: Arc::downgrade(self) });
        let open = OpenSpec { config: &spec.config, name: &spec.name, take_over: spec.take_over, info };
        let device = self.plugin.open(open, events)?;
        if device.info().block_size() != spec.block_size {
            return Err(Refusal::invalid(format!(
                "the handler wants blocks of {} bytes, the backstore has {}: create it with hw_block_size={0}",
                device.info().block_size(),
                spec.block_size
            )));
        }
        let backstore = Backstore::at(&Roots::default(), id);
        let attach = Attach {
            name: spec.name.clone(),
            uio: fd,
            map_size: spec.map_size,
            device,
            target: Arc::new(backstore),
            hw_max_sectors: spec.hw_max_sectors,
            copies_with: spec.copies_with.clone(),
        };
        let (channel, name) = (self.channel.clone(), spec.name.clone());
        let on_failure = move |reason: &str| {
            let _ = channel.send(&FromHost::DeviceFailed { device: name, reason: reason.to_owned() }, None);
        };
        self.server.attach(attach, on_failure).map_err(|error| Refusal::new(libc::EIO, error.to_string()))
    }

    fn device(&self, name: &str) -> Result<Place, Refusal> {
        self.devices().get(name).cloned().ok_or_else(|| Refusal::new(libc::ENODEV, "the device is not open"))
    }

    fn close(&self, name: &str, within: Duration) -> Result<(), Refusal> {
        let place = self.device(name)?;
        let mut slot = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attached) = slot.take()
            && let Err(attached) = attached.stop(within)
        {
            *slot = Some(attached);
            return Err(Refusal::new(libc::ETIMEDOUT, format!("commands are still in flight after {} s", within.as_secs())));
        }
        self.devices().remove(name);
        Ok(())
    }

    fn reconfigure(&self, name: &str, change: &DeviceChange) -> Result<(), Refusal> {
        let place = self.device(name)?;
        let slot = place.lock().unwrap_or_else(PoisonError::into_inner);
        let attached = slot.as_ref().ok_or_else(|| Refusal::new(libc::ENODEV, "the device is not open"))?;
        attached.reconfigure(&match change {
            DeviceChange::Config(config) => Change::Config(config),
            DeviceChange::Size(bytes) => Change::Size(*bytes),
            DeviceChange::WriteCache(on) => Change::WriteCache(*on),
        })
    }

    fn counters(&self, name: &str) -> Outcome {
        let Ok(place) = self.device(name) else { return Outcome::Done };
        // A device that is being opened or closed has other things to do.
        let Ok(slot) = place.try_lock() else { return Outcome::Done };
        let Some(attached) = slot.as_ref() else { return Outcome::Done };
        let counters = attached.counters();
        Outcome::Counters(Counters {
            commands: counters.commands,
            reads: counters.reads,
            writes: counters.writes,
            bytes_read: counters.bytes_read,
            bytes_written: counters.bytes_written,
            errors: counters.errors,
            in_flight: counters.in_flight,
            size: attached.info().size(),
        })
    }
}

fn done(result: Result<(), Refusal>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(refusal) => Outcome::Refused { errno: refusal.errno(), message: refusal.message().to_owned() },
    }
}

struct DeviceEvents {
    name: String,
    host: std::sync::Weak<Host>,
}

impl Events for DeviceEvents {
    fn size_changed(&self, bytes: u64) {
        let place = self.host.upgrade().and_then(|host| host.device(&self.name).ok());
        if let Some(place) = place
            && let Ok(slot) = place.try_lock()
            && let Some(attached) = slot.as_ref()
        {
            attached.size_changed(bytes);
        }
    }

    fn lock_lost(&self) {
        let place = self.host.upgrade().and_then(|host| host.device(&self.name).ok());
        if let Some(place) = place
            && let Ok(slot) = place.try_lock()
            && let Some(attached) = slot.as_ref()
        {
            attached.lock_lost();
        }
    }

    fn log(&self, level: Level, message: &str) {
        to_tracing(level, Some(&self.name), message);
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
