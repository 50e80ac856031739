//! A disk out of anything with `read_at` and `write_at`.
//!
//! ```no_run
//! use tcmu::disk::Disk;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let image = std::fs::File::options().read(true).write(true).open("/srv/image")?;
//! let size = image.metadata()?.len();
//! let disk = Disk::builder("image").size(size).directory("/dev/example").start(image)?;
//! println!("{}", disk.path().unwrap().display()); // /dev/example/image
//! disk.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! Needs root, and the kernel modules `target_core_user` and `tcm_loop`.
use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    slice,
    sync::Arc,
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use tcmu_handler_api::{
    host::{Events, Level, OpenDevice},
    plugin::{BlockDevice, Buffer, DeviceFlags, DeviceInfo, Error, Operations, Refusal, RequestFlags},
};

use crate::{
    configfs::{Backstore, BackstoreSpec, ConfigfsError, Loopback},
    roots::Roots,
    server::{Attach, Attached, Counters, ServeError, Server, ServerOptions},
    uio::{self, UioError},
};

/// How long the kernel and udev may take to show a device.
const APPEAR: Duration = Duration::from_secs(30);
/// How long commands in flight may take when a disk is stopped.
const DRAIN: Duration = Duration::from_secs(30);

/// Where a disk's bytes are. Called from several threads at a time.
pub trait Storage: Send + Sync + 'static {
    /// Reads exactly `into.len()` bytes at `offset`.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `from` at `offset`.
    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()>;

    /// Brings completed writes to stable storage.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for fs::File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(into, offset)
    }

    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(from, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The kernel's configuration refused.
    #[error(transparent)]
    Configfs(#[from] ConfigfsError),
    /// The UIO device can't be had.
    #[error(transparent)]
    Uio(#[from] UioError),
    /// The device can't be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The parameters make no device.
    #[error("{0}")]
    Device(#[from] Refusal),
    /// The device node can't be made.
    #[error("{}: {error}", path.display())]
    Node {
        /// The node or its directory.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Commands are still in flight.
    #[error("commands are still in flight after {} s; the disk is still there", DRAIN.as_secs())]
    Busy,
}

/// How a disk is made.
#[derive(Clone, Debug)]
pub struct DiskBuilder {
    name: String,
    size: u64,
    block_size: u32,
    hba: Option<u32>,
    directory: Option<PathBuf>,
    read_only: bool,
    roots: Roots,
    server: Option<Server>,
}

impl DiskBuilder {
    /// Bytes; a multiple of the block size.
    pub fn size(mut self, bytes: u64) -> DiskBuilder {
        self.size = bytes;
        self
    }

    /// Logical block size in bytes: a power of two, 512 if not told.
    pub fn block_size(mut self, bytes: u32) -> DiskBuilder {
        self.block_size = bytes;
        self
    }

    /// The number of the HBA in configfs; the first free one if not told.
    pub fn hba(mut self, hba: u32) -> DiskBuilder {
        self.hba = Some(hba);
        self
    }

    /// Makes the disk a SCSI disk of this machine, with a node of its name in this directory. Without, the fabric is left to the
    /// caller, who finds the backstore at [`Disk::backstore_path`].
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> DiskBuilder {
        self.directory = Some(directory.into());
        self
    }

    /// The disk can't be written.
    pub fn read_only(mut self, read_only: bool) -> DiskBuilder {
        self.read_only = read_only;
        self
    }

    /// Other mounts than `/sys` and `/dev`.
    pub fn roots(mut self, roots: Roots) -> DiskBuilder {
        self.roots = roots;
        self
    }

    /// Serves the disk on the threads of a server that others use too.
    pub fn server(mut self, server: &Server) -> DiskBuilder {
        self.server = Some(server.clone());
        self
    }

    /// Makes the disk. Blocks until it is there; when a step fails, nothing stays behind.
    pub fn start(self, storage: impl Storage) -> Result<Disk, DiskError> {
        let mut info = DeviceInfo::new(self.size, self.block_size);
        info.supports(Operations::FLUSH)
            .set_flags(DeviceFlags::WRITE_CACHE, true)
            .set_flags(DeviceFlags::READ_ONLY, self.read_only);
        let server = match self.server {
            Some(server) => server,
            None => Server::start(ServerOptions { reactors: 1, workers: 4, ..ServerOptions::default() })?,
        };
        let device = OpenDevice::embed(Adapter(storage), info, Arc::new(ToTracing), Server::services())?;

        let mut spec = BackstoreSpec::new(&self.name, format!("embedded/{}", self.name), self.size);
        spec.hba = self.hba;
        spec.block_size = self.block_size;
        // No daemon is asked, and none that runs here can be in the way.
        spec.wait_for_reply = false;
        let backstore = Backstore::create(&self.roots, &spec)?;

        let found = uio::find(&self.roots, backstore.id())?;
        let fd = uio::open(&self.roots, found.minor, APPEAR)?;
        let serial = Backstore::at(&self.roots, backstore.id());
        let attach = Attach {
            target: Arc::new(move || {
                Some(serial.serial().unwrap_or_else(|| format!("{:x?}", serial.id().to_string().as_bytes())))
            }),
            hw_max_sectors: spec.hw_max_sectors,
            ..Attach::new(backstore.id().to_string(), fd, found.map_size, device)
        };
        let attached = server.attach(attach, |_| ())?;
        let mut disk = Disk { node: None, loopback: None, attached: Some(attached), backstore: Some(backstore) };
        if let Some(directory) = self.directory {
            disk.export(&self.roots, &directory, &self.name)?;
        }
        Ok(disk)
    }
}

/// A disk that is being served. Dropping it takes everything away again.
#[derive(Debug)]
pub struct Disk {
    node: Option<PathBuf>,
    loopback: Option<Loopback>,
    attached: Option<Box<Attached>>,
    backstore: Option<Backstore>,
}

impl Disk {
    /// A disk of this name, in configfs and in its directory.
    pub fn builder(name: impl Into<String>) -> DiskBuilder {
        DiskBuilder {
            name: name.into(),
            size: 0,
            block_size: 512,
            hba: None,
            directory: None,
            read_only: false,
            roots: Roots::default(),
            server: None,
        }
    }

    /// The device node, if the disk was given a directory.
    pub fn path(&self) -> Option<&Path> {
        self.node.as_deref()
    }

    /// The backstore in configfs, for fabrics of the caller's own.
    pub fn backstore_path(&self) -> Option<&Path> {
        self.backstore.as_ref().map(Backstore::path)
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.attached.as_ref().map(|attached| attached.counters()).unwrap_or_default()
    }

    /// Takes the disk away: node, fabric, backstore. Blocks. What could not be taken away is tried again on drop.
    pub fn stop(mut self) -> Result<(), DiskError> {
        self.take_down()
    }

    fn export(&mut self, roots: &Roots, directory: &Path, name: &str) -> Result<(), DiskError> {
        let backstore = self.backstore.as_ref().ok_or(DiskError::Busy)?;
        let loopback = Loopback::attach(roots, backstore)?;
        let block = loopback.block_device(roots, APPEAR)?;
        self.loopback = Some(loopback);
        let node = directory.join(name);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| DiskError::Node { path, error }
        };
        fs::create_dir_all(directory).map_err(failed(directory))?;
        let numbers = roots.sys.join("class/block").join(&block).join("dev");
        let text = fs::read_to_string(&numbers).map_err(failed(&numbers))?;
        let (major, minor) = text
            .trim()
            .split_once(':')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            .ok_or_else(|| failed(&numbers)(io::ErrorKind::InvalidData.into()))?;
        mknodat(CWD, &node, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, makedev(major, minor))
            .map_err(|error| failed(&node)(error.into()))?;
        self.node = Some(node);
        Ok(())
    }

    fn take_down(&mut self) -> Result<(), DiskError> {
        if let Some(node) = self.node.take() {
            fs::remove_file(&node).map_err(|error| DiskError::Node { path: node, error })?;
        }
        // The disk must still answer while the kernel lets go of it.
        if let Some(loopback) = self.loopback.take() {
            loopback.remove()?;
        }
        if let Some(attached) = self.attached.take()
            && let Err(attached) = attached.stop(DRAIN)
        {
            self.attached = Some(attached);
            return Err(DiskError::Busy);
        }
        if let Some(backstore) = self.backstore.take() {
            backstore.remove()?;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            tracing::error!(%error, "a disk was left behind");
        }
    }
}

struct ToTracing;

impl Events for ToTracing {
    fn log(&self, level: Level, message: &str) {
        tracing::debug!(?level, message);
    }
}

/// Gives a [`Storage`] its slices.
struct Adapter<S>(S);

impl<S: Storage> BlockDevice for Adapter<S> {
    fn read(&self, mut offset: u64, data: Buffer<'_>) -> Result<(), Error> {
        for segment in data.iovecs() {
            // SAFETY: the pages of a command in flight are the device's alone: the kernel copies into them before the command is queued
            // and out of them after it is completed, and no other reference to them is made.
            let into = unsafe { slice::from_raw_parts_mut(segment.iov_base.cast::<u8>(), segment.iov_len) };
            self.0.read_at(into, offset)?;
            offset += segment.iov_len as u64;
        }
        Ok(())
    }

    fn write(&self, mut offset: u64, data: Buffer<'_>, _: RequestFlags) -> Result<(), Error> {
        for segment in data.iovecs() {
            // SAFETY: as in `read`.
            let from = unsafe { slice::from_raw_parts(segment.iov_base.cast::<u8>(), segment.iov_len) };
            self.0.write_at(from, offset)?;
            offset += segment.iov_len as u64;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(self.0.flush()?)
    }
}
