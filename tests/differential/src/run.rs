//! Sends commands to both units, and keeps both the same.
use std::io;

use crate::{
    answer::Answer,
    command::Kind,
    compare, features, lists, media,
    report::{Example, Report},
    request::{Geometry, Payload, Request, pattern},
    sg::Target,
    table::Table,
};

const TEST_UNIT_READY: &[u8] = &[0; 6];
const START: &[u8] = &[0x1b, 0, 0, 0, 1, 0];
const MODE_SENSE_ALL: &[u8] = &[0x5a, 0, 0x3f, 0, 0, 0, 0, 0x10, 0, 0];
/// A range that is longer is not checked against what its command defines.
const CHECKED: u64 = 1 << 20;
/// Unit attention conditions that a unit may have at once.
const ATTENTIONS: usize = 16;

/// Two units.
pub struct Runner<'a> {
    units: [&'a mut dyn Target; 2],
    /// What both look like.
    pub geometry: Geometry,
    /// What MODE SENSE said of all pages at the beginning.
    modes: [Vec<u8>; 2],
    table: &'a Table,
    /// What was found.
    pub report: Report,
}

impl<'a> Runner<'a> {
    /// Makes both ready; fails if they are not alike.
    pub fn new(ours: &'a mut dyn Target, peer: &'a mut dyn Target, table: &'a Table) -> io::Result<Runner<'a>> {
        let mut units = [ours, peer];
        let mut geometries = Vec::new();
        let mut modes = Vec::new();
        for unit in &mut units {
            unit.send(START, &[], 0)?;
            settle(*unit)?;
            let answer = unit.send(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 8)?;
            let data =
                answer.data.get(..8).filter(|_| answer.good()).ok_or_else(|| io::Error::other("READ CAPACITY(10) failed"))?;
            geometries.push((crate::answer::number(&data[..4]) + 1, crate::answer::number(&data[4..])));
            modes.push(unit.send(MODE_SENSE_ALL, &[], 0x1000)?.data);
        }
        if geometries[0] != geometries[1] {
            return Err(io::Error::other(format!("(blocks, bytes of each) of ours and of the peer differ: {geometries:?}")));
        }
        let geometry = Geometry { capacity: geometries[0].0, block: geometries[0].1 as usize };
        let modes = [modes[0].clone(), modes[1].clone()];
        Ok(Runner { units, geometry, modes, table, report: Report::default() })
    }

    /// Sends one command to both and compares.
    pub fn step(&mut self, request: &Request) -> io::Result<[Answer; 2]> {
        let outs = self.resolve(request)?;
        let number = self.report.commands;
        self.report.commands += 1;
        let mut request = request.clone();
        if let (Payload::Mode(_), Some(field)) = (&request.out, request.definition().and_then(|d| d.count)) {
            field.set(&mut request.cdb, outs[0].len() as u64);
        }
        let mut features = features::features(&request, outs[0].len(), &self.geometry);
        features.insert(0, request.name());
        let name = features.join(" ");
        if media::stops_scsi_debug(&request.cdb, &outs[1]) {
            return self.step_alone(&name, &request, &outs);
        }
        let answers = self.exchange(&name, &request, &outs)?;
        let mut found = compare::differences(&request, &answers[0], &answers[1]);
        // Also after a refusal: scsi_debug does the descriptors of an UNMAP list one by one, and refuses at the first bad one.
        found.extend(self.even_out(&request, &outs, &answers)?.map(str::to_string));
        if answers.iter().all(Answer::good) {
            *self.report.good.entry(request.name()).or_default() += 1;
        }
        for difference in found {
            let example = || Example::new(number, &request, &outs[0], &answers[0], &answers[1]);
            self.report.add(format!("{name}{difference}"), example, self.table);
        }
        match (request.definition().map(|d| d.kind), request.cdb[0]) {
            (Some(Kind::ModeSelect), _) => self.restore_modes()?,
            (_, 0x1b) => self.start_again(&name, number)?,
            _ => {}
        }
        Ok(answers)
    }

    /// Sends to ours only what the peer can't be sent: it is to be executed or refused.
    fn step_alone(&mut self, name: &str, request: &Request, outs: &[Vec<u8>; 2]) -> io::Result<[Answer; 2]> {
        let ours = self.units[0].send(&request.cdb, &outs[0], request.room)?;
        let answers = [ours, Answer::default()];
        let refused = answers[0].sense().is_some_and(|sense| answers[0].status == 2 && sense.key == 5);
        if !answers[0].good() && !refused {
            let key = format!("{name}: ours {}, peer not asked", answers[0].outcome());
            let number = self.report.commands;
            self.report.add(key, || Example::new(number, request, &outs[0], &answers[0], &answers[1]), self.table);
        }
        for (lba, blocks) in media::changed(request, &outs[0], &self.geometry) {
            let data = media::read(self.units[0], lba, blocks, &self.geometry)?;
            media::write(self.units[1], lba, &data, &self.geometry)?;
        }
        Ok(answers)
    }

    /// The Data-Out for each unit.
    fn resolve(&mut self, request: &Request) -> io::Result<[Vec<u8>; 2]> {
        Ok(match &request.out {
            Payload::None => Default::default(),
            Payload::Bytes { bytes, .. } => [bytes.clone(), bytes.clone()],
            Payload::Random { seed, length } => [pattern(*seed, *length), pattern(*seed, *length)],
            Payload::Medium { lba, held, flip, length } => {
                let mut data = pattern(*lba, *length);
                let blocks = held.div_ceil(self.geometry.block) as u64;
                if lba.checked_add(blocks).is_some_and(|end| end <= self.geometry.capacity) {
                    let medium = media::read(self.units[1], *lba, blocks, &self.geometry)?;
                    for (to, from) in data[..*held].iter_mut().zip(medium) {
                        *to = from;
                    }
                }
                if let Some(byte) = flip.and_then(|flip| data.get_mut(flip)) {
                    *byte ^= 0x55;
                }
                [data.clone(), data]
            }
            Payload::Mode(list) => [lists::mode_bytes(list, &self.modes[0]), lists::mode_bytes(list, &self.modes[1])],
        })
    }

    /// Both answers. A unit that has a unit attention condition to tell is asked again.
    fn exchange(&mut self, name: &str, request: &Request, outs: &[Vec<u8>; 2]) -> io::Result<[Answer; 2]> {
        let mut answers = [Answer::default(), Answer::default()];
        for (at, whose) in ["ours", "peer"].into_iter().enumerate() {
            let mut send = || self.units[at].send(&request.cdb, &outs[at], request.room);
            let mut answer = send()?;
            for _ in 0..ATTENTIONS {
                if !answer.unit_attention() {
                    break;
                }
                let key = format!("{name} unexpected: {whose} {}", answer.outcome());
                let number = self.report.commands;
                self.report.add(key, || Example::new(number, request, &outs[at], &answer, &answer), self.table);
                answer = send()?;
            }
            answers[at] = answer;
        }
        Ok(answers)
    }

    /// After a command that changes the medium: says if the two media differ though both executed it, or if ours holds what the command
    /// does not define; then the peer's becomes what ours is.
    fn even_out(&mut self, request: &Request, outs: &[Vec<u8>; 2], answers: &[Answer; 2]) -> io::Result<Option<&'static str>> {
        let mut found = None;
        let [ours, peer] = &mut self.units;
        for (lba, blocks) in media::changed(request, &outs[0], &self.geometry) {
            let checked = blocks.saturating_mul(self.geometry.block as u64) <= CHECKED;
            // Where the peer can't be asked, or is known not to look at the data.
            let only_ours = answers[0].good() && (answers[1].unknown_command() || media::unmaps_data(request));
            for (part, size) in if checked { vec![(lba, blocks)] } else { media::chunks(lba, blocks, &self.geometry).collect() } {
                let a = media::read(*ours, part, size, &self.geometry)?;
                let b = media::read(*peer, part, size, &self.geometry)?;
                if only_ours && checked {
                    let defined = media::defined(request, &outs[0], &b, &self.geometry);
                    if defined.is_some_and(|defined| defined != a) {
                        found = Some(" medium: not what the command defines");
                    }
                } else if answers.iter().all(Answer::good) && a != b {
                    found = Some(" medium: differs");
                } else if !answers.iter().any(Answer::good) && a != b {
                    // Where the peer holds zeros that ours does not, it is the peer that unmapped.
                    let mut pairs = a.iter().zip(&b).filter(|(a, b)| a != b);
                    found = Some(if pairs.all(|(_, b)| *b == 0) {
                        " medium: changed though both refused (peer: the descriptors before the bad one)"
                    } else {
                        " medium: changed though both refused"
                    });
                }
                if a != b {
                    media::write(*peer, part, &a, &self.geometry)?;
                }
            }
        }
        Ok(found)
    }

    /// Both as they were before a MODE SELECT. Also where it was refused: scsi_debug changes its pages before it looks at the whole list.
    fn restore_modes(&mut self) -> io::Result<()> {
        for (unit, modes) in self.units.iter_mut().zip(&self.modes) {
            for page in [0x0a, 0x08] {
                let list = crate::request::ModeList { page, ten: true, descriptor: false, flip: None, extra: 0 };
                let list = lists::mode_bytes(&list, modes);
                // A unit attention condition that is pending would be told in place of the change.
                settle(*unit)?;
                let answer = unit.send(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0], &list, 0)?;
                if !answer.good() {
                    return Err(io::Error::other(format!("mode page {page:02X}h could not be restored: {}", answer.outcome())));
                }
                settle(*unit)?;
            }
        }
        Ok(())
    }

    /// After START STOP UNIT: compares whether both are ready, then starts both.
    fn start_again(&mut self, name: &str, number: u64) -> io::Result<()> {
        let request = Request { cdb: TEST_UNIT_READY.to_vec(), out: Payload::None, room: 0 };
        let name = format!("TEST UNIT READY after {name}");
        let answers = self.exchange(&name, &request, &Default::default())?;
        for difference in compare::differences(&request, &answers[0], &answers[1]) {
            let example = || Example::new(number, &request, &[], &answers[0], &answers[1]);
            self.report.add(format!("{name}{difference}"), example, self.table);
        }
        for unit in &mut self.units {
            unit.send(START, &[], 0)?;
            settle(*unit)?;
        }
        Ok(())
    }

    /// The first block in which the two media differ.
    pub fn media_differ(&mut self) -> io::Result<Option<u64>> {
        let [ours, peer] = &mut self.units;
        for (lba, blocks) in media::chunks(0, self.geometry.capacity, &self.geometry) {
            let a = media::read(*ours, lba, blocks, &self.geometry)?;
            let b = media::read(*peer, lba, blocks, &self.geometry)?;
            if let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) {
                return Ok(Some(lba + (at / self.geometry.block) as u64));
            }
        }
        Ok(None)
    }
}

/// Takes unit attention conditions away.
fn settle(unit: &mut dyn Target) -> io::Result<()> {
    for _ in 0..ATTENTIONS {
        let answer = unit.send(TEST_UNIT_READY, &[], 0)?;
        if answer.good() {
            return Ok(());
        }
        if !answer.unit_attention() {
            return Err(io::Error::other(format!("a unit is not ready: {}", answer.outcome())));
        }
    }
    Err(io::Error::other("a unit has unit attention conditions without end"))
}

#[cfg(test)]
mod tests;
