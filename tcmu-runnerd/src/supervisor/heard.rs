//! What is heard of hosts: their words, their silence, their end.
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tcmu::BackstoreId;

use super::{
    OWN_REQUESTS, Supervisor,
    hosts::{Host, HostKey},
    machine::{Input, State},
    questions::Waiting,
};
use crate::{
    dbus::Question,
    protocol::{FromHost, Outcome, PROTOCOL},
};

/// How often hosts are looked for, at least and at most.
const SLOW_LOOK: Duration = Duration::from_secs(5);
const QUICK_LOOK: Duration = Duration::from_millis(250);

impl Supervisor {
    pub(super) fn host_said(&mut self, key: HostKey, generation: u64, message: FromHost) {
        match message {
            FromHost::Hello { protocol: PROTOCOL, .. } | FromHost::Has { .. } | FromHost::ThatIsAll => {}
            FromHost::Hello { protocol, version } => {
                tracing::error!(protocol, version, "a handler host speaks another protocol");
                if let Some(running) = self.hosts.get(&key).and_then(|host| host.running.as_ref()) {
                    running.kill();
                }
            }
            FromHost::Ready(facts) => self.host_ready(key, generation, facts),
            FromHost::Unloadable { reason } => self.unloadable(key, reason),
            FromHost::Answer { id, outcome } if id >= OWN_REQUESTS => self.answered(id, outcome),
            FromHost::Answer { id, outcome } => {
                if let (Outcome::Done, Some(host)) = (&outcome, self.hosts.get_mut(&key))
                    && let Some(running) = &mut host.running
                {
                    running.did = Some(Instant::now());
                }
                self.input(Input::Answer { request: id, outcome });
                self.start_standby(key, Instant::now());
            }
            FromHost::DeviceFailed { device, reason } => {
                if let Ok(id) = device.parse() {
                    self.input(Input::DeviceFailed { id, reason });
                }
            }
            FromHost::Alive { late } => self.alive(key, late),
        }
    }

    /// A host says how long its devices' commands take.
    fn alive(&mut self, key: HostKey, late: Vec<(String, u64)>) {
        let Some(name) = self.hosts.get(&key).and_then(Host::name) else { return };
        let mut late: HashMap<BackstoreId, Duration> =
            late.into_iter().filter_map(|(device, ms)| Some((device.parse().ok()?, Duration::from_millis(ms)))).collect();
        // Those that are not named any more are well again.
        for (id, device) in self.machine.devices() {
            if device.host == name && device.hangs.is_some() && device.state == State::Serving {
                late.entry(id.clone()).or_default();
            }
        }
        for (id, age) in late {
            if self.machine.devices().get(&id).is_some_and(|device| device.host == name) {
                self.input(Input::Oldest { id, age });
            }
        }
    }

    pub(super) fn host_gone(&mut self, key: HostKey, ended: &str) {
        let Some(host) = self.hosts.get_mut(&key) else { return };
        host.buried(ended);
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
            let next = match self.hosts.get(&key).map_or(0, |host| host.deaths.0) {
                0 | 1 => "starting another".to_owned(),
                n => {
                    let at =
                        self.hosts.get(&key).and_then(Host::restart_at).map(|at| at.saturating_duration_since(Instant::now()));
                    let seconds = at.unwrap_or_default().as_secs_f32();
                    format!("for the {n}th time in a row, as soon as it was ready; starting another in {seconds:.1} s")
                }
            };
            tracing::error!(handler = name.subtype, devices = affected.join(" "), "its host ended ({ended}); {next}");
        }
        // Answers that it owes are not coming.
        let owed = |waiting: &Waiting| match waiting {
            Waiting::Check(Question::CheckConfig { subtype, .. }) => name.device.is_none() && *subtype == name.subtype,
            Waiting::Medium(change) => change.host == name,
            _ => false,
        };
        let lost: Vec<u64> = self.waiting.iter().filter(|(_, (w, _))| owed(w)).map(|(r, _)| *r).collect();
        for request in lost {
            match self.waiting.remove(&request) {
                Some((Waiting::Check(question), _)) => question.answer_check(false, "the handler ended; try again".into()),
                Some((Waiting::Medium(change), _)) => self.medium_lost(change),
                _ => {}
            }
        }
        self.input(Input::HostDown { host: name });
        self.replace_dead(key);
    }

    /// Looks which hosts have not been heard of. They are counted by looks and not by the clock, which goes on while we are stopped.
    pub(super) fn look_for_hosts(&mut self, now: Instant) {
        let period = self.look_period();
        self.look = now + period;
        let mut silent = Vec::new();
        for host in self.hosts.values_mut() {
            let name = host.name();
            if let (Some(name), Some(running)) = (name, host.running.as_mut().filter(|running| running.is_ready())) {
                running.missed = running.missed.saturating_add(1);
                if running.missed > 2 {
                    silent.push((name, period * running.missed));
                }
            }
        }
        for (host, time) in silent {
            self.input(Input::HostSilent { host, time });
        }
        self.start_standbys(now);
    }

    /// How often hosts tell that they are there: often enough to notice in time that a command takes too long.
    pub(super) fn look_period(&self) -> Duration {
        let policies = self.config.policies();
        let handlers = self.hosts.values().filter_map(Host::handler);
        let shortest = handlers.filter_map(|handler| policies.shortest_hang(&handler.subtype)).min();
        shortest.map_or(SLOW_LOOK, |hang| (hang / 8).clamp(QUICK_LOOK, SLOW_LOOK))
    }

    pub(super) fn restart_hosts(&mut self) {
        let now = Instant::now();
        if self.end.is_some() {
            return;
        }
        for (key, host) in &mut self.hosts {
            if host.restart_at().is_some_and(|at| at <= now)
                && let Err(error) = host.start(*key, &self.config, &self.run, &self.happenings)
            {
                tracing::error!(%error, "a handler host cannot be started");
                host.retry();
            }
        }
    }
}
