//! How many files may be open: each device takes two or three descriptors in its host, and its host may serve thousands.
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As in the systemd unit, and the most that Linux allows unless it was told otherwise (`fs.nr_open`).
const MOST: u64 = 1_048_576;

/// Lets this process, and those that it starts, have `limit` files open; without one, at least as many as the systemd unit does. Where the
/// limit cannot be raised so far, as far as it may be. An error only where a limit was asked for.
pub fn raise_open_files(limit: Option<u64>) -> io::Result<()> {
    let now = getrlimit(Resource::Nofile);
    let to = |limit: u64| {
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: now.maximum.map(|most| most.max(limit)) })
    };
    match limit {
        Some(limit) => Ok(to(limit)?),
        None if now.current.is_none_or(|limit| limit >= MOST) => Ok(()),
        None => {
            if to(MOST).is_err() {
                let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
            }
            Ok(())
        }
    }
}
