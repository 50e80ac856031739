//! Who the supervisor is: the last one that connected and said hello in our language.
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Uid,
};

use crate::protocol::{Channel, FromHost, Listener, PROTOCOL, ToHost};

/// Connections whose hello is waited for.
const STRANGERS: usize = 8;

/// The side of the connection that speaks. Without a supervisor nothing is said.
#[derive(Debug, Default)]
pub(super) struct Line(Option<Channel>);

impl Line {
    pub(super) fn connect(&mut self, channel: Channel) {
        self.0 = Some(channel);
    }

    pub(super) fn hang_up(&mut self) {
        self.0 = None;
    }

    pub(super) fn say(&mut self, message: &FromHost) {
        if let Some(channel) = &self.0 {
            // One that is gone is missed by those who listen to it.
            let _ = channel.send(message, None);
        }
    }

    pub(super) fn say_with(&mut self, message: &FromHost, fds: &[BorrowedFd<'_>]) {
        if let Some(channel) = &self.0 {
            let _ = channel.send_with(message, fds);
        }
    }

    /// As [`Line::say`]; a supervisor that is too busy to listen is told nothing.
    pub(super) fn say_now(&mut self, message: &FromHost) {
        if let Some(channel) = &self.0 {
            let _ = channel.send_now(message);
        }
    }
}

/// What came in.
pub(super) enum Event {
    /// Somebody is the supervisor from now on; this is the way to it.
    Supervisor(Channel),
    /// The supervisor says this.
    Said(ToHost, Vec<OwnedFd>),
    /// The supervisor is gone.
    Alone,
    /// Time passed.
    Nothing,
}

/// The side that listens.
#[derive(Debug)]
pub(super) struct Lines {
    listener: Listener,
    /// Only this user's processes are listened to, and root's.
    user: Uid,
    supervisor: Option<Channel>,
    strangers: Vec<Channel>,
    /// A supervisor that we can't talk to.
    foreign: Option<Channel>,
}

impl Lines {
    pub(super) fn new(listener: Listener, user: Uid) -> Lines {
        Lines { listener, user, supervisor: None, strangers: Vec::new(), foreign: None }
    }

    pub(super) fn is_alone(&self) -> bool {
        self.supervisor.is_none()
    }

    /// Waits for the first supervisor.
    pub(super) fn first(&mut self) -> io::Result<Channel> {
        loop {
            if let Event::Supervisor(channel) = self.next(Duration::from_secs(60))? {
                return Ok(channel);
            }
        }
    }

    /// Waits for what comes next, at most for that long.
    pub(super) fn next(&mut self, within: Duration) -> io::Result<Event> {
        let ready = {
            let ours = [self.listener.as_fd()].into_iter();
            let all: Vec<BorrowedFd<'_>> = ours
                .chain(self.supervisor.iter().map(|channel| channel.as_fd()))
                .chain(self.strangers.iter().map(AsFd::as_fd))
                .collect();
            let mut fds: Vec<PollFd<'_>> = all.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            let time = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: i64::from(within.subsec_nanos()) };
            match poll(&mut fds, Some(&time)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<bool>>()
        };
        let known = usize::from(self.supervisor.is_some());
        if known == 1 && ready[1] {
            return Ok(self.listen());
        }
        // Backwards, since those that said something leave the list.
        for at in (0..self.strangers.len()).rev() {
            if ready[1 + known + at]
                && let Some(event) = self.hello(at)
            {
                return Ok(event);
            }
        }
        if ready[0] {
            self.accept();
        }
        Ok(Event::Nothing)
    }

    fn listen(&mut self) -> Event {
        let Some(supervisor) = &self.supervisor else { return Event::Nothing };
        match supervisor.receive_with() {
            Ok(Some((message, fds))) => return Event::Said(message, fds),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the supervisor says what makes no sense"),
        }
        self.supervisor = None;
        Event::Alone
    }

    fn accept(&mut self) {
        let Ok(channel) = self.listener.accept() else { return };
        let allowed = channel.peer().is_ok_and(|(_, uid)| uid.is_root() || uid == self.user);
        if allowed && self.strangers.len() < STRANGERS {
            self.strangers.push(channel);
        }
    }

    /// What a stranger says first. One that isn't a supervisor is left.
    fn hello(&mut self, at: usize) -> Option<Event> {
        let channel = self.strangers.remove(at);
        let Ok(Some((ToHost::Hello { protocol }, _))) = channel.receive() else { return None };
        let ours = FromHost::Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").into() };
        channel.send_now(&ours).ok()?;
        if protocol != PROTOCOL {
            // It ends us; that the connection lasts tells it that we are still there.
            self.foreign = Some(channel);
            return None;
        }
        let voice = channel.try_clone().ok()?;
        self.supervisor = Some(channel);
        Some(Event::Supervisor(voice))
    }
}
