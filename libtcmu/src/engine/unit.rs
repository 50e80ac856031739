//! A logical unit: what the handler said of its device, and what initiators changed.
use std::collections::VecDeque;

use tcmu_handler_api::{
    abi,
    plugin::{DeviceFlags, DeviceInfo, Operations},
    scsi::{
        AdditionalSense, BlockSize, Blocks, Command, Sense, SenseKey, UnitFacts,
        facts::{Provisioning, ascii_field},
    },
};

/// Tells the unit serial number when an initiator wants to know it: tools write it to configfs after the device was enabled.
pub type SerialSource = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// Most descriptors in one UNMAP, and most bytes if the handler names no limit.
const MAX_UNMAP_DESCRIPTORS: u32 = 128;
const MAX_UNMAP_BYTES: u64 = 16 << 30;
/// Most bytes of one WRITE SAME that has to be written block by block.
const MAX_FILL_BYTES: u64 = 64 << 20;

/// A logical unit.
pub struct Unit {
    info: DeviceInfo,
    block_size: BlockSize,
    serial: SerialSource,
    /// From `hw_max_sectors`, in bytes; 0 if unknown.
    max_transfer: u64,
    /// Initiators switched the write cache off: every write is made durable.
    write_through: bool,
    attentions: VecDeque<Sense>,
}

impl std::fmt::Debug for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unit").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Unit {
    /// A unit for a device. `hw_max_sectors` is in units of 512 bytes.
    pub fn new(info: DeviceInfo, hw_max_sectors: u32, serial: SerialSource) -> Unit {
        Unit {
            block_size: BlockSize::new(info.block_size()).unwrap_or(BlockSize::B512),
            info,
            serial,
            max_transfer: u64::from(hw_max_sectors) * 512,
            write_through: false,
            attentions: VecDeque::new(),
        }
    }

    /// What the device is and can do.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Takes note of a change, with the unit attention that is due.
    pub(crate) fn change(&mut self, info: DeviceInfo) {
        let attention = |code| Sense::new(SenseKey::UnitAttention, code);
        if info.size() != self.info.size() {
            self.attentions.push_back(attention(AdditionalSense::CAPACITY_DATA_HAS_CHANGED));
        }
        if info.flags() != self.info.flags() {
            self.attentions.push_back(attention(AdditionalSense::MODE_PARAMETERS_CHANGED));
        }
        self.attentions.truncate(8);
        self.info = info;
    }

    pub(super) fn block_size(&self) -> BlockSize {
        self.block_size
    }

    pub(super) fn capacity(&self) -> Blocks {
        self.block_size.blocks_in(self.info.size())
    }

    pub(super) fn takes(&self, operations: Operations) -> bool {
        self.info.operations().contains(operations)
    }

    pub(super) fn no_medium(&self) -> bool {
        self.info.flags().contains(DeviceFlags::NO_MEDIUM)
    }

    /// Whether completed writes can be lost before a flush.
    pub(super) fn has_volatile_cache(&self) -> bool {
        self.info.flags().contains(DeviceFlags::WRITE_CACHE) && self.takes(Operations::FLUSH)
    }

    /// How a write becomes as durable as it must be: request flags, and whether a flush has to follow.
    pub(super) fn durability(&self, fua: bool) -> (u32, bool) {
        if !(fua || self.write_through) || !self.info.flags().contains(DeviceFlags::WRITE_CACHE) {
            (0, false)
        } else if self.info.flags().contains(DeviceFlags::FUA) {
            (abi::TCMU_REQ_FUA, false)
        } else {
            (0, self.takes(Operations::FLUSH))
        }
    }

    /// Switches the write cache as initiators see it.
    pub(crate) fn set_write_cache(&mut self, on: bool) {
        self.write_through = !on;
    }

    /// The handler's own limit on a transfer; the kernel enforces `hw_max_sectors`.
    pub(super) fn check_transfer(&self, length: u64) -> Result<(), Sense> {
        let limit = u64::from(self.info.0.max_transfer);
        if limit != 0 && length > limit {
            return Err(Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB));
        }
        Ok(())
    }

    /// A pending unit attention, unless the command doesn't report it (SAM-6 5.14).
    pub(super) fn take_attention(&mut self, command: &Command) -> Option<Sense> {
        if self.attentions.is_empty()
            || matches!(command, Command::Inquiry { .. } | Command::ReportLuns { .. } | Command::RequestSense { .. })
        {
            return None;
        }
        self.attentions.pop_front()
    }

    /// A pending unit attention, for REQUEST SENSE.
    pub(super) fn pop_attention(&mut self) -> Option<Sense> {
        self.attentions.pop_front()
    }

    pub(super) fn facts_for_provisioning(&self) -> Provisioning {
        let info = &self.info.0;
        let blocks = |bytes: u64| self.block_size.blocks_in(bytes).0;
        let limit = if info.max_unmap == 0 { MAX_UNMAP_BYTES } else { info.max_unmap };
        Provisioning {
            thin: self.info.flags().contains(DeviceFlags::THIN),
            unmap: self.takes(Operations::UNMAP),
            zeroes: self.info.flags().contains(DeviceFlags::UNMAP_ZEROES),
            max_unmap: u32::try_from(blocks(limit)).unwrap_or(u32::MAX),
            max_descriptors: MAX_UNMAP_DESCRIPTORS,
            granularity: blocks(u64::from(info.unmap_granularity)) as u32,
            alignment: (info.unmap_granularity != 0).then(|| blocks(u64::from(info.unmap_alignment)) as u32),
        }
    }

    /// Most blocks of one WRITE SAME.
    pub(super) fn max_write_same(&self) -> u64 {
        let provisioning = self.facts_for_provisioning();
        if self.takes(Operations::WRITE_ZEROES) {
            u64::from(provisioning.max_unmap)
        } else {
            self.block_size.blocks_in(MAX_FILL_BYTES).0
        }
    }

    /// The input of all pages.
    pub(super) fn facts(&self) -> UnitFacts {
        let info = &self.info.0;
        let blocks = |bytes: u64| u32::try_from(self.block_size.blocks_in(bytes).0).unwrap_or(u32::MAX);
        let own = |field: &[u8]| field.iter().any(|b| *b != 0);
        let max_transfer = match (u64::from(info.max_transfer), self.max_transfer) {
            (0, limit) | (limit, 0) => limit,
            (a, b) => a.min(b),
        };
        let physical = info.physical_block_size.max(info.block_size);
        UnitFacts {
            device_type: info.device_type as u8,
            removable: self.info.flags().contains(DeviceFlags::REMOVABLE),
            vendor: if own(&info.vendor) { info.vendor } else { ascii_field("LIO-ORG") },
            product: if own(&info.product) { info.product } else { ascii_field("TCMU device") },
            revision: if own(&info.revision) { info.revision } else { ascii_field("0002") },
            serial: (self.serial)().unwrap_or_default(),
            block_size: self.block_size,
            capacity: self.capacity(),
            physical_exponent: (physical / self.block_size.bytes()).max(1).ilog2() as u8,
            write_cache: self.info.flags().contains(DeviceFlags::WRITE_CACHE) && !self.write_through,
            write_cache_changeable: self.has_volatile_cache(),
            read_only: self.info.flags().contains(DeviceFlags::READ_ONLY),
            rotation_rate: info.rotation_rate as u16,
            provisioning: self.facts_for_provisioning(),
            max_transfer: blocks(max_transfer),
            optimal_transfer: blocks(u64::from(info.optimal_transfer).min(max_transfer.max(1))),
            transfer_granularity: u16::try_from(physical / self.block_size.bytes()).unwrap_or(0),
            max_compare_and_write: 255,
            max_write_same: self.max_write_same(),
        }
    }
}
