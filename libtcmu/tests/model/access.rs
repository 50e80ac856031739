//! Commands of the model that read, write and compare.
use std::ops::Range;

use tcmu::sim::Data;

use super::{
    be16, be32,
    disk::Disk,
    verdict::{Change, Fault, Reply, Verdict},
};

impl Disk {
    /// READ (SBC-4 5.14 ff.)
    pub(super) fn read(&self, cdb: &[u8]) -> Verdict {
        let (range, mut verdict) = self.access(cdb, false);
        verdict.reply = Reply::Exactly(self.bytes[range.clone()].to_vec());
        verdict.reads = vec![range];
        verdict
    }

    /// WRITE (SBC-4 5.40 ff.)
    pub(super) fn write(&self, cdb: &[u8], data: &Data) -> Verdict {
        let (range, mut verdict) = self.access(cdb, true);
        self.put(&mut verdict, range, data, cdb.len() > 6 && cdb[1] & 0x08 != 0);
        verdict
    }

    fn put(&self, verdict: &mut Verdict, range: Range<usize>, data: &Data, fua: bool) {
        if let Some(bytes) = self.data_out(verdict, data, range.len()) {
            verdict.changes.push(Change::Put(range.start, bytes.to_vec()));
        }
        verdict.durable = self.durable(fua, range);
    }

    /// WRITE AND VERIFY (SBC-4 5.44): the medium is verified, so the data must have got there.
    pub(super) fn write_and_verify(&self, cdb: &[u8], data: &Data) -> Verdict {
        let (range, mut verdict) = self.access(cdb, true);
        if cdb[1] & 0x06 > 2 {
            verdict.must.push(Fault::FIELD); // BYTCHK is 00b or 01b
        }
        self.put(&mut verdict, range.clone(), data, true);
        verdict.reads = vec![range];
        verdict
    }

    /// VERIFY (SBC-4 5.36)
    pub(super) fn verify(&self, cdb: &[u8], data: &Data) -> Verdict {
        let (range, mut verdict) = self.access(cdb, false);
        let block = self.shape.block;
        let needed = match cdb[1] >> 1 & 3 {
            0 => 0,
            1 => range.len(),
            3 => block.min(range.len()),
            _ => {
                verdict.must.push(Fault::FIELD);
                0
            }
        };
        verdict.reads = vec![range.clone()];
        let Some(expected) = self.data_out(&mut verdict, data, needed) else {
            verdict.changes.clear();
            return verdict;
        };
        if needed > 0 && self.bytes[range].chunks(needed).any(|part| part != expected) {
            verdict.must.push(Fault::MISCOMPARE);
        }
        verdict
    }

    /// COMPARE AND WRITE (SBC-4 5.3)
    pub(super) fn compare_and_write(&self, cdb: &[u8], data: &Data) -> Verdict {
        let (range, mut verdict) = self.access(cdb, true);
        if u64::from(cdb[13]) > self.facts.max_compare_and_write {
            verdict.must.push(Fault::FIELD);
        }
        let length = range.len();
        verdict.reads = vec![range.clone()];
        verdict.durable = self.durable(cdb[1] & 0x08 != 0, range.clone());
        let Some(bytes) = self.data_out(&mut verdict, data, 2 * length) else { return verdict };
        match self.bytes[range.clone()].iter().zip(bytes).position(|(a, b)| a != b) {
            Some(at) => verdict.must.push(Fault(0xe, 0x1d, 0, Some(at as u64))),
            None => verdict.changes.push(Change::Put(range.start, bytes[length..].to_vec())),
        }
        verdict
    }

    /// ORWRITE(16) (SBC-4 5.6)
    pub(super) fn or_write(&self, cdb: &[u8], data: &Data) -> Verdict {
        let (range, mut verdict) = self.access(cdb, true);
        if let Some(bytes) = self.data_out(&mut verdict, data, range.len()) {
            let both = bytes.iter().zip(&self.bytes[range.clone()]).map(|(a, b)| a | b).collect();
            verdict.changes.push(Change::Put(range.start, both));
        }
        verdict.durable = self.durable(cdb[1] & 0x08 != 0, range.clone());
        verdict.reads = vec![range];
        verdict
    }

    /// WRITE ATOMIC(16) (SBC-4 5.45 and 4.29)
    pub(super) fn write_atomic(&self, cdb: &[u8], data: &Data) -> Verdict {
        let mut verdict = self.write(cdb, data);
        let (lba, blocks) = Disk::where_and_how_much(cdb);
        let (boundary, facts) = (be16(cdb, 10), &self.facts);
        let longest = if boundary == 0 { facts.max_atomic } else { facts.max_atomic_with_boundary };
        let aligned = lba.is_multiple_of(facts.atomic_alignment.max(1));
        let granular = blocks.is_multiple_of(facts.atomic_granularity.max(1));
        if blocks > longest && !(boundary != 0 && longest == 0) || !aligned || !granular || boundary > facts.max_atomic_boundary {
            if blocks == 0 { verdict.may.push(Fault::FIELD) } else { verdict.must.push(Fault::FIELD) }
        }
        if boundary != 0 {
            verdict.may.push(Fault::FIELD);
        }
        verdict
    }

    /// SYNCHRONIZE CACHE (SBC-4 5.33): 0 blocks are all up to the last one.
    pub(super) fn synchronize(&self, cdb: &[u8]) -> Verdict {
        let (range, mut verdict) = self.range_only(cdb);
        if cdb[1] & 0x02 == 0 {
            verdict.durable = Some(if range.is_empty() { range.start..self.bytes.len() } else { range });
        }
        verdict
    }

    /// Commands that name blocks and transfer nothing: SYNCHRONIZE CACHE, PRE-FETCH (SBC-4 5.8).
    pub(super) fn range_only(&self, cdb: &[u8]) -> (Range<usize>, Verdict) {
        let mut verdict = Verdict::default();
        let (lba, blocks) = Disk::where_and_how_much(cdb);
        (self.range(&mut verdict, lba, blocks), verdict)
    }

    /// READ CAPACITY (SBC-4 5.20, 5.21)
    pub(super) fn capacity(&self, cdb: &[u8]) -> Verdict {
        let mut verdict = Verdict::default();
        let last = self.shape.blocks - 1;
        let block = (self.shape.block as u32).to_be_bytes();
        if cdb.len() == 10 {
            // PMI and the address are obsolete.
            if cdb[2..6] != [0; 4] || cdb[8] & 1 != 0 {
                verdict.may.push(Fault::FIELD);
            }
            verdict.reply = Reply::Exactly([(last as u32).to_be_bytes(), block].concat());
            return verdict;
        }
        if cdb[2..10] != [0; 8] || cdb[14] & 1 != 0 {
            verdict.may.push(Fault::FIELD);
        }
        let exponent = if self.shape.physical { 3 } else { 0 };
        let mut data = [&last.to_be_bytes()[..], &block, &[0, exponent]].concat();
        data.truncate(be32(cdb, 10) as usize);
        verdict.reply = Reply::Begins(data);
        verdict
    }
}
