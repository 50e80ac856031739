//! TCMU's UIO devices: finding and opening them.
use std::{
    fs, io,
    os::fd::OwnedFd,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};

use crate::{
    identity::{BackstoreId, DeviceName},
    roots::Roots,
};

/// A UIO device of TCMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UioDevice {
    /// The number in `/dev/uio<minor>`.
    pub minor: u32,
    /// Which backstore's, of which handler.
    pub name: DeviceName,
    /// Bytes of map0; mapping needs exactly this.
    pub map_size: usize,
}

/// Why a UIO device could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UioError {
    /// The path can't be read.
    #[error("{path}: {error}", path = path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// It isn't what is expected there.
    #[error("{path}: {text:?} is no {what}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Its content.
        text: String,
        /// What should be there.
        what: &'static str,
    },
    /// There is no such device.
    #[error("there is no UIO device for backstore {0}; it is not enabled")]
    Absent(BackstoreId),
    /// Another process has it open: a UIO device of TCMU can be open once.
    #[error("{path} is in use: another process serves this device", path = path.display())]
    Busy {
        /// The device node.
        path: PathBuf,
    },
}

/// All UIO devices of TCMU, in the order of their numbers. Those of other drivers, and those that vanish meanwhile, are left out.
pub fn list(roots: &Roots) -> Result<Vec<UioDevice>, UioError> {
    let class = roots.sys.join("class/uio");
    let entries = match fs::read_dir(&class) {
        Ok(entries) => entries,
        // The class appears with the first driver.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(UioError::Read { path: class, error }),
    };
    let mut devices: Vec<UioDevice> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("uio")?.parse().ok())
        .filter_map(|minor| read(roots, minor).ok().flatten())
        .collect();
    devices.sort_by_key(|device| device.minor);
    Ok(devices)
}

/// The device of a number; `None` if it isn't TCMU's.
pub fn read(roots: &Roots, minor: u32) -> Result<Option<UioDevice>, UioError> {
    let dir = roots.sys.join(format!("class/uio/uio{minor}"));
    let text = |file: &str| {
        let path = dir.join(file);
        fs::read_to_string(&path).map_err(|error| UioError::Read { path, error })
    };
    let Some(name) = DeviceName::parse(&text("name")?) else { return Ok(None) };
    let size = text("maps/map0/size")?;
    let map_size = usize::from_str_radix(size.trim().trim_start_matches("0x"), 16).map_err(|_| UioError::Malformed {
        path: dir.join("maps/map0/size"),
        text: size,
        what: "hexadecimal size",
    })?;
    Ok(Some(UioDevice { minor, name, map_size }))
}

/// The device of a backstore.
pub fn find(roots: &Roots, id: &BackstoreId) -> Result<UioDevice, UioError> {
    list(roots)?.into_iter().find(|device| device.name.id == *id).ok_or_else(|| UioError::Absent(id.clone()))
}

/// Opens a device, nonblocking. Its node may come later than the kernel's event, so `within` is waited for it. Blocks.
pub fn open(roots: &Roots, minor: u32, within: Duration) -> Result<OwnedFd, UioError> {
    let path = roots.dev.join(format!("uio{minor}"));
    let end = Instant::now() + within;
    loop {
        let error = match rustix::fs::open(&path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => return Ok(fd),
            Err(error) => error,
        };
        match error {
            rustix::io::Errno::BUSY => return Err(UioError::Busy { path }),
            rustix::io::Errno::NOENT | rustix::io::Errno::ACCESS if Instant::now() < end => {
                thread::sleep(Duration::from_millis(5));
            }
            error => return Err(UioError::Read { path, error: error.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(roots: &Roots, minor: u32, name: &str, size: &str) {
        let dir = roots.sys.join(format!("class/uio/uio{minor}"));
        fs::create_dir_all(dir.join("maps/map0")).unwrap();
        fs::write(dir.join("name"), name).unwrap();
        fs::write(dir.join("maps/map0/size"), size).unwrap();
    }

    #[test]
    fn tcmu_devices_are_found_among_others() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::under(dir.path());
        assert_eq!(list(&roots).unwrap(), []);
        device(&roots, 10, "tcm-user/1/b/alloc/x\n", "0x0000000040800000\n");
        device(&roots, 2, "tcm-user/0/a/file//a\n", "0x1000\n");
        device(&roots, 3, "uio_pci_generic\n", "0x1000\n");
        device(&roots, 4, "tcm-user/0/broken/file//a\n", "nonsense\n");
        let found = list(&roots).unwrap();
        assert_eq!(found.iter().map(|d| (d.minor, d.map_size)).collect::<Vec<_>>(), [(2, 0x1000), (10, 0x4080_0000)]);
        assert_eq!(find(&roots, &"user_1/b".parse().unwrap()).unwrap().minor, 10);
        assert!(matches!(find(&roots, &"user_1/c".parse().unwrap()), Err(UioError::Absent(_))));
        assert!(matches!(read(&roots, 4), Err(UioError::Malformed { .. })));
    }

    #[test]
    fn a_node_that_comes_late_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::under(dir.path());
        fs::create_dir_all(&roots.dev).unwrap();
        let path = roots.dev.join("uio0");
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(30));
                fs::write(&path, "").unwrap();
            });
            open(&roots, 0, Duration::from_secs(10)).unwrap();
        });
        assert!(open(&roots, 1, Duration::from_millis(10)).unwrap_err().to_string().contains("uio1"));
    }
}
