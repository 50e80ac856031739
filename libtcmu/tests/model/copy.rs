//! EXTENDED COPY(LID1) within the unit (SPC-4 6.4), as far as the model knows it: lists that are just as they should be.
use tcmu::sim::Data;

use super::{
    be16, be32, be64,
    disk::Disk,
    verdict::{Change, Fault, Verdict},
};

/// What a segment out of range may be told as: at once, or when it is come to (SPC-4 5.17.7.4).
const OUT_OF_RANGE: [Fault; 5] =
    [Fault::RANGE, Fault(0xa, 0, 0, None), Fault(0xa, 0x21, 0, None), Fault(0xa, 0x0d, 0x01, None), Fault(0xa, 0x0d, 0x02, None)];

impl Disk {
    pub(super) fn copy(&self, cdb: &[u8], data: &Data) -> Verdict {
        let length = be32(cdb, 10) as usize;
        if length == 0 {
            return Verdict::default();
        }
        let list = match data {
            Data::Out(bytes) if bytes.len() >= length => &bytes[..length],
            Data::Out(_) | Data::None => {
                // Too little data: refused, if it is not refused for what else may be wrong.
                return Verdict { any: true, must: vec![Fault::LIST_LENGTH], ..Verdict::default() };
            }
            _ => return Verdict::anything(true),
        };
        let Some(segments) = self.segments(list) else { return Verdict { partly: true, ..Verdict::anything(true) } };
        // OPERATION IN PROGRESS: another copy in flight has the same list identifier.
        let may = vec![Fault(5, 0, 0x16, None)];
        let mut verdict = Verdict { partly: true, may, ..Verdict::default() };
        let mut after = self.clone();
        for (from, to, blocks) in segments {
            let mut judged = Verdict::default();
            let (source, target) = (self.range(&mut judged, from, blocks), self.range(&mut judged, to, blocks));
            if !judged.must.is_empty() {
                verdict.must.extend(OUT_OF_RANGE);
                break;
            }
            // Right behind the last block, with nothing to copy.
            verdict.may.extend(if judged.may.is_empty() { &[] } else { &OUT_OF_RANGE[..] });
            let bytes = after.bytes[source.clone()].to_vec();
            after.bytes[target.clone()].copy_from_slice(&bytes);
            verdict.reads.push(source);
            verdict.changes.push(Change::Put(target.start, bytes));
        }
        let nothing = verdict.changes.is_empty();
        self.protect(&mut verdict, nothing);
        verdict.may.extend(if self.facts.write_protected { &[Fault(0xa, 0x27, 0, None)][..] } else { &[] });
        verdict
    }

    /// Source, destination and number of blocks of each segment of a list that has nothing unusual in it.
    fn segments(&self, list: &[u8]) -> Option<Vec<(u64, u64, u64)>> {
        if list.len() < 48 {
            return None;
        }
        let (cscds, bytes) = (be16(list, 2) as usize, be32(list, 8) as usize);
        let usual = list[1..2] == [0] && list[4..8] == [0; 4] && be32(list, 12) == 0;
        if self.facts.naa.is_empty() || !usual || cscds != 32 || !bytes.is_multiple_of(28) || list.len() != 48 + bytes {
            return None;
        }
        let descriptor = super::lists::cscd(&self.facts.naa, self.shape.block);
        if list[16..48] != descriptor {
            return None;
        }
        let mut segments = Vec::new();
        for segment in list[48..].chunks(28) {
            if segment[..10] != [0x02, 0, 0, 24, 0, 0, 0, 0, 0, 0] {
                return None;
            }
            segments.push((be64(segment, 12), be64(segment, 20), be16(segment, 10)));
        }
        Some(segments)
    }
}
