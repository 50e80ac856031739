//! `tcmu.toml`.
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::policy::{HangAction, Policies, Policy, PolicyChange};

/// Where the config file is if the command line doesn't say.
pub const DEFAULT_PATH: &str = "/etc/tcmu/tcmu.toml";

/// The daemon's configuration. Every option is documented in `tcmu.toml.example`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter like `info,tcmu=debug`.
    pub log_level: String,
    /// Directories with plugins.
    pub handler_path: Vec<PathBuf>,
    /// Subtypes of handlers that are not loaded.
    pub disabled_handlers: Vec<String>,
    /// Subtypes that another program on this machine serves: their events are left to it.
    pub foreign_subtypes: Vec<String>,
    /// Threads that serve rings, for each handler; 0: one for each core, at most 4.
    pub reactors: usize,
    /// Threads for handlers that block and for file I/O, for each handler; 0: four for each core, at most 32.
    pub workers: usize,
    /// How I/O that may block is done: `auto`, `io_uring` or `threads`.
    pub io_engine: String,
    /// The longest time that a reactor looks at its busy rings before it sleeps; 0: it sleeps at once.
    pub poll_microseconds: u64,
    /// Subtypes of handlers that get a process for each device.
    pub host_per_device: Vec<String>,
    /// Whether a second process is kept ready for each handler that serves devices.
    pub standby: bool,
    /// Users, by subtype, that handlers run as instead of root.
    pub host_users: BTreeMap<String, String>,
    /// Subtypes of handlers whose processes are not confined.
    pub unconfined_handlers: Vec<String>,
    /// Whether the memory of the daemon and its handlers' processes is kept from being swapped out.
    pub lock_memory: bool,
    /// How long a device may be without a handler before its commands fail; 0: they wait for ever.
    pub give_up_seconds: u64,
    /// How old a command may become before its handler is said to hang; 0: never.
    pub hang_seconds: u64,
    /// What is done then: `report` or `restart`.
    pub hang_action: HangAction,
    /// The three above for single handlers, by subtype, and devices, by `user_<number>/<name>`.
    pub policies: BTreeMap<String, PolicyChange>,
    /// Pairs of devices that initiators of one may copy to and from the other.
    pub copy_between: Vec<[String; 2]>,
    /// How long a handler may take to open a device before the tool that enables it gets `ETIMEDOUT`.
    pub open_timeout_seconds: u64,
    /// How long a handler may take to judge a config string.
    pub check_timeout_seconds: u64,
    /// How long commands in flight may take when a device is removed or the daemon stops.
    pub drain_timeout_seconds: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            log_level: "info".into(),
            handler_path: vec!["/usr/lib/tcmu-runnerd".into(), "/usr/local/lib/tcmu-runnerd".into()],
            disabled_handlers: Vec::new(),
            foreign_subtypes: Vec::new(),
            reactors: 0,
            workers: 0,
            io_engine: "auto".into(),
            poll_microseconds: 250,
            host_per_device: Vec::new(),
            standby: false,
            host_users: BTreeMap::new(),
            unconfined_handlers: Vec::new(),
            lock_memory: true,
            give_up_seconds: 0,
            hang_seconds: 20,
            hang_action: HangAction::Report,
            policies: BTreeMap::new(),
            copy_between: Vec::new(),
            open_timeout_seconds: 20,
            check_timeout_seconds: 10,
            drain_timeout_seconds: 20,
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Others may have written it.
    #[error(transparent)]
    Distrust(#[from] crate::trust::Distrust),
    /// It isn't right.
    #[error("{}:{line}: {reason}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl Config {
    /// Reads a file; without one named, the default one if it is there.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        match fs::read_to_string(file) {
            Ok(text) => {
                crate::trust::check(file)?;
                Config::parse(&text, file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_none() => Ok(Config::default()),
            Err(error) => Err(ConfigError::Read { path: file.to_owned(), error }),
        }
    }

    /// Parses the text of a config file.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let wrong = |line: usize, reason: String| ConfigError::Wrong { path: path.to_owned(), line, reason };
        let config: Config = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let source = text.lines().nth(line - 1).unwrap_or_default().trim();
            let unquoted = source
                .split_once('=')
                .is_some_and(|(_, value)| value.trim().starts_with(|c: char| c == '/' || c.is_ascii_alphabetic()));
            let hint = if unquoted && !error.message().contains("unknown field") { " (text needs quotes)" } else { "" };
            wrong(line, format!("{}{hint}", error.message().replace('\n', " ")))
        })?;
        let line_of = |key: &str| text.lines().position(|line| line.trim_start().starts_with(key)).map_or(1, |n| n + 1);
        if !crate::logging::is_level(&config.log_level) {
            let line = line_of("log_level");
            return Err(wrong(line, format!("log_level = {:?}: error, warn, info, debug or trace is needed", config.log_level)));
        }
        for (key, value) in [
            ("open_timeout_seconds", config.open_timeout_seconds),
            ("check_timeout_seconds", config.check_timeout_seconds),
            ("drain_timeout_seconds", config.drain_timeout_seconds),
        ] {
            if !(1..=3600).contains(&value) {
                return Err(wrong(line_of(key), format!("{key} = {value}: 1 to 3600 is needed")));
            }
        }
        for (subtype, user) in &config.host_users {
            if !matches!(nix::unistd::User::from_name(user), Ok(Some(_))) {
                let line = line_of("host_users");
                return Err(wrong(line, format!("host_users: {subtype} = {user:?}: there is no such user on this machine")));
            }
        }
        for name in config.copy_between.iter().flatten() {
            if name.parse::<tcmu::BackstoreId>().is_err() {
                let line = line_of("copy_between");
                return Err(wrong(line, format!("copy_between: {name:?} is no device: user_<number>/<name> is needed")));
            }
        }
        for name in config.policies.keys() {
            if name.contains('/') && name.parse::<tcmu::BackstoreId>().is_err() {
                let line = text.lines().position(|line| line.contains(name.as_str())).map_or(1, |n| n + 1);
                return Err(wrong(
                    line,
                    format!("policies: {name:?} is neither a handler nor a device: user_<number>/<name> is needed"),
                ));
            }
        }
        let changes = config.policies.values();
        let seconds =
            changes.flat_map(|change| [("give_up_seconds", change.give_up_seconds), ("hang_seconds", change.hang_seconds)]);
        let general = [("give_up_seconds", Some(config.give_up_seconds)), ("hang_seconds", Some(config.hang_seconds))];
        for (key, value) in general.into_iter().chain(seconds).filter_map(|(key, value)| Some((key, value?))) {
            if value > 86_400 {
                return Err(wrong(line_of(key), format!("{key} = {value}: 0 to 86400 is needed")));
            }
        }
        if let Err(problem) = config.io_engine.parse::<tcmu::server::IoEngine>() {
            return Err(wrong(line_of("io_engine"), format!("io_engine = {problem}")));
        }
        if config.poll_microseconds > 1000 {
            let value = config.poll_microseconds;
            return Err(wrong(line_of("poll_microseconds"), format!("poll_microseconds = {value}: 0 to 1000 is needed")));
        }
        for (key, value) in [("reactors", config.reactors), ("workers", config.workers)] {
            if value > 1024 {
                return Err(wrong(line_of(key), format!("{key} = {value}: 0 to 1024 is needed")));
            }
        }
        Ok(config)
    }

    /// See [`Config::open_timeout_seconds`].
    pub fn open_timeout(&self) -> Duration {
        Duration::from_secs(self.open_timeout_seconds)
    }

    /// What is done for devices whose handler is away or hangs.
    pub fn policies(&self) -> Policies {
        let time = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
        let (give_up, hang) = (time(self.give_up_seconds), time(self.hang_seconds));
        Policies { general: Policy { give_up, hang, hang_action: self.hang_action }, changes: self.policies.clone() }
    }

    /// The devices that one may be copied to and from.
    pub fn copies_with(&self, device: &str) -> Vec<String> {
        let pairs = self.copy_between.iter();
        pairs.filter_map(|[a, b]| if a == device { Some(b) } else { (b == device).then_some(a) }).cloned().collect()
    }

    /// See [`Config::check_timeout_seconds`].
    pub fn check_timeout(&self) -> Duration {
        Duration::from_secs(self.check_timeout_seconds)
    }

    /// See [`Config::drain_timeout_seconds`].
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../tcmu.toml.example");

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("tcmu.toml")).unwrap_err().to_string()
    }

    #[test]
    fn the_example_shows_every_option_with_its_default() {
        assert_eq!(Config::parse(EXAMPLE, Path::new("example")).unwrap(), Config::default(), "as it is");
        let options: Vec<&str> = EXAMPLE
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|l| l.contains(" = ") && !l.starts_with(' '))
            .collect();
        let uncommented = options.join("\n");
        assert_eq!(Config::parse(&uncommented, Path::new("example")).unwrap(), Config::default(), "{uncommented}");
        let fields = format!("{:?}", Config::default());
        for field in
            fields.trim_start_matches("Config {").split(", ").filter_map(|f| f.split_once(": ")).map(|(name, _)| name.trim())
        {
            assert!(options.iter().any(|line| line.starts_with(&format!("{field} = "))), "{field} is not in the example");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        assert!(
            error("\nlog_levle = \"info\"").starts_with("tcmu.toml:2: unknown field `log_levle`, expected one of `log_level`")
        );
        assert_eq!(
            error("log_level = \"loud\""),
            "tcmu.toml:1: log_level = \"loud\": error, warn, info, debug or trace is needed"
        );
        assert!(error("workers = 4\nlog_level = info").contains("tcmu.toml:2:"));
        assert!(error("log_level = info").ends_with("(text needs quotes)"));
        assert!(error("workers = \"many\"").contains("invalid type: string"));
        assert_eq!(error("open_timeout_seconds = 0"), "tcmu.toml:1: open_timeout_seconds = 0: 1 to 3600 is needed");
    }

    #[test]
    fn a_missing_file_matters_only_if_it_was_named() {
        assert!(Config::load(Some(Path::new("/nonexistent/tcmu.toml"))).is_err());
    }
}
