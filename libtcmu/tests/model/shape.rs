//! Kinds of devices.
use tcmu_handler_api::plugin::{DeviceFlags, DeviceInfo, Operations};

/// What a device is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of a logical block.
    pub block: usize,
    /// Capacity in blocks.
    pub blocks: u64,
    /// The physical block is 8 logical ones.
    pub physical: bool,
    /// The handler has every optional operation; else it reads and writes, and what the others below add.
    pub skilled: bool,
    /// It has a volatile cache and flushes it.
    pub cache: bool,
    /// It honours FUA itself.
    pub fua: bool,
    /// It deallocates.
    pub thin: bool,
    /// What was deallocated reads as zeros.
    pub zeroes: bool,
    pub read_only: bool,
    /// It takes no more than 16 blocks at a time.
    pub limited: bool,
    /// It completes on another thread, in another order.
    pub later: bool,
    /// It fails now and then.
    pub failing: bool,
}

impl Shape {
    /// Reads and writes, nothing else.
    pub const PLAIN: Shape = Shape {
        block: 512,
        blocks: 290,
        physical: false,
        skilled: false,
        cache: false,
        fua: false,
        thin: false,
        zeroes: false,
        read_only: false,
        limited: false,
        later: false,
        failing: false,
    };

    /// Everything that a handler can have.
    pub const SKILLED: Shape = Shape { skilled: true, cache: true, thin: true, zeroes: true, ..Shape::PLAIN };

    /// With blocks of 4096 bytes.
    pub fn with_large_blocks(self, large: bool) -> Shape {
        if large { Shape { block: 4096, blocks: 75, ..self } } else { self }
    }

    /// One of them all, from 16 bits.
    pub fn from_bits(bits: u16) -> Shape {
        let bit = |n: u16| bits >> n & 1 != 0;
        let thin = bit(4);
        let shape = Shape {
            physical: bit(0),
            skilled: bit(1),
            cache: bit(2),
            fua: bit(2) && bit(3),
            thin,
            zeroes: thin && !(bit(5) && bit(6)),
            read_only: bit(7) && bit(8) && bit(9),
            limited: bit(10) && bit(11),
            later: bit(12) && bit(13),
            failing: bit(9) && bit(10) && !bit(8),
            ..Shape::PLAIN
        };
        shape.with_large_blocks(bit(14))
    }

    pub fn size(&self) -> usize {
        self.block * self.blocks as usize
    }

    /// What the handler says of such a device.
    pub fn info(&self) -> DeviceInfo {
        let mut info = DeviceInfo::new(self.size() as u64, self.block as u32);
        let block = self.block as u32;
        if self.skilled {
            info.supports(Operations::WRITE_ZEROES | Operations::WRITE_SAME | Operations::COMPARE_AND_WRITE);
            info.supports(Operations::COPY | Operations::EXTENTS | Operations::PREFETCH | Operations::FLUSH);
            info.0.max_atomic = 8 * block;
        }
        if self.cache {
            info.supports(Operations::FLUSH);
        }
        if self.thin {
            info.supports(Operations::UNMAP);
            info.0.unmap_granularity = 4 * block;
            info.0.max_unmap = 128 * u64::from(block);
        }
        if self.physical {
            info.0.physical_block_size = 8 * block;
        }
        if self.limited {
            info.0.max_transfer = 16 * block;
        }
        let flags = [
            (DeviceFlags::WRITE_CACHE, self.cache),
            (DeviceFlags::FUA, self.fua),
            (DeviceFlags::THIN, self.thin),
            (DeviceFlags::UNMAP_ZEROES, self.zeroes),
            (DeviceFlags::READ_ONLY, self.read_only),
        ];
        for (flag, on) in flags {
            info.set_flags(flag, on);
        }
        info
    }
}
