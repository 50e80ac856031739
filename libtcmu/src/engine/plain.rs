//! Plain reads and writes: what almost all commands are, judged in one go and without a task.
//!
//! Nothing is decided here that the rest of the engine would decide otherwise: a command is plain only where [`super::begin`] would
//! submit this very work, with nothing to do after it. Everything else, every error among it, goes that way. The test at the end
//! holds the two together.
use tcmu_handler_api::{
    abi,
    plugin::{DeviceFlags, DeviceInfo},
};

use super::{Stage, Task, Unit};

/// A read or write with nothing special about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) write: bool,
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    /// Bytes; all that the command's buffer has.
    pub(crate) length: u64,
}

/// What commands are judged by here, as long as a unit's state is not touched otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Judge {
    block_shift: u32,
    /// Blocks.
    capacity: u64,
    /// Longest plain command in bytes, of reads and of writes; 0: none is.
    most: [u64; 2],
}

/// Plain commands that have not been counted yet; of reads and of writes.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) commands: [u64; 2],
    pub(crate) bytes: [u64; 2],
}

impl Judge {
    /// For a unit as it is now. To be renewed after anything else was done to it.
    pub(crate) fn of(unit: &Unit) -> Judge {
        let info: &DeviceInfo = unit.info();
        let most = match info.0.max_transfer {
            0 => u64::MAX,
            most => u64::from(most),
        };
        let quiet = !unit.watched && !unit.has_attention() && !unit.is_busy() && !info.flags().contains(DeviceFlags::SCSI);
        let writable = unit.check_writable().is_ok()
            && unit.durability(false) == (0, false)
            && !unit.lacks_lock()
            && !unit.tokens.watches_changes();
        Judge {
            block_shift: info.block_size().trailing_zeros(),
            capacity: unit.capacity().0,
            most: [if quiet { most } else { 0 }, if quiet && writable { most } else { 0 }],
        }
    }

    /// Judges a command with a buffer of one direction, by the first bytes of a CDB that is as long as its operation code says.
    #[inline]
    pub(crate) fn plain(&self, cdb: &[u8; 16], buffer: u64) -> Option<Plain> {
        let [code, flags, ..] = *cdb;
        // READ or WRITE (10) or (16). Reserved and group number bytes as the table of commands has them.
        let (lba, blocks, group, control) = match (code & !2, *cdb) {
            (0x28, [_, _, a, b, c, d, group, h, l, control, ..]) => {
                (u64::from(u32::from_be_bytes([a, b, c, d])), u32::from(u16::from_be_bytes([h, l])), group, control)
            }
            (0x88, [_, _, a, b, c, d, e, f, g, h, i, j, k, l, group, control]) => {
                (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l]), group, control)
            }
            _ => return None,
        };
        let write = code & 2 != 0;
        // DPO is a hint; FUA of a read asks for what is read anyway.
        let tolerated = if write { 0x10 } else { 0x18 };
        let special = (flags & !tolerated) | (group & !0x3f) | control;
        let (blocks, length) = (u64::from(blocks), u64::from(blocks) << self.block_shift);
        let within = blocks <= self.capacity && lba <= self.capacity - blocks;
        if special != 0 || !within || length == 0 || length > self.most[usize::from(write)] || length != buffer {
            return None;
        }
        let flags = if flags & 0x10 != 0 { abi::TCMU_REQ_DPO } else { 0 };
        Some(Plain { write, flags, offset: lba << self.block_shift, length })
    }
}

impl Tally {
    #[inline]
    pub(crate) fn add(&mut self, plain: &Plain) {
        let kind = usize::from(plain.write);
        self.commands[kind] += 1;
        self.bytes[kind] += plain.length;
    }

    /// Counts them, as [`super::begin`] would have, and starts anew. They were judged by `judge`.
    pub(crate) fn count(&mut self, unit: &mut Unit, judge: &Judge) -> Tally {
        let done = std::mem::take(self);
        let ([reads, writes], [read, written]) = (done.commands, done.bytes.map(|bytes| bytes >> judge.block_shift));
        let statistics = &mut unit.statistics;
        statistics.reads += reads;
        statistics.blocks_read += read;
        statistics.writes += writes;
        statistics.blocks_written += written;
        done
    }
}

impl Plain {
    /// The task that it would have had: for the rest of the engine, when its request failed.
    pub(crate) fn task(&self) -> Task {
        if self.write {
            Task::changing(Stage::Last, self.offset, self.length)
        } else {
            Task::new(Stage::Read { length: self.length as usize })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tcmu_handler_api::{
        plugin::{Buffer, Operations},
        scsi::AdditionalSense,
    };

    use super::*;
    use crate::engine::{Sense, Step, Work, WorkData, begin};

    const BLOCKS: u64 = 1000;

    #[derive(Clone, Debug)]
    struct Shape {
        block_size: u32,
        max_transfer: u32,
        flags: DeviceFlags,
        operations: Operations,
        write_through: bool,
        protected: bool,
        attention: bool,
        ejected: bool,
    }

    fn shape() -> impl Strategy<Value = Shape> {
        let flags = prop_oneof![
            4 => Just(DeviceFlags::empty()),
            1 => Just(DeviceFlags::WRITE_CACHE),
            1 => Just(DeviceFlags::WRITE_CACHE | DeviceFlags::FUA),
            1 => Just(DeviceFlags::READ_ONLY),
            1 => Just(DeviceFlags::LOCKED_ACCESS),
            1 => Just(DeviceFlags::NO_MEDIUM),
        ];
        let rare = || prop::bool::weighted(0.1);
        (
            prop_oneof![Just(512), Just(4096)],
            prop_oneof![3 => Just(0), 1 => Just(8192)],
            flags,
            any::<bool>(),
            rare(),
            rare(),
            rare(),
            rare(),
        )
            .prop_map(|(block_size, max_transfer, flags, flush, write_through, protected, attention, ejected)| Shape {
                block_size,
                max_transfer,
                flags,
                operations: if flush { Operations::FLUSH } else { Operations::empty() },
                write_through,
                protected,
                attention,
                ejected,
            })
    }

    fn unit(shape: &Shape) -> Unit {
        let mut info = DeviceInfo::new(BLOCKS * u64::from(shape.block_size), shape.block_size);
        info.supports(shape.operations).set_flags(shape.flags, true);
        info.0.max_transfer = shape.max_transfer;
        let mut unit = Unit::new(info, 0, Arc::new(|| None));
        unit.set_write_cache(!shape.write_through);
        (unit.write_protect, unit.ejected) = (shape.protected, shape.ejected);
        if shape.attention {
            unit.attend(Sense::attention(AdditionalSense::BUS_DEVICE_RESET_FUNCTION_OCCURRED));
        }
        unit
    }

    fn cdb() -> impl Strategy<Value = Vec<u8>> {
        let code = prop_oneof![Just(0x28u8), Just(0x2a), Just(0x88), Just(0x8a), Just(0x08), Just(0x0a), Just(0xa8), Just(0x9c)];
        let flags = prop_oneof![4 => Just(0u8), 1 => Just(0x08), 1 => Just(0x10), 1 => any::<u8>()];
        let lba = prop_oneof![4 => 0..BLOCKS, 1 => BLOCKS - 4..BLOCKS + 4, 1 => u64::MAX - 4..=u64::MAX];
        let blocks = prop_oneof![6 => 0..20u32, 1 => Just(u32::MAX)];
        let odd = || prop_oneof![9 => Just(0u8), 1 => any::<u8>()];
        (code, flags, lba, blocks, odd(), odd()).prop_map(|(code, flags, lba, blocks, group, control)| {
            let (a, n) = (lba.to_be_bytes(), blocks.to_be_bytes());
            match code >> 5 {
                0 => vec![code, a[5] & 0x1f, a[6], a[7], n[3], control],
                1 => vec![code, flags, a[4], a[5], a[6], a[7], group, n[2], n[3], control],
                4 => [&[code, flags][..], &a, &n, &[group, control]].concat(),
                _ => vec![code, flags, a[4], a[5], a[6], a[7], n[0], n[1], n[2], n[3], group, control],
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]
        #[test]
        fn a_plain_command_is_what_the_engine_would_submit(shape in shape(), cdb in cdb(), spare in prop_oneof![8 => Just(0i64), 1 => -1000..1000i64]) {
            let (mut one, mut other) = (unit(&shape), unit(&shape));
            let long = cdb.len() == 16;
            let blocks = if long { u32::from_be_bytes([cdb[10], cdb[11], cdb[12], cdb[13]]) } else { cdb.get(8).copied().unwrap_or(0).into() };
            let length = (i64::from(blocks.min(100)) * i64::from(shape.block_size) + spare).max(0) as usize;
            let mut memory = vec![0u8; length];
            let segments = [libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: length }];
            // SAFETY: the memory outlives the buffer.
            let buffer = unsafe { Buffer::from_raw(segments.as_ptr(), 1) };

            let judge = Judge::of(&one);
            let plain = judge.plain(&std::array::from_fn(|n| cdb.get(n).copied().unwrap_or(0xff)), length as u64);
            let (task, step) = begin(&mut other, &cdb, &buffer);
            if let Some(plain) = plain {
                let mut tally = Tally::default();
                tally.add(&plain);
                tally.count(&mut one, &judge);
                let op = if plain.write { abi::TCMU_OP_WRITE } else { abi::TCMU_OP_READ };
                let Step::Submit(work) = step else { panic!("{plain:?}, but {step:?}") };
                let data = WorkData::Command(plain.length as usize);
                let wanted = Work { op, flags: plain.flags, offset: plain.offset, length: plain.length, source: 0, peer: None, data };
                prop_assert_eq!(work, wanted);
                prop_assert_eq!(format!("{:?}", plain.task()), format!("{task:?}"));
                prop_assert_eq!(one.statistics, other.statistics);
            } else if let Step::Submit(Work { op: abi::TCMU_OP_READ | abi::TCMU_OP_WRITE, flags, length: all, .. }) = step {
                // Whatever else is submitted has something about it; so the quick way is not taken too rarely.
                let forms = [0x28, 0x2a, 0x88, 0x8a].contains(&cdb[0]);
                let special = flags & abi::TCMU_REQ_FUA != 0 || !task.memory.is_empty() || all != length as u64 || cdb[1] & 0x08 != 0;
                prop_assert!(!forms || special || matches!(task.stage, Stage::ThenFlush), "{task:?}");
            }
        }
    }
}
