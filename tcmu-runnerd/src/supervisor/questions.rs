//! Questions from the bus: those that hosts have to be asked for wait here until they answered, or time is up.
use std::time::{Duration, Instant};

use tcmu::{BackstoreId, server::counters::Counters};

use super::{
    Supervisor,
    hosts::Host,
    kernel::Prepared,
    machine::{self, HostName},
    media::MediumChange,
    programs::program_row,
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
    Medium(MediumChange),
}

impl Supervisor {
    pub(super) fn request(&mut self, waiting: Waiting, timeout: Duration) -> u64 {
        self.next_request += 1;
        self.waiting.insert(self.next_request, (waiting, Instant::now() + timeout));
        self.next_request
    }

    /// A question from the bus.
    pub(super) fn asked(&mut self, question: Question) {
        let question = match question {
            Question::ChangeMedium { medium, reply } => return self.change_medium(medium, reply),
            Question::Register { program, reply } => {
                let outcome = self.register(program);
                let _ = reply.send(outcome);
                return;
            }
            Question::Unregister { subtype, owner, reply } => {
                let was = self.unregister(&subtype, &owner);
                let _ = reply.send(was);
                return;
            }
            Question::BusGone => return self.unregister_all(),
            other => other,
        };
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
                let plugins = self.hosts.values().filter(|host| host.device.is_none()).map(handler_row);
                let rows = plugins.chain(self.programs.values().map(program_row)).collect();
                question.answer_rows(rows);
            }
            Question::Devices { .. } => question.answer_rows(self.device_rows()),
            Question::ConfigProblem { .. } => question.answer_text(self.config_problem.clone().unwrap_or_default()),
            Question::Refusal { device, .. } => {
                let reason = device.parse().ok().and_then(|id| self.machine.refusal(&id)).unwrap_or_default().to_owned();
                question.answer_text(reason);
            }
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
            Question::ChangeMedium { .. } | Question::Register { .. } | Question::Unregister { .. } | Question::BusGone => {}
        }
    }

    pub(super) fn answered(&mut self, request: u64, outcome: Outcome) {
        match (self.waiting.remove(&request), outcome) {
            (Some((Waiting::Check(question), _)), Outcome::Refused { message, .. }) => question.answer_check(false, message),
            (Some((Waiting::Check(question), _)), Outcome::Done) => question.answer_check(true, "success".into()),
            (Some((Waiting::Medium(change), _)), outcome) => self.medium_answered(change, outcome),
            _ => {}
        }
    }

    fn device_rows(&self) -> Vec<Row> {
        let row = |(id, device): (&BackstoreId, &machine::Device)| {
            let pid = self.host_of(&device.host).and_then(Host::pid).unwrap_or(0);
            let counters = self.pages.read(id);
            device_row(id, device, self.state_of(device), counters.as_ref(), self.prepared.get(id), pid)
        };
        self.machine.devices().iter().map(row).collect()
    }
}

/// What is known of a device's size without asking its handler.
pub(super) fn size_of(device: &machine::Device, prepared: Option<&Prepared>) -> u64 {
    device.size.unwrap_or_else(|| prepared.map_or(0, |prepared| prepared.facts.size))
}

pub(super) fn handler_row(host: &Host) -> Row {
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
    row.push(("external".into(), Field::Flag(false)));
    row.push(("running".into(), Field::Flag(host.is_ready() && host.unloadable.is_none())));
    row.push(("state".into(), Field::Text(state)));
    if let Some(user) = host.facts.as_ref().and_then(|facts| facts.user.as_ref()) {
        row.push(("user".into(), Field::Text(user.clone())));
    }
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

pub(super) fn device_row(
    id: &BackstoreId,
    device: &machine::Device,
    state: String,
    counters: Option<&Counters>,
    prepared: Option<&Prepared>,
    pid: u32,
) -> Row {
    let size = counters.map(|counters| counters.size).filter(|size| *size > 0);
    let mut row: Row = vec![
        ("device".into(), Field::Text(id.to_string())),
        ("handler".into(), Field::Text(device.name.subtype.clone())),
        ("config".into(), Field::Text(device.name.config.clone())),
        ("uio".into(), Field::Text(format!("uio{}", device.minor))),
        ("stage".into(), Field::Text(format!("{:?}", device.state.stage()).to_lowercase())),
        ("state".into(), Field::Text(state)),
        ("hangs".into(), Field::Flag(device.hangs.is_some())),
        ("size".into(), Field::Number(size.unwrap_or_else(|| size_of(device, prepared)))),
        ("block_size".into(), Field::Number(prepared.map_or(0, |prepared| u64::from(prepared.facts.block_size)))),
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
