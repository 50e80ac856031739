//! What holds for single handlers and devices: `[handler.NAME]` and `[device."user_0/name"]`.
use serde::{Deserialize, Serialize};

use super::Config;
use crate::policy::{HangAction, PolicyChange};

/// What `[handler.NAME]` says. What it leaves out is as for all handlers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // as in Config and HandlerSettings
pub struct HandlerSection {
    pub enabled: Option<bool>,
    pub user: Option<String>,
    pub confined: Option<bool>,
    pub host_per_device: Option<bool>,
    pub standby: Option<bool>,
    pub reactors: Option<usize>,
    pub workers: Option<usize>,
    pub io_engine: Option<String>,
    pub poll_microseconds: Option<u64>,
    pub stay_put: Option<bool>,
    pub give_way: Option<bool>,
    pub give_up_seconds: Option<u64>,
    pub hang_seconds: Option<u64>,
    pub hang_action: Option<HangAction>,
    pub slow_command_ms: Option<u64>,
}

/// What holds for one handler.
#[derive(Clone, Debug, PartialEq)]
pub struct HandlerSettings {
    /// Whether it is loaded.
    pub enabled: bool,
    /// Whom its processes run as; `None`: root, with few capabilities.
    pub user: Option<String>,
    /// Whether its processes get few capabilities and system calls only.
    pub confined: bool,
    /// Whether each of its devices gets a process.
    pub host_per_device: bool,
    /// Whether a second process is kept ready.
    pub standby: bool,
    /// Threads that serve rings; 0: one for each core, at most 4.
    pub reactors: usize,
    /// Threads for what blocks; 0: four for each core, at most 32.
    pub workers: usize,
    /// How I/O that may block is done.
    pub io_engine: String,
    /// The longest time that a thread looks at its busy rings before it sleeps.
    pub poll_microseconds: u64,
    /// Whether it may keep itself on one processor.
    pub stay_put: bool,
    /// Whether it may make its priority the lowest.
    pub give_way: bool,
}

impl HandlerSection {
    /// What it says of devices whose handler is away or hangs.
    pub fn policy(&self) -> PolicyChange {
        let HandlerSection { give_up_seconds, hang_seconds, hang_action, slow_command_ms, .. } = *self;
        PolicyChange { give_up_seconds, hang_seconds, hang_action, slow_command_ms }
    }
}

impl Config {
    /// What holds for a handler.
    pub fn of_handler(&self, subtype: &str) -> HandlerSettings {
        let section = self.handler.get(subtype).cloned().unwrap_or_default();
        HandlerSettings {
            enabled: section.enabled.unwrap_or(true),
            user: section.user,
            confined: section.confined.unwrap_or(true),
            host_per_device: section.host_per_device.unwrap_or(false),
            standby: section.standby.unwrap_or(self.standby),
            reactors: section.reactors.unwrap_or(self.reactors),
            workers: section.workers.unwrap_or(self.workers),
            io_engine: section.io_engine.unwrap_or_else(|| self.io_engine.clone()),
            poll_microseconds: section.poll_microseconds.unwrap_or(self.poll_microseconds),
            stay_put: section.stay_put.unwrap_or(self.stay_put),
            give_way: section.give_way.unwrap_or(self.give_way),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_section_counts_for_its_handler_and_what_it_leaves_out_is_as_for_all() {
        let text = "workers = 8\nstandby = true\n[handler.rbd]\nworkers = 2\nuser = \"root\"\n[handler.null]\nenabled = false";
        let config = Config::parse(text, Path::new("t")).unwrap();
        let (rbd, null, file) = (config.of_handler("rbd"), config.of_handler("null"), config.of_handler("file"));
        assert_eq!((rbd.workers, rbd.standby, rbd.user.as_deref(), rbd.enabled), (2, true, Some("root"), true));
        assert_eq!((null.workers, null.enabled), (8, false));
        assert_eq!((file.workers, file.confined, file.host_per_device, file.user), (8, true, false, None));
    }
}
