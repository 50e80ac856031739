//! COMPARE AND WRITE (SBC-4 5.3) and ORWRITE (SBC-4 5.11): reads and writes of one range with no other change in between.
use tcmu_handler_api::{
    abi,
    plugin::{Buffer, Operations},
    scsi::{AdditionalSense, Sense, SenseKey, command::Access},
};

use super::{Begun, Stage, Task, Unit, Work, WorkData, medium::data_out, nothing_to_do, submit};

/// The medium's data is being read.
#[derive(Debug)]
pub(super) struct Compare {
    offset: u64,
    flags: u32,
    then_flush: bool,
}

pub(super) fn compare_and_write(unit: &mut Unit, access: Access, buffer: &Buffer<'_>) -> Begun {
    unit.check_writable()?;
    let (offset, length) = unit.bytes(access.lba, access.blocks)?;
    let size = length as usize; // at most 255 blocks
    if access.blocks.0 > u64::from(unit.max_compare_and_write()) {
        return Err(Sense::invalid_cdb_field(13, None));
    }
    // Verify data and write data, and nothing else: an initiator that asks for 256 blocks, which its field can't hold, must not be told
    // that they were written.
    if buffer.len() != 2 * size {
        return Err(Sense::invalid_cdb_field(13, None));
    }
    if length == 0 {
        return Ok(nothing_to_do());
    }
    unit.statistics.writes += 1;
    unit.statistics.blocks_written += access.blocks.0;
    let (flags, then_flush) = unit.durability(access.fua);
    if unit.takes(Operations::COMPARE_AND_WRITE) {
        let stage = if then_flush { Stage::ThenFlush } else { Stage::Last };
        let data = WorkData::Command(2 * size);
        let work = Work { data, ..Work::plain(abi::TCMU_OP_COMPARE_AND_WRITE, flags, offset, length) };
        return submit(Task::changing(stage, offset, length), work);
    }
    let stage = Stage::Compare(Compare { offset, flags, then_flush });
    let task = Task::changing(stage, offset, length).exclusive().with_memory(length);
    submit(task, Work::read(offset, length, WorkData::Memory(size)))
}

impl Compare {
    /// The write, if the data is what it should be, and whether a flush has to follow.
    pub(super) fn next(&self, memory: &mut [u8], buffer: &Buffer<'_>) -> Result<(Work, bool), Sense> {
        let mut sent = vec![0; memory.len()];
        buffer.copy_to(&mut sent);
        if let Some(offset) = sent.iter().zip(&*memory).position(|(a, b)| a != b) {
            let sense = Sense::new(SenseKey::Miscompare, AdditionalSense::MISCOMPARE_DURING_VERIFY);
            return Err(sense.with_information(offset as u64));
        }
        buffer.copy_to_at(sent.len(), memory);
        let work = Work::write(self.flags, self.offset, memory.len() as u64, WorkData::Memory(memory.len()));
        Ok((work, self.then_flush))
    }
}

/// The medium's data is being read.
#[derive(Debug)]
pub(super) struct Or {
    offset: u64,
    flags: u32,
    then_flush: bool,
}

pub(super) fn or_write(unit: &mut Unit, access: Access, buffer: &Buffer<'_>) -> Begun {
    unit.check_writable()?;
    let (offset, length) = unit.bytes(access.lba, access.blocks)?;
    unit.check_transfer(length)?;
    if length == 0 {
        return Ok(nothing_to_do());
    }
    data_out(buffer, length, access.length_at)?;
    unit.statistics.writes += 1;
    unit.statistics.blocks_written += access.blocks.0;
    let (flags, then_flush) = unit.durability(access.fua);
    let stage = Stage::Or(Or { offset, flags, then_flush });
    let task = Task::changing(stage, offset, length).exclusive().with_memory(length);
    submit(task, Work::read(offset, length, WorkData::Memory(length as usize)))
}

impl Or {
    /// The write, and whether a flush has to follow.
    pub(super) fn next(&self, memory: &mut [u8], buffer: &Buffer<'_>) -> (Work, bool) {
        let mut sent = vec![0; memory.len()];
        buffer.copy_to(&mut sent);
        memory.iter_mut().zip(&sent).for_each(|(there, sent)| *there |= sent);
        let work = Work::write(self.flags, self.offset, memory.len() as u64, WorkData::Memory(memory.len()));
        (work, self.then_flush)
    }
}
