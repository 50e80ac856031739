//! What supervisor and handler hosts say to each other.
//!
//! Each host listens on a socket in the run directory; the supervisor that started it, and each one after that, connects there. Both
//! say [`Hello`](ToHost::Hello) first; with the same [`PROTOCOL`] on both sides the host then tells what it is
//! ([`Ready`](FromHost::Ready)) and what it has ([`Has`](FromHost::Has)), up to [`ThatIsAll`](FromHost::ThatIsAll). The supervisor
//! that said hello last is the one that counts.
mod channel;

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

pub use channel::{Channel, Listener};
use serde::{Deserialize, Serialize};

/// The version of everything here but the two `Hello`, which stay as they are. Counted up when one side could not live with the other.
pub const PROTOCOL: u32 = 2;

/// What a handler is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct HandlerFacts {
    pub subtype: String,
    pub name: String,
    pub version: String,
    pub config_desc: String,
    pub abi: u32,
    /// Whether `PR_SET_IO_FLUSHER` is in force in the host.
    pub io_flusher: bool,
}

/// Which file was loaded: another one at the same path is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct FileStamp {
    pub dev: u64,
    pub ino: u64,
    /// Nanoseconds since 1970.
    pub mtime: i64,
}

impl FileStamp {
    /// The file that is there now.
    pub fn of(path: &Path) -> io::Result<FileStamp> {
        let metadata = std::fs::metadata(path)?;
        let mtime = metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec());
        Ok(FileStamp { dev: metadata.dev(), ino: metadata.ino(), mtime })
    }
}

/// What a host is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct HostFacts {
    pub handler: HandlerFacts,
    pub plugin: PathBuf,
    /// The plugin's file when it was loaded.
    pub stamp: Option<FileStamp>,
    /// The only device that it is for.
    pub device: Option<String>,
    /// Whom it runs as, if not as root.
    pub user: Option<String>,
}

/// What a host needs to open a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DeviceSpec {
    /// `user_<hba>/<name>`
    pub name: String,
    /// The UIO device's number.
    pub minor: u32,
    /// Behind `<subtype>/`.
    pub config: String,
    pub size: u64,
    pub block_size: u32,
    pub hw_max_sectors: u32,
    pub map_size: usize,
    pub take_over: bool,
    /// Whether the operator switched its write cache on or off.
    #[serde(default)]
    pub write_cache: Option<bool>,
    /// Names of devices that initiators may copy to and from this one.
    pub copies_with: Vec<String>,
    /// Commands that take longer are logged; 0: none is.
    pub slow_command_ms: u64,
}

/// What a host is doing with a device. `id` is that of the request whose answer is still to come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Doing {
    Serving,
    Opening {
        id: u64,
    },
    Closing {
        id: u64,
    },
    Changing {
        id: u64,
    },
    /// It can't be served any more; see [`FromHost::DeviceFailed`].
    Failed {
        reason: String,
    },
}

/// A change of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum DeviceChange {
    /// Behind `<subtype>/`.
    Config(String),
    Size(u64),
    WriteCache(bool),
    /// Another medium; none if the config string is empty.
    Medium {
        config: String,
        size: u64,
    },
}

/// From the supervisor to a host. `id` comes back with the answer; no two supervisors use the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ToHost {
    /// The first message.
    Hello {
        protocol: u32,
    },
    /// How the supervisor wants it from now on: what is logged, and how often [`FromHost::Alive`] comes.
    Settings {
        log_level: String,
        alive_ms: u64,
    },
    CheckConfig {
        id: u64,
        config: String,
    },
    /// With the UIO descriptor, and a page for its counters ([`tcmu::server::counters::Page`]).
    Open {
        id: u64,
        device: DeviceSpec,
    },
    Close {
        id: u64,
        device: String,
        within_ms: u64,
    },
    Reconfigure {
        id: u64,
        device: String,
        change: DeviceChange,
    },
    /// From now on; see [`DeviceSpec::slow_command_ms`].
    SlowCommand {
        device: String,
        ms: u64,
    },
    /// Begin to write each command to the file that comes with this, up to `limit` bytes.
    StartTrace {
        id: u64,
        device: String,
        limit: u64,
    },
    StopTrace {
        id: u64,
        device: String,
    },
    /// It is needed no more. A host whose connection ends without this goes on, and waits for the next supervisor.
    End,
}

/// How something ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Outcome {
    Done,
    /// Positive `errno`, and a line for people.
    Refused {
        errno: i32,
        message: String,
    },
}

/// From a host to the supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum FromHost {
    /// The answer to [`ToHost::Hello`]. Nothing follows if the protocols differ.
    Hello {
        protocol: u32,
        /// The program's.
        version: String,
    },
    /// The plugin is loaded.
    Ready(HostFacts),
    /// The plugin can't be loaded; the host ends.
    Unloadable {
        reason: String,
    },
    /// A device that it has, with its UIO descriptor and the page of its counters.
    Has {
        device: DeviceSpec,
        doing: Doing,
    },
    /// There are no more devices than that.
    ThatIsAll,
    Answer {
        id: u64,
        outcome: Outcome,
    },
    /// A device can't be served any more.
    DeviceFailed {
        device: String,
        reason: String,
    },
    /// It is there, and these devices have commands that take that many milliseconds by now.
    Alive {
        late: Vec<(String, u64)>,
    },
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn spec() -> DeviceSpec {
        DeviceSpec {
            write_cache: Some(false),
            name: "user_0/a".into(),
            minor: 7,
            config: "/srv/ä;ro=on".into(),
            size: 1 << 40,
            block_size: 512,
            hw_max_sectors: 128,
            map_size: 4096,
            take_over: true,
            copies_with: vec!["user_1/b".into()],
            slow_command_ms: 1000,
        }
    }

    #[test]
    fn messages_arrive_whole_and_with_their_descriptor() {
        let (a, b) = Channel::pair().unwrap();
        let b = Channel::from_fd(b);
        let file = std::fs::File::open("/dev/null").unwrap();
        let sent = ToHost::Open { id: u64::MAX, device: spec() };
        a.send(&sent, Some(file.as_fd())).unwrap();
        a.send(&ToHost::StopTrace { id: 1, device: "user_0/a".into() }, None).unwrap();
        let (got, fd) = b.receive::<ToHost>().unwrap().unwrap();
        assert_eq!(got, sent);
        assert!(fd.is_some());
        assert!(matches!(b.receive::<ToHost>().unwrap().unwrap(), (ToHost::StopTrace { .. }, None)));
        drop(a);
        assert!(b.receive::<ToHost>().unwrap().is_none());
    }

    #[test]
    fn several_descriptors_arrive_in_their_order() {
        let (a, b) = Channel::pair().unwrap();
        let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        files[1].set_len(7).unwrap();
        let message = ToHost::Open { id: 1, device: spec() };
        a.send_with(&message, &[files[0].as_fd(), files[1].as_fd()]).unwrap();
        let (got, fds) = Channel::from_fd(b).receive_with::<ToHost>().unwrap().unwrap();
        let sizes: Vec<i64> = fds.iter().map(|fd| rustix::fs::fstat(fd).unwrap().st_size).collect();
        assert_eq!((got, sizes), (message, vec![0, 7]));
    }

    #[test]
    fn a_message_that_is_too_long_is_not_sent() {
        let (a, b) = Channel::pair().unwrap();
        assert!(a.send(&ToHost::CheckConfig { id: 1, config: "x".repeat(64 << 10) }, None).is_err());
        a.send(&ToHost::CheckConfig { id: 2, config: "x".into() }, None).unwrap();
        let got = Channel::from_fd(b).receive::<ToHost>().unwrap().unwrap().0;
        assert_eq!(got, ToHost::CheckConfig { id: 2, config: "x".into() });
    }

    #[test]
    fn nonsense_is_an_error_and_no_crash() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&"nonsense", None).unwrap();
        assert!(Channel::from_fd(b).receive::<ToHost>().is_err());
    }

    #[test]
    fn hello_is_understood_whatever_else_another_version_says_with_it() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&serde_json::json!({"Hello": {"protocol": 99, "version": "9.0", "mood": "fine"}}), None).unwrap();
        let (hello, _) = Channel::from_fd(b).receive::<FromHost>().unwrap().unwrap();
        assert!(matches!(hello, FromHost::Hello { protocol: 99, .. }));
    }

    #[test]
    fn who_connects_before_the_host_accepts_waits_and_learns_when_it_dies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(Listener::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let early = Channel::connect(&path).unwrap();
        early.send(&ToHost::Hello { protocol: PROTOCOL }, None).unwrap();
        let accepted = listener.accept().unwrap();
        assert!(matches!(accepted.receive::<ToHost>().unwrap(), Some((ToHost::Hello { .. }, None))));
        assert_eq!(accepted.peer().unwrap().0, rustix::process::getpid());
        let late = Channel::connect(&path).unwrap();
        drop(listener);
        assert!(late.receive::<FromHost>().unwrap().is_none());
        assert!(Channel::connect(&path).is_err());
    }
}
