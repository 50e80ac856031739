//! UNMAP (SBC-4 5.35) and GET LBA STATUS (SBC-4 5.6).
use std::vec;

use tcmu_handler_api::{
    abi,
    plugin::{Buffer, Operations},
    scsi::{
        self, AdditionalSense, Blocks, Lba, Sense,
        capacity::{self, Provisioned},
    },
};

use super::{Begun, Outcome, Stage, Step, Task, Unit, Work, WorkData, control, done, nothing_to_do, parameters, submit};

/// Most extents that a handler is asked for at a time.
const MAX_EXTENTS: usize = 256;
const EXTENT: usize = size_of::<abi::tcmu_extent>();

/// Ranges (in bytes) that are still to be deallocated.
#[derive(Debug)]
pub(super) struct Unmap {
    rest: vec::IntoIter<(u64, u64)>,
}

/// The whole list is judged before anything is deallocated.
pub(super) fn unmap(unit: &mut Unit, anchor: bool, length: u32, buffer: &Buffer<'_>) -> Begun {
    let facts = unit.facts_for_provisioning();
    if !facts.unmap {
        return Err(Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE));
    }
    unit.check_writable()?;
    if anchor {
        return Err(Sense::invalid_cdb_field(1, Some(0))); // ANC_SUP is 0
    }
    if length == 0 {
        return Ok(nothing_to_do());
    }
    let list = parameters(buffer, length)?;
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
    if facts.max_unmap != u32::MAX && blocks > u64::from(facts.max_unmap) {
        return Err(Sense::invalid_parameter(16, None));
    }
    let (start, end) = bytes.iter().fold((u64::MAX, 0), |(start, end), (o, l)| (start.min(*o), end.max(o + l)));
    let mut unmap = Unmap { rest: bytes.into_iter() };
    match unmap.next() {
        Step::Submit(work) => submit(Task::changing(Stage::Unmap(unmap), start, end - start), work),
        _ => Ok(nothing_to_do()),
    }
}

impl Unmap {
    pub(super) fn next(&mut self) -> Step {
        match self.rest.next() {
            Some((offset, length)) => Step::Submit(Work::plain(abi::TCMU_OP_UNMAP, 0, offset, length)),
            None => Step::Done(Outcome::GOOD),
        }
    }
}

/// The handler is asked what it knows.
#[derive(Debug)]
pub(super) struct Extents {
    lba: Lba,
    allocation: u32,
}

pub(super) fn lba_status(unit: &mut Unit, lba: Lba, report: u8, allocation: u32, buffer: &Buffer<'_>) -> Begun {
    if report != 0 {
        return Err(Sense::invalid_cdb_field(14, None)); // only all of them
    }
    // The first block of the range must be one (SBC-4 5.6.1).
    let (offset, _) = unit.bytes(lba, Blocks(1))?;
    let length = unit.capacity().0.saturating_sub(lba.0) * u64::from(unit.block_size().bytes());
    if !unit.takes(Operations::EXTENTS) {
        let all = (lba, Blocks(unit.capacity().0 - lba.0), Provisioned::MappedOrUnknown);
        return Ok(done(control::reply(buffer, &capacity::lba_status([all], allocation as usize), allocation)));
    }
    // Handlers' extents may be cut anywhere, so a descriptor may need some of them.
    let count = (allocation as usize / 16 * 2).clamp(4, MAX_EXTENTS);
    let task = Task::new(Stage::Extents(Extents { lba, allocation })).with_memory((count * EXTENT) as u64);
    let work = Work { data: WorkData::Memory(count * EXTENT), ..Work::plain(abi::TCMU_OP_EXTENTS, 0, offset, length) };
    submit(task, work)
}

impl Extents {
    pub(super) fn answer(&self, unit: &Unit, memory: &[u8], count: u64, buffer: &Buffer<'_>) -> Outcome {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let extents = memory.chunks_exact(EXTENT).take(count).map(|entry| {
            let number = |at: usize| u64::from_ne_bytes(entry[at..at + 8].try_into().unwrap_or_default());
            let state = u32::from_ne_bytes(entry[16..20].try_into().unwrap_or_default());
            (number(0), number(8), state)
        });
        let ranges = blocks_of(extents, self.lba, unit.capacity(), u64::from(unit.block_size().bytes()));
        control::reply(buffer, &capacity::lba_status(ranges, self.allocation as usize), self.allocation)
    }
}

/// From extents in bytes to ranges of blocks from `first` on, without gaps. A block is deallocated only if all of it is. What a handler
/// says that makes no sense ends the list, and there is always a first range.
fn blocks_of(
    extents: impl Iterator<Item = (u64, u64, u32)>,
    first: Lba,
    capacity: Blocks,
    block: u64,
) -> Vec<(Lba, Blocks, Provisioned)> {
    let mut ranges: Vec<(Lba, Blocks, Provisioned)> = Vec::new();
    let mut lba = first.0;
    let mut push = |to: u64, status: Provisioned, lba: &mut u64| {
        if to <= *lba {
            return;
        }
        match ranges.last_mut() {
            Some(last) if last.2 == status => last.1.0 += to - *lba,
            _ => ranges.push((Lba(*lba), Blocks(to - *lba), status)),
        }
        *lba = to;
    };
    let mut byte = first.0 * block;
    for (offset, length, state) in extents {
        let Some(end) = offset.checked_add(length).filter(|_| offset <= byte) else { break };
        if end <= byte {
            continue;
        }
        let end = end.min(capacity.0 * block);
        match state {
            abi::TCMU_EXTENT_MAPPED => push(end.div_ceil(block), Provisioned::MappedOrUnknown, &mut lba),
            other => {
                let status = if other == abi::TCMU_EXTENT_ANCHORED { Provisioned::Anchored } else { Provisioned::Deallocated };
                // A block that begins in what comes before is that one's, one that ends in what comes next is the next one's.
                push(end / block, status, &mut lba);
            }
        }
        byte = end;
    }
    if lba == first.0 {
        push(capacity.0, Provisioned::MappedOrUnknown, &mut lba);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAPPED: u32 = abi::TCMU_EXTENT_MAPPED;
    const HOLE: u32 = abi::TCMU_EXTENT_DEALLOCATED;

    fn blocks(extents: &[(u64, u64, u32)]) -> Vec<(u64, u64, Provisioned)> {
        let ranges = blocks_of(extents.iter().copied(), Lba(0), Blocks(10), 512);
        ranges.into_iter().map(|(lba, blocks, status)| (lba.0, blocks.0, status)).collect()
    }

    #[test]
    fn a_block_that_is_partly_there_is_mapped() {
        use Provisioned::{Deallocated, MappedOrUnknown};
        assert_eq!(
            blocks(&[(0, 700, HOLE), (700, 100, MAPPED), (800, 4320, HOLE)]),
            [(0, 1, Deallocated), (1, 1, MappedOrUnknown), (2, 8, Deallocated)]
        );
        assert_eq!(blocks(&[]), [(0, 10, MappedOrUnknown)]);
        assert_eq!(blocks(&[(0, u64::MAX, HOLE)]), [(0, 10, Deallocated)]);
    }

    proptest! {
        #[test]
        fn ranges_are_in_order_without_gaps_and_within_the_unit(
            extents in proptest::collection::vec((0u64..6000, 0u64..3000, 0u32..3), 0..8)
        ) {
            let mut next = 0;
            for (lba, count, _) in blocks(&extents) {
                prop_assert_eq!(lba, next);
                prop_assert!(count > 0);
                next += count;
            }
            prop_assert!((1..=10).contains(&next));
        }
    }
}
