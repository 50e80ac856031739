//! VERIFY (SBC-4 5.36) and WRITE AND VERIFY (SBC-4 5.44).
use tcmu_handler_api::{
    plugin::Buffer,
    scsi::{
        AdditionalSense, Sense, SenseKey,
        command::{Access, ByteCheck},
    },
};

use super::{Begun, Outcome, Stage, Step, Task, Unit, Work, WorkData, medium::data_out, nothing_to_do, submit};

/// Blocks that are read and compared, a piece at a time.
#[derive(Debug)]
pub(super) struct Verify {
    check: ByteCheck,
    block: usize,
    /// Before the first piece there is something else to wait for.
    state: State,
    /// The piece that is in memory, and how long it can be.
    piece: u64,
    most: u64,
    offset: u64,
    left: u64,
    /// Bytes of the Data-Out buffer that were compared.
    compared: usize,
}

#[derive(Debug)]
enum State {
    Writing { then_flush: bool },
    Flushing,
    Reading,
}

pub(super) fn verify(unit: &mut Unit, access: Access, check: ByteCheck, buffer: &Buffer<'_>) -> Begun {
    let (offset, length) = unit.bytes(access.lba, access.blocks)?;
    if length == 0 {
        return Ok(nothing_to_do());
    }
    let block = unit.block_size().bytes() as usize;
    match check {
        ByteCheck::Medium => {}
        ByteCheck::EachBlock => drop(data_out(buffer, length, access.length_at)?),
        ByteCheck::OneBlock => drop(data_out(buffer, block as u64, access.length_at)?),
    }
    unit.statistics.verifies += 1;
    let mut verify =
        Verify { check, block, state: State::Reading, piece: 0, most: unit.piece(), offset, left: length, compared: 0 };
    let task = |verify| Task::new(Stage::Verify(verify)).with_memory(length.min(unit.piece()));
    let work = verify.read();
    submit(task(verify), work)
}

/// The blocks are written so that they are on the medium, and then read back.
pub(super) fn write_and_verify(unit: &mut Unit, access: Access, check: ByteCheck, buffer: &Buffer<'_>) -> Begun {
    unit.check_writable()?;
    let (offset, length) = unit.bytes(access.lba, access.blocks)?;
    unit.check_transfer(length)?;
    if length == 0 {
        return Ok(nothing_to_do());
    }
    let data = data_out(buffer, length, access.length_at)?;
    let (flags, then_flush) = unit.durability(true);
    unit.statistics.writes += 1;
    unit.statistics.verifies += 1;
    unit.statistics.blocks_written += access.blocks.0;
    let block = unit.block_size().bytes() as usize;
    let verify = Verify {
        check,
        block,
        state: State::Writing { then_flush },
        piece: 0,
        most: unit.piece(),
        offset,
        left: length,
        compared: 0,
    };
    let task = Task::changing(Stage::Verify(verify), offset, length).with_memory(length.min(unit.piece()));
    submit(task, Work::write(flags, offset, length, data))
}

impl Verify {
    fn read(&mut self) -> Work {
        self.piece = self.left.min(self.most);
        let work = Work::read(self.offset, self.piece, WorkData::Memory(self.piece as usize));
        self.offset += self.piece;
        self.left -= self.piece;
        work
    }

    pub(super) fn next(&mut self, memory: &[u8], buffer: &Buffer<'_>) -> Step {
        match self.state {
            State::Writing { then_flush: true } => {
                self.state = State::Flushing;
                return Step::Submit(Work::flush());
            }
            State::Writing { .. } | State::Flushing => {
                self.state = State::Reading;
                return Step::Submit(self.read());
            }
            State::Reading => {}
        }
        let read = &memory[..self.piece as usize];
        if !self.is_equal(read, buffer) {
            return Sense::new(SenseKey::Miscompare, AdditionalSense::MISCOMPARE_DURING_VERIFY).into();
        }
        self.compared += read.len();
        if self.left == 0 {
            Step::Done(if self.check == ByteCheck::Medium { Outcome::NO_DATA } else { Outcome::GOOD })
        } else {
            Step::Submit(self.read())
        }
    }

    fn is_equal(&self, read: &[u8], buffer: &Buffer<'_>) -> bool {
        match self.check {
            ByteCheck::Medium => true,
            ByteCheck::EachBlock => {
                let mut sent = vec![0; read.len()];
                buffer.copy_to_at(self.compared, &mut sent);
                sent == read
            }
            ByteCheck::OneBlock => {
                let mut sent = vec![0; self.block];
                buffer.copy_to(&mut sent);
                read.chunks(self.block).all(|block| block == sent)
            }
        }
    }
}
