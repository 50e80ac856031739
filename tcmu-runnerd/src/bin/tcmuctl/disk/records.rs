//! Which disk came from which file, noted in the run directory: as the kernel's configuration, it lasts until the next boot. What is not
//! noted here was made by others, and is never taken away by `apply`.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Machine;

fn path(machine: &Machine, disk: &str) -> PathBuf {
    machine.run.join(disk)
}

/// Notes that a disk came from a file. A note that can't be written only means that the disk is not known later.
pub(crate) fn note(machine: &Machine, disk: &str, file: &Path) {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let written =
        fs::create_dir_all(&machine.run).and_then(|()| fs::write(path(machine, disk), file.as_os_str().as_encoded_bytes()));
    if let Err(error) = written {
        errln!("tcmuctl: {}: {error}; `apply` will not know later that it made {disk}", path(machine, disk).display());
    }
}

/// Forgets a disk.
pub(crate) fn forget(machine: &Machine, disk: &str) {
    match fs::remove_file(path(machine, disk)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => errln!("tcmuctl: {}: {error}", path(machine, disk).display()),
        _ => {}
    }
}

/// The disks that came from files in a directory which are not there any more.
pub(crate) fn orphans(machine: &Machine, dir: &Path, files: &[PathBuf]) -> Vec<String> {
    let canonical = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (dir, files) = (canonical(dir), files.iter().map(|file| canonical(file)).collect::<Vec<_>>());
    let entries = fs::read_dir(&machine.run).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let from = PathBuf::from(fs::read_to_string(entry.path()).ok()?);
            (from.parent() == Some(dir.as_path()) && !files.contains(&from)).then(|| entry.file_name().into_string().ok())?
        })
        .collect();
    names.sort();
    names
}
