//! The model: what a disk must do with a command, by the standards only. It decodes CDBs itself.
use std::ops::Range;

use tcmu::sim::Data;

use super::{
    Shape, be16, be32, be64,
    facts::Facts,
    verdict::{Change, Fault, Verdict},
};

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    pub shape: Shape,
    pub facts: Facts,
    pub bytes: Vec<u8>,
}

impl Disk {
    /// What must become of a command.
    pub fn judge(&self, cdb: &[u8], data: &Data) -> Verdict {
        match self.facts.usage_of(cdb) {
            Ok(_) => {}
            Err(false) if !matches!(cdb[0], 0x48 | 0x5e | 0x5f | 0x83 | 0x84 | 0x9e | 0x9f | 0xa3 | 0xa4) => {
                return Verdict::refused(Fault::OPCODE);
            }
            // Of a command with service actions it may be said first what else is wrong.
            Err(_) => return Verdict { must: vec![Fault::OPCODE], ..Verdict::anything(false) },
        }
        let mut verdict = match (cdb[0], cdb[1] & 0x1f) {
            (0x08 | 0x28 | 0xa8 | 0x88, _) => self.read(cdb),
            (0x0a | 0x2a | 0xaa | 0x8a, _) => self.write(cdb, data),
            (0x2e | 0xae | 0x8e, _) => self.write_and_verify(cdb, data),
            (0x2f | 0xaf | 0x8f, _) => self.verify(cdb, data),
            (0x89, _) => self.compare_and_write(cdb, data),
            (0x8b, _) => self.or_write(cdb, data),
            (0x9c, _) => self.write_atomic(cdb, data),
            (0x34 | 0x90, _) => Verdict { condition_met: true, ..self.range_only(cdb).1 },
            (0x35 | 0x91, _) => self.synchronize(cdb),
            (0x41 | 0x93, _) => self.write_same(cdb, data),
            (0x42, _) => self.unmap(cdb, data),
            (0x9e, 0x12) => self.get_lba_status(cdb),
            (0x9e, 0x10) | (0x25, _) => self.capacity(cdb),
            (0x83, 0x00) => self.copy(cdb, data),
            // FORMAT UNIT, diagnostics, buffers, SANITIZE, tokens, port groups.
            (0x04 | 0x1d | 0x3b | 0x48 | 0x83 | 0xa4 | 0x5f, _) => Verdict::anything(true),
            (0x00, _) => Verdict::default(),
            _ => Verdict::anything(false),
        };
        if self.facts.reserved(cdb) {
            verdict.must.push(Fault::FIELD);
            verdict.any = false;
        }
        verdict
    }

    /// LOGICAL BLOCK ADDRESS and the number of blocks, by the length of the CDB.
    pub(super) fn where_and_how_much(cdb: &[u8]) -> (u64, u64) {
        match (cdb[0], cdb.len()) {
            (_, 6) => (be32(cdb, 0) & 0x1f_ffff, if cdb[4] == 0 { 256 } else { u64::from(cdb[4]) }),
            (_, 10) => (be32(cdb, 2), be16(cdb, 7)),
            (_, 12) => (be32(cdb, 2), be32(cdb, 6)),
            (0x89, _) => (be64(cdb, 2), u64::from(cdb[13])),
            (0x9c, _) => (be64(cdb, 2), be16(cdb, 12)),
            _ => (be64(cdb, 2), be32(cdb, 10)),
        }
    }

    /// The bytes of some blocks; a fault, and no bytes, if they are not all there.
    pub(super) fn range(&self, verdict: &mut Verdict, lba: u64, blocks: u64) -> Range<usize> {
        if lba > self.shape.blocks || blocks > self.shape.blocks - lba {
            verdict.must.push(Fault::RANGE);
            return 0..0;
        }
        if lba == self.shape.blocks {
            verdict.may.push(Fault::RANGE); // no blocks right behind the last one
        }
        let start = lba as usize * self.shape.block;
        start..start + blocks as usize * self.shape.block
    }

    /// What all accesses have in common: protection information is not there, the range must be.
    pub(super) fn access(&self, cdb: &[u8], writes: bool) -> (Range<usize>, Verdict) {
        let mut verdict = Verdict::default();
        let (lba, blocks) = Disk::where_and_how_much(cdb);
        let range = self.range(&mut verdict, lba, blocks);
        if cdb.len() > 6 && cdb[1] & 0xe0 != 0 {
            verdict.must.push(Fault::FIELD);
        }
        if cdb.len() > 6 && cdb[1] & 0x02 != 0 && !matches!(cdb[0] & 0x1f, 0x0e | 0x0f) {
            verdict.may.push(Fault::FIELD); // FUA_NV, obsolete
        }
        if self.facts.max_transfer != 0 && blocks > self.facts.max_transfer {
            verdict.may.push(Fault::FIELD);
        }
        if writes {
            self.protect(&mut verdict, blocks == 0);
        }
        (range, verdict)
    }

    pub(super) fn protect(&self, verdict: &mut Verdict, nothing: bool) {
        if self.facts.write_protected {
            if nothing { verdict.may.push(Fault::PROTECTED) } else { verdict.must.push(Fault::PROTECTED) }
        }
    }

    /// The Data-Out that a command needs. Too little is a fault; of another direction, nobody knows what is in the buffer.
    pub(super) fn data_out<'a>(&self, verdict: &mut Verdict, data: &'a Data, needed: usize) -> Option<&'a [u8]> {
        match data {
            _ if needed == 0 => {
                if super::show::out_length(data) > 0 {
                    verdict.may.push(Fault::FIELD);
                }
                Some(&[])
            }
            Data::Out(bytes) if bytes.len() >= needed => {
                if bytes.len() > needed {
                    verdict.may.push(Fault::FIELD); // more than the command takes
                }
                Some(&bytes[..needed])
            }
            Data::Out(_) | Data::None => {
                verdict.must.extend([Fault::FIELD, Fault::LIST_LENGTH]);
                None
            }
            Data::In(_) | Data::Bidi(..) => {
                verdict.any = true;
                verdict.changes.push(Change::Unknown);
                None
            }
        }
    }

    /// What must be durable after a write.
    pub(super) fn durable(&self, fua: bool, range: Range<usize>) -> Option<Range<usize>> {
        (fua || !self.facts.write_cache).then_some(range)
    }

    /// Takes over what a command did. `actual` is the medium as it is; where the model can't know, it is believed.
    pub fn apply(&mut self, changes: &[Change], actual: &[u8]) -> Result<(), String> {
        for change in changes {
            match change {
                Change::Put(at, bytes) => self.bytes[*at..at + bytes.len()].copy_from_slice(bytes),
                Change::Unmap(range) => self.deallocate(range, actual)?,
                Change::Unknown => self.bytes.copy_from_slice(actual),
            }
        }
        Ok(())
    }

    /// Deallocated blocks read as zeros if that was promised; those that are no whole unit of deallocation may stay as they were.
    fn deallocate(&mut self, range: &Range<usize>, actual: &[u8]) -> Result<(), String> {
        let size = self.shape.block;
        let unit = self.facts.unmap_granularity.max(1) as usize * size;
        let first = self.facts.unmap_alignment as usize * size % unit;
        let whole = |at: usize| {
            let start = (at + unit - first) / unit * unit + first;
            start >= range.start + unit && start <= range.end
        };
        for at in range.clone().step_by(size) {
            let (old, new) = (self.bytes[at..at + size].to_vec(), &actual[at..at + size]);
            if self.facts.lbprz && new.iter().any(|byte| *byte != 0) && (whole(at) || old != new) {
                return Err(format!("block {} was deallocated and does not read as zeros", at / size));
            }
            self.bytes[at..at + size].copy_from_slice(new);
        }
        Ok(())
    }

    /// Whether the medium is what the model says.
    pub fn compare(&self, actual: &[u8]) -> Result<(), String> {
        if self.bytes == actual {
            return Ok(());
        }
        match self.bytes.iter().zip(actual).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(at) => Err(format!(
                "block {} byte {} of the medium is {:#x} and should be {:#x}",
                at / self.shape.block,
                at % self.shape.block,
                actual[at],
                self.bytes[at]
            )),
        }
    }
}
