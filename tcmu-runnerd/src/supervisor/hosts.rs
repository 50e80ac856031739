//! Handler hosts: their processes are started, listened to, and started again when they die; or another supervisor's are adopted.
use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use tcmu::BackstoreId;

use super::{Happening, machine::HostName, process::Process};
use crate::{
    config::Config,
    protocol::{Channel, FromHost, HandlerFacts, HostFacts, PROTOCOL, ToHost},
    run_dir::RunDir,
};

/// A host that ends so soon after it was ready, or had opened a device, died of what will kill the next one too.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// How long after that a host of several short lives gets another one that is ready to take its place.
const SETTLED: Duration = Duration::from_secs(2);
/// So many short lives in a row cost no delay yet.
const FREE_RESTARTS: u32 = 2;
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// How long after its connection a host may end.
const BURIAL: Duration = Duration::from_secs(1);
/// How long a host may take to end when it is told to.
const END: Duration = Duration::from_secs(2);

/// Which host, as the supervisor counts them.
pub(super) type HostKey = usize;

/// A plugin, and the process that runs it.
pub(super) struct Host {
    pub(super) plugin: PathBuf,
    /// The only device it serves, where each has a host of its own.
    pub(super) device: Option<BackstoreId>,
    /// Known once it was ready for the first time.
    pub(super) facts: Option<HostFacts>,
    /// Why it can't be loaded.
    pub(super) unloadable: Option<String>,
    pub(super) running: Option<Running>,
    /// Is to take the running one's place: at once if it is `replacing` that, else when that dies.
    pub(super) next: Option<Running>,
    pub(super) replacing: bool,
    /// No other is kept ready before.
    pub(super) standby: Option<Instant>,
    /// Counts processes: what an earlier one said is not of this one.
    generation: u64,
    /// Short lives in a row, and how the last one ended.
    pub(super) deaths: (u32, String),
    restart: Option<Instant>,
    pub(super) restarts: u64,
    adopted: bool,
}

/// A process that serves, or will.
pub(super) struct Running {
    process: Arc<Process>,
    channel: Channel,
    /// What is sent goes through a thread: a process that doesn't listen keeps nobody waiting.
    outbox: Sender<(ToHost, Vec<Arc<OwnedFd>>)>,
    socket: PathBuf,
    generation: u64,
    ready: Option<Instant>,
    /// When it did something that it was asked for.
    pub(super) did: Option<Instant>,
    /// What it is, while it is not what the host is.
    facts: Option<HostFacts>,
    /// How many times it was looked for and not heard of since the last time.
    pub(super) missed: u32,
}

impl Running {
    /// A process that can be reached: begins to send, and to listen.
    pub(super) fn new(process: Process, channel: Channel, socket: PathBuf) -> io::Result<Running> {
        let (outbox, inbox) = mpsc::channel::<(ToHost, Vec<Arc<OwnedFd>>)>();
        let sending = channel.try_clone()?;
        thread::Builder::new().name("host-speaker".into()).spawn(move || {
            for (message, fds) in inbox {
                let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                // A host that can't be reached is about to be reported gone.
                if let Err(error) = sending.send_with(&message, &fds) {
                    tracing::debug!(%error, "a handler host cannot be reached");
                    return;
                }
            }
        })?;
        let process = Arc::new(process);
        Ok(Running { process, channel, outbox, socket, generation: 0, ready: None, did: None, facts: None, missed: 0 })
    }

    fn listen(&self, key: HostKey, happenings: &Sender<Happening>) -> io::Result<()> {
        let (channel, process, generation) = (self.channel.try_clone()?, self.process.clone(), self.generation);
        let happenings = happenings.clone();
        thread::Builder::new().name("host-listener".into()).spawn(move || {
            loop {
                match channel.receive::<FromHost>() {
                    Ok(Some((message, _))) => {
                        if happenings.send(Happening::HostSaid(key, generation, message)).is_err() {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(error) if error.raw_os_error().is_some() => break,
                    Err(error) => {
                        tracing::error!(%error, "a handler host says what makes no sense; it is killed");
                        process.kill();
                    }
                }
            }
            // The connection ends when the process has let go of all its descriptors. Until then it may still write to its devices.
            process.kill();
            let ended = process.ended(BURIAL).unwrap_or_else(|| "its process is still there".into());
            let _ = happenings.send(Happening::HostGone(key, generation, ended));
        })?;
        Ok(())
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    pub(super) fn ready_since(&self) -> Option<Instant> {
        self.ready
    }

    pub(super) fn send(&self, message: ToHost, fds: Vec<Arc<OwnedFd>>) {
        let _ = self.outbox.send((message, fds));
    }

    pub(super) fn kill(&self) {
        self.process.kill();
    }

    /// Lets the process end. [`Running::bury`] waits for it.
    pub(super) fn end(&self) {
        self.send(ToHost::End, Vec::new());
    }

    /// Waits a little for the process that was told to end, then insists.
    pub(super) fn bury(self) {
        if self.process.ended(END).is_none() {
            self.process.kill();
            let _ = self.process.ended(BURIAL);
        }
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Lets the process end, on a thread of its own.
    pub(super) fn end_later(self) {
        self.end();
        if let Err(error) = thread::Builder::new().name("host-end".into()).spawn(move || self.bury()) {
            tracing::error!(%error, "no thread to end a handler host");
        }
    }
}

impl Host {
    pub(super) fn new(plugin: PathBuf) -> Host {
        Host {
            plugin,
            device: None,
            facts: None,
            unloadable: None,
            running: None,
            next: None,
            replacing: false,
            standby: None,
            generation: 0,
            deaths: (0, String::new()),
            restart: None,
            restarts: 0,
            adopted: false,
        }
    }

    /// A host like this one, for one device.
    pub(super) fn for_device(&self, device: BackstoreId) -> Host {
        Host { device: Some(device), facts: self.facts.clone(), ..Host::new(self.plugin.clone()) }
    }

    /// A host that another supervisor started.
    pub(super) fn adopted(facts: HostFacts, running: Running) -> Host {
        Host {
            plugin: facts.plugin.clone(),
            device: facts.device.as_ref().and_then(|device| device.parse().ok()),
            facts: Some(facts),
            unloadable: None,
            running: Some(Running { ready: Some(Instant::now()), ..running }),
            next: None,
            replacing: false,
            standby: None,
            generation: 0,
            deaths: (0, String::new()),
            restart: None,
            restarts: 0,
            adopted: true,
        }
    }

    /// What its handler is, once it is known.
    pub(super) fn handler(&self) -> Option<&HandlerFacts> {
        self.facts.as_ref().map(|facts| &facts.handler)
    }

    /// Its name, once its handler is known.
    pub(super) fn name(&self) -> Option<HostName> {
        let subtype = self.handler()?.subtype.clone();
        Some(HostName { subtype, device: self.device.clone() })
    }

    /// The subtype, or what the file's name says of it.
    pub(super) fn subtype(&self) -> String {
        self.handler().map_or_else(|| subtype_by_file(&self.plugin), |handler| handler.subtype.clone())
    }

    /// Starts the process that is to serve.
    pub(super) fn start(
        &mut self,
        key: HostKey,
        config: &Config,
        run: &RunDir,
        happenings: &Sender<Happening>,
    ) -> io::Result<()> {
        self.restart = None;
        self.running = Some(self.spawn(key, config, run, happenings)?);
        Ok(())
    }

    /// Starts the process that is to take the running one's place.
    pub(super) fn start_next(
        &mut self,
        key: HostKey,
        config: &Config,
        run: &RunDir,
        happenings: &Sender<Happening>,
    ) -> io::Result<()> {
        self.next = Some(self.spawn(key, config, run, happenings)?);
        Ok(())
    }

    fn spawn(&mut self, key: HostKey, config: &Config, run: &RunDir, happenings: &Sender<Happening>) -> io::Result<Running> {
        let (listener, socket) = run.socket()?;
        // Of this very program, even if there is another one at its path by now. The subtype is for those who look at a list of
        // processes.
        let settings = config.of_handler(&self.subtype());
        // Whom it runs as is decided before it can say what it is.
        let by_file = config.of_handler(&subtype_by_file(&self.plugin));
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("tcmu-runnerd")
            .arg("handler-host")
            .arg(self.subtype())
            .arg(&self.plugin)
            .args(["--log-level", &config.log_level])
            .args(["--reactors", &settings.reactors.to_string()])
            .args(["--workers", &settings.workers.to_string()])
            .args(["--io-engine", &settings.io_engine])
            .args(["--poll", &settings.poll_microseconds.to_string()])
            .args(["--stay-put", &settings.stay_put.to_string()])
            .args(["--give-way", &settings.give_way.to_string()]);
        if let Some(device) = &self.device {
            command.args(["--device", &device.to_string()]);
        }
        if let Some(user) = &by_file.user {
            command.args(["--user", user]);
        }
        if !by_file.confined {
            command.arg("--unconfined");
        }
        if !config.lock_memory {
            command.arg("--pageable");
        }
        let channel = Channel::connect(&socket)?;
        let child = command.stdin(Stdio::from(OwnedFd::from(listener))).spawn()?;
        // Our own handle to the listening socket is part of the command.
        drop(command);
        let process = Process::new(rustix::process::Pid::from_child(&child));
        let running = self.listen(key, Running::new(process, channel, socket)?, happenings)?;
        running.send(ToHost::Hello { protocol: PROTOCOL }, Vec::new());
        Ok(running)
    }

    /// Begins to listen to a host that another supervisor started.
    pub(super) fn listen_to_adopted(&mut self, key: HostKey, happenings: &Sender<Happening>) -> io::Result<()> {
        if let Some(running) = self.running.take() {
            self.running = Some(self.listen(key, running, happenings)?);
        }
        Ok(())
    }

    fn listen(&mut self, key: HostKey, mut running: Running, happenings: &Sender<Happening>) -> io::Result<Running> {
        self.generation += 1;
        running.generation = self.generation;
        running.listen(key, happenings)?;
        Ok(running)
    }

    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.running.as_ref().is_some_and(|running| running.generation == generation)
    }

    pub(super) fn is_next(&self, generation: u64) -> bool {
        self.next.as_ref().is_some_and(|next| next.generation == generation)
    }

    /// The process of that generation is ready. What the running one is, is what the host is.
    pub(super) fn set_ready(&mut self, generation: u64, facts: HostFacts) {
        if let Some(next) = self.next.as_mut().filter(|next| next.generation == generation) {
            next.ready = Some(Instant::now());
            next.facts = Some(facts);
        } else if let Some(running) = &mut self.running {
            running.ready = Some(Instant::now());
            self.facts = Some(facts);
        }
    }

    /// Whether another process is to be kept ready for it: not in a crash loop, which it would only make faster, unless the running one
    /// has been well for a while.
    pub(super) fn lacks_standby(&self, now: Instant) -> bool {
        let may = self.device.is_none() && self.next.is_none() && self.standby.is_none_or(|at| at <= now);
        may && self.is_ready() && (self.deaths.0 < FREE_RESTARTS || self.is_settled())
    }

    fn is_settled(&self) -> bool {
        let last = self.running.as_ref().and_then(|running| running.did.max(running.ready));
        last.is_some_and(|last| last.elapsed() >= SETTLED)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.running.as_ref().is_some_and(Running::is_ready)
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.process.pid())
    }

    pub(super) fn restart_at(&self) -> Option<Instant> {
        self.restart
    }

    /// Starts again as soon as possible, whatever happened before.
    pub(super) fn forgive(&mut self) {
        (self.deaths.0, self.unloadable) = (0, None);
        if self.running.is_none() {
            self.restart = Some(Instant::now());
        }
    }

    pub(super) fn send(&self, message: ToHost, fd: Option<Arc<OwnedFd>>) {
        self.send_with(message, fd.into_iter().collect());
    }

    pub(super) fn send_with(&self, message: ToHost, fds: Vec<Arc<OwnedFd>>) {
        if let Some(running) = &self.running {
            running.send(message, fds);
        }
    }

    /// The process is gone: plans the next start.
    pub(super) fn buried(&mut self, ended: &str) {
        let Some(running) = self.running.take() else { return };
        let _ = std::fs::remove_file(&running.socket);
        let short = running.did.max(running.ready).is_none_or(|did| did.elapsed() < SHORT_LIFE);
        self.deaths = (if short { self.deaths.0 + 1 } else { 0 }, ended.to_owned());
        if self.unloadable.is_none() {
            self.restart = Some(Instant::now() + delay(self.deaths.0));
            self.restarts += 1;
        }
    }

    /// The process that was to take the running one's place takes it.
    pub(super) fn swap(&mut self) {
        let Some(mut next) = self.next.take() else { return };
        if let Some(old) = self.running.take() {
            old.end_later();
            self.restarts += 1;
        }
        self.facts = next.facts.take().or(self.facts.take());
        self.running = Some(next);
        (self.restart, self.replacing) = (None, false);
    }

    /// Whether another supervisor started it.
    pub(super) fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// It could not be started: once more, later.
    pub(super) fn retry(&mut self) {
        self.restart = Some(Instant::now() + LONGEST_DELAY);
    }

    /// Lets its processes end without waiting for them.
    pub(super) fn end_later(&mut self) {
        self.restart = None;
        self.running.take().into_iter().chain(self.next.take()).for_each(Running::end_later);
    }
}

/// The first restarts are immediate; a host that dies again and again backs off.
fn delay(deaths: u32) -> Duration {
    match deaths.saturating_sub(FREE_RESTARTS) {
        0 => Duration::ZERO,
        n => (Duration::from_millis(100) * 2u32.saturating_pow((n - 1).min(16))).min(LONGEST_DELAY),
    }
}

/// What a plugin's file name says of its subtype.
pub(super) fn subtype_by_file(plugin: &Path) -> String {
    let stem = plugin.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem.strip_prefix("lib").unwrap_or(stem).strip_prefix("handler_").unwrap_or(stem).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_backs_off_and_a_single_crash_does_not() {
        let delays: Vec<u128> = (0..12).map(|deaths| delay(deaths).as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    #[test]
    fn another_process_is_kept_ready_unless_one_after_the_other_dies_at_once() {
        let (channel, _other) = Channel::pair().unwrap();
        let process = Process::new(rustix::process::getpid());
        let mut host = Host::new("handler_x.so".into());
        let now = Instant::now();
        assert!(!host.lacks_standby(now), "there is nothing whose place it could take");
        host.running = Some(Running::new(process, channel, PathBuf::new()).unwrap());
        assert!(!host.lacks_standby(now), "the first one is not ready yet");
        let ready = |host: &mut Host, at| host.running.as_mut().unwrap().ready = Some(at);
        ready(&mut host, now);
        assert!(host.lacks_standby(now));
        host.deaths.0 = FREE_RESTARTS;
        assert!(!host.lacks_standby(now), "a crash loop");
        ready(&mut host, now - SETTLED);
        assert!(host.lacks_standby(now), "the crash loop is over");
        host.standby = Some(now + Duration::from_secs(1));
        assert!(!host.lacks_standby(now), "it could not be started a moment ago");
    }
}
