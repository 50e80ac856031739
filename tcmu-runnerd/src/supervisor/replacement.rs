//! Hosts exchanged for ones with the plugin that is on disk now, and the daemon itself for the program that is at its path now.
use std::{
    collections::HashSet,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    Happening, Supervisor,
    hosts::{Host, HostKey, Running},
    machine::{HostName, Input, State},
};
use crate::{
    dbus::Question,
    notify::notify,
    plugins,
    protocol::{FromHost, HostFacts, PROTOCOL},
};

/// Hosts of one handler that are exchanged at a time.
const AT_ONCE: usize = 4;
/// How long no host is kept ready after one could not be.
const NO_STANDBY: Duration = Duration::from_secs(60);
/// How long the exchange of a handler's hosts may take before who asked is told that it goes on.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the next program may take to say that it can run.
const CHECK: Duration = Duration::from_secs(20);
/// How long the answer to who asked may take to leave us.
const FAREWELL: Duration = Duration::from_millis(200);
/// How long the kernel's tools may keep the handover waiting.
const TOOLS: Duration = Duration::from_secs(10);

/// The exchange of a handler's hosts.
pub(super) struct Replacement {
    question: Question,
    /// Not begun.
    waiting: Vec<HostKey>,
    going: HashSet<HostKey>,
    deadline: Instant,
}

/// The exchange of the daemon.
pub(super) struct Handover {
    question: Option<Question>,
    /// When it happens, once it is known to be possible.
    at: Option<Instant>,
    /// When it happens in any case.
    latest: Instant,
}

impl Supervisor {
    /// Restarts a handler's hosts with the plugin that is there now. They go on until the new ones have loaded it.
    pub(super) fn restart_handler(&mut self, subtype: &str, question: Question) {
        let of_it = self.hosts.iter().filter(|(_, host)| host.subtype() == subtype);
        let waiting: Vec<HostKey> = of_it.map(|(key, _)| *key).collect();
        if waiting.is_empty() {
            return question.answer_check(false, format!("there is no handler {subtype:?}; `tcmuctl handlers` lists them"));
        }
        tracing::info!(handler = subtype, "restarting");
        let deadline = Instant::now() + PATIENCE;
        self.replacements.push(Replacement { question, waiting, going: HashSet::new(), deadline });
        self.advance();
    }

    /// Begins with the next hosts, and answers where there are none left.
    fn advance(&mut self) {
        let mut begin = Vec::new();
        for replacement in &mut self.replacements {
            replacement.going.retain(|key| self.hosts.contains_key(key));
            while replacement.going.len() < AT_ONCE
                && let Some(key) = replacement.waiting.pop()
            {
                if self.hosts.contains_key(&key) {
                    replacement.going.insert(key);
                    begin.push(key);
                }
            }
        }
        for key in begin {
            if let Err(reason) = self.begin(key) {
                self.not_replaced(key, &reason);
            }
        }
        for done in self.replacements.extract_if(.., |r| r.going.is_empty() && r.waiting.is_empty()) {
            done.question.answer_check(true, "restarted".into());
        }
    }

    fn begin(&mut self, key: HostKey) -> Result<(), String> {
        let Some(host) = self.hosts.get_mut(&key) else { return Ok(()) };
        plugins::check(&host.plugin).map_err(|distrust| distrust.to_string())?;
        if !host.is_ready() {
            host.forgive();
            return Ok(());
        }
        if host.replacing {
            return Ok(());
        }
        // One that is kept ready has loaded the plugin some time ago.
        host.next.take().into_iter().for_each(Running::end_later);
        host.replacing = true;
        host.start_next(key, &self.config, &self.run, &self.happenings).map_err(|error| format!("it cannot be started: {error}"))
    }

    /// A process that is to take a host's place says something.
    pub(super) fn next_said(&mut self, key: HostKey, generation: u64, message: FromHost) {
        let Some(host) = self.hosts.get_mut(&key) else { return };
        match message {
            FromHost::Ready(facts) => {
                let was = host.subtype();
                if facts.handler.subtype != was {
                    let reason = format!("the plugin is a handler {:?} now, not {was:?}", facts.handler.subtype);
                    return self.not_replaced(key, &reason);
                }
                host.set_ready(generation, facts);
                if let (true, Some(host)) = (host.replacing, host.name()) {
                    self.input(Input::Replace { host });
                }
            }
            FromHost::Unloadable { reason } => self.not_replaced(key, &reason),
            _ => {}
        }
    }

    pub(super) fn next_gone(&mut self, key: HostKey, ended: &str) {
        let Some(host) = self.hosts.get_mut(&key) else { return };
        let ready = host.next.as_ref().and_then(Running::ready_since);
        if let (Some(ready), false) = (ready, host.replacing) {
            // It could load the plugin, so another can too; but not more often than once in a while.
            tracing::warn!(handler = host.subtype(), "the process that was kept ready to take over ended ({ended})");
            host.next.take().into_iter().for_each(Running::end_later);
            host.standby = Some(ready + NO_STANDBY);
            return self.start_standby(key, Instant::now());
        }
        self.not_replaced(key, &format!("the new process ended while it loaded the plugin ({ended}); the old one goes on"));
    }

    /// A host has closed its devices for the one that takes its place.
    pub(super) fn swap(&mut self, name: &HostName) {
        let Some(key) = self.key_of(name) else { return };
        // Without one it goes on itself.
        self.promote(key);
        self.input(Input::HostUp { host: name.clone() });
        self.replaced(key);
    }

    /// A host is gone: one that was to take its place does it now.
    pub(super) fn replace_dead(&mut self, key: HostKey) {
        if self.promote(key)
            && let Some(host) = self.hosts.get(&key).filter(|host| host.is_ready()).and_then(Host::name)
        {
            self.input(Input::HostUp { host });
            self.replaced(key);
        }
    }

    /// Keeps a process ready for each handler that serves devices: to start one is most of the pause when a host dies.
    pub(super) fn start_standbys(&mut self, now: Instant) {
        let keys: Vec<HostKey> = self.hosts.keys().copied().collect();
        keys.into_iter().for_each(|key| self.start_standby(key, now));
    }

    /// As [`Supervisor::start_standbys`], for one host: once its devices are served, since they come first.
    pub(super) fn start_standby(&mut self, key: HostKey, now: Instant) {
        if self.end.is_some() || self.handover.is_some() {
            return;
        }
        let config = &self.config;
        let lacks = |host: &&mut Host| host.lacks_standby(now) && config.of_handler(&host.subtype()).standby;
        let Some(host) = self.hosts.get_mut(&key).filter(lacks) else { return };
        let Some(name) = host.name() else { return };
        let mut serves = false;
        for device in self.machine.devices().values().filter(|device| device.host == name) {
            match device.state {
                State::Preparing | State::Waiting | State::Opening => return,
                _ => serves = true,
            }
        }
        if serves && let Err(error) = host.start_next(key, &self.config, &self.run, &self.happenings) {
            tracing::warn!(%error, "no host can be kept ready");
            host.standby = Some(now + NO_STANDBY);
        }
    }

    /// Ends processes that are kept ready for handlers that are not to have one any more.
    pub(super) fn end_standbys(&mut self) {
        for host in self.hosts.values_mut().filter(|host| !host.replacing) {
            if !self.config.of_handler(&host.subtype()).standby {
                host.next.take().into_iter().for_each(Running::end_later);
            }
        }
    }

    fn promote(&mut self, key: HostKey) -> bool {
        let Some(host) = self.hosts.get_mut(&key).filter(|host| host.next.is_some()) else { return false };
        host.swap();
        let handler = host.handler().cloned();
        if let (Some(bus), Some(handler), None) = (&self.bus, handler, &host.device) {
            bus.add_handler(handler);
        }
        self.send_settings(key);
        true
    }

    pub(super) fn replaced(&mut self, key: HostKey) {
        self.replacements.iter_mut().for_each(|replacement| {
            replacement.going.remove(&key);
        });
        self.advance();
    }

    /// Could not be: who asked is told why, and the hosts that were not begun with stay.
    pub(super) fn not_replaced(&mut self, key: HostKey, reason: &str) {
        if let Some(host) = self.hosts.get_mut(&key) {
            host.next.take().into_iter().for_each(Running::end_later);
            (host.replacing, host.standby) = (false, Some(Instant::now() + NO_STANDBY));
        }
        for failed in self.replacements.extract_if(.., |replacement| replacement.going.contains(&key)) {
            tracing::error!("not restarted: {reason}");
            failed.question.answer_check(false, reason.to_owned());
        }
    }

    pub(super) fn replacement_deadline(&self) -> Option<Instant> {
        let handover = self.handover.as_ref().and_then(|handover| handover.at);
        self.replacements.iter().map(|replacement| replacement.deadline).chain(handover).min()
    }

    pub(super) fn replacements_wait(&mut self) {
        let now = Instant::now();
        for late in self.replacements.extract_if(.., |replacement| replacement.deadline <= now) {
            late.question.answer_check(false, format!("not done after {} s; it goes on, see the log", PATIENCE.as_secs()));
        }
        if !self.replacements.is_empty() {
            self.advance();
        }
        if let Some(Handover { at: Some(at), latest, .. }) = self.handover
            && at <= now
        {
            self.become_successor(now >= latest);
        }
    }

    /// Becomes the program that is at our path now, if that can run.
    pub(super) fn hand_over(&mut self, question: Option<Question>) {
        let refuse = |question: Option<Question>, reason: &str| {
            tracing::error!("no handover: {reason}");
            question.into_iter().for_each(|question| question.answer_check(false, reason.to_owned()));
        };
        if self.end.is_some() || self.handover.is_some() {
            return refuse(question, "the daemon is stopping, or handing over already");
        }
        let (program, happenings) = (self.start.program.clone(), self.happenings.clone());
        let check = thread::Builder::new().name("successor".into()).spawn(move || {
            let _ = happenings.send(Happening::Successor(check_successor(&program)));
        });
        match check {
            Ok(_) => self.handover = Some(Handover { question, at: None, latest: Instant::now() + CHECK + TOOLS }),
            Err(error) => refuse(question, &error.to_string()),
        }
    }

    pub(super) fn successor(&mut self, outcome: Result<(), String>) {
        let Some(handover) = &mut self.handover else { return };
        let question = handover.question.take();
        match outcome {
            Ok(()) => {
                question.into_iter().for_each(|question| question.answer_check(true, "handing over".into()));
                handover.at = Some(Instant::now() + FAREWELL);
                handover.latest = Instant::now() + TOOLS;
            }
            Err(reason) => {
                let program = self.start.program.display();
                tracing::error!("{program} cannot take over, this one goes on: {reason}");
                question.into_iter().for_each(|question| question.answer_check(false, format!("{program}: {reason}")));
                self.handover = None;
            }
        }
    }

    /// Hosts serve on meanwhile; the successor finds them by their sockets.
    fn become_successor(&mut self, in_any_case: bool) {
        let Some(kernel) = &self.kernel else { return };
        let later = |handover: &mut Option<Handover>| {
            if let Some(handover) = handover {
                handover.at = Some(Instant::now() + Duration::from_millis(50));
            }
        };
        if !in_any_case && (kernel.owes(self.machine.left()) || !self.replacements.is_empty()) {
            return later(&mut self.handover);
        }
        // Whoever enables or removes a device in between is told to try again, and does not wait for an answer that nobody gives.
        let block = kernel.hold_events();
        if !in_any_case && kernel.owes(self.machine.left()) {
            return later(&mut self.handover);
        }
        // The next one has the watchdog's whole time to begin.
        notify("RELOADING=1\nWATCHDOG=1");
        tracing::info!(program = %self.start.program.display(), "handing over");
        crate::logging::flush();
        let error = Command::new(&self.start.program).args(std::env::args_os().skip(1)).exec();
        tracing::error!(%error, "the handover failed; this one goes on");
        drop(block);
        notify("READY=1");
        self.handover = None;
    }
}

/// Asks the program whether it runs at all and finds the configuration right.
fn check_successor(program: &Path) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).arg("successor").stdin(Stdio::null());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| format!("it cannot be run: {error}"))?;
    let end = Instant::now() + CHECK;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(20)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not say within {} s whether it can run", CHECK.as_secs()));
            }
        }
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        let reason = complained.lines().last().unwrap_or("it says nothing").to_owned();
        return Err(format!("{reason} ({})", output.status));
    }
    match said.trim().parse::<u32>() {
        Ok(PROTOCOL) => {}
        Ok(protocol) => {
            tracing::warn!(protocol, "the next program cannot talk with these hosts: it restarts them, with a short pause");
        }
        Err(_) => return Err(format!("it says {:?} and not which protocol it speaks", said.trim())),
    }
    Ok(())
}

/// What a program says that is asked whether it can take over.
pub fn successor_answer() -> String {
    PROTOCOL.to_string()
}

/// Whether the plugin on disk is another one than a host has loaded.
pub(super) fn is_outdated(facts: &HostFacts) -> bool {
    facts.stamp.is_some() && crate::protocol::FileStamp::of(&facts.plugin).ok() != facts.stamp
}
