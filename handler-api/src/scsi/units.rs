//! Units that can't be mixed up: a block isn't a byte, an address isn't a length.
use std::fmt;

/// A logical block address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

/// A number of logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blocks(pub u64);

/// The length of a logical block in bytes: a power of two from 512 to 1 MiB.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BlockSize {
    shift: u8,
}

impl BlockSize {
    /// A block size of 512 bytes.
    pub const B512: BlockSize = BlockSize { shift: 9 };

    /// `None` unless `bytes` is a power of two from 512 to 1 MiB.
    pub fn new(bytes: u32) -> Option<BlockSize> {
        (bytes.is_power_of_two() && (512..=1 << 20).contains(&bytes)).then(|| BlockSize { shift: bytes.trailing_zeros() as u8 })
    }

    /// In bytes.
    pub fn bytes(self) -> u32 {
        1 << self.shift
    }

    /// The first byte of a block; `None` beyond 2^64.
    pub fn offset_of(self, lba: Lba) -> Option<u64> {
        lba.0.checked_mul(u64::from(self.bytes()))
    }

    /// The bytes of so many blocks; `None` beyond 2^64.
    pub fn length_of(self, blocks: Blocks) -> Option<u64> {
        blocks.0.checked_mul(u64::from(self.bytes()))
    }

    /// The whole blocks in so many bytes.
    pub fn blocks_in(self, bytes: u64) -> Blocks {
        Blocks(bytes >> self.shift)
    }
}

impl fmt::Debug for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes())
    }
}

/// Whether `blocks` blocks from `lba` on lie within a unit of `capacity` blocks. A range of no blocks may start at the end, as SBC-4
/// 5.3 has it only for addresses up to the capacity.
pub fn in_range(lba: Lba, blocks: Blocks, capacity: Blocks) -> bool {
    lba.0.checked_add(blocks.0).is_some_and(|end| end <= capacity.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_are_powers_of_two() {
        assert_eq!(BlockSize::new(4096).map(BlockSize::bytes), Some(4096));
        for bad in [0, 1, 256, 513, 520, 2 << 20] {
            assert_eq!(BlockSize::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_that_wrap_are_out_of_range() {
        assert!(in_range(Lba(9), Blocks(1), Blocks(10)));
        assert!(in_range(Lba(10), Blocks(0), Blocks(10)));
        assert!(!in_range(Lba(10), Blocks(1), Blocks(10)));
        assert!(!in_range(Lba(u64::MAX), Blocks(2), Blocks(10)));
    }
}
