//! Commands to try: valid, on the edge, malformed.
use tcmu::sim::Data;

use super::{Choose, disk::Disk, facts::cdb_length, lists};

/// The commands that the model knows, with their service actions.
pub const KNOWN: &[(u8, Option<u8>)] = &[
    (0x08, None),
    (0x28, None),
    (0xa8, None),
    (0x88, None),
    (0x0a, None),
    (0x2a, None),
    (0xaa, None),
    (0x8a, None),
    (0x2e, None),
    (0xae, None),
    (0x8e, None),
    (0x2f, None),
    (0xaf, None),
    (0x8f, None),
    (0x89, None),
    (0x8b, None),
    (0x9c, None),
    (0x41, None),
    (0x93, None),
    (0x42, None),
    (0x9e, Some(0x12)),
    (0x83, Some(0x00)),
    (0x35, None),
    (0x91, None),
    (0x34, None),
    (0x90, None),
    (0x25, None),
    (0x9e, Some(0x10)),
    (0x55, None),
];

/// Those that may be in flight together for the same blocks, each in one piece or refused.
pub const CONTENDED: &[(u8, Option<u8>)] =
    &[(0x89, None), (0x8b, None), (0x89, None), (0x8a, None), (0x88, None), (0x9c, None), (0x28, None), (0x2a, None)];

/// A command.
pub type Try = (Vec<u8>, Data);

/// Where and how much: mostly within the unit or the room given, sometimes on its edge or beyond.
pub fn place(choose: &mut Choose<'_>, disk: &Disk, room: Option<(u64, u64)>) -> (u64, u64) {
    if let Some((start, length)) = room {
        let skip = choose.below(length);
        return (start + skip, 1 + choose.below(length - skip));
    }
    let capacity = disk.shape.blocks;
    let lba = match choose.below(16) {
        0..=9 => choose.below(32),
        10..=12 => capacity - 1 - choose.below(20),
        13 => capacity,
        14 => capacity + 1 + choose.below(5),
        _ => choose.one_of(&[u64::MAX, u64::MAX - 1, 1 << 32, (1 << 32) - 1, 1 << 63, 1 << 55]),
    };
    let left = capacity.saturating_sub(lba);
    let blocks = match choose.below(16) {
        0..=8 => 1 + choose.below(9),
        9 => 0,
        10 => choose.below(64),
        11 => left,
        12 => left + 1,
        13 => choose.one_of(&[255, 256, 257, 0xffff, 0x1_0000, 0xffff_ffff]),
        _ => 1,
    };
    (lba, blocks)
}

fn cdb_of(code: u8, flags: u8, lba: u64, blocks: u64) -> Vec<u8> {
    let mut cdb = vec![code, flags];
    cdb.resize(cdb_length(&[code]), 0);
    match (code, cdb.len()) {
        (_, 6) => {
            cdb[1..4].copy_from_slice(&(lba as u32 & 0x1f_ffff).to_be_bytes()[1..]);
            cdb[4] = blocks as u8;
        }
        (_, 10) => {
            cdb[2..6].copy_from_slice(&(lba as u32).to_be_bytes());
            cdb[7..9].copy_from_slice(&(blocks as u16).to_be_bytes());
        }
        (_, 12) => {
            cdb[2..6].copy_from_slice(&(lba as u32).to_be_bytes());
            cdb[6..10].copy_from_slice(&(blocks as u32).to_be_bytes());
        }
        (0x89, _) => {
            cdb[2..10].copy_from_slice(&lba.to_be_bytes());
            cdb[13] = blocks as u8;
        }
        (0x9c, _) => {
            cdb[2..10].copy_from_slice(&lba.to_be_bytes());
            cdb[12..14].copy_from_slice(&(blocks as u16).to_be_bytes());
        }
        _ => {
            cdb[2..10].copy_from_slice(&lba.to_be_bytes());
            cdb[10..14].copy_from_slice(&(blocks as u32).to_be_bytes());
        }
    }
    cdb
}

/// `length` bytes: of one value, all different, or what is on the medium, maybe but for one byte.
fn content(choose: &mut Choose<'_>, disk: &Disk, lba: u64, length: usize, equal: bool) -> Vec<u8> {
    let start = (lba as usize).saturating_mul(disk.shape.block).min(disk.bytes.len());
    let byte = choose.byte();
    if equal || choose.seldom(48) {
        let mut bytes: Vec<u8> = disk.bytes[start..].iter().copied().take(length).collect();
        bytes.resize(length, byte);
        if length > 0 && choose.seldom(64) {
            let at = (choose.below(1 << 16) as usize).wrapping_mul(31) % length;
            bytes[at] ^= 1 << (byte & 7);
        }
        return bytes;
    }
    match choose.below(4) {
        0 => vec![byte; length],
        1 => vec![0; length],
        _ => (0..length).map(|n| (n / 3 + n / 512) as u8 ^ byte).collect(),
    }
}

/// A command of these, at a place within the room given, or anywhere.
pub fn command(choose: &mut Choose<'_>, disk: &Disk, codes: &[(u8, Option<u8>)], room: Option<(u64, u64)>) -> Try {
    let (code, action) = choose.one_of(codes);
    let (lba, blocks) = place(choose, disk, room);
    let block = disk.shape.block;
    // What has no room in the CDB would be another number there; what is more than can be sent is not sent.
    let blocks = match code {
        0x89 => blocks & 0xff,
        _ if cdb_length(&[code]) == 6 => {
            if blocks.is_multiple_of(256) {
                256
            } else {
                blocks & 0xff
            }
        }
        0x9c => blocks & 0xffff,
        _ if cdb_length(&[code]) == 10 => blocks & 0xffff,
        _ => blocks & 0xffff_ffff,
    };
    let bytes = blocks.min(512 * 1024 / block as u64) as usize * block;
    let mut flags = action.unwrap_or(0);
    let access = cdb_length(&[code]) > 6 && action.is_none();
    if access && choose.seldom(48) {
        flags |= choose.one_of(&[0x08, 0x10, 0x18]);
    }
    let mut cdb = cdb_of(code, flags, lba, blocks);
    let data = match code {
        0x08 | 0x28 | 0xa8 | 0x88 => Data::In(bytes),
        0x2f | 0xaf | 0x8f => {
            let check = choose.one_of(&[0u8, 1, 3]);
            cdb[1] = cdb[1] & 0x10 | check << 1;
            match check {
                0 => Data::None,
                1 => Data::Out(content(choose, disk, lba, bytes, true)),
                _ => Data::Out(content(choose, disk, lba, block, true)),
            }
        }
        0x2e | 0xae | 0x8e => {
            cdb[1] = cdb[1] & 0x10 | choose.one_of(&[0, 2]);
            Data::Out(content(choose, disk, lba, bytes, false))
        }
        0x89 => {
            let mut both = content(choose, disk, lba, bytes, true);
            both.extend(content(choose, disk, lba, bytes, false));
            Data::Out(both)
        }
        0x41 | 0x93 => {
            let ndob = u8::from(code == 0x93 && choose.seldom(64));
            cdb[1] = choose.one_of(&[0, 0, 8]) | ndob;
            if ndob != 0 { Data::None } else { Data::Out(content(choose, disk, lba, block, false)) }
        }
        0x42 => {
            let list = lists::unmap(choose, disk, room);
            cdb = vec![0x42, 0, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
            Data::Out(list)
        }
        0x83 => {
            let list = lists::copy(choose, disk, room);
            cdb = cdb_of(0x83, 0, 0, list.len() as u64);
            Data::Out(list)
        }
        0x55 => {
            let list = lists::caching(choose.seldom(128));
            cdb = vec![0x55, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
            Data::Out(list)
        }
        0x35 | 0x91 | 0x34 | 0x90 => Data::None,
        0x25 => {
            cdb = vec![0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            Data::In(8)
        }
        0x9e => {
            let length = choose.one_of(&[32u64, 24, 40, 512, 8, 0]);
            cdb = cdb_of(0x9e, flags, if flags == 0x12 { lba } else { 0 }, length);
            Data::In(length as usize)
        }
        _ => Data::Out(content(choose, disk, lba, bytes, false)),
    };
    (cdb, data)
}

/// As [`command`], and sometimes malformed: a bit flipped, data cut, or just any bytes.
pub fn malformed(choose: &mut Choose<'_>, disk: &Disk) -> Try {
    let (mut cdb, mut data) = command(choose, disk, KNOWN, None);
    match choose.below(8) {
        0 => {
            let at = 1 + choose.below(cdb.len() as u64 - 1) as usize;
            cdb[at] ^= 1 << choose.below(8);
        }
        1 => match &mut data {
            Data::Out(bytes) if !bytes.is_empty() => {
                let at = choose.below(bytes.len().min(200) as u64) as usize;
                bytes[at] ^= 1 << choose.below(8);
            }
            _ => cdb[1] ^= 1 << choose.below(8),
        },
        2 => data = resized(data, choose),
        3 => {
            data = match data {
                Data::Out(bytes) if choose.byte() & 1 == 0 => Data::In(bytes.len()),
                Data::Out(bytes) => Data::Bidi(bytes, 100),
                Data::In(length) => Data::Out(vec![0x3c; length]),
                _ => Data::Bidi(vec![7; 64], 64),
            };
        }
        4 | 5 => return any(choose, disk),
        _ => cdb[1] |= choose.byte() & 0xe0,
    }
    (cdb, data)
}

fn resized(data: Data, choose: &mut Choose<'_>) -> Data {
    let by = choose.one_of(&[1usize, 8, 511, 512, 4096]);
    let grow = choose.byte() & 1 != 0;
    let length = |length: usize| if grow { length + by } else { length.saturating_sub(by) };
    match data {
        Data::Out(mut bytes) => {
            bytes.resize(length(bytes.len()), 0xc3);
            Data::Out(bytes)
        }
        Data::In(bytes) => Data::In(length(bytes)),
        other => other,
    }
}

/// Any bytes: of a command that the unit has, or of none.
fn any(choose: &mut Choose<'_>, disk: &Disk) -> Try {
    let mut codes: Vec<_> = disk.facts.usage.keys().copied().collect();
    codes.sort_unstable();
    let (code, action) = if choose.seldom(64) { (choose.byte(), None) } else { choose.one_of(&codes) };
    let usage = disk.facts.usage.get(&(code, action)).cloned().unwrap_or_default();
    let mut cdb = vec![code];
    let within = choose.seldom(200);
    for at in 1..cdb_length(&[code]) {
        let mask = if within { usage.get(at).copied().unwrap_or(0xff) } else { 0xff };
        cdb.push(choose.byte() & mask);
    }
    if let Some(action) = action {
        cdb[1] = cdb[1] & !0x1f | action;
    }
    cdb.resize(cdb_length(&cdb), 0);
    let length = choose.one_of(&[512usize, 0, 36, 4096, 8192]);
    let data = if choose.byte() & 1 == 0 {
        Data::In(length)
    } else {
        Data::Out(choose.rest().iter().copied().cycle().take(length).collect())
    };
    (cdb, data)
}
