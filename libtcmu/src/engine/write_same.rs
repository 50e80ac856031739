//! WRITE SAME (SBC-4 5.50, 5.51): zeros by zeroing, else the handler's own, else by writing.
use tcmu_handler_api::{
    abi,
    plugin::{Buffer, Operations},
    scsi::{Sense, command::WriteSame},
};

use super::{Begun, Stage, Step, Task, Unit, Work, WorkData};

/// Bytes written at a time where there is no other way.
const CHUNK: u64 = 256 << 10;

/// What is left to be written.
#[derive(Debug)]
pub(super) struct Fill {
    offset: u64,
    left: u64,
    flags: u32,
    pub(super) then_flush: bool,
}

impl Fill {
    /// The next piece; its data is in the task's memory.
    pub(super) fn next(&mut self) -> Option<Work> {
        let length = self.left.min(CHUNK);
        if length == 0 {
            return None;
        }
        let work = Work {
            op: abi::TCMU_OP_WRITE,
            flags: self.flags,
            offset: self.offset,
            length,
            data: WorkData::Memory(length as usize),
        };
        self.offset += length;
        self.left -= length;
        Some(work)
    }
}

pub(super) fn begin(unit: &Unit, command: WriteSame, buffer: &Buffer<'_>) -> Begun {
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
    // WSNZ is set, and MAXIMUM WRITE SAME LENGTH is what it says.
    if length == 0 || command.blocks.0 > unit.max_write_same() {
        return Err(Sense::invalid_cdb_field(10, None));
    }
    let block = unit.block_size().bytes() as usize;
    let mut pattern = vec![0; block];
    if !command.ndob && buffer.copy_to(&mut pattern) < block {
        return Err(Sense::invalid_cdb_field(10, None));
    }
    let zeros = pattern.iter().all(|b| *b == 0);
    let (flags, then_flush) = unit.durability(false);
    let ending = |then_flush| if then_flush { Stage::WriteThenFlush } else { Stage::Last };
    if zeros && unit.takes(Operations::WRITE_ZEROES) {
        let flags = flags | if command.unmap { abi::TCMU_REQ_MAY_UNMAP } else { 0 };
        let work = Work { op: abi::TCMU_OP_WRITE_ZEROES, flags, offset, length, data: WorkData::None };
        return Ok((Task::changing(ending(then_flush), offset, length), Step::Submit(work)));
    }
    if unit.takes(Operations::WRITE_SAME) && !command.ndob {
        let work = Work { op: abi::TCMU_OP_WRITE_SAME, flags, offset, length, data: WorkData::Command(block) };
        return Ok((Task::changing(ending(then_flush), offset, length), Step::Submit(work)));
    }
    let mut fill = Fill { offset, left: length, flags, then_flush };
    let size = length.min(CHUNK) as usize;
    let memory = pattern.iter().copied().cycle().take(size).collect();
    match fill.next() {
        Some(work) => Ok((Task { memory, ..Task::changing(Stage::Fill(fill), offset, length) }, Step::Submit(work))),
        None => Ok(super::nothing_to_do()),
    }
}
