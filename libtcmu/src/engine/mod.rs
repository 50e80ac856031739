//! The SCSI engine: from a CDB to what the handler is asked to do, and from its answer to status and data.
//!
//! Everything that is not data is answered here, from what the handler said of its device ([`Unit`]). What the handler lacks is emulated
//! where that is correct. The engine does no I/O and has no `unsafe`: [`begin`] and [`resume`] say what is to be done next, and the
//! device server does it.
mod control;
mod status;
mod unit;
mod write_same;

use tcmu_handler_api::{
    abi,
    plugin::{Buffer, DeviceFlags, Operations},
    scsi::{
        self, AdditionalSense, Blocks, Command, Lba, Sense, SenseKey, Status,
        command::{Access, decode},
        units,
    },
};

pub(crate) use status::outcome_of;
pub use unit::{SerialSource, Unit};

/// A command's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: u8,
    pub(crate) sense: Option<Sense>,
    /// How many bytes of the data buffer are valid Data-In; `None` leaves it to the buffer's length.
    pub(crate) data: Option<usize>,
}

impl Outcome {
    pub(crate) const GOOD: Outcome = Outcome { status: Status::Good as u8, sense: None, data: None };

    pub(crate) fn status(status: Status) -> Outcome {
        Outcome { status: status as u8, sense: None, data: None }
    }
}

impl From<Sense> for Outcome {
    fn from(sense: Sense) -> Outcome {
        Outcome { status: Status::CheckCondition as u8, sense: Some(sense), data: None }
    }
}

/// What comes next for a command.
#[derive(Debug)]
pub(crate) enum Step {
    /// It ends.
    Done(Outcome),
    /// The handler does this, then [`resume`] goes on.
    Submit(Work),
}

impl From<Sense> for Step {
    fn from(sense: Sense) -> Step {
        Step::Done(sense.into())
    }
}

/// One request for the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) op: u32,
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) data: WorkData,
}

/// Where a request's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkData {
    None,
    /// The first so many bytes of the command's own buffer.
    Command(usize),
    /// The first so many bytes of [`Task::memory`].
    Memory(usize),
}

/// A command in the hands of the engine, between two steps.
#[derive(Debug)]
pub struct Task {
    stage: Stage,
    /// Data that isn't in the command's buffer.
    pub(crate) memory: Vec<u8>,
    /// The range of bytes that the command changes, if it does.
    pub(crate) changes: Option<(u64, u64)>,
    /// No other change of that range may run at the same time.
    pub(crate) exclusive: bool,
}

impl Task {
    fn new(stage: Stage) -> Task {
        Task { stage, memory: Vec::new(), changes: None, exclusive: false }
    }

    fn changing(stage: Stage, offset: u64, length: u64) -> Task {
        Task { changes: Some((offset, length)), ..Task::new(stage) }
    }
}

#[derive(Debug)]
enum Stage {
    /// The request's outcome is the command's.
    Last,
    /// A read: so many bytes are valid.
    Read { length: usize },
    /// A read whose data didn't fit the command's buffer.
    BouncedRead,
    /// A write that must be flushed before it is done.
    WriteThenFlush,
    /// Ranges (in bytes) that are still to be deallocated.
    Unmap { rest: std::vec::IntoIter<(u64, u64)> },
    /// WRITE SAME by writing.
    Fill(write_same::Fill),
    /// COMPARE AND WRITE: the medium's data is being read.
    Compare { access: Access },
    /// The write cache goes off once everything is flushed.
    WriteCacheOff,
}

/// Begins a command: decodes and judges it. The task is to be kept until the command is done.
pub(crate) fn begin(unit: &mut Unit, cdb: &[u8], buffer: &Buffer<'_>) -> (Task, Step) {
    let last = |step| (Task::new(Stage::Last), step);
    let command = match decode(cdb) {
        Ok(command) => command,
        Err(sense) => return last(sense.into()),
    };
    if let Some(attention) = unit.take_attention(&command) {
        return last(attention.into());
    }
    if unit.no_medium() && command_needs_medium(&command) {
        return last(Sense::new(SenseKey::NotReady, AdditionalSense::MEDIUM_NOT_PRESENT).into());
    }
    let begun = match command {
        // The common ones first.
        Command::Read(access) => begin_read(unit, access, buffer),
        Command::Write(access) => begin_write(unit, access, buffer),
        Command::SynchronizeCache { lba, blocks, .. } => begin_flush(unit, lba, blocks),
        Command::Unmap { anchor, length } => begin_unmap(unit, anchor, length, buffer),
        Command::WriteSame(command) => write_same::begin(unit, command, buffer),
        Command::CompareAndWrite(access) => begin_compare(unit, access, buffer),
        Command::ModeSelect { ten, page_format, save, length } => begin_mode_select(unit, ten, page_format, save, length, buffer),
        other => control::answer(unit, other, buffer).map(|outcome| (Task::new(Stage::Last), Step::Done(outcome))),
    };
    begun.unwrap_or_else(|sense| last(sense.into()))
}

/// Goes on with a command after its request was completed with `status` (`TCMU_STATUS_*` or a negative `errno`).
pub(crate) fn resume(
    unit: &mut Unit,
    task: &mut Task,
    buffer: &Buffer<'_>,
    request: &abi::tcmu_request,
    status: i32,
    sense: &[u8],
) -> Step {
    if status != abi::TCMU_STATUS_OK {
        return Step::Done(outcome_of(request.op, status, request.result, sense));
    }
    match &mut task.stage {
        Stage::Last => Step::Done(Outcome::GOOD),
        Stage::Read { length } => Step::Done(Outcome { data: Some(*length), ..Outcome::GOOD }),
        Stage::BouncedRead => {
            let copied = buffer.copy_from(&task.memory);
            Step::Done(Outcome { data: Some(copied), ..Outcome::GOOD })
        }
        Stage::WriteThenFlush => {
            task.stage = Stage::Last;
            Step::Submit(flush())
        }
        Stage::Unmap { rest } => match rest.next() {
            Some((offset, length)) => Step::Submit(unmap(offset, length)),
            None => Step::Done(Outcome::GOOD),
        },
        Stage::Fill(fill) => match fill.next() {
            Some(work) => Step::Submit(work),
            None if fill.then_flush => {
                task.stage = Stage::Last;
                Step::Submit(flush())
            }
            None => Step::Done(Outcome::GOOD),
        },
        Stage::Compare { access } => {
            let access = *access;
            let length = task.memory.len();
            let mut sent = vec![0; length];
            buffer.copy_to(&mut sent);
            if let Some(offset) = sent.iter().zip(&task.memory).position(|(a, b)| a != b) {
                let sense = Sense::new(SenseKey::Miscompare, AdditionalSense::MISCOMPARE_DURING_VERIFY);
                return Step::Done(sense.with_information(offset as u64).into());
            }
            buffer.copy_to_at(length, &mut task.memory);
            let (flags, then_flush) = unit.durability(access.fua);
            task.stage = if then_flush { Stage::WriteThenFlush } else { Stage::Last };
            match unit.bytes(access.lba, access.blocks) {
                Ok((offset, length)) => {
                    Step::Submit(Work { op: abi::TCMU_OP_WRITE, flags, offset, length, data: WorkData::Memory(length as usize) })
                }
                Err(sense) => sense.into(),
            }
        }
        Stage::WriteCacheOff => {
            unit.set_write_cache(false);
            Step::Done(Outcome::GOOD)
        }
    }
}

type Begun = Result<(Task, Step), Sense>;

fn nothing_to_do() -> (Task, Step) {
    (Task::new(Stage::Last), Step::Done(Outcome { data: Some(0), ..Outcome::GOOD }))
}

fn begin_read(unit: &Unit, access: Access, buffer: &Buffer<'_>) -> Begun {
    let (offset, length) = unit.bytes(access.lba, access.blocks)?;
    unit.check_transfer(length)?;
    if length == 0 {
        return Ok(nothing_to_do());
    }
    let flags = if access.dpo { abi::TCMU_REQ_DPO } else { 0 };
    let size = usize::try_from(length).map_err(|_| Sense::invalid_cdb_field(10, None))?;
    let (task, data) = if buffer.len() >= size {
        (Task::new(Stage::Read { length: size }), WorkData::Command(size))
    } else {
        // The initiator expects less than the command transfers: it gets what it has room for.
        let mut task = Task::new(Stage::BouncedRead);
        task.memory = vec![0; size];
        (task, WorkData::Memory(size))
    };
    Ok((task, Step::Submit(Work { op: abi::TCMU_OP_READ, flags, offset, length, data })))
}

fn begin_write(unit: &Unit, access: Access, buffer: &Buffer<'_>) -> Begun {
    unit.check_writable()?;
    let (offset, length) = unit.bytes(access.lba, access.blocks)?;
    unit.check_transfer(length)?;
    if length == 0 {
        return Ok(nothing_to_do());
    }
    let size = usize::try_from(length).map_err(|_| Sense::invalid_cdb_field(10, None))?;
    if buffer.len() < size {
        // There is no data for the rest, and a part of a write is no write.
        return Err(Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB));
    }
    let (mut flags, then_flush) = unit.durability(access.fua);
    if access.dpo {
        flags |= abi::TCMU_REQ_DPO;
    }
    let stage = if then_flush { Stage::WriteThenFlush } else { Stage::Last };
    let work = Work { op: abi::TCMU_OP_WRITE, flags, offset, length, data: WorkData::Command(size) };
    Ok((Task::changing(stage, offset, length), Step::Submit(work)))
}

fn flush() -> Work {
    Work { op: abi::TCMU_OP_FLUSH, flags: 0, offset: 0, length: 0, data: WorkData::None }
}

fn unmap(offset: u64, length: u64) -> Work {
    Work { op: abi::TCMU_OP_UNMAP, flags: 0, offset, length, data: WorkData::None }
}

/// SYNCHRONIZE CACHE (SBC-4 5.33). A range is allowed to be taken as the whole; IMMED as not set.
fn begin_flush(unit: &Unit, lba: Lba, blocks: Blocks) -> Begun {
    unit.bytes(lba, blocks)?;
    if !unit.has_volatile_cache() {
        return Ok(nothing_to_do());
    }
    Ok((Task::new(Stage::Last), Step::Submit(flush())))
}

/// UNMAP (SBC-4 5.35): the whole list is judged before anything is deallocated.
fn begin_unmap(unit: &Unit, anchor: bool, length: u32, buffer: &Buffer<'_>) -> Begun {
    let facts = unit.facts_for_provisioning();
    if !facts.unmap {
        return Err(Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE));
    }
    unit.check_writable()?;
    if anchor {
        return Err(Sense::invalid_cdb_field(1, Some(0)));
    }
    if length == 0 {
        return Ok(nothing_to_do());
    }
    let mut list = vec![0; buffer.len().min(length as usize)];
    buffer.copy_to(&mut list);
    let ranges = scsi::unmap::ranges(&list, length, facts.max_descriptors)?;
    let mut blocks = 0u64;
    let mut bytes = Vec::new();
    for (lba, count) in ranges {
        let range = unit.bytes(lba, count)?;
        blocks = blocks.saturating_add(count.0);
        if count.0 > 0 {
            bytes.push(range);
        }
    }
    if blocks > u64::from(facts.max_unmap) {
        return Err(Sense::invalid_parameter(16, None));
    }
    let (start, end) = bytes.iter().fold((u64::MAX, 0), |(start, end), (o, l)| (start.min(*o), end.max(o + l)));
    let mut rest = bytes.into_iter();
    let Some((offset, length)) = rest.next() else { return Ok(nothing_to_do()) };
    Ok((Task::changing(Stage::Unmap { rest }, start, end - start), Step::Submit(unmap(offset, length))))
}

/// COMPARE AND WRITE (SBC-4 5.3).
fn begin_compare(unit: &Unit, access: Access, buffer: &Buffer<'_>) -> Begun {
    unit.check_writable()?;
    let (offset, length) = unit.bytes(access.lba, access.blocks)?;
    if length == 0 {
        return Ok(nothing_to_do());
    }
    let size = length as usize; // at most 255 blocks
    if buffer.len() < 2 * size {
        return Err(Sense::invalid_cdb_field(13, None));
    }
    let (flags, then_flush) = unit.durability(access.fua);
    if unit.takes(Operations::COMPARE_AND_WRITE) {
        let stage = if then_flush { Stage::WriteThenFlush } else { Stage::Last };
        let work = Work { op: abi::TCMU_OP_COMPARE_AND_WRITE, flags, offset, length, data: WorkData::Command(2 * size) };
        return Ok((Task::changing(stage, offset, length), Step::Submit(work)));
    }
    let mut task = Task { exclusive: true, ..Task::changing(Stage::Compare { access }, offset, length) };
    task.memory = vec![0; size];
    Ok((task, Step::Submit(Work { op: abi::TCMU_OP_READ, flags: 0, offset, length, data: WorkData::Memory(size) })))
}

/// MODE SELECT (SPC-6 6.12): nothing changes unless all of the list is right.
fn begin_mode_select(unit: &mut Unit, ten: bool, page_format: bool, save: bool, length: u32, buffer: &Buffer<'_>) -> Begun {
    let mut list = vec![0; length as usize];
    let got = buffer.copy_to(&mut list);
    if got < list.len() {
        return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    }
    let change = scsi::mode::select(ten, page_format, save, &list, &unit.facts())?;
    match change.write_cache {
        Some(true) => unit.set_write_cache(true),
        // What was written before must be as safe as what is written from now on.
        Some(false) if unit.has_volatile_cache() => return Ok((Task::new(Stage::WriteCacheOff), Step::Submit(flush()))),
        Some(false) => unit.set_write_cache(false),
        None => {}
    }
    Ok(nothing_to_do())
}

fn command_needs_medium(command: &Command) -> bool {
    matches!(
        command,
        Command::TestUnitReady
            | Command::Read(_)
            | Command::Write(_)
            | Command::ReadCapacity10
            | Command::ReadCapacity16 { .. }
            | Command::SynchronizeCache { .. }
            | Command::Unmap { .. }
            | Command::WriteSame(_)
            | Command::CompareAndWrite(_)
    )
}

impl Unit {
    /// The bytes of a range of blocks, if it is within the unit.
    fn bytes(&self, lba: Lba, blocks: Blocks) -> Result<(u64, u64), Sense> {
        if !units::in_range(lba, blocks, self.capacity()) {
            return Err(Sense::illegal(AdditionalSense::LBA_OUT_OF_RANGE));
        }
        // Within the capacity in blocks, so within it in bytes.
        let size = self.block_size();
        Ok((size.offset_of(lba).unwrap_or(u64::MAX), size.length_of(blocks).unwrap_or(u64::MAX)))
    }

    fn check_writable(&self) -> Result<(), Sense> {
        if self.info().flags().contains(DeviceFlags::READ_ONLY) {
            return Err(Sense::new(SenseKey::DataProtect, AdditionalSense::WRITE_PROTECTED));
        }
        Ok(())
    }
}
