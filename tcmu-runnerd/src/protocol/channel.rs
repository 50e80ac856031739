//! The way messages take: sequenced packets over a Unix socket, one JSON value each, with a descriptor where one is needed.
use std::{
    cell::RefCell,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recvmsg, sendmsg, socket_with,
        socketpair,
        sockopt::{Timeout, set_socket_timeout, socket_peercred},
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// Most bytes of a message.
const MAX_MESSAGE: usize = 64 << 10;

thread_local! {
    /// Where messages are received: to clear so much memory for each takes longer than the rest.
    static RECEIVED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Most descriptors of a message.
pub const MAX_FDS: usize = 2;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 8;

/// Where a host is reached.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// A socket at a path where none is. Fails with `AddrInUse` where one is.
    pub fn bind(path: &Path) -> io::Result<Listener> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        let listener = Listener(socket);
        listener.listen()?;
        Ok(listener)
    }

    /// A listening socket that was inherited.
    pub fn from_fd(fd: OwnedFd) -> Listener {
        Listener(fd)
    }

    /// Waits for connections from now on. Who connects is told that the calling process does.
    pub fn listen(&self) -> io::Result<()> {
        Ok(listen(&self.0, BACKLOG)?)
    }

    /// The next connection.
    pub fn accept(&self) -> io::Result<Channel> {
        Ok(Channel(accept_with(&self.0, SocketFlags::CLOEXEC)?))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> OwnedFd {
        listener.0
    }
}

/// One end of a connection.
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

    /// Connects to a [`Listener`]. It need not have accepted yet.
    pub fn connect(path: &Path) -> io::Result<Channel> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Channel(socket))
    }

    /// Another handle to the same end, for another thread.
    pub fn try_clone(&self) -> io::Result<Channel> {
        Ok(Channel(self.0.try_clone()?))
    }

    /// The process and the user at the other end: who connected, or who listens.
    pub fn peer(&self) -> io::Result<(rustix::process::Pid, rustix::process::Uid)> {
        let peer = socket_peercred(&self.0)?;
        Ok((peer.pid, peer.uid))
    }

    /// The longest time that [`Channel::receive`] waits from now on; then it fails with `WouldBlock`. `None`: for ever.
    pub fn wait_at_most(&self, time: Option<Duration>) -> io::Result<()> {
        Ok(set_socket_timeout(&self.0, Timeout::Recv, time)?)
    }

    /// Ends the connection for all handles of both ends.
    pub fn shutdown(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }

    /// Sends a message, with a descriptor if there is one. Blocks while the other side's buffer is full.
    pub fn send(&self, message: &impl Serialize, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.send_with(message, fd.as_slice())
    }

    /// As [`Channel::send`], with up to [`MAX_FDS`] descriptors.
    pub fn send_with(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_flags(message, fds, SendFlags::NOSIGNAL)
    }

    /// Sends a message, or fails with `WouldBlock` if the other side's buffer is full.
    pub fn send_now(&self, message: &impl Serialize) -> io::Result<()> {
        self.send_flags(message, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_flags(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        // The other side would get a part of it, and end.
        if bytes.len() > MAX_MESSAGE {
            return Err(Errno::MSGSIZE.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        loop {
            match sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a message and the first descriptor that came with it. `None`: the other side is gone.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        Ok(self.receive_with()?.map(|(message, fds)| (message, fds.into_iter().next())))
    }

    /// Receives a message and all descriptors that came with it. `None`: the other side is gone.
    pub fn receive_with<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        RECEIVED.with_borrow_mut(|bytes| {
            bytes.resize(MAX_MESSAGE, 0);
            self.receive_into(bytes)
        })
    }

    fn receive_into<T: DeserializeOwned>(&self, bytes: &mut [u8]) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, fds)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
