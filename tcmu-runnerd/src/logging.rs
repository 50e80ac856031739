//! Where log lines go, and which.
mod journal;
mod later;

use std::{fmt, sync::OnceLock};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

pub use later::{begin as write_later, flush};

type Reload = Box<dyn Fn(Targets) + Send + Sync>;

static RELOAD: OnceLock<Reload> = OnceLock::new();

/// Sends log lines to the journal, with fields, if that is what stderr is; else to stderr, with the time of day, or with syslog priorities
/// if that goes to the journal all the same. `who` stands in front of each.
pub fn start(level: &str, who: &str) {
    let (filter, handle) = reload::Layer::new(parse(level));
    let journal = journal::Journal::connect(who);
    let lines = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(|| later::Stderr)
            .with_ansi(false)
            .event_format(Lines { journal: std::env::var_os("JOURNAL_STREAM").is_some(), who: who.to_owned() })
    });
    // Only the first call in a process counts.
    if tracing_subscriber::registry().with(filter).with(lines).with(journal).try_init().is_ok() {
        let _ = RELOAD.set(Box::new(move |targets| {
            let _ = handle.reload(targets);
        }));
    }
}

/// Changes the level at run time.
pub fn set_level(level: &str) {
    if let Some(reload) = RELOAD.get() {
        reload(parse(level));
    }
}

/// Whether a level can be understood.
pub fn is_level(level: &str) -> bool {
    // A word alone is a target's name to the parser; to people it is a level with a spelling mistake.
    level.split(',').all(|part| part.split_once('=').map_or(part, |(_, level)| level).trim().parse::<Level>().is_ok())
}

fn parse(level: &str) -> Targets {
    // zbus and neli are of interest to nobody at `info`.
    let quiet = Targets::new().with_target("zbus", Level::WARN).with_target("neli", Level::WARN);
    let asked = level.parse::<Targets>().unwrap_or_else(|_| Targets::new().with_default(Level::INFO));
    let default = asked.default_level();
    quiet.with_targets(asked).with_default(default.unwrap_or(Level::INFO.into()))
}

/// A level as syslog and sd-daemon(3) have it.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// Message and fields as they are in a line of text.
fn line(fields: &[(String, String)]) -> String {
    let mut line = fields.iter().find(|(name, _)| name == "message").map(|(_, text)| text.clone()).unwrap_or_default();
    for (name, value) in fields.iter().filter(|(name, _)| name != "message") {
        let quoted = value.is_empty() || value.chars().any(|c| !(c.is_ascii_alphanumeric() || "._-:".contains(c)));
        line.push_str(&if quoted { format!(" {name}={value:?}") } else { format!(" {name}={value}") });
    }
    line
}

struct Lines {
    journal: bool,
    who: String,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        if self.journal {
            write!(writer, "<{}>", priority(level))?;
        } else {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let second = now.as_secs() % 86_400;
            write!(writer, "{:02}:{:02}:{:02}.{:03} ", second / 3600, second / 60 % 60, second % 60, now.subsec_millis())?;
            write!(writer, "{level:5} ")?;
        }
        if !self.who.is_empty() {
            write!(writer, "[{}] ", self.who)?;
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
