//! FORMAT UNIT (SBC-4 5.4) and SANITIZE (SBC-4 4.11, 5.30): long operations on the whole unit, which go on when nobody waits for them.
use tcmu_handler_api::{
    abi,
    plugin::{Buffer, DeviceFlags, Operations},
    scsi::{
        AdditionalSense, Command, Sense, SenseKey,
        command::{FormatUnit, Sanitize, SanitizeAction},
        format::{self, Overwrite},
    },
};

use super::{Begun, Outcome, Stage, Step, Task, Unit, Work, WorkData, nothing_to_do, parameters};

/// Bytes that are deallocated at a time, so that there is progress to see.
const PIECE: u64 = 1 << 30;

/// Which long operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Format,
    /// With AUSE.
    Sanitize {
        unrestricted_exit: bool,
    },
}

/// A long operation that goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Background {
    kind: Kind,
    done: u64,
    total: u64,
}

impl Background {
    /// What commands get to hear meanwhile (SBC-4 4.33, 4.11.2).
    fn sense(self) -> Sense {
        let code = match self.kind {
            Kind::Format => AdditionalSense::FORMAT_IN_PROGRESS,
            Kind::Sanitize { .. } => AdditionalSense::SANITIZE_IN_PROGRESS,
        };
        let progress = (u128::from(self.done) * 65536 / u128::from(self.total.max(1))).min(65535);
        Sense::not_ready(code).with_progress(progress as u16)
    }
}

/// What a long operation that goes on, or one that failed, leaves for a command to do.
pub(super) fn check(unit: &Unit, command: &Command) -> Result<(), Sense> {
    let always = matches!(
        command,
        Command::Inquiry { .. }
            | Command::ReportLuns { .. }
            | Command::RequestSense { .. }
            | Command::ReportSupportedOperationCodes(_)
            | Command::ReportSupportedTaskManagement { .. }
            | Command::ReportTargetPortGroups { .. }
    );
    if always {
        return Ok(());
    }
    if let Some(background) = unit.background {
        return Err(background.sense());
    }
    let recovers = matches!(command, Command::Sanitize(_) | Command::FormatUnit(_) | Command::TestUnitReady)
        || matches!(
            command,
            Command::ModeSense(_) | Command::ReadCapacity10 | Command::ReadCapacity16 { .. } | Command::LogSense(_)
        );
    match unit.failure {
        Some(Kind::Sanitize { .. }) if !matches!(command, Command::Sanitize(_)) && !recovers => {
            Err(Sense::new(SenseKey::MediumError, AdditionalSense::SANITIZE_COMMAND_FAILED))
        }
        Some(Kind::Format) if !recovers => Err(Sense::new(SenseKey::MediumError, AdditionalSense::MEDIUM_FORMAT_CORRUPTED)),
        _ => Ok(()),
    }
}

/// Pending sense data for REQUEST SENSE.
pub(super) fn pending(unit: &Unit) -> Option<Sense> {
    unit.background.map(Background::sense)
}

/// The medium is being overwritten or deallocated.
#[derive(Debug)]
pub(super) struct Erase {
    kind: Kind,
    how: How,
    pass: u8,
    offset: u64,
    flushed: bool,
}

#[derive(Debug)]
enum How {
    /// By operations without data.
    Operation(u32),
    /// By writing a block of each pass over and over.
    Writing { overwrite: Overwrite, block: usize },
}

pub(super) fn format(unit: &mut Unit, command: &FormatUnit, buffer: &Buffer<'_>) -> Begun {
    // FORMAT UNIT's CDB does not tell how long its list is: what there is of it is read.
    let length = if command.format_data { buffer.len().min(64) as u32 } else { 0 };
    let immediate = format::parse_format(command, &parameters(buffer, length)?)?;
    unit.check_writable()?;
    if command.fast != 0 {
        return Ok(nothing_to_do()); // FFMT: the data may be anything, for example what it is
    }
    let how = if let Some(operation) = zeroing(unit) {
        How::Operation(operation)
    } else {
        writing(unit, Overwrite { pattern: vec![0], count: 1, invert: false })
    };
    start(unit, Kind::Format, how, immediate)
}

/// The operation that makes the whole medium read as zeros without writing them.
fn zeroing(unit: &Unit) -> Option<u32> {
    if unit.takes(Operations::UNMAP) && unit.info().flags().contains(DeviceFlags::UNMAP_ZEROES) {
        Some(abi::TCMU_OP_UNMAP)
    } else {
        unit.takes(Operations::WRITE_ZEROES).then_some(abi::TCMU_OP_WRITE_ZEROES)
    }
}

fn writing(unit: &Unit, overwrite: Overwrite) -> How {
    How::Writing { overwrite, block: unit.block_size().bytes() as usize }
}

/// Whether a unit can be sanitized by deallocation.
pub(super) fn has_block_erase(unit: &Unit) -> bool {
    unit.takes(Operations::UNMAP) && unit.info().flags().contains(DeviceFlags::UNMAP_ZEROES)
}

pub(super) fn sanitize(unit: &mut Unit, command: &Sanitize, buffer: &Buffer<'_>) -> Begun {
    if command.action != SanitizeAction::Overwrite && command.length != 0 {
        return Err(Sense::invalid_cdb_field(7, None));
    }
    let kind = Kind::Sanitize { unrestricted_exit: command.unrestricted_exit };
    match command.action {
        SanitizeAction::ExitFailureMode => match unit.failure {
            Some(Kind::Sanitize { unrestricted_exit: true }) => {
                unit.failure = None;
                Ok(nothing_to_do())
            }
            // A failed restricted sanitize can only be followed by another one (SBC-4 4.11.3).
            Some(Kind::Sanitize { unrestricted_exit: false }) => Err(Sense::invalid_cdb_field(1, Some(4))),
            _ => Ok(nothing_to_do()),
        },
        SanitizeAction::BlockErase => {
            if !has_block_erase(unit) {
                return Err(Sense::invalid_cdb_field(1, Some(4)));
            }
            unit.check_writable()?;
            start(unit, kind, How::Operation(abi::TCMU_OP_UNMAP), command.immediate)
        }
        SanitizeAction::Overwrite => {
            let block = unit.block_size().bytes();
            let mut list = vec![0; buffer.len().min(command.length as usize)];
            buffer.copy_to(&mut list);
            let overwrite = format::parse_overwrite(&list, command.length, block)?;
            unit.check_writable()?;
            let how = writing(unit, overwrite);
            start(unit, kind, how, command.immediate)
        }
    }
}

fn start(unit: &mut Unit, kind: Kind, how: How, immediate: bool) -> Begun {
    let size = unit.capacity().0 * u64::from(unit.block_size().bytes());
    if size == 0 {
        return Ok(nothing_to_do());
    }
    let (passes, memory) = match &how {
        How::Operation(_) => (1, Vec::new()),
        How::Writing { overwrite, .. } => (overwrite.count, vec![0; size.min(unit.piece()) as usize]),
    };
    unit.background = Some(Background { kind, done: 0, total: size.saturating_mul(passes.into()) });
    let mut erase = Erase { kind, how, pass: 0, offset: 0, flushed: false };
    let mut memory = memory;
    erase.fill(&mut memory);
    let step = erase.next(unit, &mut memory);
    // Nothing else may be under way when it begins, and nothing else begins until it ends.
    let task = Task { memory, ..Task::changing(Stage::Erase(erase), 0, size) }.exclusive();
    Ok(match step {
        Step::Submit(work) if immediate => (task, Step::Detach(Box::new((Outcome::GOOD, work)))),
        step => (task, step),
    })
}

impl Erase {
    /// The pattern of the pass at hand, in blocks.
    fn fill(&self, memory: &mut [u8]) {
        if let How::Writing { overwrite, block } = &self.how {
            // Each block begins with the pattern anew (SBC-4 5.30.2.2).
            for block in memory.chunks_mut(*block) {
                let pattern: Vec<u8> = overwrite.pass(self.pass).collect();
                block.iter_mut().zip(pattern.iter().cycle()).for_each(|(to, from)| *to = *from);
            }
        }
    }

    pub(super) fn next(&mut self, unit: &mut Unit, memory: &mut [u8]) -> Step {
        let size = unit.capacity().0 * u64::from(unit.block_size().bytes());
        if self.offset >= size {
            if let How::Writing { overwrite, .. } = &self.how
                && self.pass + 1 < overwrite.count
            {
                (self.pass, self.offset) = (self.pass + 1, 0);
                self.fill(memory);
            } else if unit.has_volatile_cache() && !self.flushed {
                self.flushed = true;
                return Step::Submit(Work::flush());
            } else {
                (unit.background, unit.failure) = (None, None);
                return Step::Done(Outcome::GOOD);
            }
        }
        let work = match &self.how {
            How::Operation(op) => {
                let most = unit.max_zeroing().min(PIECE);
                Work::plain(*op, 0, self.offset, most.min(size - self.offset))
            }
            How::Writing { .. } => {
                let length = (memory.len() as u64).min(size - self.offset);
                Work::write(0, self.offset, length, WorkData::Memory(length as usize))
            }
        };
        if let Some(background) = &mut unit.background {
            background.done = u64::from(self.pass).saturating_mul(size).saturating_add(self.offset);
        }
        self.offset += work.length;
        Step::Submit(work)
    }

    /// It could not be finished.
    pub(super) fn failed(&mut self, unit: &mut Unit, outcome: Outcome) -> Outcome {
        (unit.background, unit.failure) = (None, Some(self.kind));
        let code = match self.kind {
            Kind::Format => AdditionalSense::FORMAT_COMMAND_FAILED,
            Kind::Sanitize { .. } => AdditionalSense::SANITIZE_COMMAND_FAILED,
        };
        match outcome.sense {
            Some(_) => Sense::new(SenseKey::MediumError, code).into(),
            None => outcome,
        }
    }
}
