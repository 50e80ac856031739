//! READ, WRITE, WRITE ATOMIC, PRE-FETCH, SYNCHRONIZE CACHE.
use tcmu_handler_api::{
    abi,
    plugin::{Buffer, Operations},
    scsi::{AdditionalSense, Blocks, Lba, Sense, command::Access},
};

use super::{Begun, Outcome, Stage, Step, Task, Unit, Work, WorkData, nothing_to_do, submit};

pub(super) fn read(unit: &mut Unit, access: Access, buffer: &Buffer<'_>) -> Begun {
    let (offset, length) = unit.bytes(access.lba, access.blocks)?;
    unit.check_transfer(length)?;
    if length == 0 {
        return Ok(nothing_to_do());
    }
    let size = usize::try_from(length).map_err(|_| Sense::invalid_cdb_field(10, None))?;
    unit.statistics.reads += 1;
    unit.statistics.blocks_read += access.blocks.0;
    let (task, data) = if buffer.has_more_than(size - 1) {
        (Task::new(Stage::Read { length: size }), WorkData::Command(size))
    } else {
        // The initiator expects less than the command transfers: it gets what it has room for, and no more is read than blocks of that.
        let needed = (buffer.len() as u64).next_multiple_of(u64::from(unit.block_size().bytes()));
        if needed == 0 {
            return Ok(nothing_to_do());
        }
        let task = Task::new(Stage::BouncedRead).with_memory(needed);
        return submit(task, Work { flags: dpo(access), ..Work::read(offset, needed, WorkData::Memory(needed as usize)) });
    };
    submit(task, Work { flags: dpo(access), ..Work::read(offset, length, data) })
}

fn dpo(access: Access) -> u32 {
    if access.dpo { abi::TCMU_REQ_DPO } else { 0 }
}

pub(super) fn write(unit: &mut Unit, access: Access, buffer: &Buffer<'_>) -> Begun {
    unit.check_writable()?;
    let (offset, length) = unit.bytes(access.lba, access.blocks)?;
    unit.check_transfer(length)?;
    if length == 0 {
        return Ok(nothing_to_do());
    }
    let (flags, then_flush) = unit.durability(access.fua);
    let work = Work::write(flags | dpo(access), offset, length, data_out(buffer, length, access.length_at)?);
    unit.statistics.writes += 1;
    unit.statistics.blocks_written += access.blocks.0;
    submit(Task::changing(if then_flush { Stage::ThenFlush } else { Stage::Last }, offset, length), work)
}

/// The Data-Out buffer, which must have all that is to be written: there is no data for the rest, and a part of a write is no write.
pub(super) fn data_out(buffer: &Buffer<'_>, length: u64, field: u8) -> Result<WorkData, Sense> {
    match usize::try_from(length) {
        Ok(size) if size == 0 || buffer.has_more_than(size - 1) => Ok(WorkData::Command(size)),
        _ => Err(Sense::invalid_cdb_field(field.into(), None)),
    }
}

/// WRITE ATOMIC(16) (SBC-4 5.43): only for handlers that can.
pub(super) fn write_atomic(unit: &mut Unit, access: Access, boundary: Blocks, buffer: &Buffer<'_>) -> Begun {
    let Some(most) = unit.max_atomic() else {
        return Err(Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE));
    };
    if boundary.0 != 0 {
        return Err(Sense::invalid_cdb_field(10, None)); // MAXIMUM ATOMIC BOUNDARY SIZE is 0
    }
    unit.bytes(access.lba, access.blocks)?;
    if access.blocks.0 > u64::from(most) {
        return Err(Sense::invalid_cdb_field(12, None));
    }
    let (task, step) = write(unit, access, buffer)?;
    Ok(match step {
        Step::Submit(work) => (task.exclusive(), Step::Submit(Work { flags: work.flags | abi::TCMU_REQ_ATOMIC, ..work })),
        other => (task, other),
    })
}

/// PRE-FETCH (SBC-4 5.13): CONDITION MET would promise that all of it is in a cache, which nobody can; GOOD promises nothing.
pub(super) fn prefetch(unit: &mut Unit, lba: Lba, blocks: Blocks) -> Begun {
    let (offset, length) = unit.bytes(lba, blocks)?;
    // 0 blocks are all up to the end.
    let length = if length == 0 { unit.info().size().saturating_sub(offset) } else { length };
    if !unit.takes(Operations::PREFETCH) || length == 0 {
        return Ok(nothing_to_do());
    }
    // It may take its time: nobody waits for it.
    let work = Work::plain(abi::TCMU_OP_PREFETCH, 0, offset, length);
    Ok((Task::new(Stage::Last), Step::Detach(Box::new((Outcome::NO_DATA, work)))))
}

/// SYNCHRONIZE CACHE (SBC-4 5.33). A range is allowed to be taken as the whole.
pub(super) fn flush(unit: &mut Unit, lba: Lba, blocks: Blocks, immediate: bool) -> Begun {
    unit.bytes(lba, blocks)?;
    if !unit.has_volatile_cache() {
        return Ok(nothing_to_do());
    }
    if immediate {
        return Ok((Task::new(Stage::Last), Step::Detach(Box::new((Outcome::NO_DATA, Work::flush())))));
    }
    submit(Task::new(Stage::Last), Work::flush())
}
