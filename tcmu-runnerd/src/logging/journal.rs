//! The journal's own protocol (systemd's "Native Journal Protocol"): a datagram of fields for each line.
use std::{
    fmt::{self, Write},
    fs, io,
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    sync::atomic::{AtomicU64, Ordering},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

const SOCKET: &str = "/run/systemd/journal/socket";
/// Most bytes of a message: far below what a datagram may have.
const LONGEST: usize = 32 << 10;

/// Sends lines with their fields.
pub(super) struct Journal {
    socket: UnixDatagram,
    who: String,
    /// Lines that the journal had no room for.
    lost: AtomicU64,
}

impl Journal {
    /// If stderr is the journal, and it can be reached by its own protocol.
    pub(super) fn connect(who: &str) -> Option<Journal> {
        // Device and inode of what the service manager connected; stderr may have been redirected since (systemd.exec(5)).
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stderr = fs::metadata("/proc/self/fd/2").ok()?;
        if stream != format!("{}:{}", stderr.dev(), stderr.ino()) {
            return None;
        }
        Journal::connect_to(SOCKET, who).ok()
    }

    fn connect_to(path: &str, who: &str) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        // Its disk may be one of ours: it is not waited for.
        socket.set_nonblocking(true)?;
        Ok(Journal { socket, who: who.to_owned(), lost: AtomicU64::new(0) })
    }

    fn send(&self, level: Level, target: &str, fields: &[(String, String)]) -> io::Result<()> {
        let mut datagram = Vec::new();
        let mut line = if self.who.is_empty() { String::new() } else { format!("[{}] ", self.who) };
        line.push_str(&super::line(fields));
        line.truncate(start(&line, LONGEST).len());
        put(&mut datagram, "MESSAGE", &line);
        put(&mut datagram, "PRIORITY", &super::priority(level).to_string());
        put(&mut datagram, "SYSLOG_IDENTIFIER", "tcmu-runnerd");
        put(&mut datagram, "TCMU_TARGET", target);
        if !self.who.is_empty() && !fields.iter().any(|(name, _)| name == "handler") {
            put(&mut datagram, "TCMU_HANDLER", &self.who);
        }
        for (name, value) in fields.iter().filter(|(name, _)| name != "message") {
            let room = LONGEST.saturating_sub(datagram.len());
            put(&mut datagram, &field_name(name), start(value, room));
        }
        self.socket.send(&datagram).map(drop)
    }
}

/// As many whole characters as there is room for.
fn start(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Capitals, digits and underscores (sd_journal_print(3)), with a prefix of ours.
fn field_name(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("TCMU_{}", name.chars().map(letter).collect::<String>())
}

/// A field: on a line of its own, or with its length if it has several lines.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

/// Names and values of an event, its message among them.
#[derive(Default)]
struct Fields(Vec<(String, String)>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name().to_owned(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.0.push((field.name().to_owned(), text));
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            fields.0.push(("lost_before".into(), lost.to_string()));
        }
        match self.send(level, target, &fields.0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.lost.fetch_add(lost + 1, Ordering::Relaxed);
            }
            // The journal is being restarted; its stream lasts.
            Err(_) => crate::errln!("<{}>{}", super::priority(level), super::line(&fields.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn lines_arrive_with_their_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let layer = Journal::connect_to(path.to_str().unwrap(), "file").unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "t", device = "user_0/a", milliseconds = 5, "slow");
            tracing::error!(reason = "two\nlines", "no");
        });
        let mut buffer = vec![0; 65536];
        let mut next = || {
            let length = journal.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        assert_eq!(
            next(),
            "MESSAGE=[file] slow device=\"user_0/a\" milliseconds=5\nPRIORITY=4\nSYSLOG_IDENTIFIER=tcmu-runnerd\nTCMU_TARGET=t\n\
             TCMU_HANDLER=file\nTCMU_DEVICE=user_0/a\nTCMU_MILLISECONDS=5\n"
        );
        let second = next();
        assert!(second.contains("PRIORITY=3\n") && second.ends_with("TCMU_REASON\n\x09\0\0\0\0\0\0\0two\nlines\n"), "{second:?}");
    }

    #[test]
    fn a_field_cannot_be_made_to_look_like_another() {
        assert_eq!(field_name("r#type.x"), "TCMU_R_TYPE_X");
        let mut datagram = Vec::new();
        put(&mut datagram, "A", "x\nPRIORITY=0");
        assert_eq!(datagram, b"A\n\x0c\0\0\0\0\0\0\0x\nPRIORITY=0\n");
    }
}
