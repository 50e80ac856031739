//! Notices that the configuration's file was changed: written in place, replaced, removed, or put there.
use std::{
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};

/// How long the file has to be left alone before it counts as changed: editors and package managers write, rename and remove.
const QUIET: Duration = Duration::from_millis(300);
/// How often a directory that isn't there is looked for.
const ABSENT: Duration = Duration::from_secs(10);

/// Calls `changed` when a file was changed and then left alone for a moment, on a thread of its own, until that returns false.
pub fn watch(file: &Path, changed: impl FnMut() -> bool + Send + 'static) -> io::Result<()> {
    let file = std::path::absolute(file)?;
    thread::Builder::new().name("config-watch".into()).spawn(move || {
        if let Err(error) = watch_for_ever(&file, changed) {
            tracing::warn!(file = %file.display(), %error, "changes are not noticed; `tcmuctl reload` reads the configuration again");
        }
    })?;
    Ok(())
}

fn watch_for_ever(file: &Path, mut changed: impl FnMut() -> bool) -> io::Result<()> {
    let (Some(dir), Some(name)) = (file.parent(), file.file_name()) else { return Ok(()) };
    let mut missing = false;
    loop {
        let watch = match Watch::begin(dir, name) {
            Ok(watch) => watch,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                missing = true;
                thread::sleep(ABSENT);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // It may have come with its directory.
        if std::mem::take(&mut missing) && file.exists() && !changed() {
            return Ok(());
        }
        while watch.wait()? {
            if !changed() {
                return Ok(());
            }
        }
        missing = true;
    }
}

/// A directory that is watched for one name.
struct Watch {
    inotify: OwnedFd,
    name: PathBuf,
}

enum Seen {
    Nothing,
    Change,
    /// The directory itself is gone.
    Gone,
}

impl Watch {
    fn begin(dir: &Path, name: &OsStr) -> Result<Watch, Errno> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB;
        inotify::add_watch(&inotify, dir, what | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR)?;
        Ok(Watch { inotify, name: name.into() })
    }

    /// Waits for a change and then for quiet. False: the directory is gone.
    fn wait(&self) -> io::Result<bool> {
        let mut pending = false;
        loop {
            let quiet = Timespec { tv_sec: 0, tv_nsec: QUIET.as_nanos() as i64 };
            let ready =
                match poll(&mut [PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN)], pending.then_some(&quiet)) {
                    Err(Errno::INTR) => continue,
                    ready => ready?,
                };
            if ready == 0 {
                return Ok(true);
            }
            match self.read()? {
                Seen::Nothing => {}
                Seen::Change => pending = true,
                Seen::Gone => return Ok(false),
            }
        }
    }

    fn read(&self) -> io::Result<Seen> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut seen = Seen::Nothing;
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(seen),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let flags = event.events();
            if flags.intersects(
                inotify::ReadFlags::DELETE_SELF
                    | inotify::ReadFlags::MOVE_SELF
                    | inotify::ReadFlags::IGNORED
                    | inotify::ReadFlags::UNMOUNT,
            ) {
                return Ok(Seen::Gone);
            }
            let ours = event.file_name().is_some_and(|name| OsStr::from_bytes(name.to_bytes()) == self.name);
            if ours || flags.contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                seen = Seen::Change;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_change_is_noticed_once_however_the_file_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tcmu.toml");
        fs::write(&file, "a").unwrap();
        let (sender, changes) = mpsc::channel();
        watch(&file, move || sender.send(()).is_ok()).unwrap();
        // The watch is there when it sees something.
        let seen = |change: &dyn Fn()| {
            change();
            changes.recv_timeout(SOON).expect("the change is noticed");
            assert!(changes.recv_timeout(QUIET * 3).is_err(), "it is one change");
        };
        while changes.recv_timeout(QUIET * 2).is_err() {
            fs::write(&file, "b").unwrap();
        }
        seen(&|| (0..5).for_each(|n| fs::write(&file, n.to_string()).unwrap()));
        seen(&|| {
            fs::write(dir.path().join("new"), "c").unwrap();
            fs::rename(dir.path().join("new"), &file).unwrap();
        });
        seen(&|| fs::remove_file(&file).unwrap());
        seen(&|| fs::write(&file, "d").unwrap());
        fs::write(dir.path().join("another"), "e").unwrap();
        assert!(changes.recv_timeout(QUIET * 3).is_err(), "another file's change is none");
    }
}
