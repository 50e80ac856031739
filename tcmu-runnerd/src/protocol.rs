//! What supervisor and handler hosts say to each other: JSON messages over a sequenced-packet socket, a UIO descriptor with `Open`.
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Most bytes of a message.
const MAX_MESSAGE: usize = 64 << 10;

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

/// What a host needs to open a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DeviceSpec {
    /// `user_<hba>/<name>`
    pub name: String,
    /// Behind `<subtype>/`.
    pub config: String,
    pub size: u64,
    pub block_size: u32,
    pub hw_max_sectors: u32,
    pub map_size: usize,
    pub take_over: bool,
    /// Names of devices that initiators may copy to and from this one.
    pub copies_with: Vec<String>,
}

/// A change of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum DeviceChange {
    /// Behind `<subtype>/`.
    Config(String),
    Size(u64),
    WriteCache(bool),
}

/// From the supervisor to a host. `id` comes back with the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ToHost {
    CheckConfig {
        id: u64,
        config: String,
    },
    /// With the UIO descriptor.
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
    Counters {
        id: u64,
        device: String,
    },
    SetLogLevel {
        level: String,
    },
}

/// How something ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Outcome {
    Done,
    Counters(Counters),
    /// Positive `errno`, and a line for people.
    Refused {
        errno: i32,
        message: String,
    },
}

/// What was done for a device; see [`tcmu::server::Counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Counters {
    pub commands: u64,
    pub reads: u64,
    pub writes: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub errors: u64,
    pub in_flight: u64,
    pub size: u64,
}

/// From a host to the supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum FromHost {
    /// The plugin is loaded.
    Ready(HandlerFacts),
    /// The plugin can't be loaded; the host ends.
    Unloadable {
        reason: String,
    },
    Answer {
        id: u64,
        outcome: Outcome,
    },
    /// A device can't be served any more.
    DeviceFailed {
        device: String,
        reason: String,
    },
}

/// One end of the connection. Messages of both directions are small and few.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel(a), b))
    }

    /// An end that was inherited.
    pub fn from_fd(fd: OwnedFd) -> Channel {
        Channel(fd)
    }

    /// Another handle to the same end, for another thread.
    pub fn try_clone(&self) -> io::Result<Channel> {
        Ok(Channel(self.0.try_clone()?))
    }

    /// Ends the connection for all handles of both ends.
    pub fn shutdown(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }

    /// Sends a message, with a descriptor if there is one. Blocks while the other side's buffer is full.
    pub fn send(&self, message: &impl Serialize, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        // The other side would get a part of it, and end.
        if bytes.len() > MAX_MESSAGE {
            return Err(Errno::MSGSIZE.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = fd.map(|fd| [fd]);
        if let Some(fds) = &fds {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        loop {
            match sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a message and the descriptor that came with it. `None`: the other side is gone.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let fd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if received.bytes == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, fd)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_with_their_descriptor() {
        let (a, b) = Channel::pair().unwrap();
        let b = Channel::from_fd(b);
        let spec = DeviceSpec {
            name: "user_0/a".into(),
            config: "/srv/ä;ro=on".into(),
            size: 1 << 40,
            block_size: 512,
            hw_max_sectors: 128,
            map_size: 4096,
            take_over: true,
            copies_with: vec!["user_1/b".into()],
        };
        let file = std::fs::File::open("/dev/null").unwrap();
        let sent = ToHost::Open { id: u64::MAX, device: spec };
        a.send(&sent, Some(file.as_fd())).unwrap();
        a.send(&ToHost::SetLogLevel { level: "info".into() }, None).unwrap();
        let (got, fd) = b.receive::<ToHost>().unwrap().unwrap();
        assert_eq!(got, sent);
        assert!(fd.is_some());
        assert!(matches!(b.receive::<ToHost>().unwrap().unwrap(), (ToHost::SetLogLevel { .. }, None)));
        drop(a);
        assert!(b.receive::<ToHost>().unwrap().is_none());
    }

    #[test]
    fn a_message_that_is_too_long_is_not_sent() {
        let (a, b) = Channel::pair().unwrap();
        assert!(a.send(&ToHost::CheckConfig { id: 1, config: "x".repeat(MAX_MESSAGE) }, None).is_err());
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
}
