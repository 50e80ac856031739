//! Generic netlink: the kernel's events about TCMU devices, and our answers (`tcmu_netlink_event_send`, `tcmu_genl_cmd_done`).
//!
//! neli makes the socket and resolves family and group; events are received with their sender's address, so that only the kernel is
//! believed, and parsed here, since a datagram can be anything.
mod wire;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use neli::{consts::socket::NlFamily, router::synchronous::NlRouter, socket::NlSocket, utils::Groups};
use rustix::{
    io::Errno,
    net::{RecvFlags, recvfrom, sockopt},
};

pub use wire::{Change, Event, EventKind};

/// The kernel's family and multicast group.
const FAMILY: &str = "TCM-USER";
const GROUP: &str = "config";

/// Bytes of events that can wait to be read, if nobody says otherwise: some ten thousand.
pub const RECEIVE_BUFFER: usize = 4 << 20;

/// Why there is no netlink.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The module isn't there.
    #[error("the kernel has no netlink family {FAMILY}: load the module target_core_user ({0})")]
    NoFamily(String),
    /// A system call failed.
    #[error("netlink: {what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's words.
        error: io::Error,
    },
    /// The kernel didn't accept an answer: it waits for none for this device (any more).
    #[error("the kernel did not take the answer for device {device_id}: {error}")]
    Refused {
        /// The event's device id.
        device_id: u32,
        /// The kernel's words.
        error: io::Error,
    },
}

/// What was received.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// An event.
    Event(Event),
    /// Events were lost, and more may be until all that wait were received ([`Received::Nothing`]): then look at what devices there are.
    Overrun,
    /// Nothing (more).
    Nothing,
}

/// The connection to the kernel. One thread receives; answers can be given from any.
pub struct Netlink {
    events: NlSocket,
    answers: std::sync::Mutex<NlSocket>,
    family: u16,
    losses_are_told: bool,
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> NetlinkError {
    move |error| NetlinkError::System { what, error }
}

impl Netlink {
    /// Connects and joins the group: from now on events are received. As many bytes of them as `receive_buffer` says
    /// ([`RECEIVE_BUFFER`]) can wait to be read.
    pub fn connect(receive_buffer: usize) -> Result<Netlink, NetlinkError> {
        let (router, _) = NlRouter::connect(NlFamily::Generic, None, Groups::empty())
            .map_err(|error| NetlinkError::NoFamily(error.to_string()))?;
        let family = router.resolve_genl_family(FAMILY).map_err(|error| NetlinkError::NoFamily(error.to_string()))?;
        let group = router.resolve_nl_mcast_group(FAMILY, GROUP).map_err(|error| NetlinkError::NoFamily(error.to_string()))?;
        let events = NlSocket::connect(NlFamily::Generic, None, Groups::empty()).map_err(system("socket"))?;
        let fd = borrow(&events);
        // Without CAP_NET_ADMIN the system's limit holds.
        if sockopt::set_socket_recv_buffer_size_force(fd, receive_buffer).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(fd, receive_buffer);
        }
        let losses_are_told = forgets_undelivered();
        if losses_are_told {
            tell_losses(fd).map_err(system("NETLINK_BROADCAST_ERROR"))?;
        }
        events.nonblock().map_err(system("socket"))?;
        events.add_mcast_membership(Groups::new_groups(&[group])).map_err(system("joining the group `config`"))?;
        let answers = NlSocket::connect(NlFamily::Generic, None, Groups::empty()).map_err(system("socket"))?;
        Ok(Netlink { events, answers: std::sync::Mutex::new(answers), family, losses_are_told })
    }

    /// Whether a tool whose event did not fit into the receive buffer is told so (`ENOBUFS`) instead of waiting for an answer for ever.
    pub fn losses_are_told(&self) -> bool {
        self.losses_are_told
    }

    /// Tells the kernel whether it may wait for answers to its events: module-wide, for devices enabled from now on.
    pub fn set_kernel_replies(&self, on: bool) -> Result<(), NetlinkError> {
        self.request(&wire::set_features(self.family, on)).map_err(system("SET_FEATURES"))
    }

    /// Receives what there is; never blocks.
    pub fn receive(&self) -> Result<Received, NetlinkError> {
        let mut buffer = [0u8; 8192];
        loop {
            let (length, sender) = match recvfrom(borrow(&self.events), &mut buffer, RecvFlags::DONTWAIT) {
                Ok((length, _, sender)) => (length, sender),
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(Errno::INTR) => continue,
                Err(Errno::NOBUFS) => return Ok(Received::Overrun),
                Err(error) => return Err(NetlinkError::System { what: "receive", error: error.into() }),
            };
            let from_kernel = sender
                .and_then(|sender| rustix::net::netlink::SocketAddrNetlink::try_from(sender).ok())
                .is_some_and(|sender| sender.pid() == 0);
            if !from_kernel {
                continue;
            }
            if let Some(event) = wire::parse(&buffer[..length], self.family) {
                return Ok(Received::Event(event));
            }
        }
    }

    /// Answers an event: 0, or a negative `errno` that the waiting tool gets. Events of kernels that don't wait (version 1) and those
    /// without a device id take no answer.
    pub fn answer(&self, event: &Event, status: i32) -> Result<(), NetlinkError> {
        let Some((device_id, command)) = event.answer() else { return Ok(()) };
        self.request(&wire::done(self.family, command, device_id, status))
            .map_err(|error| NetlinkError::Refused { device_id, error })
    }

    /// Sends a request and reads the kernel's acknowledgement, which is there as soon as `send` returns.
    fn request(&self, message: &[u8]) -> io::Result<()> {
        let socket = self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        socket.send(message, neli::consts::socket::Msg::empty())?;
        let mut buffer = [0u8; 1024];
        let (length, _, _) = recvfrom(borrow(&socket), &mut buffer, RecvFlags::empty())?;
        match wire::acknowledgement(&buffer[..length]) {
            Some(0) => Ok(()),
            Some(error) => Err(io::Error::from_raw_os_error(error.checked_neg().unwrap_or(libc::EIO))),
            None => Err(io::Error::other("no acknowledgement")),
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.events)
    }
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").field("family", &self.family).finish_non_exhaustive()
    }
}

/// Whether the kernel forgets an event that it could not deliver (5.0). Earlier ones keep it in a list, together with what is freed then.
fn forgets_undelivered() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    release.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 5)
}

/// Lets the kernel fail what it could not deliver to this socket.
fn tell_losses(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the option is an `int` that lives during the call.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_BROADCAST_ERROR,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn borrow(socket: &NlSocket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the socket, which is borrowed.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}
