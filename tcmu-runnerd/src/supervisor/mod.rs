//! The supervisor: it knows all devices, talks with the kernel and the bus, and runs a host process for each handler. It holds no plugin
//! code and never waits for any.
mod hosts;
mod kernel;
pub mod machine;
mod questions;

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use hosts::{Host, HostKey, subtype_by_file};
use kernel::{Kernel, Prepared};
use machine::{Action, HostName, Input, Machine, Settings};
use questions::{Gathering, Waiting};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tcmu::{BackstoreId, Roots};

use crate::{
    config::Config,
    dbus::{Bus, Question},
    logging, plugins,
    protocol::{DeviceSpec, FromHost, HandlerFacts, ToHost},
};

/// How long hosts may take to load their plugins before the bus answers without those that didn't.
const LOAD: Duration = Duration::from_secs(10);

/// What wakes the supervisor.
pub(crate) enum Happening {
    Input(Input),
    Prepared(BackstoreId, Result<Prepared, (i32, String)>),
    Rescan,
    HostSaid(HostKey, u64, FromHost),
    HostGone(HostKey, u64),
    Bus(Question),
    Signal(i32),
}

/// Numbers of requests of our own, apart from the machine's.
const OWN_REQUESTS: u64 = 1 << 63;

/// How the supervisor is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// The configuration.
    pub config: Config,
    /// Where it was read from, to read it again.
    pub config_path: Option<PathBuf>,
    /// The command line's level, which counts more than the file's.
    pub log_level: Option<String>,
}

/// Runs the daemon until it is told to stop.
pub fn run(start: Start) -> anyhow::Result<()> {
    let (happenings, happened) = mpsc::channel();
    let signals = watch_signals(&happenings)?;
    let mut supervisor = Supervisor::new(start, happenings.clone());
    supervisor.start_hosts(&happened);
    supervisor.bus = Bus::start(happenings.clone(), supervisor.handlers());
    supervisor.kernel = Some(Kernel::connect(Roots::default(), happenings)?);
    supervisor.rescan();
    notify("READY=1");
    tracing::info!("ready");
    supervisor.serve(&happened);
    signals.close();
    Ok(())
}

struct Supervisor {
    start: Start,
    config: Config,
    happenings: Sender<Happening>,
    hosts: BTreeMap<HostKey, Host>,
    next_host: HostKey,
    machine: Machine,
    kernel: Option<Kernel>,
    bus: Option<Bus>,
    prepared: HashMap<BackstoreId, Prepared>,
    waiting: HashMap<u64, (Waiting, Instant)>,
    gatherings: HashMap<u64, Gathering>,
    next_request: u64,
    /// When to stop waiting for devices to be closed.
    end: Option<Instant>,
}

impl Supervisor {
    fn new(start: Start, happenings: Sender<Happening>) -> Supervisor {
        let config = start.config.clone();
        let machine = Machine::new(Settings {
            open_timeout: config.open_timeout(),
            foreign: config.foreign_subtypes.iter().cloned().collect(),
            host_per_device: config.host_per_device.iter().cloned().collect(),
            give_up: config.give_up(),
        });
        Supervisor {
            start,
            config,
            happenings,
            hosts: BTreeMap::new(),
            next_host: 0,
            machine,
            kernel: None,
            bus: None,
            prepared: HashMap::new(),
            waiting: HashMap::new(),
            gatherings: HashMap::new(),
            next_request: OWN_REQUESTS,
            end: None,
        }
    }

    /// Starts a host for each plugin and waits until each has said whether it could load it.
    fn start_hosts(&mut self, happened: &Receiver<Happening>) {
        let found = plugins::find(&self.config.handler_path);
        if found.is_empty() {
            tracing::warn!(path = ?self.config.handler_path, "there are no plugins in the handler path");
        }
        for plugin in found {
            if let Err(distrust) = plugins::check(&plugin) {
                tracing::error!("plugin refused: {distrust}");
                continue;
            }
            let host = Host::new(plugin, &self.config);
            self.add_host(host);
        }
        let end = Instant::now() + LOAD;
        while self.hosts.values().any(|host| host.facts.is_none() && host.unloadable.is_none()) {
            let left = end.saturating_duration_since(Instant::now());
            match happened.recv_timeout(left) {
                Ok(happening) => self.happened(happening),
                Err(_) => {
                    for host in self.hosts.values().filter(|host| host.facts.is_none() && host.unloadable.is_none()) {
                        tracing::error!(plugin = %host.plugin.display(), "did not load within {} s; going on without it", LOAD.as_secs());
                    }
                    break;
                }
            }
            self.restart_hosts();
        }
    }

    fn add_host(&mut self, mut host: Host) {
        let key = self.next_host;
        self.next_host += 1;
        if let Err(error) = host.start(key, &self.config, &self.happenings) {
            tracing::error!(plugin = %host.plugin.display(), %error, "its host cannot be started");
            if host.device.is_none() {
                return;
            }
            host.retry();
        }
        self.hosts.insert(key, host);
    }

    fn handlers(&self) -> Vec<HandlerFacts> {
        self.hosts.values().filter_map(|host| host.facts.clone()).collect()
    }

    fn serve(&mut self, happened: &Receiver<Happening>) {
        loop {
            let next = self.next_deadline();
            let happening = match next {
                None => happened.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => happened.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match happening {
                Ok(happening) => self.happened(happening),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.time_passes();
            if let Some(end) = self.end
                && (self.machine.is_quiet() || Instant::now() >= end)
            {
                return self.finish();
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let hosts = self.hosts.values().filter_map(Host::restart_at);
        let waiting = self.waiting.values().map(|(_, deadline)| *deadline);
        let gatherings = self.gatherings.values().map(|gathering| gathering.deadline);
        hosts.chain(waiting).chain(gatherings).chain(self.machine.next_tick()).chain(self.end).min()
    }

    fn time_passes(&mut self) {
        let now = Instant::now();
        self.restart_hosts();
        if self.machine.next_tick().is_some_and(|at| at <= now) {
            self.input(Input::Tick);
        }
        let late: Vec<u64> = self.waiting.iter().filter(|(_, (_, at))| *at <= now).map(|(request, _)| *request).collect();
        for request in late {
            if let Some((Waiting::Check(question), _)) = self.waiting.remove(&request) {
                let seconds = self.config.check_timeout_seconds;
                question.answer_check(false, format!("the handler did not answer within {seconds} s"));
            }
        }
        let late: Vec<u64> = self.gatherings.iter().filter(|(_, g)| g.deadline <= now).map(|(key, _)| *key).collect();
        for key in late {
            self.gathered(key);
        }
    }

    fn restart_hosts(&mut self) {
        let now = Instant::now();
        if self.end.is_some() {
            return;
        }
        for (key, host) in &mut self.hosts {
            if host.restart_at().is_some_and(|at| at <= now)
                && let Err(error) = host.start(*key, &self.config, &self.happenings)
            {
                tracing::error!(%error, "a handler host cannot be started");
                host.retry();
            }
        }
    }

    fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Input(input) => self.input(input),
            Happening::Prepared(id, outcome) => {
                let outcome = outcome.map(|prepared| {
                    self.prepared.insert(id.clone(), prepared);
                });
                self.input(Input::Prepared { id, outcome });
            }
            Happening::Rescan => self.rescan(),
            Happening::HostSaid(key, generation, message) => {
                if self.hosts.get(&key).is_some_and(|host| host.is_current(generation)) {
                    self.host_said(key, message);
                }
            }
            Happening::HostGone(key, generation) => {
                if self.hosts.get(&key).is_some_and(|host| host.is_current(generation)) {
                    self.host_gone(key);
                }
            }
            Happening::Bus(question) => self.asked(question),
            Happening::Signal(SIGHUP) => self.reload(),
            Happening::Signal(signal) => self.stop(signal),
        }
    }

    fn input(&mut self, input: Input) {
        for action in self.machine.handle(input, Instant::now()) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        let Some(kernel) = &self.kernel else { return };
        match action {
            Action::AnswerKernel { token, status } => kernel.answer(token, status),
            Action::Prepare { id, minor, take_over } => {
                kernel.prepare(&id, minor, take_over, self.prepared.get(&id).cloned());
            }
            Action::Block { id } => kernel.block(&id),
            Action::Unblock { id } => kernel.unblock(&id),
            Action::Release { id } => {
                self.prepared.remove(&id);
            }
            Action::FailCommands { id } => kernel.fail_commands(&id),
            Action::StartHost { host } => self.start_device_host(host),
            Action::EndHost { host } => {
                if let Some(key) = self.key_of(&host)
                    && let Some(host) = self.hosts.remove(&key)
                {
                    host.end_later();
                }
            }
            Action::Open { request, id, host, take_over } => self.send_open(request, &id, &host, take_over),
            Action::Close { request, id, host } => {
                let within_ms = self.config.drain_timeout().as_millis() as u64;
                self.send(&host, &ToHost::Close { id: request, device: id.to_string(), within_ms });
            }
            Action::Reconfigure { request, id, host, change } => {
                self.send(&host, &ToHost::Reconfigure { id: request, device: id.to_string(), change });
            }
        }
    }

    fn start_device_host(&mut self, name: HostName) {
        let (Some(device), Some(first)) = (name.device, self.host_of(&HostName::of_handler(&name.subtype))) else { return };
        let host = first.for_device(device, &self.config);
        self.add_host(host);
    }

    fn send_open(&self, request: u64, id: &BackstoreId, host: &HostName, take_over: bool) {
        let (Some(prepared), Some(device)) = (self.prepared.get(id), self.machine.devices().get(id)) else { return };
        let device = DeviceSpec {
            name: id.to_string(),
            config: device.name.config.clone(),
            size: prepared.facts.size,
            block_size: prepared.facts.block_size,
            hw_max_sectors: prepared.facts.hw_max_sectors,
            map_size: prepared.map_size,
            take_over,
            copies_with: self.config.copies_with(&id.to_string()),
        };
        if let Some(host) = self.host_of(host) {
            host.send(&ToHost::Open { id: request, device }, Some(prepared.fd.as_fd()));
        }
    }

    fn key_of(&self, name: &HostName) -> Option<HostKey> {
        self.hosts.iter().find(|(_, host)| host.name().as_ref() == Some(name)).map(|(key, _)| *key)
    }

    fn host_of(&self, name: &HostName) -> Option<&Host> {
        self.hosts.values().find(|host| host.name().as_ref() == Some(name))
    }

    fn send(&self, name: &HostName, message: &ToHost) {
        if let Some(host) = self.host_of(name) {
            host.send(message, None);
        }
    }

    fn host_said(&mut self, key: HostKey, message: FromHost) {
        match message {
            FromHost::Ready(facts) => self.host_ready(key, facts),
            FromHost::Unloadable { reason } => {
                tracing::error!("plugin refused: {reason}");
                if let Some(host) = self.hosts.get_mut(&key).filter(|host| host.device.is_none()) {
                    host.unloadable = Some(reason);
                }
            }
            FromHost::Answer { id, outcome } if id >= OWN_REQUESTS => self.answered(id, outcome),
            FromHost::Answer { id, outcome } => self.input(Input::Answer { request: id, outcome }),
            FromHost::DeviceFailed { device, reason } => {
                if let Ok(id) = device.parse() {
                    self.input(Input::DeviceFailed { id, reason });
                }
            }
        }
    }

    fn host_ready(&mut self, key: HostKey, facts: HandlerFacts) {
        if let Err(reason) = self.accept(key, &facts) {
            tracing::error!("plugin refused: {reason}");
            return;
        }
        let Some(host) = self.hosts.get_mut(&key) else { return };
        let first = host.device.is_none();
        tracing::info!(handler = facts.subtype, version = facts.version, plugin = %host.plugin.display(), "loaded");
        host.set_ready(facts.clone());
        let name = HostName { subtype: facts.subtype.clone(), device: host.device.clone() };
        if first {
            self.machine.add_handler(&facts.subtype);
            if let Some(bus) = &self.bus {
                bus.add_handler(facts);
            }
        }
        self.input(Input::HostUp { host: name });
    }

    /// Whether a plugin that was loaded is to stay; else why not.
    fn accept(&mut self, key: HostKey, facts: &HandlerFacts) -> Result<(), String> {
        let Some(host) = self.hosts.get(&key) else { return Err("its host is gone".into()) };
        let (plugin, subtype) = (host.plugin.clone(), &facts.subtype);
        if host.device.is_some() {
            return Ok(());
        }
        let path = plugin.display();
        if self.config.disabled_handlers.contains(subtype) {
            return Err(self.refuse(key, format!("{path}: disabled by the configuration")));
        }
        if self.config.host_users.get(subtype) != host.user.as_ref() {
            let file = subtype_by_file(&plugin);
            return Err(self.refuse(
                key,
                format!(
                    "{path}: its subtype is {subtype:?}, not {file:?} as its file name says: host_users needs them to be the same"
                ),
            ));
        }
        let same = |host: &Host| host.name() == Some(HostName::of_handler(subtype));
        let Some(other) = self.hosts.iter().find(|(_, host)| same(host) && host.plugin != plugin).map(|(key, _)| *key) else {
            return Ok(());
        };
        // The first in the path counts, whichever was loaded first; but nothing is taken from a handler that is at work already.
        let (loser, winner) = if key < other && self.kernel.is_none() { (other, key) } else { (key, other) };
        let (path, first) = (self.hosts[&loser].plugin.display(), self.hosts[&winner].plugin.display());
        let reason = self.refuse(loser, format!("{path}: has the same subtype {subtype:?} as {first}"));
        if loser == key {
            return Err(reason);
        }
        tracing::error!("plugin refused: {reason}");
        Ok(())
    }

    fn refuse(&mut self, key: HostKey, reason: String) -> String {
        if let Some(host) = self.hosts.get_mut(&key) {
            host.unloadable = Some(reason.clone());
            host.facts = None;
            host.end();
        }
        reason
    }

    fn host_gone(&mut self, key: HostKey) {
        let Some(host) = self.hosts.get_mut(&key) else { return };
        let ended = host.buried();
        if host.unloadable.is_some() {
            return;
        }
        let Some(name) = host.name() else {
            let reason = format!("{}: its host ended while it loaded it ({ended})", host.plugin.display());
            tracing::error!("plugin refused: {reason}");
            host.unloadable = Some(reason);
            return;
        };
        if self.end.is_none() {
            let devices = self.machine.devices().iter();
            let affected: Vec<String> = devices.filter(|(_, device)| device.host == name).map(|(id, _)| id.to_string()).collect();
            tracing::error!(handler = name.subtype, devices = affected.join(" "), "its host ended ({ended}); starting another");
        }
        // Answers that it owes are not coming.
        let owed = |waiting: &Waiting| match waiting {
            Waiting::Check(Question::CheckConfig { subtype, .. }) => name.device.is_none() && *subtype == name.subtype,
            _ => false,
        };
        let lost: Vec<u64> = self.waiting.iter().filter(|(_, (w, _))| owed(w)).map(|(r, _)| *r).collect();
        for request in lost {
            if let Some((Waiting::Check(question), _)) = self.waiting.remove(&request) {
                question.answer_check(false, "the handler ended; try again".into());
            }
        }
        self.input(Input::HostDown { host: name });
    }

    fn rescan(&mut self) {
        if let Some(kernel) = &self.kernel {
            let present = kernel.present();
            self.input(Input::Present(present));
        }
    }

    fn set_log_level(&self, level: &str) {
        logging::set_level(level);
        for host in self.hosts.values() {
            host.send(&ToHost::SetLogLevel { level: level.to_owned() }, None);
        }
    }

    /// Reads the configuration again. What is wrong changes nothing.
    fn reload(&mut self) {
        match Config::load(self.start.config_path.as_deref()) {
            Ok(new) => {
                let level = self.start.log_level.clone().unwrap_or_else(|| new.log_level.clone());
                self.set_log_level(&level);
                let rest = Config { log_level: self.config.log_level.clone(), ..new.clone() };
                if rest != self.config && self.start.config != new {
                    tracing::warn!("only log_level takes effect at once; the rest of the configuration does at the next start");
                }
                self.config.log_level = level;
                tracing::info!("configuration read again");
            }
            Err(error) => tracing::error!("the configuration stays as it was: {error}"),
        }
    }

    fn stop(&mut self, signal: i32) {
        if self.end.is_some() {
            tracing::warn!("told to stop again: ending at once");
            std::process::exit(1);
        }
        tracing::info!(signal, "stopping: devices are blocked, commands in flight finish");
        notify("STOPPING=1");
        self.end = Some(Instant::now() + self.config.drain_timeout() + Duration::from_secs(1));
        self.input(Input::Shutdown);
    }

    fn finish(&mut self) {
        if !self.machine.is_quiet() {
            tracing::error!("some commands did not finish in time; they are given back to the initiators at the next start");
        }
        for host in self.hosts.values_mut() {
            host.end();
        }
        if let Some(kernel) = &self.kernel {
            kernel.stop_replies();
        }
        tracing::info!("stopped; devices stay blocked until the next start");
    }
}

fn watch_signals(happenings: &Sender<Happening>) -> anyhow::Result<signal_hook::iterator::Handle> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (handle, happenings) = (signals.handle(), happenings.clone());
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if happenings.send(Happening::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(handle)
}

/// Tells systemd (sd_notify(3)).
fn notify(state: &str) {
    use std::os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    };
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else { return };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(Path::new(&path)),
    };
    if let (Ok(socket), Ok(address)) = (UnixDatagram::unbound(), address) {
        let _ = socket.send_to_addr(state.as_bytes(), &address);
    }
}
