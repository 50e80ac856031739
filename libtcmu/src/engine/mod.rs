//! The SCSI engine: from a CDB to what the handler is asked to do, and from its answer to status and data.
//!
//! Everything that is not data is answered here, from what the handler said of its device ([`Unit`]). What the handler lacks is emulated
//! where that is correct. The engine does no I/O and has no `unsafe`: [`begin`] and [`resume`] say what is to be done next, and the
//! device server does it.
//!
//! | module | commands |
//! |---|---|
//! | `plain` | READ and WRITE (10, 16) where nothing is special |
//! | `medium` | READ, WRITE, WRITE ATOMIC, PRE-FETCH, SYNCHRONIZE CACHE |
//! | `verify` | VERIFY, WRITE AND VERIFY |
//! | `compare` | COMPARE AND WRITE, ORWRITE |
//! | `provision` | UNMAP, GET LBA STATUS |
//! | `write_same` | WRITE SAME |
//! | `copy`, `token` | EXTENDED COPY and its relatives, by lists and by tokens |
//! | `erase` | FORMAT UNIT, SANITIZE |
//! | `select` | MODE SELECT |
//! | `access` | REPORT and SET TARGET PORT GROUPS |
//! | `control` | all that is answered at once |
mod access;
mod compare;
mod control;
mod copy;
mod erase;
mod medium;
mod plain;
mod provision;
mod select;
mod status;
mod token;
mod unit;
mod verify;
mod write_same;

use tcmu_handler_api::{
    abi,
    plugin::Buffer,
    scsi::{
        AdditionalSense, Command, Sense, Status,
        command::{decode_as, identify},
    },
};

pub use access::Target;
pub(crate) use access::{Answer, Question, ask};
pub(crate) use copy::{Peer, PeerKey, Peers};
pub(crate) use plain::{Judge, Plain, Tally};
pub(crate) use status::outcome_of;
pub use unit::Unit;

/// Bytes that the engine moves at a time through memory of its own.
const CHUNK: u64 = 1 << 20;

/// A command's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: u8,
    pub(crate) sense: Option<Sense>,
    /// How many bytes of the data buffer are valid Data-In; `None` after commands whose buffer is Data-Out.
    pub(crate) data: Option<usize>,
}

impl Outcome {
    pub(crate) const GOOD: Outcome = Outcome { status: Status::Good as u8, sense: None, data: None };

    /// GOOD, without Data-In.
    pub(crate) const NO_DATA: Outcome = Outcome { data: Some(0), ..Outcome::GOOD };

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
    /// It ends for the initiator; what it began goes on: the handler does this, then [`resume`] goes on, without its buffer.
    Detach(Box<(Outcome, Work)>),
    /// The kernel and the handler's control calls are asked for this on another thread, then [`resume`] goes on.
    Ask(Question),
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
    /// Of a copy.
    pub(crate) source: u64,
    /// It is for another unit.
    pub(crate) peer: Option<PeerKey>,
    pub(crate) data: WorkData,
}

impl Work {
    fn read(offset: u64, length: u64, data: WorkData) -> Work {
        Work { op: abi::TCMU_OP_READ, flags: 0, offset, length, source: 0, peer: None, data }
    }

    fn write(flags: u32, offset: u64, length: u64, data: WorkData) -> Work {
        Work { op: abi::TCMU_OP_WRITE, flags, offset, length, source: 0, peer: None, data }
    }

    /// An operation without data.
    fn plain(op: u32, flags: u32, offset: u64, length: u64) -> Work {
        Work { op, flags, offset, length, source: 0, peer: None, data: WorkData::None }
    }

    pub(crate) fn flush() -> Work {
        Work::plain(abi::TCMU_OP_FLUSH, 0, 0, 0)
    }
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
    /// The range of bytes that the command changes, if it does: offset and length.
    pub(crate) changes: Option<(u64, u64)>,
    /// No other change of that range may run at the same time.
    pub(crate) exclusive: bool,
}

impl Task {
    fn new(stage: Stage) -> Task {
        Task { stage, memory: Vec::new(), changes: None, exclusive: false }
    }

    /// A piece of another unit's copy.
    pub(crate) fn of_peer(memory: Vec<u8>, changes: Option<(u64, u64)>) -> Task {
        Task { memory, changes, ..Task::new(Stage::Last) }
    }

    fn changing(stage: Stage, offset: u64, length: u64) -> Task {
        Task { changes: Some((offset, length)), ..Task::new(stage) }
    }

    /// Whether what it does goes on when it is aborted.
    pub(crate) fn survives_abort(&self) -> bool {
        matches!(self.stage, Stage::Erase(_))
    }

    fn with_memory(self, bytes: u64) -> Task {
        Task { memory: vec![0; bytes as usize], ..self }
    }

    fn exclusive(self) -> Task {
        Task { exclusive: true, ..self }
    }
}

#[derive(Debug)]
enum Stage {
    /// The request's outcome is the command's.
    Last,
    /// A read: so many bytes are valid.
    Read {
        length: usize,
    },
    /// A read whose data didn't fit the command's buffer.
    BouncedRead,
    /// A write that must be flushed before it is done.
    ThenFlush,
    Verify(verify::Verify),
    Compare(compare::Compare),
    Or(compare::Or),
    Unmap(provision::Unmap),
    Extents(provision::Extents),
    Fill(write_same::Fill),
    Copy(Box<copy::Copy>),
    Erase(erase::Erase),
    /// The write cache goes off once everything is flushed.
    WriteCacheOff(select::Selected),
    Asked(access::Asked),
}

type Begun = Result<(Task, Step), Sense>;

fn done(outcome: Outcome) -> (Task, Step) {
    (Task::new(Stage::Last), Step::Done(outcome))
}

fn nothing_to_do() -> (Task, Step) {
    done(Outcome::NO_DATA)
}

fn submit(task: Task, work: Work) -> Begun {
    Ok((task, Step::Submit(work)))
}

/// Begins a command: decodes and judges it. The task is to be kept until the command is done.
pub(crate) fn begin(unit: &mut Unit, cdb: &[u8], buffer: &Buffer<'_>) -> (Task, Step) {
    let begun = identify(cdb).and_then(|entry| {
        // What this unit has not is unknown to it, whatever else is in the CDB.
        if !control::supports(unit, entry) {
            return Err(Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE));
        }
        let command = decode_as(entry, cdb)?;
        unit.ready_for(&command)?;
        if unit.lacks_lock() && changes_the_medium(&command) {
            return Ok(access::without_lock(unit));
        }
        dispatch(unit, command, buffer)
    });
    let (task, step) = begun.unwrap_or_else(|sense| done(sense.into()));
    if let Some((offset, length)) = task.changes {
        unit.changing(offset, length);
    }
    (task, step)
}

fn changes_the_medium(command: &Command) -> bool {
    matches!(
        command,
        Command::Write(_)
            | Command::WriteAndVerify(..)
            | Command::WriteAtomic { .. }
            | Command::WriteSame(_)
            | Command::Unmap { .. }
            | Command::CompareAndWrite(_)
            | Command::OrWrite(_)
            | Command::FormatUnit(_)
            | Command::Sanitize(_)
            | Command::ExtendedCopy { .. }
            | Command::WriteUsingToken { .. }
    )
}

fn dispatch(unit: &mut Unit, command: Command, buffer: &Buffer<'_>) -> Begun {
    match command {
        // The common ones first.
        Command::Read(access) => medium::read(unit, access, buffer),
        Command::Write(access) => medium::write(unit, access, buffer),
        Command::SynchronizeCache { lba, blocks, immediate } => medium::flush(unit, lba, blocks, immediate),
        Command::Unmap { anchor, length } => provision::unmap(unit, anchor, length, buffer),
        Command::WriteSame(command) => write_same::begin(unit, command, buffer),
        Command::CompareAndWrite(access) => compare::compare_and_write(unit, access, buffer),
        Command::OrWrite(access) => compare::or_write(unit, access, buffer),
        Command::WriteAtomic { access, boundary } => medium::write_atomic(unit, access, boundary, buffer),
        Command::Verify(access, check) => verify::verify(unit, access, check, buffer),
        Command::WriteAndVerify(access, check) => verify::write_and_verify(unit, access, check, buffer),
        Command::Prefetch { lba, blocks } => medium::prefetch(unit, lba, blocks),
        Command::GetLbaStatus { lba, report, allocation } => provision::lba_status(unit, lba, report, allocation, buffer),
        Command::ModeSelect { ten, page_format, save, length } => {
            select::begin(unit, ten, page_format, save, &parameters(buffer, length)?)
        }
        Command::FormatUnit(command) => erase::format(unit, &command, buffer),
        Command::Sanitize(command) => erase::sanitize(unit, &command, buffer),
        Command::ExtendedCopy { length } => copy::begin(unit, &parameters(buffer, length)?),
        Command::PopulateToken { list, length } => token::populate(unit, list, &parameters(buffer, length)?),
        Command::WriteUsingToken { list, length } => token::write_using(unit, list, &parameters(buffer, length)?),
        Command::ReportTargetPortGroups { extended, allocation } => Ok(access::report(extended, allocation)),
        Command::SetTargetPortGroups { length } => access::set(&parameters(buffer, length)?),
        other => control::answer(unit, other, buffer).map(done),
    }
}

/// A copy of a parameter list, taken before it is judged: the initiator's host can write to it all the time. Shorter than the CDB says is
/// PARAMETER LIST LENGTH ERROR.
fn parameters(buffer: &Buffer<'_>, length: u32) -> Result<Vec<u8>, Sense> {
    if (length as usize) > buffer.len() {
        return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    }
    let mut list = vec![0; length as usize];
    buffer.copy_to(&mut list);
    Ok(list)
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
    let Task { stage, memory, .. } = task;
    if status != abi::TCMU_STATUS_OK {
        unit.failed(request.op);
        if status == abi::TCMU_STATUS_FENCED {
            unit.lock_lost();
        }
        let outcome = outcome_of(request.op, status, request.result, sense);
        return Step::Done(match stage {
            Stage::Copy(copy) => copy.failed(unit, outcome),
            Stage::Erase(erase) => erase.failed(unit, outcome),
            _ => outcome,
        });
    }
    match stage {
        Stage::Last if matches!(request.op, abi::TCMU_OP_FLUSH | abi::TCMU_OP_PREFETCH | abi::TCMU_OP_UNMAP) => {
            Step::Done(Outcome::NO_DATA)
        }
        Stage::Last => Step::Done(Outcome::GOOD),
        Stage::Read { length } => Step::Done(Outcome { data: Some(*length), ..Outcome::GOOD }),
        Stage::BouncedRead => {
            let copied = buffer.copy_from(memory);
            Step::Done(Outcome { data: Some(copied), ..Outcome::GOOD })
        }
        Stage::ThenFlush => {
            *stage = Stage::Last;
            Step::Submit(Work::flush())
        }
        Stage::Verify(verify) => verify.next(memory, buffer),
        Stage::Compare(compare) => match compare.next(memory, buffer) {
            Ok((work, then_flush)) => {
                *stage = if then_flush { Stage::ThenFlush } else { Stage::Last };
                Step::Submit(work)
            }
            Err(sense) => sense.into(),
        },
        Stage::Or(or) => {
            let (work, then_flush) = or.next(memory, buffer);
            *stage = if then_flush { Stage::ThenFlush } else { Stage::Last };
            Step::Submit(work)
        }
        Stage::Unmap(unmap) => unmap.next(),
        Stage::Extents(extents) => Step::Done(extents.answer(unit, memory, request.result, buffer)),
        Stage::Fill(fill) => match fill.next() {
            Some(work) => Step::Submit(work),
            None if fill.then_flush => {
                *stage = Stage::Last;
                Step::Submit(Work::flush())
            }
            None => Step::Done(Outcome::GOOD),
        },
        Stage::Copy(copy) => copy.next(unit, memory),
        Stage::Erase(erase) => erase.next(unit, memory),
        Stage::WriteCacheOff(selected) => {
            selected.apply(unit);
            Step::Done(Outcome::GOOD)
        }
        Stage::Asked(asked) => Step::Done(asked.answer(unit, buffer)),
    }
}

/// Judges a piece of another unit's copy, and takes it on: an `errno` if it can't be.
pub(crate) fn begin_for_peer(unit: &mut Unit, work: Work, memory: Vec<u8>) -> Result<Task, (i32, Vec<u8>)> {
    let writes = work.op == abi::TCMU_OP_WRITE;
    let size = unit.info().size();
    let problem = if work.offset.checked_add(work.length).is_none_or(|end| end > size) {
        Some(libc::EINVAL)
    } else if writes && unit.check_writable().is_err() {
        Some(libc::EROFS)
    } else if unit.is_busy() || (writes && unit.lacks_lock()) {
        Some(libc::EBUSY)
    } else {
        None
    };
    if let Some(errno) = problem {
        return Err((errno, memory));
    }
    let changes = writes.then_some((work.offset, work.length));
    if let Some((offset, length)) = changes {
        unit.changing(offset, length);
    }
    Ok(Task::of_peer(memory, changes))
}

/// Takes over after a detached command, or one whose work is to stop, is given up: what it began is not finished.
pub(crate) fn abandon(unit: &mut Unit, task: &mut Task) {
    let outcome = Outcome::status(Status::TaskAborted);
    match &mut task.stage {
        Stage::Copy(copy) => drop(copy.failed(unit, outcome)),
        Stage::Erase(erase) => drop(erase.failed(unit, outcome)),
        _ => {}
    }
}
