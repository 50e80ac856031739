//! The kernel's target configuration in configfs: backstores, and the fabrics that export them.
//!
//! Everything that is created is a value that takes it away again when it is removed or dropped, in the reverse order; `keep` leaves it.
mod access;
mod backstore;
mod export;
#[cfg(any(test, feature = "fake-configfs"))]
pub mod fake;
mod iscsi;
mod look;
mod loopback;
mod module;
mod names;
mod own_target;
mod vhost;

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

pub use backstore::{Backstore, BackstoreFacts, BackstoreSpec, ResetRing};
pub use export::{Export, Fabric, in_use};
pub use iscsi::{Admit, Chap, Iscsi, IscsiSpec};
pub use loopback::Loopback;
pub use module::{NetlinkBlock, need_module};
pub use names::stable_serial;
pub use vhost::Vhost;

/// What went wrong with a file of configfs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigfsError {
    /// Reading failed.
    #[error("{}: cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// The kernel refused a value.
    #[error("{}: the kernel refused {value:?}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The system's words.
        error: io::Error,
    },
    /// Creating, linking or removing failed.
    #[error("{}: cannot be {done}: {error}", path.display())]
    Change {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a participle.
        done: &'static str,
        /// The system's words.
        error: io::Error,
    },
    /// The file's content makes no sense.
    #[error("{}: {text:?} is no {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Its content.
        text: String,
        /// What should be there.
        what: &'static str,
    },
    /// A value can't be what it is.
    #[error("{0}")]
    Invalid(String),
    /// A kernel module can't be had.
    #[error("{0}")]
    Module(String),
    /// Something did not appear in time.
    #[error("{what} did not appear within {} s", within.as_secs())]
    Late {
        /// What.
        what: String,
        /// How long was waited.
        within: Duration,
    },
}

impl ConfigfsError {
    /// The `errno` behind it, if a system call failed.
    pub fn errno(&self) -> Option<i32> {
        match self {
            ConfigfsError::Read { error, .. } | ConfigfsError::Write { error, .. } | ConfigfsError::Change { error, .. } => {
                error.raw_os_error()
            }
            _ => None,
        }
    }
}

/// Reads a file, without the line end and without the NULs that the kernel ends some lines with.
pub(crate) fn read(path: &Path) -> Result<String, ConfigfsError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).replace('\0', "").trim_end().to_owned()),
        Err(error) => Err(ConfigfsError::Read { path: path.to_owned(), error }),
    }
}

pub(crate) fn read_number(path: &Path) -> Result<u64, ConfigfsError> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| ConfigfsError::Malformed { path: path.to_owned(), text, what: "number" })
}

pub(crate) fn write(path: &Path, value: impl ToString) -> Result<(), ConfigfsError> {
    let value = value.to_string();
    // One `write`, as the kernel takes each for a value; no `O_CREAT`, which configfs does not know.
    let outcome =
        fs::OpenOptions::new().write(true).open(path).and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    outcome.map_err(|error| ConfigfsError::Write { path: path.to_owned(), value: value.clone(), error })?;
    #[cfg(any(test, feature = "fake-configfs"))]
    fake::wrote(path, &value);
    Ok(())
}

/// Makes a directory; whether it is new.
pub(crate) fn make_dir(path: &Path) -> Result<bool, ConfigfsError> {
    match fs::create_dir(path) {
        Ok(()) => {
            #[cfg(any(test, feature = "fake-configfs"))]
            fake::made(path);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(ConfigfsError::Change { path: path.to_owned(), done: "created", error }),
    }
}

/// Removes a directory; one that is gone already is no error.
pub(crate) fn remove_dir(path: &Path) -> Result<(), ConfigfsError> {
    #[cfg(any(test, feature = "fake-configfs"))]
    fake::removing(path);
    gone(fs::remove_dir(path), path)
}

/// Removes a link; one that is gone already is no error.
pub(crate) fn remove_link(path: &Path) -> Result<(), ConfigfsError> {
    gone(fs::remove_file(path), path)
}

/// The names in a directory, in order; none if it isn't there.
pub(crate) fn names_in(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The directories in a directory, in order of their names; none if it isn't there.
pub(crate) fn dirs_in(path: &Path) -> Vec<PathBuf> {
    let is_dir = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    names_in(path).into_iter().map(|name| path.join(name)).filter(is_dir).collect()
}

/// Waits until `look` finds something. Blocks.
pub(crate) fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T, ConfigfsError> {
    let end = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(ConfigfsError::Late { what: what.to_owned(), within });
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// What was made, to be taken away in reverse.
#[derive(Debug, Default)]
pub(crate) struct Undo(Vec<Made>);

#[derive(Debug)]
enum Made {
    Dir(PathBuf),
    Link(PathBuf),
    /// A value that has to be written first (`enable` of an iSCSI portal group).
    Value(PathBuf, String),
}

impl Undo {
    pub(crate) fn dir(&mut self, path: &Path) -> Result<(), ConfigfsError> {
        if make_dir(path)? {
            self.0.push(Made::Dir(path.to_owned()));
        }
        Ok(())
    }

    pub(crate) fn link(&mut self, target: &Path, path: &Path) -> Result<(), ConfigfsError> {
        std::os::unix::fs::symlink(target, path).map_err(|error| ConfigfsError::Change {
            path: path.to_owned(),
            done: "linked",
            error,
        })?;
        self.0.push(Made::Link(path.to_owned()));
        Ok(())
    }

    pub(crate) fn value(&mut self, path: &Path, on: &str, off: &str) -> Result<(), ConfigfsError> {
        write(path, on)?;
        self.0.push(Made::Value(path.to_owned(), off.to_owned()));
        Ok(())
    }

    /// Takes everything away; goes on after a failure and returns the first.
    pub(crate) fn run(&mut self) -> Result<(), ConfigfsError> {
        let mut first = Ok(());
        while let Some(made) = self.0.pop() {
            let outcome = match made {
                Made::Value(path, off) => write(&path, off),
                Made::Dir(path) => remove_dir(&path),
                Made::Link(path) => remove_link(&path),
            };
            if first.is_ok() {
                first = outcome;
            }
        }
        first
    }

    pub(crate) fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Err(error) = self.run() {
            tracing::warn!(%error, "something was left behind");
        }
    }
}

/// What is gone already needn't be removed.
fn gone(outcome: io::Result<()>, path: &Path) -> Result<(), ConfigfsError> {
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ConfigfsError::Change { path: path.to_owned(), done: "removed", error }),
    }
}
