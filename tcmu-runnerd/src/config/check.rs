//! Whether what a configuration says makes sense, beyond what its types demand.
use toml::de::DeTable;

use super::Config;

/// What is wrong, and where it says so: the way to the value, as `["handler", "file", "workers"]`.
pub(super) struct Mistake {
    pub(super) path: Vec<String>,
    pub(super) reason: String,
}

fn wrong<T>(path: &[&str], reason: impl Into<String>) -> Result<T, Mistake> {
    Err(Mistake { path: path.iter().map(ToString::to_string).collect(), reason: reason.into() })
}

impl Config {
    pub(super) fn check(&self) -> Result<(), Mistake> {
        if !crate::logging::is_level(&self.log_level) {
            return wrong(
                &["log_level"],
                format!("log_level = {:?}: error, warn, info, debug or trace is needed", self.log_level),
            );
        }
        for (key, value) in [
            ("open_timeout_seconds", self.open_timeout_seconds),
            ("check_timeout_seconds", self.check_timeout_seconds),
            ("drain_timeout_seconds", self.drain_timeout_seconds),
        ] {
            within(&[], key, value, 1, 3600)?;
        }
        within(&[], "netlink_buffer_kib", self.netlink_buffer_kib as u64, 4, 65_536)?;
        threads(&[], Some(self.reactors), Some(self.workers), Some(&self.io_engine))?;
        poll(&[], Some(self.poll_microseconds))?;
        policy(&[], Some(self.give_up_seconds), Some(self.hang_seconds))?;
        if let Err(problem) = crate::metrics::Endpoint::parse(&self.metrics) {
            return wrong(&["metrics"], format!("metrics = {:?}: {problem}", self.metrics));
        }
        for (name, section) in &self.handler {
            let at = ["handler", name.as_str()];
            if !tcmu_handler_api::host::is_subtype(name) {
                return wrong(&at, format!("[handler.{name:?}]: this can be no handler's subtype"));
            }
            if let Some(user) = &section.user
                && !matches!(nix::unistd::User::from_name(user), Ok(Some(_)))
            {
                let path = [&at[..], &["user"]].concat();
                return wrong(&path, format!("handler.{name}: user = {user:?}: there is no such user on this machine"));
            }
            threads(&at, section.reactors, section.workers, section.io_engine.as_deref())?;
            poll(&at, section.poll_microseconds)?;
            policy(&at, section.give_up_seconds, section.hang_seconds)?;
        }
        for (name, change) in &self.device {
            let at = ["device", name.as_str()];
            if name.parse::<tcmu::BackstoreId>().is_err() {
                return wrong(&at, format!("[device.{name:?}]: this is no device: \"user_<number>/<name>\" is needed"));
            }
            policy(&at, change.give_up_seconds, change.hang_seconds)?;
        }
        for name in self.copy_between.iter().flatten() {
            if name.parse::<tcmu::BackstoreId>().is_err() {
                return wrong(&["copy_between"], format!("copy_between: {name:?} is no device: user_<number>/<name> is needed"));
            }
        }
        Ok(())
    }
}

fn within(at: &[&str], key: &str, value: u64, least: u64, most: u64) -> Result<(), Mistake> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    wrong(&[at, &[key]].concat(), format!("{key} = {value}: {least} to {most} is needed"))
}

fn threads(at: &[&str], reactors: Option<usize>, workers: Option<usize>, io_engine: Option<&str>) -> Result<(), Mistake> {
    for (key, value) in [("reactors", reactors), ("workers", workers)] {
        within(at, key, value.unwrap_or(0) as u64, 0, 1024)?;
    }
    if let Some(Err(problem)) = io_engine.map(str::parse::<tcmu::server::IoEngine>) {
        return wrong(&[at, &["io_engine"]].concat(), format!("io_engine = {problem}"));
    }
    Ok(())
}

fn poll(at: &[&str], longest: Option<u64>) -> Result<(), Mistake> {
    within(at, "poll_microseconds", longest.unwrap_or(0), 0, 1000)
}

fn policy(at: &[&str], give_up: Option<u64>, hang: Option<u64>) -> Result<(), Mistake> {
    within(at, "give_up_seconds", give_up.unwrap_or(0), 0, 86_400)?;
    within(at, "hang_seconds", hang.unwrap_or(0), 0, 86_400)
}

/// The line, from 1, where a text says something; where that can't be found, the nearest thing around it.
pub(super) fn line_of(text: &str, path: &[String]) -> usize {
    let Ok(document) = DeTable::parse(text) else { return 1 };
    let mut table = document.get_ref();
    let mut place = 0;
    for name in path {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref().as_ref() == name) else { break };
        place = key.span().start;
        let Some(inner) = value.get_ref().as_table() else { break };
        table = inner;
    }
    line_at(text, place)
}

/// The line, from 1, of a place in a text.
pub(super) fn line_at(text: &str, place: usize) -> usize {
    text.as_bytes()[..place.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}
