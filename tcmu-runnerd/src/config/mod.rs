//! `tcmu.toml`: what it may say, and when a change of it takes effect.
mod check;
pub mod effect;
mod handler;
pub mod watch;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use handler::{HandlerSection, HandlerSettings};
use serde::{Deserialize, Serialize};

use crate::policy::{HangAction, Policies, Policy, PolicyChange};

/// Where the config file is if the command line doesn't say.
pub const DEFAULT_PATH: &str = "/etc/tcmu/tcmu.toml";

/// The daemon's configuration. Every option is documented in `tcmu.toml.example`, and when it takes effect in `docs/configuration.md`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter like `info,tcmu=debug`.
    pub log_level: String,
    /// Directories with plugins.
    pub handler_path: Vec<PathBuf>,
    /// Subtypes that another program on this machine serves: their events are left to it.
    pub foreign_subtypes: Vec<String>,
    /// Threads that serve rings, of each handler; 0: one for each core, at most 4.
    pub reactors: usize,
    /// Threads for handlers that block and for file I/O, of each handler; 0: four for each core, at most 32.
    pub workers: usize,
    /// How I/O that may block is done: `auto`, `io_uring` or `threads`.
    pub io_engine: String,
    /// The longest time that a reactor looks at its busy rings before it sleeps; 0: it sleeps at once.
    pub poll_microseconds: u64,
    /// The longest time that a reactor which was woken lets more commands come before it takes them; 0: it takes them at once.
    pub stay_put: bool,
    /// Whether a reactor may make its priority the lowest while more gets done by that.
    pub give_way: bool,
    /// Whether a second process is kept ready for each handler that serves devices.
    pub standby: bool,
    /// Whether the memory of the daemon and its handlers' processes is kept from being swapped out.
    pub lock_memory: bool,
    /// How long a device may be without a handler before its commands fail; 0: they wait for ever.
    pub give_up_seconds: u64,
    /// How old a command may become before its handler is said to hang; 0: never.
    pub hang_seconds: u64,
    /// What is done then: `report` or `restart`.
    pub hang_action: HangAction,
    /// How many milliseconds a command may take before it is logged as slow; 0: none is.
    pub slow_command_ms: u64,
    /// Where Prometheus finds metrics: `off`, `unix:PATH`, or a loopback address with a port.
    pub metrics: String,
    /// Pairs of devices that initiators of one may copy to and from the other.
    pub copy_between: Vec<[String; 2]>,
    /// How long a handler may take to open a device before the tool that enables it gets `ETIMEDOUT`.
    pub open_timeout_seconds: u64,
    /// How long a handler may take to judge a config string.
    pub check_timeout_seconds: u64,
    /// How long commands in flight may take when a device is removed or the daemon stops.
    pub drain_timeout_seconds: u64,
    /// How many KiB of the kernel's events can wait to be read.
    pub netlink_buffer_kib: usize,
    /// What holds for single handlers, by subtype.
    pub handler: BTreeMap<String, HandlerSection>,
    /// What is done for single devices, by `user_<number>/<name>`; it counts more than what is said of their handler.
    pub device: BTreeMap<String, PolicyChange>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            log_level: "info".into(),
            handler_path: vec!["/usr/lib/tcmu-runnerd".into(), "/usr/local/lib/tcmu-runnerd".into()],
            foreign_subtypes: Vec::new(),
            reactors: 0,
            workers: 0,
            io_engine: "auto".into(),
            poll_microseconds: 1000,
            stay_put: true,
            give_way: true,
            standby: true,
            lock_memory: true,
            give_up_seconds: 0,
            hang_seconds: 20,
            hang_action: HangAction::Report,
            slow_command_ms: 1000,
            metrics: "off".into(),
            copy_between: Vec::new(),
            open_timeout_seconds: 20,
            check_timeout_seconds: 10,
            drain_timeout_seconds: 20,
            netlink_buffer_kib: tcmu::netlink::RECEIVE_BUFFER >> 10,
            handler: BTreeMap::new(),
            device: BTreeMap::new(),
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
            let line = error.span().map_or(1, |span| check::line_at(text, span.start));
            let source = text.lines().nth(line - 1).unwrap_or_default().trim();
            let unquoted = source
                .split_once('=')
                .is_some_and(|(_, value)| value.trim().starts_with(|c: char| c == '/' || c.is_ascii_alphabetic()));
            let hint = if unquoted && !error.message().contains("unknown field") { " (text needs quotes)" } else { "" };
            wrong(line, format!("{}{hint}", error.message().replace('\n', " ")))
        })?;
        config.check().map_err(|mistake| wrong(check::line_of(text, &mistake.path), mistake.reason))?;
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
        let slow_command = crate::policy::milliseconds(self.slow_command_ms);
        let handlers = self.handler.iter().map(|(name, section)| (name.clone(), section.policy()));
        let devices = self.device.iter().map(|(name, change)| (name.clone(), *change));
        Policies {
            general: Policy { give_up, hang, hang_action: self.hang_action, slow_command },
            changes: handlers.chain(devices).collect(),
        }
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

    const EXAMPLE: &str = include_str!("../../../tcmu.toml.example");

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("tcmu.toml")).unwrap_err().to_string()
    }

    #[test]
    fn the_example_shows_every_option_with_its_default() {
        assert_eq!(Config::parse(EXAMPLE, Path::new("example")).unwrap(), Config::default(), "as it is");
        // Options follow a "#" at once, words do not.
        let lines = EXAMPLE.lines().filter_map(|line| line.strip_prefix('#')).filter(|line| !line.starts_with(' '));
        let uncommented = lines.collect::<Vec<_>>().join("\n");
        let config = Config::parse(&uncommented, Path::new("example")).unwrap_or_else(|error| panic!("{error}: {uncommented}"));
        let general = Config { handler: BTreeMap::new(), device: BTreeMap::new(), ..config.clone() };
        assert_eq!(general, Config::default(), "{uncommented}");
        let named = |option: &str| uncommented.lines().any(|line| line.starts_with(&format!("{option} = ")));
        for (option, _) in effect::EFFECTS {
            assert!(named(option), "{option} is not in the example");
        }
        assert_eq!((config.handler.len(), config.device.len()), (1, 1), "sections are shown");
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
        assert!(error("netlink_buffer_kib = 1").ends_with("netlink_buffer_kib = 1: 4 to 65536 is needed"));
        assert_eq!(
            error("metrics = \"0.0.0.0:9899\""),
            "tcmu.toml:1: metrics = \"0.0.0.0:9899\": 0.0.0.0 is not a loopback address; whoever can reach it would see your devices: \
             127.0.0.1:PORT, [::1]:PORT, unix:/PATH or off is needed"
        );
        assert_eq!(error("open_timeout_seconds = 0"), "tcmu.toml:1: open_timeout_seconds = 0: 1 to 3600 is needed");
    }

    #[test]
    fn a_mistake_in_a_section_is_named_with_its_line() {
        let text = "workers = 4\n[handler.alloc]\nworkers = 3\n\n[handler.file]\nworkers = 2000";
        assert_eq!(error(text), "tcmu.toml:6: workers = 2000: 0 to 1024 is needed");
        assert_eq!(error("[handler]\nfile = { io_engine = \"x\" }").split(": ").next(), Some("tcmu.toml:2"));
        assert_eq!(
            error("handler.rbd.user = \"nobody-there\""),
            "tcmu.toml:1: handler.rbd: user = \"nobody-there\": there is no such user on this machine"
        );
        assert_eq!(
            error("\n[device.a]\nhang_seconds = 1"),
            "tcmu.toml:2: [device.\"a\"]: this is no device: \"user_<number>/<name>\" is needed"
        );
        assert!(error("[handler.file]\nuser = 1\n").starts_with("tcmu.toml:2: "));
        assert!(error("[handler.file]\nlog_level = \"info\"").starts_with("tcmu.toml:2: unknown field `log_level`"));
        assert!(error("[handler.\"a/b\"]\n").starts_with("tcmu.toml:1: [handler.\"a/b\"]: this can be no handler"));
    }

    #[test]
    fn a_missing_file_matters_only_if_it_was_named() {
        assert!(Config::load(Some(Path::new("/nonexistent/tcmu.toml"))).is_err());
    }
}
