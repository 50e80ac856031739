//! A logical unit: what the handler said of its device, and what initiators changed.
use std::{collections::VecDeque, sync::Arc, time::Instant};

use tcmu_handler_api::{
    abi,
    plugin::{DeviceFlags, DeviceInfo, Operations},
    scsi::{
        AdditionalSense, BlockSize, Blocks, Command, Lba, Sense, SenseKey, UnitFacts,
        copy::CopyStatus,
        facts::{Atomic, Provisioning, ascii_field},
        log::Statistics,
        units,
    },
};

use super::{
    CHUNK, Peers,
    access::{Answer, LockState, Target},
    erase::{self, Background, Kind},
    token::Tokens,
};

/// Most descriptors in one UNMAP.
const MAX_UNMAP_DESCRIPTORS: u32 = 128;
/// Most bytes of one WRITE SAME that has to be written block by block.
const MAX_FILL_BYTES: u64 = 64 << 20;

/// A logical unit.
pub struct Unit {
    info: DeviceInfo,
    block_size: BlockSize,
    target: Arc<dyn Target>,
    /// From `hw_max_sectors`, in bytes; 0 if unknown.
    max_transfer: u64,
    /// The write cache is switched off: every write is made durable.
    write_through: bool,
    /// It was by the operator, and stays so after a reset.
    write_through_at_first: bool,
    /// D_SENSE
    pub(super) descriptor_sense: bool,
    /// SWP
    pub(super) write_protect: bool,
    /// Initiators don't want the medium to be removed; or removed it.
    pub(super) prevented: bool,
    pub(super) ejected: bool,
    attentions: VecDeque<Sense>,
    pub(super) statistics: Statistics,
    pub(super) background: Option<Background>,
    pub(super) failure: Option<Kind>,
    /// When it was told last, and what.
    pub(super) copies: VecDeque<(Instant, CopyStatus)>,
    pub(super) tokens: Tokens,
    /// The buffer of WRITE BUFFER and READ BUFFER; empty until it is written.
    pub(super) echo: Vec<u8>,
    /// What another thread found out for the command that is about to be resumed.
    pub(super) answer: Option<Answer>,
    pub(super) lock: LockState,
    /// Who else takes part in copies.
    pub(super) peers: Option<Peers>,
    /// Somebody looks at each command: none is plain.
    pub(crate) watched: bool,
}

impl std::fmt::Debug for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unit").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Unit {
    /// A unit for a device. `hw_max_sectors` is in units of 512 bytes.
    pub fn new(info: DeviceInfo, hw_max_sectors: u32, target: Arc<dyn Target>) -> Unit {
        Unit {
            block_size: BlockSize::new(info.block_size()).unwrap_or(BlockSize::B512),
            info,
            target,
            max_transfer: u64::from(hw_max_sectors) * 512,
            write_through: false,
            write_through_at_first: false,
            descriptor_sense: false,
            write_protect: false,
            prevented: false,
            ejected: false,
            attentions: VecDeque::new(),
            statistics: Statistics::default(),
            background: None,
            failure: None,
            copies: VecDeque::new(),
            tokens: Tokens::default(),
            echo: Vec::new(),
            answer: None,
            lock: LockState::Lost,
            peers: None,
            watched: false,
        }
    }

    /// Where questions about ports are asked.
    pub(crate) fn target(&self) -> Arc<dyn Target> {
        self.target.clone()
    }

    /// Whether sense data goes out in descriptor format.
    pub(crate) fn descriptor_sense(&self) -> bool {
        self.descriptor_sense
    }

    /// What another thread found out for the command that is resumed next.
    pub(crate) fn answered(&mut self, answer: Answer) {
        self.answer = Some(answer);
    }

    /// The units that this one may be copied to and from.
    pub(crate) fn copies_with(&mut self, peers: Peers) {
        self.peers = Some(peers);
    }

    /// Whether a long operation keeps it from doing anything else.
    pub(super) fn is_busy(&self) -> bool {
        self.background.is_some() || self.failure.is_some() || self.no_medium()
    }

    /// Another node has the exclusive lock now.
    pub(crate) fn lock_lost(&mut self) {
        self.lock = LockState::Lost;
    }

    /// Whether changes need a lock that is not ours.
    pub(super) fn lacks_lock(&self) -> bool {
        self.info.flags().contains(DeviceFlags::LOCKED_ACCESS) && self.lock != LockState::Own
    }

    /// Whether a command may be executed as things are (SAM-6 5.14, SPC-6 5.6).
    pub(super) fn ready_for(&mut self, command: &Command) -> Result<(), Sense> {
        if let Some(attention) = self.take_attention(command) {
            return Err(attention);
        }
        erase::check(self, command)?;
        if self.no_medium() && needs_medium(command) {
            return Err(Sense::not_ready(AdditionalSense::MEDIUM_NOT_PRESENT));
        }
        Ok(())
    }

    /// A logical unit reset (SAM-6 6.3.3): what initiators set is as it was at the start. Long operations go on.
    pub(crate) fn reset(&mut self) {
        (self.prevented, self.descriptor_sense, self.write_protect) = (false, false, false);
        self.write_through = self.write_through_at_first;
        self.echo = Vec::new();
        self.attentions.clear();
        self.attentions.push_back(Sense::attention(AdditionalSense::BUS_DEVICE_RESET_FUNCTION_OCCURRED));
    }

    /// Whether a unit attention condition is pending.
    pub(super) fn has_attention(&self) -> bool {
        !self.attentions.is_empty()
    }

    #[cfg(test)]
    pub(super) fn attend(&mut self, attention: Sense) {
        self.attentions.push_back(attention);
    }

    /// A range of bytes is about to change.
    pub(super) fn changing(&mut self, offset: u64, length: u64) {
        self.tokens.changing(offset, length);
    }

    /// A request failed.
    pub(super) fn failed(&mut self, op: u32) {
        match op {
            abi::TCMU_OP_READ => self.statistics.read_errors += 1,
            abi::TCMU_OP_WRITE => self.statistics.write_errors += 1,
            _ => {}
        }
    }

    /// Longest atomic write in blocks, if there are any.
    pub(super) fn max_atomic(&self) -> Option<u32> {
        let most = self.block_size.blocks_in(u64::from(self.info.0.max_atomic)).0 as u32;
        let limit = self.max_transfer_blocks();
        (most > 0).then_some(if limit == 0 { most } else { most.min(limit) })
    }

    /// Longest transfer in blocks; 0: no limit.
    fn max_transfer_blocks(&self) -> u32 {
        let bytes = match (u64::from(self.info.0.max_transfer), self.max_transfer) {
            (0, limit) | (limit, 0) => limit,
            (a, b) => a.min(b),
        };
        u32::try_from(self.block_size.blocks_in(bytes).0).unwrap_or(u32::MAX)
    }

    /// Bytes that are moved at a time where a command is done in pieces.
    pub(super) fn piece(&self) -> u64 {
        let block = u64::from(self.block_size.bytes());
        match u64::from(self.info.0.max_transfer) {
            0 => CHUNK,
            most => (most - most % block).clamp(block, CHUNK.max(block)),
        }
    }

    /// MAXIMUM COMPARE AND WRITE LENGTH
    pub(super) fn max_compare_and_write(&self) -> u8 {
        let most = self.block_size.blocks_in(u64::from(self.info.0.max_transfer)).0;
        if most == 0 { u8::MAX } else { u8::try_from(most).unwrap_or(u8::MAX) }
    }

    /// Most bytes that a handler deallocates or zeroes at a time.
    pub(super) fn max_zeroing(&self) -> u64 {
        match self.info.0.max_unmap {
            0 => u64::MAX,
            most => most.max(u64::from(self.block_size.bytes())),
        }
    }

    /// The bytes of a range of blocks, if it is within the unit.
    pub(super) fn bytes(&self, lba: Lba, blocks: Blocks) -> Result<(u64, u64), Sense> {
        if !units::in_range(lba, blocks, self.capacity()) {
            return Err(Sense::illegal(AdditionalSense::LBA_OUT_OF_RANGE));
        }
        // Within the capacity in blocks, so within it in bytes.
        let size = self.block_size;
        Ok((size.offset_of(lba).unwrap_or(u64::MAX), size.length_of(blocks).unwrap_or(u64::MAX)))
    }

    pub(super) fn check_writable(&self) -> Result<(), Sense> {
        if self.info.flags().contains(DeviceFlags::READ_ONLY) {
            return Err(Sense::new(SenseKey::DataProtect, AdditionalSense::WRITE_PROTECTED));
        }
        if self.write_protect {
            return Err(Sense::new(SenseKey::DataProtect, AdditionalSense::SOFTWARE_WRITE_PROTECTED));
        }
        Ok(())
    }

    /// What the device is and can do.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Takes note of a change, with the unit attention that is due.
    pub(crate) fn change(&mut self, info: DeviceInfo) {
        if info.size() != self.info.size() {
            self.announce(AdditionalSense::CAPACITY_DATA_HAS_CHANGED);
        }
        if info.flags() != self.info.flags() {
            self.announce(AdditionalSense::MODE_PARAMETERS_CHANGED);
        }
        self.info = info;
    }

    /// Takes note of another medium, or of none (SBC-4 4.3): whoever used the last one is told before anything else.
    pub(crate) fn change_medium(&mut self, info: DeviceInfo) {
        self.tokens.revoke();
        (self.info, self.ejected) = (info, false);
        if !self.no_medium() {
            self.attentions.push_back(Sense::attention(AdditionalSense::MEDIUM_MAY_HAVE_CHANGED));
            self.attentions.truncate(8);
        }
    }

    /// Whether initiators don't want the medium to be removed. Where there is none, they keep nothing in.
    pub(crate) fn is_locked_in(&self) -> bool {
        self.prevented && !self.no_medium()
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
        self.ejected || self.info.flags().contains(DeviceFlags::NO_MEDIUM)
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

    /// Whether initiators see the write cache switched on.
    pub(crate) fn write_cache(&self) -> bool {
        !self.write_through
    }

    /// The operator switched the write cache in the place of a handler that can't; initiators are told if it was the other way before.
    pub(crate) fn write_cache_was_switched(&mut self, before: bool, on: bool) {
        (self.write_through, self.write_through_at_first) = (!on, !on);
        if on != before {
            self.announce(AdditionalSense::MODE_PARAMETERS_CHANGED);
        }
    }

    /// An earlier process served the unit: as the operator left its write cache, and with what initiators know of its size.
    pub(crate) fn go_on(&mut self, write_cache: Option<bool>, known_size: Option<u64>) {
        let off = write_cache == Some(false);
        (self.write_through, self.write_through_at_first) = (off, off);
        if known_size.is_some_and(|known| known != self.info.size()) {
            self.announce(AdditionalSense::CAPACITY_DATA_HAS_CHANGED);
        }
    }

    fn announce(&mut self, code: AdditionalSense) {
        self.attentions.push_back(Sense::new(SenseKey::UnitAttention, code));
        self.attentions.truncate(8);
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
    fn take_attention(&mut self, command: &Command) -> Option<Sense> {
        if self.attentions.is_empty()
            || matches!(command, Command::Inquiry { .. } | Command::ReportLuns { .. } | Command::RequestSense { .. })
        {
            return None;
        }
        self.attentions.pop_front()
    }

    /// What REQUEST SENSE tells: a unit attention, or the progress of a long operation.
    pub(super) fn pending(&mut self) -> Option<Sense> {
        self.attentions.pop_front().or_else(|| erase::pending(self))
    }

    pub(super) fn facts_for_provisioning(&self) -> Provisioning {
        let info = &self.info.0;
        let blocks = |bytes: u64| self.block_size.blocks_in(bytes).0;
        let limit = if info.max_unmap == 0 { u64::MAX } else { info.max_unmap };
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

    /// The input of the pages that say who the unit is; asks for the serial number and the ports.
    pub(super) fn identity(&self) -> UnitFacts {
        let mut ports = self.target.ports();
        UnitFacts {
            serial: self.target.serial().unwrap_or_default(),
            asymmetric_access: self.target.asymmetric_access(),
            port: if ports.len() == 1 { ports.pop() } else { None },
            ..self.facts()
        }
    }

    /// The input of all other pages.
    pub(super) fn facts(&self) -> UnitFacts {
        let info = &self.info.0;
        let blocks = |bytes: u64| u32::try_from(self.block_size.blocks_in(bytes).0).unwrap_or(u32::MAX);
        let own = |field: &[u8]| field.iter().any(|b| *b != 0);
        let max_transfer = self.max_transfer_blocks();
        let optimal = blocks(u64::from(info.optimal_transfer));
        let physical = info.physical_block_size.max(info.block_size);
        UnitFacts {
            device_type: info.device_type as u8,
            removable: self.info.flags().contains(DeviceFlags::REMOVABLE),
            vendor: if own(&info.vendor) { info.vendor } else { ascii_field("LIO-ORG") },
            product: if own(&info.product) { info.product } else { ascii_field("TCMU device") },
            revision: if own(&info.revision) { info.revision } else { ascii_field("0002") },
            serial: String::new(),
            block_size: self.block_size,
            capacity: self.capacity(),
            physical_exponent: (physical / self.block_size.bytes()).max(1).ilog2() as u8,
            write_cache: self.info.flags().contains(DeviceFlags::WRITE_CACHE) && !self.write_through,
            write_cache_changeable: self.has_volatile_cache(),
            read_only: self.info.flags().contains(DeviceFlags::READ_ONLY),
            software_write_protect: self.write_protect,
            descriptor_sense: self.descriptor_sense,
            rotation_rate: info.rotation_rate as u16,
            provisioning: self.facts_for_provisioning(),
            max_transfer,
            optimal_transfer: if max_transfer == 0 { optimal } else { optimal.min(max_transfer) },
            transfer_granularity: u16::try_from(physical / self.block_size.bytes()).unwrap_or(0),
            max_compare_and_write: self.max_compare_and_write(),
            max_write_same: self.max_write_same(),
            atomic: self.max_atomic().map(|max_transfer| Atomic { max_transfer }),
            asymmetric_access: 0,
            port: None,
        }
    }
}

fn needs_medium(command: &Command) -> bool {
    !matches!(
        command,
        Command::Inquiry { .. }
            | Command::RequestSense { .. }
            | Command::ReportLuns { .. }
            | Command::ModeSense(_)
            | Command::ModeSelect { .. }
            | Command::LogSense(_)
            | Command::StartStopUnit { .. }
            | Command::PreventAllowMediumRemoval { .. }
            | Command::SendDiagnostic(_)
            | Command::ReceiveDiagnosticResults { .. }
            | Command::ReadBuffer(_)
            | Command::WriteBuffer(_)
            | Command::SecurityProtocolIn { .. }
            | Command::ReportTargetPortGroups { .. }
            | Command::SetTargetPortGroups { .. }
            | Command::ReportSupportedOperationCodes(_)
            | Command::ReportSupportedTaskManagement { .. }
            | Command::ReceiveCopyStatus { .. }
            | Command::ReceiveCopyOperatingParameters { .. }
            | Command::ReceiveRodTokenInformation { .. }
    )
}
