//! Questions from the bus: those that hosts have to be asked for wait here until they answered, or time is up.
use std::time::{Duration, Instant};

use tcmu::{BackstoreId, server::counters::Counters};

use super::{
    Supervisor,
    hosts::Host,
    machine::{self, HostName},
    replacement::is_outdated,
};
use crate::{
    dbus::{Field, Question, Row},
    logging,
    protocol::{Outcome, ToHost},
};

/// What an answer of a host is for.
pub(super) enum Waiting {
    Check(Question),
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
            Question::Devices { .. } => question.answer_rows(self.device_rows()),
            Question::ConfigProblem { .. } => question.answer_text(self.config_problem.clone().unwrap_or_default()),
            Question::Statistics { .. } => question.answer_statistics(self.statistics()),
            Question::StartTrace { .. } | Question::StopTrace { .. } => self.trace(question),
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

    pub(super) fn answered(&mut self, request: u64, outcome: Outcome) {
        if let Some((Waiting::Check(question), _)) = self.waiting.remove(&request) {
            match outcome {
                Outcome::Refused { message, .. } => question.answer_check(false, message),
                Outcome::Done => question.answer_check(true, "success".into()),
            }
        }
    }

    fn device_rows(&self) -> Vec<Row> {
        let row = |(id, device): (&BackstoreId, &machine::Device)| {
            let pid = self.host_of(&device.host).and_then(Host::pid).unwrap_or(0);
            let size = self.prepared.get(id).map_or(0, |prepared| prepared.facts.size);
            let counters = self.pages.read(id);
            device_row(id, device, self.state_of(device), counters.as_ref(), size, pid)
        };
        self.machine.devices().iter().map(row).collect()
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

fn device_row(
    id: &BackstoreId,
    device: &machine::Device,
    state: String,
    counters: Option<&Counters>,
    size: u64,
    pid: u32,
) -> Row {
    let mut row: Row = vec![
        ("device".into(), Field::Text(id.to_string())),
        ("handler".into(), Field::Text(device.name.subtype.clone())),
        ("config".into(), Field::Text(device.name.config.clone())),
        ("uio".into(), Field::Text(format!("uio{}", device.minor))),
        ("state".into(), Field::Text(state)),
        ("size".into(), Field::Number(counters.map(|counters| counters.size).filter(|size| *size > 0).unwrap_or(size))),
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
