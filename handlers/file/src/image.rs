//! The file behind a device.
use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, FallocateFlags, FlockOperation, OFlags, SeekFrom, StatxFlags, fallocate, flock, seek, statx},
    io::Errno,
};
use tcmu_handler_api::plugin::{DeviceFlags, DeviceInfo, Operations, Refusal};

use crate::config::Config;

/// How long a predecessor that is going away may keep its lock.
const HAND_OVER: Duration = Duration::from_secs(2);

/// What file systems and disks want of transfers past the page cache at most: offset, length and memory are multiples of it.
const ALIGNMENT: usize = 4096;

/// An open image or block device, locked against others.
#[derive(Debug)]
pub(crate) struct Image {
    file: fs::File,
    /// The same file, past the page cache.
    direct: Option<fs::File>,
    /// The same file, for flushes: the kernel tells each open of a file once that it could not write data back, and durable writes ask too.
    flushes: Option<fs::File>,
    path: PathBuf,
    regular: bool,
    writable: bool,
    punches: bool,
    zeroes: bool,
}

impl Image {
    /// Opens the file, creates it with `size` bytes if it is missing and may be, and locks it.
    pub(crate) fn open(config: &Config, size: u64, take_over: bool) -> Result<Image, Refusal> {
        let path = Path::new(&config.path);
        let refuse = |error: &io::Error| Refusal::io(format!("cannot open {}", config.path), error);
        let mut options = fs::File::options();
        options.read(true).write(!config.read_only).mode(0o600);
        // A FIFO would block; directories and sockets fail by themselves.
        options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let (file, created) = match options.open(path) {
            // A device that is taken over had its file: an empty one in its place would be silent loss of everything.
            Err(error) if error.kind() == io::ErrorKind::NotFound && config.create && !config.read_only && !take_over => {
                (options.create_new(true).open(path).map_err(|error| refuse(&error))?, true)
            }
            other => (other.map_err(|error| refuse(&error))?, false),
        };
        let kind = file.metadata().map_err(|error| refuse(&error))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Refusal::invalid(format!("{} is neither a file nor a block device", config.path)));
        }
        let direct = config.direct.then(|| open_direct(&file, config)).transpose()?;
        let flushes =
            if config.read_only { None } else { Some(reopen(&file, true, OFlags::empty()).map_err(|error| refuse(&error))?) };
        let mut image = Image {
            file,
            direct,
            flushes,
            path: path.to_owned(),
            regular: kind.is_file(),
            writable: !config.read_only,
            punches: false,
            zeroes: false,
        };
        image.lock(config.read_only, take_over)?;
        if created && let Err(refusal) = image.extend(size) {
            let _ = fs::remove_file(path);
            return Err(refusal);
        }
        if !config.read_only {
            image.probe();
        }
        Ok(image)
    }

    /// One writer, or many readers. The lock ends with the process that has it.
    fn lock(&self, shared: bool, take_over: bool) -> Result<(), Refusal> {
        let operation = if shared { FlockOperation::NonBlockingLockShared } else { FlockOperation::NonBlockingLockExclusive };
        let end = Instant::now() + if take_over { HAND_OVER } else { Duration::ZERO };
        loop {
            match flock(&self.file, operation) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK) if Instant::now() < end => thread::sleep(Duration::from_millis(10)),
                Err(Errno::WOULDBLOCK) => {
                    let path = self.path.display();
                    return Err(Refusal::new(
                        Errno::BUSY.raw_os_error(),
                        format!("{path} is in use by another device or process"),
                    ));
                }
                Err(error) => return Err(self.refuse("lock", error)),
            }
        }
    }

    /// Finds out what can be done about holes, on a byte range that is not used: past the end of the data.
    fn probe(&mut self) {
        if !self.regular {
            // The kernel zeroes the range of a block device one way or another (blkdev_fallocate).
            (self.punches, self.zeroes) = (true, true);
            return;
        }
        let Ok(end) = self.size() else { return };
        let past = end.next_multiple_of(1 << 20) + (1 << 20);
        self.punches = fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, past, 4096).is_ok();
        // Zeroing past the end would allocate there: an empty range says as much.
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        self.zeroes = !matches!(fallocate(&self.file, zero, past, 0), Err(Errno::OPNOTSUPP));
        if self.zeroes {
            self.zeroes = fallocate(&self.file, zero, past, 4096).is_ok();
            let _ = fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, past, 4096);
        }
    }

    /// The descriptor past the page cache for a transfer, if there is one and the transfer is aligned as any disk below may want it; the
    /// others go through the cache, which the kernel keeps coherent with what goes past it.
    pub(crate) fn uncached(&self, offset: u64, length: u64, segments: &[libc::iovec]) -> Option<BorrowedFd<'_>> {
        let direct = self.direct.as_ref()?;
        let aligned = |at: usize| at.is_multiple_of(ALIGNMENT);
        let fits = offset.is_multiple_of(ALIGNMENT as u64)
            && length.is_multiple_of(ALIGNMENT as u64)
            && segments.iter().all(|segment| aligned(segment.iov_base.addr()) && aligned(segment.iov_len));
        fits.then(|| direct.as_fd())
    }

    /// The descriptor for flushes.
    pub(crate) fn flushes(&self) -> BorrowedFd<'_> {
        self.flushes.as_ref().unwrap_or(&self.file).as_fd()
    }

    /// Links to a regular file and bytes in it, as far as this machine knows without asking another.
    pub(crate) fn links_and_size(&self) -> Option<(u32, u64)> {
        let wanted = StatxFlags::NLINK | StatxFlags::SIZE;
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let found = self.regular.then(|| statx(&self.file, "", flags, wanted).ok()).flatten()?;
        (wanted.bits() & !found.stx_mask == 0).then_some((found.stx_nlink, found.stx_size))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it can be made longer.
    pub(crate) fn is_extensible(&self) -> bool {
        self.regular && self.writable
    }

    pub(crate) fn zeroes_by_punching(&self) -> bool {
        !self.zeroes
    }

    /// Bytes in it. Of a block device: its end.
    pub(crate) fn size(&self) -> Result<u64, Refusal> {
        if self.regular {
            return Ok(self.file.metadata().map_err(|error| self.refuse("stat", error))?.len());
        }
        seek(&self.file, SeekFrom::End(0)).map_err(|error| self.refuse("find the end of", error))
    }

    /// Makes a regular file longer, with holes.
    pub(crate) fn extend(&self, bytes: u64) -> Result<(), Refusal> {
        self.file.set_len(bytes).map_err(|error| self.refuse("extend", error))
    }

    /// Whether that path leads to this file.
    pub(crate) fn is_at(&self, path: &str) -> Result<bool, Refusal> {
        let own = self.file.metadata().map_err(|error| self.refuse("stat", error))?;
        let there = fs::metadata(path).map_err(|error| Refusal::io(format!("cannot stat {path}"), &error))?;
        Ok(if self.regular {
            (there.dev(), there.ino()) == (own.dev(), own.ino())
        } else {
            there.file_type().is_block_device() && there.rdev() == own.rdev()
        })
    }

    /// Says what the file can do.
    pub(crate) fn describe(&self, config: &Config, info: &mut DeviceInfo) {
        info.supports(Operations::FLUSH | Operations::COPY).set_flags(DeviceFlags::WRITE_CACHE | DeviceFlags::FUA, true);
        info.set_flags(DeviceFlags::READ_ONLY, config.read_only);
        if self.punches {
            info.supports(Operations::UNMAP | Operations::WRITE_ZEROES);
            if self.regular {
                info.supports(Operations::EXTENTS);
            }
            info.set_flags(DeviceFlags::UNMAP_ZEROES | DeviceFlags::THIN, true);
        } else if self.zeroes {
            info.supports(Operations::WRITE_ZEROES);
        }
        let Ok(metadata) = self.file.metadata() else { return };
        let preferred = u32::try_from(metadata.blksize()).ok().filter(|size| size.is_power_of_two());
        if let Some(size) = preferred.filter(|size| (info.block_size()..=1 << 20).contains(size)) {
            info.0.physical_block_size = size;
            info.0.unmap_granularity = size;
        }
        info.0.rotation_rate = self.rotation_rate(&metadata);
    }

    /// 1 (not rotating), or 0 (not reported) if the disk below says that it rotates.
    fn rotation_rate(&self, metadata: &fs::Metadata) -> u32 {
        let device = if self.regular { metadata.dev() } else { metadata.rdev() };
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let block = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let rotates = ["queue/rotational", "../queue/rotational"]
            .iter()
            .find_map(|file| fs::read_to_string(block.join(file)).ok())
            .is_some_and(|text| text.trim() == "1");
        u32::from(!rotates)
    }

    fn refuse(&self, what: &str, error: impl Into<io::Error>) -> Refusal {
        Refusal::io(format!("cannot {what} {}", self.path.display()), &error.into())
    }
}

impl AsFd for Image {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens a file a second time. By the descriptor: the path may name another file by now.
fn reopen(file: &fs::File, write: bool, flags: OFlags) -> io::Result<fs::File> {
    let mut options = fs::File::options();
    options.read(true).write(write).custom_flags((flags | OFlags::NONBLOCK).bits().cast_signed());
    options.open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Opens a file a second time, with `O_DIRECT`.
fn open_direct(file: &fs::File, config: &Config) -> Result<fs::File, Refusal> {
    reopen(file, !config.read_only, OFlags::DIRECT).map_err(|error| {
        Refusal::io(
            format!("direct=on: {} cannot be opened with O_DIRECT; its file system may not be able to", config.path),
            &error,
        )
    })
}
