//! Random commands: mostly right, often at an edge, sometimes malformed.
use crate::{
    command::{COMMANDS, Definition, Format, Kind},
    lists,
    random::Random,
    request::{Geometry, Payload, Request, needed},
};

/// Most data that is sent or received at once.
const ROOM: u64 = 256 << 10;

/// Codes that are no commands of disks, or service actions that none has. Nothing here may change a medium.
const UNKNOWN: &[[u8; 2]] = &[
    [0x02, 0],
    [0x05, 0],
    [0x06, 0],
    [0x0c, 0],
    [0x0d, 0],
    [0x20, 0],
    [0x23, 0],
    [0x26, 0],
    [0x44, 0],
    [0x46, 0],
    [0x4a, 0],
    [0x51, 0],
    [0x5c, 0],
    [0x84, 0x1f],
    [0x9e, 0x00],
    [0x9e, 0x1f],
    [0x9f, 0x1f],
    [0xa3, 0x00],
    [0xa3, 0x1f],
    [0xab, 0x1e],
    [0xb4, 0],
    [0xbb, 0],
    [0xc0, 0],
    [0xdf, 0],
    [0xff, 0xff],
];

/// The next command.
pub fn request(random: &mut Random, geometry: &Geometry) -> Request {
    if random.once_in(50) {
        return unknown(random);
    }
    // The commands that move data come up twice as often as their number.
    let mut definition = &COMMANDS[random.below(COMMANDS.len() as u64) as usize];
    if random.once_in(2) && !moves_data(definition) {
        definition = &COMMANDS[random.below(COMMANDS.len() as u64) as usize];
    }
    let mut cdb = vec![0; definition.length];
    cdb[0] = definition.code;
    cdb[1] = definition.action.unwrap_or(0);
    flags(random, definition, &mut cdb);
    range(random, definition, &mut cdb, geometry);
    let out = match definition.kind {
        Kind::Unmap => lists::unmap(random, geometry),
        Kind::ModeSelect => lists::mode(random, &mut cdb, definition),
        _ => Payload::None,
    };
    // PARAMETER LIST LENGTH of UNMAP.
    if let (Payload::Bytes { bytes, .. }, Some(field)) = (&out, definition.count) {
        field.set(&mut cdb, bytes.len() as u64);
    }
    malform(random, definition, &mut cdb);
    data(random, definition, cdb, out, geometry)
}

fn moves_data(definition: &Definition) -> bool {
    !matches!(definition.kind, Kind::NoData | Kind::Describe(_) | Kind::ModeSelect)
}

fn unknown(random: &mut Random) -> Request {
    let [code, second] = random.pick(UNKNOWN);
    let length = match code >> 5 {
        0 => 6,
        1 | 2 => 10,
        4 => 16,
        5 => 12,
        _ => random.pick(&[6, 10, 12, 16]),
    };
    let mut cdb = vec![0; length];
    (cdb[0], cdb[1]) = (code, second);
    Request { cdb, out: Payload::None, room: random.pick(&[0, 64, 512]) }
}

fn flags(random: &mut Random, definition: &Definition, cdb: &mut [u8]) {
    let descriptive = matches!(definition.kind, Kind::Describe(_));
    for flag in definition.flags {
        // Pages and options make the command; flags of a medium access are the exception.
        let often = if descriptive || (flag.valued && flag.name != "bytchk") { 2 } else { 10 };
        if random.once_in(often) {
            let known: &[u8] = match (definition.kind, flag.name) {
                (Kind::Describe(Format::Inquiry), "page") => {
                    &[0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0x8f, 0xb0, 0xb1, 0xb2, 0xb3, 0x89, 0x01]
                }
                (Kind::Describe(Format::Log), "page") => &[0x00, 0x02, 0x0c, 0x0d, 0x0f, 0x2f, 0x3f],
                (_, "page") => &[0x01, 0x02, 0x03, 0x08, 0x0a, 0x1a, 0x1c, 0x3f, 0x00],
                (_, "subpage") => &[0x00, 0x01, 0x02, 0x05, 0xff, 0xff, 0x00],
                (_, "operation code") => &[0x00, 0x12, 0x28, 0x2a, 0x35, 0x42, 0x88, 0x8a, 0x93, 0x9e, 0xa3, 0x7f, 0x5e, 0xc0],
                (_, "service action") => &[0x00, 0x10, 0x12, 0x0c, 0x09],
                (_, "list identifier" | "pointer" | "boundary") => &[1],
                _ => &[],
            };
            let value = if known.is_empty() || random.once_in(6) { random.next() as u8 } else { random.pick(known) };
            cdb[flag.at] |= (value << flag.mask.trailing_zeros()) & flag.mask;
        }
    }
    if definition.kind == Kind::Verify && random.once_in(2) {
        cdb[1] |= random.pick(&[0x02, 0x02, 0x02, 0x06]);
    }
    if definition.kind == Kind::WriteSame && random.once_in(3) {
        cdb[1] |= if definition.length == 16 { random.pick(&[0x08, 0x09, 0x01]) } else { 0x08 };
    }
    if definition.code == 0x12 && cdb[2] != 0 && !random.once_in(8) {
        cdb[1] |= 0x01; // EVPD
    }
    if definition.code == 0x12 && !random.once_in(8) {
        cdb[1] &= !0x02; // CMDDT
    }
}

/// LBA and count: most commands meet on a few hundred blocks, so that they read what others wrote.
fn range(random: &mut Random, definition: &Definition, cdb: &mut [u8], geometry: &Geometry) {
    let end = geometry.capacity;
    if let Kind::Describe(_) = definition.kind {
        let count = match random.below(8) {
            0 => random.pick(&[0, 1, 2, 3, 4, 7, 8, 12, 16]),
            1 => random.below(64),
            2 => u64::from(u32::MAX),
            _ => random.pick(&[64, 96, 252, 4096]),
        };
        if let Some(field) = definition.count {
            field.set(cdb, if definition.length == 6 && count == 4096 { 255 } else { count });
        }
        if let (Some(lba), true) = (definition.lba, definition.code == 0x9e && cdb[1] == 0x12 || random.once_in(10)) {
            lba.set(cdb, address(random, end));
        }
        return;
    }
    let Some(lba) = definition.lba else { return };
    let mut at = address(random, end);
    let mut count = match random.below(16) {
        0 => 0,
        1 => random.pick(&[255, 256, 257, 0xffff, 0x1_0000, 0x7fff_ffff, u64::from(u32::MAX)]),
        2 => end.saturating_sub(at),
        3 => end.saturating_sub(at).saturating_add(1),
        _ => 1 + random.below(16),
    };
    let to_the_end = count == 0 && matches!(definition.kind, Kind::WriteSame | Kind::NoData);
    if to_the_end || (count > 4096 && at < end) && !random.once_in(20) {
        (at, count) = (end - 1 - random.below(32), count.min(64));
    }
    lba.set(cdb, at);
    if let Some(field) = definition.count {
        field.set(cdb, count);
    }
}

fn address(random: &mut Random, end: u64) -> u64 {
    match random.below(32) {
        0..20 => random.below(160),
        20..24 => end - 1 - random.below(40),
        24 | 25 => random.below(end),
        26 => end,
        27 => end - 1,
        28 => end + 1 + random.below(1000),
        29 => random.pick(&[0xffff_ffff, 0xffff_fffe, 0x8000_0000, 0x1f_ffff]),
        30 => random.pick(&[1 << 32, (1 << 32) + 1, (1 << 55) - 1, 1 << 55, 1 << 63]),
        _ => u64::MAX - random.below(16),
    }
}

/// Bits that should not be set: in CONTROL, or anywhere.
fn malform(random: &mut Random, definition: &Definition, cdb: &mut [u8]) {
    if random.once_in(60) {
        cdb[definition.length - 1] |= random.pick(&[0x04, 0x01, 0x80]);
    }
    if random.once_in(25) {
        let defined = definition.defined();
        let free: Vec<(usize, u8)> = (1..definition.length - 1)
            .flat_map(|at| (0..8).map(move |bit| (at, 1 << bit)))
            .filter(|(at, bit)| defined[*at] & bit == 0)
            .collect();
        if !free.is_empty() {
            let (at, bit) = random.pick(&free);
            cdb[at] |= bit;
        }
    }
}

/// The data, or the room for it, mostly as much as the CDB says.
fn data(random: &mut Random, definition: &Definition, cdb: Vec<u8>, out: Payload, geometry: &Geometry) -> Request {
    let needed = needed(definition, &cdb, geometry);
    let block = geometry.block;
    let mut length = needed.min(ROOM) as usize;
    if random.once_in(30) {
        length = match random.below(4) {
            0 => 0,
            1 => length / 2 / block * block,
            2 => length.saturating_sub(1),
            _ => length + block,
        };
    }
    let lba = definition.lba.map_or(0, |field| field.get(&cdb));
    let seed = random.next();
    let flip = |random: &mut Random, within: usize| random.once_in(4).then(|| random.below(within as u64) as usize);
    let mut room = 0;
    let out = match definition.kind {
        Kind::Unmap | Kind::ModeSelect => out,
        Kind::NoData => Payload::None,
        Kind::Read | Kind::Describe(_) => {
            room = length;
            Payload::None
        }
        _ if length == 0 => Payload::None,
        Kind::Verify => Payload::Medium { lba, held: length, flip: flip(random, length), length },
        Kind::CompareAndWrite => {
            let held = (length / 2).max(1);
            Payload::Medium { lba, held, flip: flip(random, held), length }
        }
        Kind::WriteSame if random.once_in(2) => Payload::Bytes { bytes: vec![0; length], label: "" },
        _ => Payload::Random { seed, length },
    };
    Request { cdb, out, room }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const GEOMETRY: Geometry = Geometry { block: 512, capacity: 131_072 };

    fn many(seed: u64) -> Vec<Request> {
        let mut random = Random::new(seed);
        (0..5000).map(|_| request(&mut random, &GEOMETRY)).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_commands() {
        assert_eq!(many(3), many(3));
        assert_ne!(many(3), many(4));
    }

    #[test]
    fn every_command_comes_up_and_so_do_unknown_ones() {
        let names: BTreeSet<String> = many(1).iter().map(Request::name).collect();
        for command in COMMANDS {
            assert!(names.contains(command.name), "{}", command.name);
        }
        assert!(names.contains("OPERATION CODE C0h"));
        assert!(names.contains("OPERATION CODE 9Eh/1Fh"));
    }

    #[test]
    fn every_flag_of_every_command_comes_up() {
        let requests = many(2);
        for command in COMMANDS {
            for flag in command.flags {
                let set =
                    |r: &&Request| r.definition().is_some_and(|d| d.name == command.name) && r.cdb[flag.at] & flag.mask != 0;
                assert!(requests.iter().any(|r| set(&r)), "{} {}", command.name, flag.name);
            }
        }
    }

    #[test]
    fn unknown_codes_are_none_of_the_commands() {
        for code in UNKNOWN {
            assert!(Definition::of(code).is_none(), "{code:02x?}");
        }
    }

    #[test]
    fn edges_come_up() {
        let requests = many(5);
        let any = |wanted: &str| {
            requests.iter().any(|r| crate::features::features(r, r.out.length(), &GEOMETRY).iter().any(|f| f == wanted))
        };
        for feature in [
            "out of range",
            "at the end",
            "no blocks",
            "short buffer",
            "long buffer",
            "reserved",
            "naca",
            "miscompare",
            "no length",
        ] {
            assert!(any(feature), "{feature}");
        }
    }
}
