//! The run directory: the lock that makes the daemon the only one, the sockets where its hosts are reached, and what the
//! next daemon has to know.
use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tcmu::BackstoreId;

use crate::protocol::Listener;

/// Where it is if the command line doesn't say.
pub const DEFAULT_PATH: &str = "/run/tcmu-runnerd";

/// The file with the devices whose write caches are off.
const CACHES_OFF: &str = "write-caches-off";

/// The run directory, locked: as long as this lives no other daemon runs with it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes the directory if it isn't there, closes it to everybody else, and locks it.
    pub fn lock(path: &Path) -> anyhow::Result<RunDir> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make the run directory {}", path.display()));
            }
            _ => {}
        }
        let metadata = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
        if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
            bail!("{}: the run directory must be a directory of root's own; remove it, and it is made anew", path.display());
        }
        fs::set_permissions(path, Permissions::from_mode(0o700)).with_context(|| path.display().to_string())?;
        let file = path.join("lock");
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .with_context(|| format!("cannot open {}", file.display()))?;
        if lock.try_lock().is_err() {
            bail!("another tcmu-runnerd is running ({} is locked); stop it first", file.display());
        }
        Ok(RunDir { path: path.to_owned(), _lock: lock })
    }

    /// A new socket for a host, at a name that no other has.
    pub fn socket(&self) -> io::Result<(Listener, PathBuf)> {
        let mut number = 0u32;
        loop {
            let path = self.path.join(format!("host-{number}"));
            match Listener::bind(&path) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => number += 1,
                other => return other.map(|listener| (listener, path)),
            }
        }
    }

    /// The devices whose write caches were switched off, as an earlier daemon left it.
    pub fn caches_off(&self) -> io::Result<BTreeSet<BackstoreId>> {
        let names: Vec<String> = match fs::read(self.path.join(CACHES_OFF)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => serde_json::from_slice(&text?)?,
        };
        Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Leaves that for the next daemon.
    pub fn keep_caches_off(&self, devices: &BTreeSet<BackstoreId>) -> io::Result<()> {
        let (path, new) = (self.path.join(CACHES_OFF), self.path.join("new"));
        if devices.is_empty() {
            return fs::remove_file(path);
        }
        let names: Vec<String> = devices.iter().map(ToString::to_string).collect();
        fs::write(&new, serde_json::to_vec(&names)?)?;
        fs::rename(new, path)
    }

    /// The sockets that are there, of hosts that are or were.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let is_socket =
            |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("host-"));
        let mut sockets: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_socket).collect();
        sockets.sort();
        sockets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_at_a_time_in_a_directory_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let first = RunDir::lock(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let refused = RunDir::lock(&path).unwrap_err().to_string();
        assert!(refused.starts_with("another tcmu-runnerd is running"), "{refused}");
        drop(first);
        RunDir::lock(&path).unwrap();
    }

    #[test]
    fn a_link_or_a_file_in_its_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("link"), dir.path().join("file"));
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        fs::write(&file, "").unwrap();
        for path in [link, file] {
            assert!(RunDir::lock(&path).unwrap_err().to_string().contains("must be a directory"));
        }
    }

    #[test]
    fn the_next_daemon_knows_which_write_caches_are_off() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::lock(dir.path()).unwrap();
        assert_eq!(run.caches_off().unwrap(), BTreeSet::new());
        let off: BTreeSet<BackstoreId> = ["user_0/a", "user_7/b"].map(|name| name.parse().unwrap()).into();
        run.keep_caches_off(&off).unwrap();
        assert_eq!(run.caches_off().unwrap(), off);
        run.keep_caches_off(&BTreeSet::new()).unwrap();
        assert_eq!(run.caches_off().unwrap(), BTreeSet::new());
        fs::write(dir.path().join(CACHES_OFF), "[").unwrap();
        assert!(run.caches_off().is_err());
    }

    #[test]
    fn sockets_have_names_of_their_own_and_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::lock(dir.path()).unwrap();
        let (_a, first) = run.socket().unwrap();
        let (_b, second) = run.socket().unwrap();
        assert_eq!(run.sockets(), [first, second]);
    }
}
