//! The process behind a host: a child, or one that another supervisor left.
use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, pidfd_send_signal, waitid},
};

/// A process, which stays the one that it was when its number is another's.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    /// Kernels before 5.3 have none.
    handle: Option<OwnedFd>,
}

impl Process {
    /// A process that is known to be there: a child that was not waited for, or one that answers after this.
    pub(super) fn new(pid: Pid) -> Process {
        Process { pid, handle: pidfd_open(pid, PidfdFlags::empty()).ok() }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(super) fn kill(&self) {
        let killed = match &self.handle {
            Some(handle) => pidfd_send_signal(handle, Signal::KILL),
            None => kill_process(self.pid, Signal::KILL),
        };
        if let Err(error) = killed {
            tracing::debug!(pid = self.pid(), error = %io::Error::from(error), "cannot be killed");
        }
    }

    /// Waits for its end and says what that was; `None` if it does not come.
    pub(super) fn ended(&self, within: Duration) -> Option<String> {
        let end = Instant::now() + within;
        if let Some(handle) = &self.handle {
            loop {
                let left = end.saturating_duration_since(Instant::now());
                let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
                match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&left)) {
                    Ok(0) => return None,
                    Err(Errno::INTR) => {}
                    _ => break,
                }
            }
        }
        loop {
            match waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(Some(status)) => {
                    return Some(match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => format!("exit status {code}"),
                        (None, Some(signal)) => signal_name(signal),
                        _ => "ended".into(),
                    });
                }
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) => return None,
                // Somebody else's child: how it ended is told to them.
                Err(_) => return Some("ended".into()),
            }
        }
    }
}

fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(name) => format!("signal {signal}, {name}"),
        Err(_) => format!("signal {signal}"),
    }
}
