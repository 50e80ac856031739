//! Commands of the model that are about provisioning.
use tcmu::sim::Data;

use super::{
    be16, be32, be64,
    disk::Disk,
    verdict::{Change, Fault, Reply, Verdict},
};

impl Disk {
    /// WRITE SAME (SBC-4 5.50, 5.51). Whatever the UNMAP bit says, the blocks read as what was to be written.
    pub(super) fn write_same(&self, cdb: &[u8], data: &Data) -> Verdict {
        let mut verdict = Verdict::default();
        let (lba, mut blocks) = Disk::where_and_how_much(cdb);
        let (anchor, unmap) = (cdb[1] & 0x10 != 0, cdb[1] & 0x08 != 0);
        let ndob = cdb.len() == 16 && cdb[1] & 0x01 != 0;
        let facts = &self.facts;
        let refused = cdb[1] & 0xe0 != 0
            || anchor && !facts.anchors
            || unmap && !facts.lbpws[usize::from(cdb.len() == 10)]
            || blocks == 0 && facts.wsnz
            || facts.max_write_same != 0 && blocks > facts.max_write_same;
        if refused {
            verdict.must.push(Fault::FIELD);
        }
        if blocks == 0 {
            blocks = self.shape.blocks.saturating_sub(lba);
        }
        let range = self.range(&mut verdict, lba, blocks);
        self.protect(&mut verdict, false);
        verdict.durable = self.durable(false, range.clone());
        let zeros = vec![0; self.shape.block];
        let pattern = if ndob { Some(&zeros[..]) } else { self.data_out(&mut verdict, data, self.shape.block) };
        if let Some(pattern) = pattern {
            verdict.changes.push(Change::Put(range.start, pattern.repeat(range.len() / self.shape.block)));
        }
        verdict
    }

    /// UNMAP (SBC-4 5.35): all ranges are judged before any is deallocated.
    pub(super) fn unmap(&self, cdb: &[u8], data: &Data) -> Verdict {
        let mut verdict = Verdict::default();
        if cdb[1] & 0x01 != 0 && !self.facts.anchors {
            verdict.must.push(Fault::FIELD);
        }
        let length = be16(cdb, 7) as usize;
        self.protect(&mut verdict, length == 0);
        if length == 0 {
            return verdict;
        }
        let Some(list) = self.data_out(&mut verdict, data, length) else { return verdict };
        let bytes = be16(list, 2) as usize;
        if list.len() < 8 || 8 + bytes > list.len() {
            verdict.must.push(Fault::LIST_LENGTH);
            return verdict;
        }
        // A descriptor that is not complete is ignored (SBC-4 5.35.2).
        let descriptors = list[8..8 + bytes].chunks_exact(16);
        let mut blocks = 0;
        let count = descriptors.len() as u64;
        for descriptor in descriptors {
            let range = self.range(&mut verdict, be64(descriptor, 0), be32(descriptor, 8));
            blocks += be32(descriptor, 8);
            verdict.changes.push(Change::Unmap(range));
        }
        if count > self.facts.max_unmap_descriptors || blocks > self.facts.max_unmap {
            verdict.must.extend([Fault::LIST_FIELD, Fault::FIELD]);
        }
        verdict
    }

    /// GET LBA STATUS (SBC-4 5.5)
    pub(super) fn get_lba_status(&self, cdb: &[u8]) -> Verdict {
        let lba = be64(cdb, 2);
        let reply = if be32(cdb, 10) == 0 { Reply::Nothing } else { Reply::LbaStatus(lba) };
        let mut verdict = Verdict { reply, ..Verdict::default() };
        if lba >= self.shape.blocks {
            verdict.must.push(Fault::RANGE);
        }
        if cdb[14] != 0 || be32(cdb, 10) < 24 {
            verdict.may.push(Fault::FIELD);
        }
        verdict.reads = vec![self.range(&mut Verdict::default(), lba, self.shape.blocks.saturating_sub(lba))];
        verdict
    }
}

/// LBA status descriptors go on where the one before ended; deallocated blocks read as zeros if LBPRZ says so.
pub(super) fn check_status(data: &[u8], lba: u64, lbprz: bool, block: usize, medium: &[u8]) -> Result<(), String> {
    let Some(descriptors) = data.get(8..) else { return Ok(()) };
    if be32(data, 0) + 4 < data.len() as u64 {
        return Err(format!("PARAMETER DATA LENGTH {} of {} bytes", be32(data, 0), data.len()));
    }
    let capacity = (medium.len() / block) as u64;
    let mut next = lba;
    for (n, descriptor) in descriptors.chunks_exact(16).enumerate() {
        let (start, blocks, status) = (be64(descriptor, 0), be32(descriptor, 8), descriptor[12] & 0x0f);
        if start != next || blocks == 0 || blocks > capacity - start || status > 2 {
            return Err(format!("LBA status descriptor {n}: {start} + {blocks}, status {status}; {next} comes next"));
        }
        next = start + blocks;
        let bytes = &medium[start as usize * block..next as usize * block];
        if lbprz && status == 1 && bytes.iter().any(|byte| *byte != 0) {
            return Err(format!("LBA status descriptor {n} says deallocated, but there is data"));
        }
    }
    if descriptors.len() >= 16 && next == lba { Err("no LBA status descriptor".into()) } else { Ok(()) }
}
