//! The supervisor: it knows all devices, talks with the kernel and the bus, and runs a host process for each handler. It holds no plugin
//! code and never waits for any.
//!
//! | module | subject |
//! |---|---|
//! | `machine` | the registry of devices: what happens goes in, what is to be done comes out |
//! | `kernel` | netlink, configfs and sysfs |
//! | `actions` | what the machine wants done |
//! | `hosts`, `process` | handler hosts and their processes |
//! | `heard` | what hosts say, that they are silent, that they end |
//! | `adoption` | hosts that an earlier supervisor left |
//! | `loading` | plugins that become handlers, or don't |
//! | `replacement` | hosts and the daemon itself exchanged for newer ones |
//! | `statistics` | what was done for devices, as it is in shared memory |
//! | `questions` | what the bus asks |
//! | `settings` | the configuration, read again |
//! | `announce` | what the bus is told of by itself |
//! | `programs` | programs that serve a subtype themselves |
//! | `media` | media of removable disks |
mod actions;
mod adoption;
mod announce;
mod heard;
mod hosts;
mod kernel;
mod loading;
pub mod machine;
mod media;
mod process;
mod programs;
mod questions;
mod replacement;
mod settings;
mod statistics;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::PathBuf,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use announce::Told;
use hosts::{Host, HostKey};
use kernel::{Kernel, Prepared};
use machine::{HostName, Input, Machine, Settings};
use programs::Programs;
use questions::Waiting;
pub use replacement::successor_answer;
use replacement::{Handover, Replacement};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use statistics::Pages;
use tcmu::{BackstoreId, Roots, configfs::BackstoreFacts};

use crate::{
    config::Config,
    dbus::{Bus, Question},
    notify::{Watchdog, notify},
    protocol::{DeviceChange, FromHost, ToHost},
    run_dir::RunDir,
};

/// What wakes the supervisor.
pub(crate) enum Happening {
    Input(Input),
    Prepared(BackstoreId, Result<Prepared, (i32, String)>),
    /// What a device is by now for the kernel.
    Facts(BackstoreId, BackstoreFacts),
    Rescan,
    HostSaid(HostKey, u64, FromHost),
    /// With how it ended.
    HostGone(HostKey, u64, String),
    /// The kernel knows a device's new medium, or does not take it.
    MediumKept(BackstoreId),
    /// Whether the program at our path can take over.
    Successor(Result<(), String>),
    Bus(Question),
    /// The configuration's file was written, replaced or removed.
    ConfigChanged,
    Signal(i32),
}

/// Numbers of requests of our own, apart from the machine's.
const OWN_REQUESTS: u64 = 1 << 63;
/// Happenings between two looks at what is due.
const AT_ONCE: usize = 256;

/// A number that no earlier supervisor on this machine has counted up to: hosts may still answer to theirs.
fn first_request() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64) & (OWN_REQUESTS - 1)
}

/// How the supervisor is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// The program's path, where a newer one may be some day.
    pub program: PathBuf,
    /// The configuration.
    pub config: Config,
    /// Where it was read from, to read it again.
    pub config_path: Option<PathBuf>,
    /// The command line's level and directories, which count more than the file's.
    pub log_level: Option<String>,
    /// Likewise.
    pub handler_path: Option<Vec<PathBuf>>,
}

/// Runs the daemon until it is told to stop.
pub fn run(start: Start, run: RunDir) -> anyhow::Result<()> {
    let (happenings, happened) = mpsc::channel();
    let signals = watch_signals(&happenings)?;
    let mut supervisor = Supervisor::new(start, run, happenings.clone());
    let adopted = adoption::adopt(&supervisor.run);
    let adopted = supervisor.keep(adopted);
    supervisor.start_hosts(&happened);
    let (level, check) = (supervisor.config.log_level.clone(), supervisor.config.check_timeout());
    supervisor.bus = Bus::start(happenings.clone(), supervisor.handlers(), level, check);
    // Among it the programs that are on the bus already.
    while let Ok(happening) = happened.try_recv() {
        supervisor.happened(happening);
    }
    let mut foreign = supervisor.config.foreign_subtypes.clone();
    foreign.extend(supervisor.programs.keys().cloned());
    let (pending, present) = match Kernel::connect(Roots::default(), &supervisor.config, &foreign, happenings) {
        Ok((kernel, pending, present)) => {
            supervisor.kernel = Some(kernel);
            (pending, present)
        }
        Err(error) => {
            supervisor.end_own_hosts();
            return Err(error.into());
        }
    };
    supervisor.go_on_with(adopted, pending);
    supervisor.start_metrics();
    supervisor.input(Input::Present(present));
    supervisor.name_unknown_handlers();
    supervisor.watch_config();
    notify("READY=1");
    tracing::info!("ready");
    supervisor.serve(&happened);
    signals.close();
    Ok(())
}

struct Supervisor {
    start: Start,
    /// What is in force.
    config: Config,
    /// What the file said when it was read last, and why it could not be since.
    read: Config,
    config_problem: Option<String>,
    run: RunDir,
    happenings: Sender<Happening>,
    hosts: BTreeMap<HostKey, Host>,
    next_host: HostKey,
    machine: Machine,
    kernel: Option<Kernel>,
    bus: Option<Bus>,
    programs: Programs,
    /// Devices that get another medium at the moment.
    media: HashSet<BackstoreId>,
    told: Told,
    prepared: HashMap<BackstoreId, Prepared>,
    pages: Pages,
    waiting: HashMap<u64, (Waiting, Instant)>,
    next_request: u64,
    /// When hosts are looked for next.
    look: Instant,
    replacements: Vec<Replacement>,
    handover: Option<Handover>,
    /// When to stop waiting for devices to be closed.
    end: Option<Instant>,
    watchdog: Watchdog,
}

impl Supervisor {
    fn new(start: Start, run: RunDir, happenings: Sender<Happening>) -> Supervisor {
        let config = start.config.clone();
        let caches_off = run.caches_off().unwrap_or_else(|error| {
            tracing::error!(%error, "it is not known which write caches were switched off: all are on");
            BTreeSet::new()
        });
        let settings = Settings {
            open_timeout: config.open_timeout(),
            foreign: config.foreign_subtypes.iter().cloned().collect(),
            host_per_device: config.handler.keys().filter(|name| config.of_handler(name).host_per_device).cloned().collect(),
            policies: config.policies(),
        };
        let mut machine = Machine::new(settings, first_request());
        machine.set_caches_off(caches_off);
        Supervisor {
            start,
            read: config.clone(),
            config,
            config_problem: None,
            run,
            happenings,
            hosts: BTreeMap::new(),
            next_host: 0,
            machine,
            kernel: None,
            bus: None,
            programs: Programs::new(),
            media: HashSet::new(),
            told: Told::default(),
            prepared: HashMap::new(),
            pages: Pages::default(),
            waiting: HashMap::new(),
            next_request: OWN_REQUESTS + first_request(),
            look: Instant::now(),
            replacements: Vec::new(),
            handover: None,
            end: None,
            watchdog: Watchdog::from_environment(),
        }
    }

    /// When it comes to nothing: hosts that were started for it end, those that serve go on.
    fn end_own_hosts(&mut self) {
        let own = self.hosts.values_mut().filter(|host| !host.is_adopted());
        let running: Vec<_> = own.filter_map(|host| host.running.take()).collect();
        running.iter().for_each(hosts::Running::end);
        running.into_iter().for_each(hosts::Running::bury);
    }

    fn serve(&mut self, happened: &Receiver<Happening>) {
        loop {
            let next = self.next_deadline();
            let happening = match next {
                None => happened.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => happened.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match happening {
                Ok(happening) => {
                    self.hear(happening);
                    // To find out what is due looks at all devices: once for many happenings, as when all are taken over.
                    happened.try_iter().take(AT_ONCE).for_each(|happening| self.hear(happening));
                }
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

    fn hear(&mut self, happening: Happening) {
        let news = self.is_news(&happening);
        self.happened(happening);
        if news {
            self.announce_soon();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let hosts = self.hosts.values().filter_map(Host::restart_at);
        let waiting = self.waiting.values().map(|(_, deadline)| *deadline);
        let own = self.machine.next_tick().into_iter().chain(self.end).chain(self.replacement_deadline()).chain(self.told.at);
        hosts.chain(waiting).chain(own).chain(self.watchdog.next()).chain([self.look]).min()
    }

    fn time_passes(&mut self) {
        let now = Instant::now();
        self.watchdog.tell(now);
        self.restart_hosts();
        if self.machine.next_tick().is_some_and(|at| at <= now) {
            self.input(Input::Tick);
        }
        let late: Vec<u64> = self.waiting.iter().filter(|(_, (_, at))| *at <= now).map(|(request, _)| *request).collect();
        for request in late {
            match self.waiting.remove(&request) {
                Some((Waiting::Check(question), _)) => {
                    let seconds = self.config.check_timeout_seconds;
                    question.answer_check(false, format!("the handler did not answer within {seconds} s"));
                }
                Some((Waiting::Medium(change), _)) => self.medium_late(change),
                _ => {}
            }
        }
        self.replacements_wait();
        if self.told.at.is_some_and(|at| at <= now) {
            self.announce();
        }
        if self.look <= now {
            self.look_for_hosts(now);
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
            Happening::Facts(id, facts) => self.compare(id, facts),
            Happening::Rescan => self.rescan(),
            Happening::HostSaid(key, generation, message) => {
                let Some(host) = self.hosts.get_mut(&key) else { return };
                if host.is_next(generation) {
                    self.next_said(key, generation, message);
                } else if host.is_current(generation) {
                    if let Some(running) = &mut host.running {
                        running.missed = 0;
                    }
                    self.host_said(key, generation, message);
                }
            }
            Happening::HostGone(key, generation, ended) => {
                let Some(host) = self.hosts.get(&key) else { return };
                if host.is_next(generation) {
                    self.next_gone(key, &ended);
                } else if host.is_current(generation) {
                    self.host_gone(key, &ended);
                }
            }
            Happening::MediumKept(id) => {
                self.media.remove(&id);
            }
            Happening::Successor(outcome) => self.successor(outcome),
            Happening::Bus(question) => self.asked(question),
            Happening::ConfigChanged => self.config_changed(),
            Happening::Signal(SIGHUP) => {
                if let Err(error) = self.reload() {
                    tracing::error!("{error}");
                }
            }
            Happening::Signal(SIGUSR2) => self.hand_over(None),
            Happening::Signal(signal) => self.stop(signal),
        }
    }

    fn input(&mut self, input: Input) {
        for action in self.machine.handle(input, Instant::now()) {
            self.act(action);
        }
    }

    fn key_of(&self, name: &HostName) -> Option<HostKey> {
        self.hosts.iter().find(|(_, host)| host.name().as_ref() == Some(name)).map(|(key, _)| *key)
    }

    fn host_of(&self, name: &HostName) -> Option<&Host> {
        self.hosts.values().find(|host| host.name().as_ref() == Some(name))
    }

    fn send(&self, name: &HostName, message: ToHost) {
        if let Some(host) = self.host_of(name) {
            host.send(message, None);
        }
    }

    /// Compares what a device is for the kernel with what its host was told.
    fn compare(&mut self, id: BackstoreId, facts: BackstoreFacts) {
        let Some(prepared) = self.prepared.get_mut(&id) else { return };
        let size = prepared.facts.size;
        prepared.facts = facts;
        if size != facts.size {
            self.input(Input::Changed { id, change: DeviceChange::Size(facts.size) });
        }
    }

    fn rescan(&mut self) {
        if let Some(kernel) = &self.kernel {
            let present = kernel.present();
            self.input(Input::Present(present));
        }
    }

    fn stop(&mut self, signal: i32) {
        if self.end.is_some() {
            tracing::warn!("told to stop again: ending at once");
            crate::logging::flush();
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
        let running: Vec<_> =
            self.hosts.values_mut().flat_map(|host| [host.running.take(), host.next.take()]).flatten().collect();
        running.iter().for_each(hosts::Running::end);
        running.into_iter().for_each(hosts::Running::bury);
        if let Some(kernel) = &self.kernel {
            kernel.stop_replies();
        }
        tracing::info!("stopped; devices stay blocked until the next start");
    }
}

fn watch_signals(happenings: &Sender<Happening>) -> anyhow::Result<signal_hook::iterator::Handle> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2])?;
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
