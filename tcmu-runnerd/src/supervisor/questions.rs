//! Questions from the bus: those that hosts have to be asked for wait here until they answered, or time is up.
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use tcmu::BackstoreId;

use super::{
    Supervisor,
    hosts::Host,
    machine::{self, HostName, State},
    replacement::is_outdated,
};
use crate::{
    dbus::{Field, Question, Row},
    logging,
    protocol::{Counters, Outcome, ToHost},
};

/// How long hosts may take to tell their counters.
const COUNT: Duration = Duration::from_secs(2);

/// What an answer of a host is for.
pub(super) enum Waiting {
    Check(Question),
    Counters { gather: u64 },
}

/// An answer about all devices that is being put together.
pub(super) struct Gathering {
    question: Question,
    missing: usize,
    counters: HashMap<BackstoreId, Counters>,
    pub(super) deadline: Instant,
}

impl Supervisor {
    pub(super) fn request(&mut self, waiting: Waiting, timeout: Duration) -> u64 {
        self.next_request += 1;
        self.waiting.insert(self.next_request, (waiting, Instant::now() + timeout));
        self.next_request
    }

    /// A question from the bus.
    pub(super) fn asked(&mut self, question: Question) {
        match &question {
            Question::CheckConfig { subtype, config, .. } => {
                let (subtype, config) = (subtype.clone(), config.clone());
                let host = HostName::of_handler(&subtype);
                if !self.host_of(&host).is_some_and(Host::is_ready) {
                    return question.answer_check(false, format!("the handler {subtype} is not running at the moment"));
                }
                let request = self.request(Waiting::Check(question), self.config.check_timeout());
                self.send(&host, ToHost::CheckConfig { id: request, config });
            }
            Question::Handlers { .. } => {
                let rows = self.hosts.values().filter(|host| host.device.is_none()).map(handler_row).collect();
                question.answer_rows(rows);
            }
            Question::Devices { .. } => self.gather(question),
            Question::ConfigProblem { .. } => question.answer_text(self.config_problem.clone().unwrap_or_default()),
            Question::RestartHandler { subtype, .. } => {
                let subtype = subtype.clone();
                self.restart_handler(&subtype, question);
            }
            Question::Reload { exec: true, .. } => self.hand_over(Some(question)),
            Question::Reload { exec: false, .. } => match self.reload() {
                Ok(said) => question.answer_check(true, said),
                Err(error) => question.answer_check(false, error),
            },
            Question::SetLogLevel { level, .. } => {
                let valid = logging::is_level(level);
                if valid {
                    let level = level.clone();
                    self.set_log_level(&level);
                }
                question.answer_check(valid, "error, warn, info, debug or trace is needed".into());
            }
        }
    }

    fn gather(&mut self, question: Question) {
        // A host that is not heard of keeps nobody waiting.
        let asked = |host: &HostName| self.host_of(host).and_then(|host| host.running.as_ref()).is_some_and(|r| r.missed < 2);
        let serving = self.machine.devices().values().filter(|device| device.state == State::Serving);
        let hosts: HashSet<HostName> = serving.map(|device| device.host.clone()).filter(asked).collect();
        self.next_request += 1;
        let key = self.next_request;
        let gathering = Gathering { question, missing: hosts.len(), counters: HashMap::new(), deadline: Instant::now() + COUNT };
        self.gatherings.insert(key, gathering);
        for host in &hosts {
            let request = self.request(Waiting::Counters { gather: key }, COUNT);
            self.send(host, ToHost::Counters { id: request });
        }
        if hosts.is_empty() {
            self.gathered(key);
        }
    }

    pub(super) fn answered(&mut self, request: u64, outcome: Outcome) {
        if let Some((Waiting::Check(question), _)) = self.waiting.remove(&request) {
            match outcome {
                Outcome::Refused { message, .. } => question.answer_check(false, message),
                Outcome::Done => question.answer_check(true, "success".into()),
            }
        }
    }

    /// A host tells counters; there are more unless `last`.
    pub(super) fn counted(&mut self, request: u64, devices: Vec<(String, Counters)>, last: bool) {
        let Some((Waiting::Counters { gather }, _)) = self.waiting.get(&request) else { return };
        let gather = *gather;
        if last {
            self.waiting.remove(&request);
        }
        let Some(gathering) = self.gatherings.get_mut(&gather) else { return };
        gathering.counters.extend(devices.into_iter().filter_map(|(device, counters)| Some((device.parse().ok()?, counters))));
        if last {
            gathering.missing -= 1;
            if gathering.missing == 0 {
                self.gathered(gather);
            }
        }
    }

    pub(super) fn gathered(&mut self, key: u64) {
        let Some(gathering) = self.gatherings.remove(&key) else { return };
        let rows = self
            .machine
            .devices()
            .iter()
            .map(|(id, device)| {
                let pid = self.host_of(&device.host).and_then(Host::pid).unwrap_or(0);
                let size = self.prepared.get(id).map_or(0, |prepared| prepared.facts.size);
                let killed = self.machine.is_killed(&device.host);
                device_row(id, device, killed, gathering.counters.get(id), size, pid)
            })
            .collect();
        gathering.question.answer_rows(rows);
    }
}

fn handler_row(host: &Host) -> Row {
    let mut row: Row = vec![("plugin".into(), Field::Text(host.plugin.display().to_string()))];
    if let Some(facts) = host.handler() {
        row.push(("subtype".into(), Field::Text(facts.subtype.clone())));
        row.push(("name".into(), Field::Text(facts.name.clone())));
        row.push(("version".into(), Field::Text(facts.version.clone())));
        row.push(("abi".into(), Field::Number(u64::from(facts.abi))));
        row.push(("config_desc".into(), Field::Text(facts.config_desc.clone())));
        row.push(("io_flusher".into(), Field::Flag(facts.io_flusher)));
    }
    let state = match &host.unloadable {
        Some(reason) => reason.clone(),
        None if host.is_ready() => "running".into(),
        None => starting(host),
    };
    row.push(("state".into(), Field::Text(state)));
    row.push(("outdated".into(), Field::Flag(host.facts.as_ref().is_some_and(is_outdated))));
    row.push(("pid".into(), Field::Number(u64::from(host.pid().unwrap_or(0)))));
    row.push(("restarts".into(), Field::Number(host.restarts)));
    row
}

/// What is known of a host that is not there.
fn starting(host: &Host) -> String {
    let (deaths, ended) = &host.deaths;
    match host.restart_at() {
        Some(at) if *deaths > 1 => {
            let seconds = at.saturating_duration_since(Instant::now()).as_secs_f32();
            format!("ended {deaths} times in a row as soon as it was ready ({ended}); starting again in {seconds:.1} s")
        }
        _ => "starting".into(),
    }
}

fn device_row(id: &BackstoreId, device: &machine::Device, killed: bool, counters: Option<&Counters>, size: u64, pid: u32) -> Row {
    let mut state = device.state.to_string();
    if let Some(time) = device.hangs {
        state.push_str(&format!(", hangs for {} s", time.as_secs()));
    }
    if killed {
        state.push_str(", its host is killed but has not ended");
    }
    let mut row: Row = vec![
        ("device".into(), Field::Text(id.to_string())),
        ("handler".into(), Field::Text(device.name.subtype.clone())),
        ("config".into(), Field::Text(device.name.config.clone())),
        ("uio".into(), Field::Text(format!("uio{}", device.minor))),
        ("state".into(), Field::Text(state)),
        ("size".into(), Field::Number(counters.map_or(size, |counters| counters.size))),
        ("pid".into(), Field::Number(u64::from(pid))),
    ];
    if let Some(counters) = counters {
        for (name, value) in [
            ("commands", counters.commands),
            ("reads", counters.reads),
            ("writes", counters.writes),
            ("bytes_read", counters.bytes_read),
            ("bytes_written", counters.bytes_written),
            ("errors", counters.errors),
            ("in_flight", counters.in_flight),
        ] {
            row.push((name.into(), Field::Number(value)));
        }
    }
    row
}
