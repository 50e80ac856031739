//! What systemd is told (sd_notify(3)), and its watchdog (sd_watchdog_enabled(3)).
use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::Path,
    time::{Duration, Instant},
};

/// Tells systemd something, if it started us.
pub fn notify(state: &str) {
    let Ok(path) = env::var("NOTIFY_SOCKET") else { return };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(Path::new(&path)),
    };
    if let (Ok(socket), Ok(address)) = (UnixDatagram::unbound(), address) {
        let _ = socket.send_to_addr(state.as_bytes(), &address);
    }
}

/// Tells systemd again and again that the thread that has it still comes round. It ends the daemon when it does not hear that
/// (`WatchdogSec=`); handler hosts serve on, and the next daemon adopts them.
#[derive(Debug)]
pub struct Watchdog {
    period: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    /// As systemd asked for it in the environment.
    pub fn from_environment() -> Watchdog {
        let (time, pid) = (env::var("WATCHDOG_USEC").ok(), env::var("WATCHDOG_PID").ok());
        Watchdog { period: period(time.as_deref(), pid.as_deref(), std::process::id()), next: Instant::now() }
    }

    /// When it is due.
    pub fn next(&self) -> Option<Instant> {
        self.period.map(|_| self.next)
    }

    /// Says that all is well, if it is due.
    pub fn tell(&mut self, now: Instant) {
        if let Some(period) = self.period.filter(|_| self.next <= now) {
            notify("WATCHDOG=1");
            self.next = now + period;
        }
    }
}

/// Three times within the limit, so that one late time is no harm.
fn period(time: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let time: u64 = time?.parse().ok().filter(|time| *time > 0)?;
    // Without a process named it is for whoever has the variable.
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    ours.then(|| Duration::from_micros(time) / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_told_three_times_within_its_limit_and_only_if_asked_for() {
        assert_eq!(period(Some("60000000"), Some("7"), 7), Some(Duration::from_secs(20)));
        assert_eq!(period(Some("60000000"), None, 7), Some(Duration::from_secs(20)));
        assert_eq!(period(Some("60000000"), Some("8"), 7), None, "it is for another process");
        for nothing in [None, Some("0"), Some("soon"), Some("")] {
            assert_eq!(period(nothing, Some("7"), 7), None, "{nothing:?}");
        }
        let mut idle = Watchdog { period: None, next: Instant::now() };
        idle.tell(Instant::now());
        assert_eq!(idle.next(), None);
    }
}
