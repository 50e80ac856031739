//! What a change of the configuration does to a daemon that runs: which options are in force at once, and which have to wait.
use std::{collections::BTreeMap, fmt};

use super::{Config, HandlerSection};

/// When a changed option takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// When the configuration is read.
    AtOnce,
    /// When a handler's process is started: by `tcmuctl handler restart NAME`, or after it died.
    HandlerRestart,
    /// When the daemon is: by `tcmuctl reload --exec`, without a pause in I/O.
    DaemonRestart,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Effect::AtOnce => "at once",
            Effect::HandlerRestart => "handler restart",
            Effect::DaemonRestart => "daemon restart",
        })
    }
}

/// Every option, by its name without the section.
pub const EFFECTS: &[(&str, Effect)] = &[
    ("log_level", Effect::AtOnce),
    ("handler_path", Effect::DaemonRestart),
    ("foreign_subtypes", Effect::DaemonRestart),
    ("reactors", Effect::HandlerRestart),
    ("workers", Effect::HandlerRestart),
    ("io_engine", Effect::HandlerRestart),
    ("poll_microseconds", Effect::HandlerRestart),
    ("stay_put", Effect::HandlerRestart),
    ("give_way", Effect::HandlerRestart),
    ("standby", Effect::AtOnce),
    ("lock_memory", Effect::DaemonRestart),
    ("give_up_seconds", Effect::AtOnce),
    ("hang_seconds", Effect::AtOnce),
    ("hang_action", Effect::AtOnce),
    ("slow_command_ms", Effect::AtOnce),
    ("metrics", Effect::DaemonRestart),
    ("copy_between", Effect::HandlerRestart),
    ("open_timeout_seconds", Effect::AtOnce),
    ("check_timeout_seconds", Effect::AtOnce),
    ("drain_timeout_seconds", Effect::AtOnce),
    ("netlink_buffer_kib", Effect::DaemonRestart),
    ("enabled", Effect::DaemonRestart),
    ("user", Effect::HandlerRestart),
    ("confined", Effect::HandlerRestart),
    ("host_per_device", Effect::DaemonRestart),
];

fn effect_of(option: &str) -> Effect {
    let known = EFFECTS.iter().find(|(name, _)| *name == option);
    known.map_or(Effect::DaemonRestart, |(_, effect)| *effect)
}

/// The options in which two configurations differ, as `handler.file.workers`, by when they take effect.
pub fn changes(old: &Config, new: &Config) -> BTreeMap<Effect, Vec<String>> {
    let mut changes: BTreeMap<Effect, Vec<String>> = BTreeMap::new();
    let (Ok(old), Ok(new)) = (toml::Table::try_from(old), toml::Table::try_from(new)) else { return changes };
    compare("", &old, &new, &mut |path, option| changes.entry(effect_of(option)).or_default().push(path));
    changes
}

fn compare(path: &str, old: &toml::Table, new: &toml::Table, differs: &mut impl FnMut(String, &str)) {
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(added) {
        let shown = if key.contains('/') { format!("{path}\"{key}\"") } else { format!("{path}{key}") };
        let table = |of: &toml::Table| of.get(key).and_then(toml::Value::as_table).cloned();
        match (table(old), table(new)) {
            (None, None) if old.get(key) == new.get(key) => {}
            (None, None) => differs(shown, key),
            (old, new) => {
                compare(&format!("{shown}."), &old.unwrap_or_default(), &new.unwrap_or_default(), differs);
            }
        }
    }
}

impl Config {
    /// What holds from now on where `self` held, after `new` was read: all of it but what needs a restart of the daemon.
    pub fn changed_to(&self, new: Config) -> Config {
        let mut next = Config {
            handler_path: self.handler_path.clone(),
            foreign_subtypes: self.foreign_subtypes.clone(),
            lock_memory: self.lock_memory,
            netlink_buffer_kib: self.netlink_buffer_kib,
            metrics: self.metrics.clone(),
            ..new
        };
        for (name, old) in &self.handler {
            next.handler.entry(name.clone()).or_default().keep(old);
        }
        for (name, section) in &mut next.handler {
            if !self.handler.contains_key(name) {
                section.keep(&HandlerSection::default());
            }
        }
        next.handler.retain(|_, section| *section != HandlerSection::default());
        next
    }
}

impl HandlerSection {
    fn keep(&mut self, old: &HandlerSection) {
        (self.enabled, self.host_per_device) = (old.enabled, old.host_per_device);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("t")).unwrap()
    }

    #[test]
    fn changes_are_named_by_when_they_take_effect() {
        let old = config("workers = 1\n[handler.null]\nenabled = false\n[device.\"user_0/a\"]\nhang_seconds = 5");
        let new = config("log_level = \"debug\"\n[handler.file]\nworkers = 3\nhost_per_device = true");
        let changes = changes(&old, &new);
        assert_eq!(changes[&Effect::AtOnce], ["device.\"user_0/a\".hang_seconds", "log_level"]);
        assert_eq!(changes[&Effect::HandlerRestart], ["handler.file.workers", "workers"]);
        assert_eq!(changes[&Effect::DaemonRestart], ["handler.null.enabled", "handler.file.host_per_device"]);
        assert!(super::changes(&new, &new.clone()).is_empty());
    }

    #[test]
    fn what_needs_a_restart_of_the_daemon_stays_and_the_rest_changes() {
        let old = config("handler_path = [\"/a\"]\n[handler.null]\nenabled = false\nworkers = 2");
        let new = config("handler_path = [\"/b\"]\nlog_level = \"debug\"\n[handler.file]\nworkers = 3\nhost_per_device = true");
        let next = old.changed_to(new.clone());
        assert_eq!(
            next,
            config(
                "handler_path = [\"/a\"]\nlog_level = \"debug\"\n[handler.null]\nenabled = false\n[handler.file]\nworkers = 3"
            )
        );
        let left = changes(&next, &new);
        assert_eq!(left.keys().collect::<Vec<_>>(), [&Effect::DaemonRestart], "what is left waits for the daemon: {left:?}");
        assert_eq!(next.changed_to(new.clone()), next);
    }

    #[test]
    fn every_option_has_its_effect_in_the_manual() {
        let manual = include_str!("../../../docs/configuration.md");
        for (option, effect) in EFFECTS {
            let row = manual.lines().find(|line| line.starts_with(&format!("| `{option}` |")));
            let row = row.unwrap_or_else(|| panic!("{option} is not in docs/configuration.md"));
            assert!(row.trim_end_matches(" |").ends_with(&format!("| {effect}")), "{row}: {effect}");
        }
        let names = |table: toml::Table| table.keys().cloned().collect::<Vec<_>>();
        let section = HandlerSection {
            enabled: Some(true),
            user: Some(String::new()),
            confined: Some(true),
            host_per_device: Some(true),
            ..HandlerSection::default()
        };
        let all = [names(toml::Table::try_from(Config::default()).unwrap()), names(toml::Table::try_from(section).unwrap())];
        for name in all.concat() {
            assert!(name == "handler" || name == "device" || EFFECTS.iter().any(|(option, _)| *option == name), "{name}");
        }
    }
}
