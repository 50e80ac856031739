//! EXTENDED COPY(LID1) and what both kinds of third-party copy share (SPC-4 6.4): ranges of the unit, copied one after the other.
//!
//! A unit copies within itself, and to and from those that the operator named. Which units an initiator may reach is in the kernel's
//! ACLs, which the ring does not tell of: copying to another unit because an initiator names it would get around them (CVE-2021-3139 in
//! tcmu-runner, CVE-2020-28374 in the kernel).
use std::{
    time::{Duration, Instant},
    vec,
};

use tcmu_handler_api::{
    abi,
    plugin::Operations,
    scsi::{
        AdditionalSense, Sense, SenseKey, Specific,
        copy::{self, CopyStatus, Cscd},
        vpd,
    },
};

use super::{Begun, Outcome, Stage, Step, Task, Unit, Work, WorkData, submit};

/// How many copies are remembered for those who ask how they ended, and for how long. The copy manager may forget them when it likes
/// (SPC-4 5.17.4.3); an initiator that comes later must not be told of another initiator's list of that number.
const REMEMBERED: usize = 32;
const FORGOTTEN: Duration = Duration::from_secs(10);

/// A range to be copied, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) length: u64,
    /// The other units that it is read from and written to.
    pub(super) source: Option<PeerKey>,
    pub(super) target: Option<PeerKey>,
}

/// Which other unit.
pub(crate) type PeerKey = usize;

/// Another unit that this one may be copied to and from.
pub(crate) struct Peer {
    pub(crate) key: PeerKey,
    /// As it is now.
    pub(crate) unit: Unit,
}

/// The other units that this one may be copied to and from, as they are now.
pub(crate) type Peers = Box<dyn Fn() -> Vec<Peer> + Send>;

/// Whose ranges are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// An EXTENDED COPY's, with its LIST IDENTIFIER.
    List(Option<u8>),
    /// A WRITE USING TOKEN's, with its LIST IDENTIFIER. Ranges `from` [`ZEROS`] are zeroed.
    Token(u32),
}

/// Where zeros come from.
pub(super) const ZEROS: u64 = u64::MAX;

/// Ranges that are being copied.
#[derive(Debug)]
pub(super) struct Copy {
    whose: Whose,
    rest: vec::IntoIter<Range>,
    /// What is left of the range at hand.
    range: Range,
    /// The piece that was read and is to be written, and whether pieces are taken from the end.
    piece: Option<Range>,
    backward: bool,
    flags: u32,
    then_flush: bool,
    flushing: bool,
    segments: u16,
    bytes: u64,
}

/// An EXTENDED COPY(LID1): all of the list is judged before anything is copied.
pub(super) fn begin(unit: &mut Unit, list: &[u8]) -> Begun {
    if list.is_empty() {
        return Ok(super::nothing_to_do()); // SPC-4 6.4.1: no error
    }
    let list = copy::parse(list)?;
    if let Some(id) = list.id
        && unit.copies.iter().any(|(_, copy)| copy.id == id && copy.success.is_none())
    {
        return Err(Sense::illegal(AdditionalSense::OPERATION_IN_PROGRESS));
    }
    unit.check_writable()?;
    let mut ranges = Vec::new();
    let peers = unit.peers.as_ref().map_or_else(Vec::new, |peers| peers());
    for (n, segment) in list.segments.iter().enumerate() {
        let find = |id: u16, field| {
            let cscd = list.cscds.get(usize::from(id)).ok_or(AdditionalSense::COPY_TARGET_DEVICE_NOT_REACHABLE);
            cscd.and_then(|cscd| find(unit, &peers, cscd)).map_err(|code| at_segment(code, n, field))
        };
        let ((source, source_unit), (target, target_unit)) = (find(segment.source, 4)?, find(segment.destination, 6)?);
        if source_unit.block_size() != target_unit.block_size() {
            return Err(at_segment(AdditionalSense::INCORRECT_COPY_TARGET_DEVICE_TYPE, n, 6));
        }
        let from = source_unit.bytes(segment.from, segment.blocks);
        let to = target_unit.bytes(segment.to, segment.blocks);
        let (Ok((from, length)), Ok((to, _))) = (from, to) else {
            return Err(at_segment(AdditionalSense::NONE, n, if from.is_err() { 12 } else { 20 }));
        };
        target_unit.check_writable()?;
        ranges.push(Range { from, to, length, source, target });
    }
    start(unit, Whose::List(list.id), ranges)
}

/// How a copy goes on or ended, if it isn't forgotten.
pub(super) fn status(unit: &Unit, id: u8) -> Option<&CopyStatus> {
    let known = |(told, copy): &&(Instant, CopyStatus)| copy.id == id && (copy.success.is_none() || told.elapsed() < FORGOTTEN);
    unit.copies.iter().find(known).map(|(_, copy)| copy)
}

fn at_segment(code: AdditionalSense, segment: usize, field: u16) -> Sense {
    let sense = Sense { specific: Some(Specific::Segment(field)), ..Sense::copy_aborted(code) };
    sense.with_information(segment as u64)
}

/// The unit that a descriptor names: this one, or one of those that it may be copied with.
fn find<'a>(unit: &'a Unit, peers: &'a [Peer], cscd: &Cscd) -> Result<(Option<PeerKey>, &'a Unit), AdditionalSense> {
    let candidates = peers.iter().map(|peer| (Some(peer.key), &peer.unit));
    for (key, candidate) in [(None, unit)].into_iter().chain(candidates) {
        if is_named(candidate, cscd)? {
            return Ok((key, candidate));
        }
    }
    Err(AdditionalSense::COPY_TARGET_DEVICE_NOT_REACHABLE)
}

/// Whether a descriptor names a unit. Any designator of its Device Identification page will do that fits into the descriptor.
fn is_named(unit: &Unit, cscd: &Cscd) -> Result<bool, AdditionalSense> {
    let facts = unit.identity();
    let page = vpd::page(0x83, &facts).unwrap_or_default();
    let mut rest = page.get(4..).unwrap_or_default();
    let mut found = false;
    while let [_, kind, _, length, ..] = *rest {
        let Some(designator) = rest.get(4..4 + usize::from(length)) else { break };
        // Association 00b: the logical unit's.
        found |= kind & 0x3f == cscd.kind && designator == &cscd.designator[..usize::from(cscd.length)];
        rest = &rest[4 + designator.len()..];
    }
    if !found {
        return Ok(false);
    }
    let same_blocks = cscd.block_length == 0 || cscd.block_length == unit.block_size().bytes();
    if cscd.device_type != facts.device_type || !same_blocks {
        return Err(AdditionalSense::INCORRECT_COPY_TARGET_DEVICE_TYPE);
    }
    Ok(true)
}

/// Copies ranges that were judged.
pub(super) fn start(unit: &mut Unit, whose: Whose, ranges: Vec<Range>) -> Begun {
    let ranges: Vec<Range> = ranges.into_iter().filter(|range| range.length > 0).collect();
    let most = unit.piece();
    let own = ranges.iter().filter(|range| range.target.is_none());
    let (start, end) = own.fold((u64::MAX, 0), |(start, end), r| (start.min(r.to), end.max(r.to + r.length)));
    let longest = ranges.iter().map(|range| range.length).max().unwrap_or(0);
    let (flags, then_flush) = unit.durability(false);
    let none = Range { from: 0, to: 0, length: 0, source: None, target: None };
    let mut copy = Copy {
        whose,
        segments: ranges.len() as u16,
        rest: ranges.into_iter(),
        range: none,
        piece: None,
        backward: false,
        flags,
        then_flush,
        flushing: false,
        bytes: 0,
    };
    if longest == 0 {
        copy.record(unit, Some(Ok(())));
        return Ok(super::nothing_to_do());
    }
    copy.record(unit, None);
    let mut memory = vec![0; longest.min(most) as usize];
    match copy.next(unit, &mut memory) {
        Step::Submit(work) => {
            let changes = (start < end).then(|| (start, end - start));
            submit(Task { memory, changes, ..Task::new(Stage::Copy(Box::new(copy))) }, work)
        }
        step => Ok((Task::new(Stage::Last), step)),
    }
}

impl Copy {
    pub(super) fn next(&mut self, unit: &mut Unit, memory: &mut [u8]) -> Step {
        if let Some(piece) = self.piece.take() {
            self.bytes += piece.length;
            return Step::Submit(self.write(piece));
        }
        if self.range.length == 0 {
            match self.rest.next() {
                Some(range) => {
                    self.range = range;
                    // Taken from the end when the beginning of what is read would be overwritten.
                    self.backward = range.source == range.target && range.to > range.from && range.to - range.from < range.length;
                    if let Some(work) = self.at_once(unit) {
                        self.bytes += range.length;
                        self.range.length = 0;
                        return Step::Submit(work);
                    }
                }
                None if self.then_flush && !self.flushing => {
                    self.flushing = true;
                    return Step::Submit(Work::flush());
                }
                None => {
                    self.record(unit, Some(Ok(())));
                    return Step::Done(Outcome::GOOD);
                }
            }
        }
        let piece = self.take(memory.len() as u64);
        if piece.from == ZEROS {
            memory.fill(0);
            self.bytes += piece.length;
            return Step::Submit(self.write(piece));
        }
        self.piece = Some(piece);
        let read = Work::read(piece.from, piece.length, WorkData::Memory(piece.length as usize));
        Step::Submit(Work { peer: piece.source, ..read })
    }

    fn write(&self, piece: Range) -> Work {
        let write = Work::write(self.flags, piece.to, piece.length, WorkData::Memory(piece.length as usize));
        Work { peer: piece.target, ..write }
    }

    /// The next piece of the range at hand.
    fn take(&mut self, most: u64) -> Range {
        let range = &mut self.range;
        let length = range.length.min(most);
        range.length -= length;
        if self.backward {
            return Range { from: range.from + range.length, to: range.to + range.length, length, ..*range };
        }
        let piece = Range { length, ..*range };
        if range.from != ZEROS {
            range.from += length;
        }
        range.to += length;
        piece
    }

    /// The handler's own way of doing the whole range.
    fn at_once(&self, unit: &Unit) -> Option<Work> {
        let Range { from, to, length, source, target } = self.range;
        if source.is_some() || target.is_some() {
            return None;
        }
        if from == ZEROS {
            let work = Work::plain(abi::TCMU_OP_WRITE_ZEROES, self.flags | abi::TCMU_REQ_MAY_UNMAP, to, length);
            return unit.takes(Operations::WRITE_ZEROES).then_some(work);
        }
        unit.takes(Operations::COPY).then(|| Work { source: from, ..Work::plain(abi::TCMU_OP_COPY, self.flags, to, length) })
    }

    /// A piece could not be read or written.
    pub(super) fn failed(&mut self, unit: &mut Unit, outcome: Outcome) -> Outcome {
        let outcome = match (self.whose, outcome.sense) {
            // What the initiator can do something about is passed on; the rest is a failure of a third party (SPC-4 6.4.4).
            (_, Some(sense)) if sense.key == SenseKey::DataProtect => outcome,
            (Whose::List(_), Some(_)) => Sense::copy_aborted(AdditionalSense::THIRD_PARTY_DEVICE_FAILURE).into(),
            _ => outcome,
        };
        let sense = outcome.sense.unwrap_or(Sense::new(SenseKey::AbortedCommand, AdditionalSense::NONE));
        self.segments = self.segments.saturating_sub(self.rest.len() as u16 + 1);
        self.record(unit, Some(Err(sense)));
        outcome
    }

    fn record(&self, unit: &mut Unit, outcome: Option<Result<(), Sense>>) {
        match self.whose {
            Whose::List(None) => {}
            Whose::List(Some(id)) => {
                unit.copies.retain(|(_, copy)| copy.id != id);
                unit.copies.truncate(REMEMBERED - 1);
                let success = outcome.map(|outcome| outcome.is_ok());
                let segments = if success.is_some() { self.segments } else { 0 };
                unit.copies.push_front((Instant::now(), CopyStatus { id, success, segments, bytes: self.bytes }));
            }
            Whose::Token(list) => {
                let blocks = unit.block_size().blocks_in(self.bytes).0;
                unit.tokens.record(list, 0x11, outcome, blocks, None);
            }
        }
    }
}
