//! What a command does to the medium, and keeping two media the same.
use std::io;

use crate::{
    answer::number,
    command::Kind,
    request::{Geometry, Request},
    sg::Target,
};

/// Bytes that are read or written at once.
pub const CHUNK: usize = 64 << 10;

/// The blocks that a command may change. An address beyond the end counts from the beginning again, as a unit does that takes it so
/// (scsi_debug, where address and length overflow 64 bits).
pub fn changed(request: &Request, out: &[u8], geometry: &Geometry) -> Vec<(u64, u64)> {
    let Some(definition) = request.definition() else { return Vec::new() };
    let cdb = &request.cdb;
    let capacity = geometry.capacity;
    let within = |lba: u64, count: u64| {
        let (lba, count) = (lba % capacity, count.min(capacity));
        let first = count.min(capacity - lba);
        [(lba, first), (0, count - first)].into_iter().filter(|(_, blocks)| *blocks > 0)
    };
    let lba = definition.lba.map_or(0, |field| field.get(cdb));
    match definition.kind {
        Kind::Write | Kind::OrWrite | Kind::CompareAndWrite => within(lba, definition.count(cdb)).collect(),
        Kind::WriteSame => match definition.count(cdb) {
            0 => within(lba, capacity.saturating_sub(lba).max(1)).collect(),
            count => within(lba, count).collect(),
        },
        Kind::Unmap => {
            out.get(8..).unwrap_or_default().chunks_exact(16).flat_map(|d| within(number(&d[..8]), number(&d[8..12]))).collect()
        }
        _ => Vec::new(),
    }
}

/// scsi_debug stops the kernel (BUG_ON in `resp_unmap`) when the lengths in an UNMAP parameter list, in the CDB and of the data don't agree.
pub fn stops_scsi_debug(cdb: &[u8], out: &[u8]) -> bool {
    let [0x42, .., high, low, _] = *cdb else { return false };
    let length = usize::from(high) << 8 | usize::from(low);
    let says = |at: usize| number(&out[at..at + 2]) as usize;
    length != out.len() || length >= 8 && (says(0) != length - 2 || says(2) != (length - 8) / 16 * 16)
}

/// A WRITE SAME that may unmap, with data: scsi_debug unmaps whatever the data is, after which blocks read as zeros.
pub fn unmaps_data(request: &Request) -> bool {
    request.definition().is_some_and(|d| matches!(d.kind, Kind::WriteSame) && d.value(&request.cdb, "unmap") != 0)
}

/// What the blocks of a medium access hold after it, if the command defines that.
pub fn defined(request: &Request, out: &[u8], before: &[u8], geometry: &Geometry) -> Option<Vec<u8>> {
    let definition = request.definition()?;
    let length = before.len();
    match definition.kind {
        Kind::Write => (out.len() >= length).then(|| out[..length].to_vec()),
        Kind::OrWrite => (out.len() >= length).then(|| before.iter().zip(out).map(|(a, b)| a | b).collect()),
        Kind::CompareAndWrite => out.get(length..2 * length).map(<[u8]>::to_vec),
        Kind::WriteSame if definition.value(&request.cdb, "ndob") != 0 => Some(vec![0; length]),
        Kind::WriteSame => {
            (out.len() >= geometry.block).then(|| out[..geometry.block].iter().copied().cycle().take(length).collect())
        }
        _ => None,
    }
}

fn failed(what: &str, target: &str, outcome: &str) -> io::Error {
    io::Error::other(format!("{what} by the tester itself: {target} says {outcome}"))
}

/// Reads blocks.
pub fn read(target: &mut dyn Target, lba: u64, blocks: u64, geometry: &Geometry) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    for (lba, blocks) in chunks(lba, blocks, geometry) {
        let answer = target.send(&cdb16(0x88, lba, blocks), &[], blocks as usize * geometry.block)?;
        if !answer.good() {
            return Err(failed("READ(16)", "the unit", &answer.outcome()));
        }
        data.extend(answer.data);
    }
    Ok(data)
}

/// Writes blocks.
pub fn write(target: &mut dyn Target, lba: u64, data: &[u8], geometry: &Geometry) -> io::Result<()> {
    let blocks = (data.len() / geometry.block) as u64;
    let mut rest = data;
    for (lba, blocks) in chunks(lba, blocks, geometry) {
        let (now, later) = rest.split_at(blocks as usize * geometry.block);
        let answer = target.send(&cdb16(0x8a, lba, blocks), now, 0)?;
        if !answer.good() {
            return Err(failed("WRITE(16)", "the unit", &answer.outcome()));
        }
        rest = later;
    }
    Ok(())
}

/// A range in parts of at most [`CHUNK`] bytes.
pub fn chunks(lba: u64, blocks: u64, geometry: &Geometry) -> impl Iterator<Item = (u64, u64)> + use<> {
    let most = (CHUNK / geometry.block) as u64;
    let end = lba + blocks;
    (lba..end).step_by(most as usize).map(move |at| (at, most.min(end - at)))
}

fn cdb16(code: u8, lba: u64, blocks: u64) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = code;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&(blocks as u32).to_be_bytes());
    cdb
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Payload;

    const GEOMETRY: Geometry = Geometry { block: 4, capacity: 100 };

    fn request(cdb: &[u8]) -> Request {
        Request { cdb: cdb.to_vec(), out: Payload::None, room: 0 }
    }

    #[test]
    fn a_range_is_what_the_medium_has_of_it() {
        let write = |lba: u8, count: u8| changed(&request(&[0x2a, 0, 0, 0, 0, lba, 0, 0, count, 0]), &[], &GEOMETRY);
        assert_eq!(write(5, 3), [(5, 3)]);
        assert_eq!(write(98, 3), [(98, 2), (0, 1)]);
        assert_eq!(write(98, 0), []);
        assert_eq!(changed(&request(&[0x41, 0, 0, 0, 0, 90, 0, 0, 0, 0]), &[], &GEOMETRY), [(90, 10)], "WRITE SAME to the end");
        assert_eq!(changed(&request(&[0x41, 0, 0, 0, 0, 100, 0, 0, 0, 0]), &[], &GEOMETRY), [(0, 1)]);
        assert_eq!(changed(&request(&[0x28, 0, 0, 0, 0, 5, 0, 0, 1, 0]), &[], &GEOMETRY), []);
        let list = [&[0, 38, 0, 32, 0, 0, 0, 0][..], &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0, 0], &[0; 16]].concat();
        assert_eq!(changed(&request(&[0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0]), &list, &GEOMETRY), [(7, 2)]);
    }

    #[test]
    fn an_unmap_list_whose_lengths_disagree_is_not_for_scsi_debug() {
        let mut list = [0; 24];
        (list[1], list[3]) = (22, 16);
        let cdb = |length| [0x42, 0, 0, 0, 0, 0, 0, 0, length, 0];
        assert!(!stops_scsi_debug(&cdb(24), &list));
        assert!(stops_scsi_debug(&cdb(24), &list[..23]));
        assert!(!stops_scsi_debug(&cdb(4), &list[..4]), "refused before it is looked at");
        list[3] = 15;
        assert!(stops_scsi_debug(&cdb(24), &list));
        assert!(!stops_scsi_debug(&[0x2a; 10], &list));
    }

    #[test]
    fn what_a_command_writes_is_defined() {
        let after = |cdb: &[u8], out: &[u8], before: &[u8]| defined(&request(cdb), out, before, &GEOMETRY);
        let mut or = [0; 16];
        (or[0], or[13]) = (0x8b, 1);
        assert_eq!(after(&or, &[1, 0, 4, 0], &[1, 2, 0, 0]), Some(vec![1, 2, 4, 0]));
        assert_eq!(after(&or, &[1], &[1, 2, 0, 0]), None, "a short buffer defines nothing");
        let same = [0x41, 0, 0, 0, 0, 0, 0, 0, 2, 0];
        assert_eq!(after(&same, &[1, 2, 3, 4], &[0; 8]), Some(vec![1, 2, 3, 4, 1, 2, 3, 4]));
        let mut compare = [0; 16];
        (compare[0], compare[13]) = (0x89, 1);
        assert_eq!(after(&compare, &[0, 0, 0, 0, 9, 9, 9, 9], &[0; 4]), Some(vec![9; 4]));
    }

    #[test]
    fn ranges_are_cut_into_chunks_without_gaps() {
        let geometry = Geometry { block: 4096, capacity: 1 << 40 };
        assert_eq!(chunks(3, 33, &geometry).collect::<Vec<_>>(), [(3, 16), (19, 16), (35, 1)]);
        assert_eq!(chunks(3, 0, &geometry).count(), 0);
    }
}
