//! Handler hosts as child processes: started, listened to, and started again when they die.
use std::{
    io,
    os::fd::BorrowedFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::Sender,
    thread,
    time::{Duration, Instant},
};

use tcmu::BackstoreId;

use super::{Happening, machine::HostName};
use crate::{
    config::Config,
    protocol::{Channel, FromHost, HandlerFacts, ToHost},
};

/// A host that lives shorter than this died of what will kill the next one too.
const SHORT_LIFE: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Which host, as the supervisor counts them.
pub(super) type HostKey = usize;

/// A plugin, and the process that runs it.
pub(super) struct Host {
    pub(super) plugin: PathBuf,
    /// The only device it serves, where each has a host of its own.
    pub(super) device: Option<BackstoreId>,
    /// Whom it runs as; `None` is root.
    pub(super) user: Option<String>,
    /// Known once it was ready for the first time.
    pub(super) facts: Option<HandlerFacts>,
    /// Why it can't be loaded.
    pub(super) unloadable: Option<String>,
    running: Option<Running>,
    /// Counts processes: what an earlier one said is not of this one.
    generation: u64,
    quick_deaths: u32,
    restart: Option<Instant>,
    pub(super) restarts: u64,
}

struct Running {
    child: Child,
    channel: Channel,
    started: Instant,
    ready: bool,
}

impl Host {
    pub(super) fn new(plugin: PathBuf, config: &Config) -> Host {
        let user = config.host_users.get(&subtype_by_file(&plugin)).cloned();
        Host {
            plugin,
            device: None,
            user,
            facts: None,
            unloadable: None,
            running: None,
            generation: 0,
            quick_deaths: 0,
            restart: None,
            restarts: 0,
        }
    }

    /// A host like this one, for one device.
    pub(super) fn for_device(&self, device: BackstoreId, config: &Config) -> Host {
        Host { device: Some(device), facts: self.facts.clone(), ..Host::new(self.plugin.clone(), config) }
    }

    /// Its name, once its handler is known.
    pub(super) fn name(&self) -> Option<HostName> {
        let subtype = self.facts.as_ref()?.subtype.clone();
        Some(HostName { subtype, device: self.device.clone() })
    }

    /// Starts the process, and a thread that listens to it.
    pub(super) fn start(&mut self, key: HostKey, config: &Config, happenings: &Sender<Happening>) -> io::Result<()> {
        let (channel, theirs) = Channel::pair()?;
        // The subtype if it is known, for those who look at a list of processes.
        let name = match &self.facts {
            Some(facts) => facts.subtype.clone(),
            None => subtype_by_file(&self.plugin),
        };
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("handler-host")
            .arg(name)
            .arg(&self.plugin)
            .args(["--log-level", &config.log_level])
            .args(["--reactors", &config.reactors.to_string()])
            .args(["--workers", &config.workers.to_string()])
            .args(["--io-engine", &config.io_engine])
            .args(["--poll", &config.poll_microseconds.to_string()]);
        if let Some(device) = &self.device {
            command.args(["--device", &device.to_string()]);
        }
        if let Some(user) = &self.user {
            command.args(["--user", user]);
        }
        if config.unconfined_handlers.contains(&subtype_by_file(&self.plugin)) {
            command.arg("--unconfined");
        }
        let child = command.stdin(Stdio::from(theirs)).spawn()?;
        self.generation += 1;
        self.restart = None;
        let (listening, generation, happenings) = (channel.try_clone()?, self.generation, happenings.clone());
        thread::Builder::new().name("host-listener".into()).spawn(move || {
            loop {
                match listening.receive::<FromHost>() {
                    Ok(Some((message, _))) => {
                        if happenings.send(Happening::HostSaid(key, generation, message)).is_err() {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::error!(%error, "a handler host says what makes no sense");
                        break;
                    }
                }
            }
            let _ = happenings.send(Happening::HostGone(key, generation));
        })?;
        self.running = Some(Running { child, channel, started: Instant::now(), ready: false });
        Ok(())
    }

    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.generation == generation && self.running.is_some()
    }

    pub(super) fn set_ready(&mut self, facts: HandlerFacts) {
        self.facts = Some(facts);
        if let Some(running) = &mut self.running {
            running.ready = true;
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.ready)
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    pub(super) fn restart_at(&self) -> Option<Instant> {
        self.restart
    }

    /// Sends a message. A host that can't be reached is about to be reported gone.
    pub(super) fn send(&self, message: &ToHost, fd: Option<BorrowedFd<'_>>) {
        if let Some(running) = &self.running
            && let Err(error) = running.channel.send(message, fd)
        {
            tracing::warn!(%error, "a handler host cannot be reached");
        }
    }

    /// The process is gone (or does not speak any more): makes sure, and plans the next start. Returns how it ended.
    pub(super) fn buried(&mut self) -> String {
        let Some(mut running) = self.running.take() else { return "never started".into() };
        let _ = running.child.kill();
        let ended = running.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        self.quick_deaths = if running.started.elapsed() < SHORT_LIFE { self.quick_deaths + 1 } else { 0 };
        // The first restart is immediate; a host that dies again and again backs off.
        let delay = match self.quick_deaths {
            0 | 1 => Duration::ZERO,
            n => (Duration::from_millis(50) * 2u32.saturating_pow(n.min(16))).min(LONGEST_DELAY),
        };
        if self.unloadable.is_none() {
            self.restart = Some(Instant::now() + delay);
            self.restarts += 1;
        }
        ended
    }

    /// It could not be started: once more, later.
    pub(super) fn retry(&mut self) {
        self.restart = Some(Instant::now() + LONGEST_DELAY);
    }

    /// Lets the process end without waiting for it.
    pub(super) fn end_later(mut self) {
        if let Err(error) = thread::Builder::new().name("host-end".into()).spawn(move || self.end()) {
            tracing::error!(%error, "no thread to end a handler host");
        }
    }

    /// Lets the process end: it does when its socket is closed. Waits a little, then insists.
    pub(super) fn end(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let end = Instant::now() + Duration::from_secs(2);
        running.channel.shutdown();
        while Instant::now() < end {
            if matches!(running.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = running.child.kill();
        let _ = running.child.wait();
    }
}

/// What a plugin's file name says of its subtype.
pub(super) fn subtype_by_file(plugin: &std::path::Path) -> String {
    let stem = plugin.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem.strip_prefix("lib").unwrap_or(stem).strip_prefix("handler_").unwrap_or(stem).to_owned()
}
