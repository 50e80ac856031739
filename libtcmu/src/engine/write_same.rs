//! WRITE SAME (SBC-4 5.50, 5.51): zeros by zeroing, else the handler's own, else by writing.
use tcmu_handler_api::{
    abi,
    plugin::{Buffer, Operations},
    scsi::{Sense, command::WriteSame},
};

use super::{Begun, Stage, Task, Unit, Work, WorkData, nothing_to_do, submit};

/// Bytes written at a time where there is no other way.
const CHUNK: u64 = 256 << 10;

/// What is left to be written.
#[derive(Debug)]
pub(super) struct Fill {
    offset: u64,
    left: u64,
    most: u64,
    flags: u32,
    pub(super) then_flush: bool,
}

impl Fill {
    /// The next piece; its data is in the task's memory.
    pub(super) fn next(&mut self) -> Option<Work> {
        let length = self.left.min(self.most);
        if length == 0 {
            return None;
        }
        let work = Work::write(self.flags, self.offset, length, WorkData::Memory(length as usize));
        self.offset += length;
        self.left -= length;
        Some(work)
    }
}

pub(super) fn begin(unit: &mut Unit, command: WriteSame, buffer: &Buffer<'_>) -> Begun {
    unit.check_writable()?;
    let provisioning = unit.facts_for_provisioning();
    // ANC_SUP is 0, and without LBPWS there is no UNMAP bit.
    if command.anchor {
        return Err(Sense::invalid_cdb_field(1, Some(4)));
    }
    if command.unmap && !provisioning.unmap {
        return Err(Sense::invalid_cdb_field(1, Some(3)));
    }
    let (offset, length) = unit.bytes(command.lba, command.blocks)?;
    let field = if command.short { 7 } else { 10 };
    // WSNZ is set, and MAXIMUM WRITE SAME LENGTH is what it says.
    if length == 0 || command.blocks.0 > unit.max_write_same() {
        return Err(Sense::invalid_cdb_field(field, None));
    }
    let block = unit.block_size().bytes() as usize;
    let mut pattern = vec![0; block];
    if !command.ndob {
        // One block, neither less nor more.
        if buffer.len() != block {
            return Err(Sense::invalid_cdb_field(field, None));
        }
        buffer.copy_to(&mut pattern);
    }
    unit.statistics.writes += 1;
    unit.statistics.blocks_written += command.blocks.0;
    let zeros = pattern.iter().all(|b| *b == 0);
    let (flags, then_flush) = unit.durability(false);
    let ending = if then_flush { Stage::ThenFlush } else { Stage::Last };
    if zeros && unit.takes(Operations::WRITE_ZEROES) {
        // Zeros they must be, up to the unaligned ends: a handler that deallocates sees to that.
        let flags = flags | if command.unmap { abi::TCMU_REQ_MAY_UNMAP } else { 0 };
        return submit(Task::changing(ending, offset, length), Work::plain(abi::TCMU_OP_WRITE_ZEROES, flags, offset, length));
    }
    if unit.takes(Operations::WRITE_SAME) && !command.ndob {
        let work = Work { data: WorkData::Command(block), ..Work::plain(abi::TCMU_OP_WRITE_SAME, flags, offset, length) };
        return submit(Task::changing(ending, offset, length), work);
    }
    let most = unit.piece().min(CHUNK);
    let mut fill = Fill { offset, left: length, most, flags, then_flush };
    let size = length.min(most) as usize;
    let memory = pattern.iter().copied().cycle().take(size).collect();
    match fill.next() {
        Some(work) => submit(Task { memory, ..Task::changing(Stage::Fill(fill), offset, length) }, work),
        None => Ok(nothing_to_do()),
    }
}
