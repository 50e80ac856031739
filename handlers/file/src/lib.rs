//! The `file` handler: a raw image or a block device.
//!
//! Reads, writes and the rest are handed back to the host as I/O on the file's descriptor; what is left here is opening the file, saying
//! what it can do, and changing its size.
mod config;
mod fate;
mod image;

use std::{
    os::fd::AsFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use config::Config;
use fate::Fate;
use image::Image;
use tcmu_handler_api::{
    plugin::{FileIo, Notifier, log},
    prelude::*,
};

/// A file that serves as a disk.
#[derive(Debug)]
pub struct File {
    image: Image,
    fate: Fate,
    config: Mutex<Config>,
    notifier: Notifier,
}

impl Handler for File {
    const INFO: HandlerInfo = HandlerInfo {
        subtype: c"file",
        name: c"File or block device",
        version: c"0.1.0",
        config_desc: c"file/<absolute path>[;ro=on|off][;create=on|off][;direct=on|off]: a raw image or a block device. A file that is \
missing is created, one that is too short is extended. ro: cannot be written. create: whether a missing file is created (on). direct: past the page cache (off).",
    };

    fn check_config(config: &str) -> Result<(), Refusal> {
        Config::parse(config).map(|_| ())
    }

    fn open(open: &Open<'_>, info: &mut DeviceInfo) -> Result<File, Refusal> {
        let config = Config::parse(open.config())?;
        let notifier = open.notifier();
        let image = Image::open(&config, info.size(), open.is_take_over())?;
        let room = image.size()?;
        if room < info.size() {
            // A disk that is taken over may have had data there: zeros in their place would be silent loss, and so would be an empty disk.
            if image.is_regular() && !config.read_only && !open.is_take_over() {
                image.extend(info.size())?;
                log::info(Some(&notifier), format!("{} was extended from {room} to {} bytes", config.path, info.size()));
            } else {
                let usable = room - room % u64::from(info.block_size());
                if usable == 0 {
                    return Err(Refusal::new(
                        rustix::io::Errno::IO.raw_os_error(),
                        format!("{} has {room} bytes instead of {}: was it truncated?", config.path, info.size()),
                    ));
                }
                log::warn(
                    Some(&notifier),
                    format!(
                        "{} has {room} bytes, its disk {}: a resize was left half done, or the file was truncated; serving {usable}",
                        config.path,
                        info.size()
                    ),
                );
                info.0.size = usable;
            }
        }
        image.describe(&config, info);
        let fate = Fate::new(info.size());
        Ok(File { image, fate, config: Mutex::new(config), notifier })
    }
}

impl Device for File {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        let fd = self.image.as_fd();
        for request in batch {
            if request.operation() == Operation::Flush {
                self.fate.look(&self.image, &self.notifier);
            }
            if self.fate.is_cut_off() && !matches!(request.operation(), Operation::Read | Operation::Extents) {
                request.complete(Err(Error::IO));
                continue;
            }
            let (offset, length) = (request.offset(), request.length());
            let io = match request.operation() {
                Operation::Read => match self.image.uncached(offset, length, request.buffer().iovecs()) {
                    Some(fd) => FileIo::read(fd, offset, length).uncached(true),
                    None => FileIo::read(fd, offset, length),
                },
                Operation::Write => {
                    let io = match self.image.uncached(offset, length, request.buffer().iovecs()) {
                        Some(fd) => FileIo::write(fd, offset, length).uncached(true),
                        None => FileIo::write(fd, offset, length),
                    };
                    io.durable(request.flags().contains(RequestFlags::FUA))
                }
                Operation::Flush => FileIo::datasync(self.image.flushes()),
                Operation::Unmap => FileIo::punch_hole(fd, offset, length),
                Operation::WriteZeroes if request.flags().contains(RequestFlags::MAY_UNMAP) => {
                    FileIo::punch_hole(fd, offset, length)
                }
                Operation::WriteZeroes if self.image.zeroes_by_punching() => FileIo::punch_hole(fd, offset, length),
                Operation::WriteZeroes => FileIo::zero_range(fd, offset, length),
                Operation::Copy => FileIo::copy(fd, request.source_offset(), offset, length),
                Operation::Extents => FileIo::extents(fd, offset, length),
                _ => {
                    request.complete(Err(Error::UNSUPPORTED));
                    continue;
                }
            };
            request.io(io);
        }
    }

    fn reconfigure(&self, change: Change<'_>, info: &mut DeviceInfo) -> Result<(), Refusal> {
        match change {
            Change::Size(bytes) => self.resize(bytes, info),
            // The page cache stays; the host makes every write durable instead.
            Change::WriteCache(_) => Err(Refusal::unsupported("the page cache cannot be switched off")),
            Change::Config(text) => self.rename(Config::parse(text)?),
            _ => Err(Refusal::unsupported("only size and config string can be changed")),
        }
    }

    fn describe(&self) -> String {
        let config = self.config();
        format!("path={}\nread_only={}\ndirect={}\n", config.path, config.read_only, config.direct)
    }
}

impl File {
    fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same file by another name. `create` does not matter by now.
    fn rename(&self, new: Config) -> Result<(), Refusal> {
        let mut config = self.config();
        if (new.read_only, new.direct) != (config.read_only, config.direct) {
            return Err(Refusal::unsupported("`ro` and `direct` cannot be changed while the disk is in use"));
        }
        if new.path != config.path && !self.image.is_at(&new.path)? {
            return Err(Refusal::unsupported(format!(
                "{} is another file than the disk's, which is {}: another file needs a new device",
                new.path, config.path
            )));
        }
        *config = new;
        Ok(())
    }

    /// Grows the file with the device; a device that shrinks leaves the file as it is.
    fn resize(&self, bytes: u64, info: &mut DeviceInfo) -> Result<(), Refusal> {
        let room = self.image.size()?;
        if room < bytes {
            let config = self.config();
            if !self.image.is_regular() || config.read_only {
                return Err(Refusal::invalid(format!("{} has only {room} bytes", config.path)));
            }
            self.image.extend(bytes)?;
            log::info(Some(&self.notifier), format!("{} was extended from {room} to {bytes} bytes", config.path));
        }
        self.fate.set_size(bytes);
        info.0.size = bytes;
        Ok(())
    }
}

tcmu_handler_api::export_handler!(File);
