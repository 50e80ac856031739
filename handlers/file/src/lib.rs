//! The `file` handler: a raw image or a block device.
//!
//! Reads, writes and the rest are handed back to the host as I/O on the file's descriptor; what is left here is opening the file, saying
//! what it can do, and changing its size or, of a removable device, its medium.
mod config;
mod fate;
mod image;
mod medium;

use std::{
    os::fd::AsFd,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use config::Config;
use medium::Medium;
use rustix::io::Errno;
use tcmu_handler_api::{
    plugin::{FileIo, Notifier},
    prelude::*,
};

/// A file that serves as a disk.
#[derive(Debug)]
pub struct File {
    /// None while it is taken out. It is exchanged while no request is outstanding, so none has a descriptor of the last one.
    medium: RwLock<Option<Medium>>,
    notifier: Notifier,
}

impl Handler for File {
    const INFO: HandlerInfo = HandlerInfo {
        subtype: c"file",
        name: c"File or block device",
        version: c"0.1.0",
        config_desc: c"file/<absolute path>[;ro=on|off][;create=on|off][;direct=on|off][;removable=on|off]: a raw image or a block device. A file \
that is missing is created, one that is too short is extended. ro: cannot be written. create: whether a missing file is created (on). direct: past the page cache \
(off). removable: another file can be put in (off).",
    };

    fn check_config(config: &str) -> Result<(), Refusal> {
        Config::parse(config).map(|_| ())
    }

    fn open(open: &Open<'_>, info: &mut DeviceInfo) -> Result<File, Refusal> {
        let config = Config::parse(open.config())?;
        let notifier = open.notifier();
        info.set_flags(DeviceFlags::REMOVABLE, config.removable);
        let medium = Medium::open(config, info, open.is_take_over(), &notifier)?;
        Ok(File { medium: RwLock::new(Some(medium)), notifier })
    }
}

impl Device for File {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        let medium = self.medium();
        let Some(Medium { image, fate, .. }) = &*medium else {
            return batch.for_each(|request| request.complete(Err(Error::Errno(Errno::NOMEDIUM.raw_os_error()))));
        };
        let fd = image.as_fd();
        for request in batch {
            if request.operation() == Operation::Flush {
                fate.look(image, &self.notifier);
            }
            if fate.is_cut_off() && !matches!(request.operation(), Operation::Read | Operation::Extents) {
                request.complete(Err(Error::IO));
                continue;
            }
            let (offset, length) = (request.offset(), request.length());
            let io = match request.operation() {
                Operation::Read => match image.uncached(offset, length, request.buffer().iovecs()) {
                    Some(fd) => FileIo::read(fd, offset, length).uncached(true),
                    None => FileIo::read(fd, offset, length),
                },
                Operation::Write => {
                    let io = match image.uncached(offset, length, request.buffer().iovecs()) {
                        Some(fd) => FileIo::write(fd, offset, length).uncached(true),
                        None => FileIo::write(fd, offset, length),
                    };
                    io.durable(request.flags().contains(RequestFlags::FUA))
                }
                Operation::Flush => FileIo::datasync(image.flushes()),
                Operation::Unmap => FileIo::punch_hole(fd, offset, length),
                Operation::WriteZeroes if request.flags().contains(RequestFlags::MAY_UNMAP) => {
                    FileIo::punch_hole(fd, offset, length)
                }
                Operation::WriteZeroes if image.zeroes_by_punching() => FileIo::punch_hole(fd, offset, length),
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
            Change::Size(bytes) => {
                self.inserted(|medium| medium.resize(bytes, &self.notifier))?;
                info.0.size = bytes;
                Ok(())
            }
            // The page cache stays; the host makes every write durable instead.
            Change::WriteCache(_) => Err(Refusal::unsupported("the page cache cannot be switched off")),
            Change::Config(text) => {
                let config = Config::parse(text)?;
                self.inserted(|medium| medium.rename(config))
            }
            Change::Medium { config: "", .. } => {
                self.put(None);
                info.set_flags(DeviceFlags::NO_MEDIUM, true);
                info.0.size = 0;
                Ok(())
            }
            Change::Medium { config, size } => self.insert(Config::parse(config)?, size, info),
            _ => Err(Refusal::unsupported("only size, config string and medium can be changed")),
        }
    }

    fn describe(&self) -> String {
        let medium = self.medium();
        let Some(medium) = &*medium else { return "medium=none\n".into() };
        let config = medium.config();
        format!("path={}\nread_only={}\ndirect={}\n", config.path, config.read_only, config.direct)
    }
}

impl File {
    fn medium(&self) -> RwLockReadGuard<'_, Option<Medium>> {
        self.medium.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn inserted(&self, change: impl FnOnce(&Medium) -> Result<(), Refusal>) -> Result<(), Refusal> {
        match &*self.medium() {
            Some(medium) => change(medium),
            None => Err(Refusal::new(Errno::NOMEDIUM.raw_os_error(), "there is no medium in the device")),
        }
    }

    fn put(&self, medium: Option<Medium>) {
        let mut place = self.medium.write().unwrap_or_else(PoisonError::into_inner);
        let last = std::mem::replace(&mut *place, medium);
        drop(place);
        // Closing a file may take its time.
        drop(last);
    }

    fn insert(&self, config: Config, size: u64, info: &mut DeviceInfo) -> Result<(), Refusal> {
        // The device will be opened with this string.
        if !config.removable {
            return Err(Refusal::invalid("the new medium's config string lacks removable=on"));
        }
        let new = DeviceInfo::new(size, info.block_size());
        (info.0.size, info.0.ops) = (size, new.0.ops);
        (info.0.physical_block_size, info.0.unmap_granularity) = (new.0.physical_block_size, new.0.unmap_granularity);
        info.set_flags(DeviceFlags::NO_MEDIUM | DeviceFlags::UNMAP_ZEROES | DeviceFlags::THIN, false);
        let same = match &*self.medium() {
            Some(medium) => medium.image.is_at(&config.path).unwrap_or(false),
            None => false,
        };
        if same {
            // It is locked, by us.
            return Err(Refusal::unsupported(format!(
                "{} is in the device already; take it out first, or change the device's size",
                config.path
            )));
        }
        self.put(Some(Medium::insert(config, info, &self.notifier)?));
        Ok(())
    }
}

tcmu_handler_api::export_handler!(File);
