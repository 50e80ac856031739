//! The `alloc` handler: a disk in memory, as large as it is full.
mod memory;

use memory::Memory;
use tcmu_handler_api::{plugin::options::Options, prelude::*};

/// Longest atomic write, in bytes.
const MAX_ATOMIC: u32 = 1 << 20;

/// A disk in memory.
#[derive(Debug)]
pub struct Alloc(Memory);

/// What the config string says.
struct Config {
    read_only: bool,
    removable: bool,
    /// Of a physical block, in bytes; 0: as a logical one.
    physical: u32,
}

impl Config {
    fn parse(config: &str) -> Result<Config, Refusal> {
        let mut options = Options::parse(config)?;
        let physical = options.take_size("physical", 0)?;
        if physical != 0 && !(physical.is_power_of_two() && (512..=memory::CHUNK).contains(&physical)) {
            return Err(Refusal::invalid(format!("physical={physical}: a power of two from 512 to {} is needed", memory::CHUNK)));
        }
        let config = Config {
            read_only: options.take_switch("ro", false)?,
            removable: options.take_switch("removable", false)?,
            physical: physical as u32,
        };
        options.finish()?;
        Ok(config)
    }
}

impl Handler for Alloc {
    const INFO: HandlerInfo = HandlerInfo {
        subtype: c"alloc",
        name: c"Memory",
        version: c"0.1.0",
        config_desc:
            c"alloc/<any name>[;ro=on|off][;removable=on|off][;physical=<bytes>]: a disk in memory. Takes memory as it is written, gives it back when it is unmapped, and is \
empty again when the device is opened the next time.",
    };

    fn check_config(config: &str) -> Result<(), Refusal> {
        Config::parse(config).map(drop)
    }

    fn open(open: &Open<'_>, info: &mut DeviceInfo) -> Result<Alloc, Refusal> {
        let config = Config::parse(open.config())?;
        // There is nothing that a flush could make more durable: no cache is announced.
        info.supports(Operations::UNMAP | Operations::WRITE_ZEROES | Operations::EXTENTS)
            .set_flags(DeviceFlags::WRITE_CACHE, false)
            .set_flags(DeviceFlags::UNMAP_ZEROES | DeviceFlags::THIN, true)
            .set_flags(DeviceFlags::READ_ONLY, config.read_only)
            .set_flags(DeviceFlags::REMOVABLE, config.removable);
        info.0.physical_block_size = config.physical;
        // A request is executed in one go, and nothing survives a crash: it can't be torn.
        info.0.max_atomic = MAX_ATOMIC;
        info.0.unmap_granularity = memory::CHUNK as u32;
        Ok(Alloc(Memory::new(info.size())))
    }
}

impl BlockDevice for Alloc {
    const THREADS: Threads = Threads::Inline;

    fn read(&self, offset: u64, data: Buffer<'_>) -> Result<(), Error> {
        self.0.read(offset, &data)
    }

    fn write(&self, offset: u64, data: Buffer<'_>, _: RequestFlags) -> Result<(), Error> {
        self.0.write(offset, &data)
    }

    fn unmap(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.0.zero(offset, length)
    }

    fn write_zeroes(&self, offset: u64, length: u64, _: RequestFlags) -> Result<(), Error> {
        self.0.zero(offset, length)
    }

    fn other(&self, request: &mut Request) -> Result<(), Error> {
        if request.operation() != Operation::Extents {
            return Err(Error::UNSUPPORTED);
        }
        let (offset, length) = (request.offset(), request.length());
        let extents = self.0.extents(offset, length)?;
        let written = request.put_extents(&extents);
        request.set_result(written as u64);
        Ok(())
    }

    fn reconfigure(&self, change: Change<'_>, info: &mut DeviceInfo) -> Result<(), Refusal> {
        match change {
            Change::Size(bytes) => {
                self.0.resize(bytes);
                info.0.size = bytes;
                Ok(())
            }
            Change::WriteCache(false) => Ok(()),
            Change::WriteCache(true) => Err(Refusal::unsupported("memory has no write cache")),
            Change::Medium { config: "", .. } => {
                self.0.replace(0);
                info.set_flags(DeviceFlags::NO_MEDIUM, true);
                info.0.size = 0;
                Ok(())
            }
            Change::Medium { config, size } => {
                let config = Config::parse(config)?;
                // The device will be opened with this string.
                if !config.removable {
                    return Err(Refusal::invalid("the new medium's config string lacks removable=on"));
                }
                self.0.replace(size);
                info.set_flags(DeviceFlags::NO_MEDIUM, false).set_flags(DeviceFlags::READ_ONLY, config.read_only);
                (info.0.size, info.0.physical_block_size) = (size, config.physical);
                Ok(())
            }
            _ => Err(Refusal::unsupported("only size and medium can be changed")),
        }
    }
}

tcmu_handler_api::export_handler!(Alloc);
