//! What tcmu-runner's users bring along: its command-line options and its configuration, `tcmu.conf`.
use std::{fmt::Write, path::PathBuf};

/// Where tcmu-runner's configuration is.
pub const CONF: &str = "/etc/tcmu/tcmu.conf";

/// Options of tcmu-runner that have another name here, or none. (`--handler-path`, `-V` and `-h` are the same.)
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Options of tcmu-runner")]
pub struct Options {
    /// The same as --log-level debug.
    #[arg(short = 'd', long, conflicts_with = "log_level")]
    pub debug: bool,
    /// How many files may be open, 65536 to 1048576, which it is without this option.
    #[arg(short = 'f', long, value_name = "N", value_parser = clap::value_parser!(u64).range(65_536..=1_048_576))]
    pub nofile: Option<u64>,
    /// Ignored: log lines go to stderr, and from there to the journal.
    #[arg(short = 'l', long, value_name = "DIR")]
    pub tcmu_log_dir: Option<PathBuf>,
}

impl Options {
    /// A line for each that was given: what it is called here.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.debug {
            notes.push("-d is accepted; it is --log-level debug here".to_owned());
        }
        if let Some(limit) = self.nofile {
            notes.push(format!("-f {limit} is accepted; without it, as many files may be open as Linux allows"));
        }
        if let Some(dir) = &self.tcmu_log_dir {
            let dir = dir.display();
            notes.push(format!(
                "-l {dir} is ignored: log lines go to stderr, and from there to the journal (journalctl -u tcmu-runnerd)"
            ));
        }
        notes
    }
}

/// A configuration of tcmu-runner's as one of ours.
#[derive(Debug, PartialEq)]
pub struct Converted {
    /// The text of a `tcmu.toml`.
    pub toml: String,
    /// What nothing takes the place of, or could not be understood.
    pub notes: Vec<String>,
}

/// Converts the text of a `tcmu.conf`. `from` is its path, for people to read.
pub fn convert(text: &str, from: &str) -> Converted {
    let mut toml = format!("# Made by `tcmuctl migrate` from {from}. Every option is explained in tcmu.toml.example.\n");
    let mut notes = Vec::new();
    let mut note = |toml: &mut String, line: &str, reason: String| {
        let _ = writeln!(toml, "\n# {line}: {reason}");
        notes.push(format!("{line}: {reason}"));
    };
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // What is shown of it stays on a line.
        let shown: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        let (key, value) = line.split_once('=').map_or((line, None), |(key, value)| (key.trim(), Some(unquoted(value.trim()))));
        match (key, value) {
            ("log_level", Some(value)) => match level(value) {
                Some(level) => {
                    let _ = writeln!(toml, "\n# {shown}\nlog_level = \"{level}\"");
                }
                None => note(&mut toml, &shown, "this is no level of tcmu-runner's (0 to 5); left out".into()),
            },
            ("log_dir", Some(_)) => note(
                &mut toml,
                &shown,
                "log lines go to the journal instead of files (journalctl -u tcmu-runnerd); nothing takes its place".into(),
            ),
            _ => note(&mut toml, &shown, format!("line {} is no option of tcmu-runner's; left out", number + 1)),
        }
    }
    Converted { toml, notes }
}

fn unquoted(value: &str) -> &str {
    let quoted = |quote| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    quoted('"').or_else(|| quoted('\'')).unwrap_or(value).trim()
}

fn level(value: &str) -> Option<&'static str> {
    Some(match value.parse::<u32>().ok()? {
        // CRIT, ERROR
        0 | 1 => "error",
        2 => "warn",
        3 => "info",
        4 => "debug",
        // DEBUG SCSI CMD, and what it takes for that.
        _ => "trace",
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::config::Config;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
        #[arg(long)]
        log_level: Option<String>,
    }

    fn converted(text: &str) -> (Config, Vec<String>) {
        let Converted { toml, notes } = convert(text, "/etc/tcmu/tcmu.conf");
        (Config::parse(&toml, Path::new("tcmu.toml")).unwrap_or_else(|error| panic!("{error}\n{toml}")), notes)
    }

    #[test]
    fn every_level_has_its_word() {
        for (number, word) in
            [("0", "error"), ("1", "error"), ("2", "warn"), ("3", "info"), ("4", "debug"), ("5", "trace"), ("\"4\"", "debug")]
        {
            let (config, notes) = converted(&format!("# a comment\n\n  log_level = {number}\n"));
            assert_eq!((config.log_level.as_str(), notes.len()), (word, 0), "{number}");
        }
    }

    #[test]
    fn what_has_no_place_here_is_named() {
        let (config, notes) = converted("log_dir = '/var/log'\nlog_level=loud\nfoo\n= 3\n1x\nlog_level\n");
        assert_eq!(config, Config::default());
        assert!(notes[0].starts_with("log_dir = '/var/log': log lines go to the journal"), "{notes:?}");
        assert!(notes[1].starts_with("log_level=loud: this is no level"), "{notes:?}");
        assert_eq!(notes[2], "foo: line 3 is no option of tcmu-runner's; left out");
        assert_eq!(notes.len(), 6);
    }

    #[test]
    fn no_text_becomes_anything_else_than_a_configuration() {
        for text in
            ["log_level = 3\r\nx\u{b}y = \"\n\"\"\"", "log_level = 99999999999999", "\u{0}\u{85}a\u{2028}b", "log_level = \"3"]
        {
            converted(text);
        }
    }

    #[test]
    fn options_are_answered_with_their_new_names() {
        let parse = |words: &[&str]| Arguments::try_parse_from([&["x"], words].concat());
        let notes = |words: &[&str]| parse(words).map(|arguments| arguments.options.notes()).unwrap_or_default();
        assert_eq!(notes(&[]), [""; 0]);
        assert_eq!(notes(&["-d"]), ["-d is accepted; it is --log-level debug here"]);
        assert_eq!(notes(&["--nofile", "65536", "--debug"]).len(), 2);
        assert!(notes(&["-l", "/var/log"])[0].starts_with("-l /var/log is ignored"));
        assert!(notes(&["--tcmu-log-dir=/x"])[0].starts_with("-l /x is ignored"));
        let refused = parse(&["-f", "1000"]).err().unwrap().to_string();
        assert!(refused.contains("65536..=1048576"), "{refused}");
        assert!(parse(&["-d", "--log-level", "info"]).is_err());
        assert_eq!(parse(&["--log-level", "info"]).unwrap().log_level.as_deref(), Some("info"));
    }
}
