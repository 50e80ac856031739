//! What becomes of system calls that the filter refuses: one thread answers them, another one says in the log what was tried.
//!
//! Whoever makes such a call may hold any lock while it waits for the answer: `fork` holds all those of malloc. So the thread that answers
//! takes none and allocates nothing, and tells the other one through a pipe.
use std::{
    io::{self, PipeReader, PipeWriter, Read, Write, pipe},
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
    sync::mpsc,
    thread,
};

use nix::sys::signal::SigSet;
use syscalls::Sysno;

use super::needs::Needs;

// include/uapi/linux/seccomp.h
const IOCTL_NOTIF_RECV: libc::Ioctl = libc::_IOWR::<libc::seccomp_notif>(b'!' as u32, 0);
const IOCTL_NOTIF_SEND: libc::Ioctl = libc::_IOWR::<libc::seccomp_notif_resp>(b'!' as u32, 1);

/// Numbers of system calls from this one on are all told of as one. All others together fit into a pipe, so that nobody waits for it.
const NUMBERS: usize = 512;

/// Who answers, waiting for something to do.
pub(super) struct Refusals(PipeWriter);

impl Refusals {
    /// Starts the threads. They end when this is dropped, or the process has no filter any more, which is never.
    pub(super) fn begin() -> io::Result<Refusals> {
        let ((mut told, tell), (tried, mut tries)) = (pipe()?, pipe()?);
        let (ready, is_ready) = mpsc::channel();
        let answering = move || {
            // It is filtered too: a signal's handler that is refused a call here would wait for itself.
            let blocked = SigSet::all().thread_block().map_err(io::Error::from);
            let goes_on = blocked.is_ok();
            let _ = ready.send(blocked);
            // From here on without a lock or an allocation: the first call may come before the descriptor.
            let mut listener = [0; size_of::<i32>()];
            if goes_on && told.read_exact(&mut listener).is_ok() {
                // SAFETY: `answer` gave it away.
                answer(&unsafe { OwnedFd::from_raw_fd(i32::from_ne_bytes(listener)) }, &mut tries);
            }
        };
        thread::Builder::new().name("tcmu-sandbox".into()).spawn(answering)?;
        thread::Builder::new().name("tcmu-refusals".into()).spawn(move || tell_of(tried))?;
        is_ready.recv().map_err(io::Error::other)??;
        Ok(Refusals(tell))
    }

    /// From now on they answer what this descriptor of the filter brings.
    pub(super) fn answer(mut self, listener: OwnedFd) -> io::Result<()> {
        self.0.write_all(&listener.into_raw_fd().to_ne_bytes())
    }
}

/// Answers calls that are not allowed, and tells of each number once.
fn answer(listener: &OwnedFd, tries: &mut PipeWriter) {
    let mut seen = [false; NUMBERS];
    loop {
        // SAFETY: all zeros is what the kernel wants to find.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the struct of this ioctl.
        if unsafe { libc::ioctl(listener.as_raw_fd(), IOCTL_NOTIF_RECV, &raw mut call) } < 0 {
            match io::Error::last_os_error().raw_os_error() {
                // Its caller was interrupted meanwhile.
                Some(libc::ENOENT | libc::EINTR) => continue,
                _ => return,
            }
        }
        let answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: -errno(call.data.nr), flags: 0 };
        // SAFETY: the struct of this ioctl. It fails if the caller is gone, which is as well.
        unsafe { libc::ioctl(listener.as_raw_fd(), IOCTL_NOTIF_SEND, &raw const answer) };
        let place = usize::try_from(call.data.nr).map_or(NUMBERS - 1, |number| number.min(NUMBERS - 1));
        if !std::mem::replace(&mut seen[place], true) {
            let _ = tries.write_all(&call.data.nr.to_ne_bytes());
        }
    }
}

fn name(number: i32) -> Option<Sysno> {
    usize::try_from(number).ok().and_then(Sysno::new)
}

fn errno(number: i32) -> i32 {
    match name(number) {
        // Its arguments are in memory, where no filter can look: libraries take `clone` instead.
        None | Some(Sysno::clone3) => libc::ENOSYS,
        Some(_) => libc::EPERM,
    }
}

/// Says what was tried.
fn tell_of(mut tried: PipeReader) {
    let mut number = [0; size_of::<i32>()];
    while tried.read_exact(&mut number).is_ok() {
        let number = i32::from_ne_bytes(number);
        match name(number) {
            Some(Sysno::clone3) => {}
            Some(name) => tracing::warn!(
                "the handler tried the system call `{name}`, which was refused (EPERM): its plugin does not declare that it needs `{}`",
                Needs::word_for(name)
            ),
            None => tracing::warn!("the handler tried system call {number}, which was refused (ENOSYS)"),
        }
    }
}
