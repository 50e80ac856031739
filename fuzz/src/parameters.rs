//! Parameter lists, through the whole engine.
use tcmu::sim::Data;

use crate::model::{Choose, Rig, Shape};

/// Commands with a parameter list, and where its length is: the first byte and how many.
const COMMANDS: &[(&[u8], usize, usize)] = &[
    (&[0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0], 7, 2),                       // UNMAP
    (&[0x15, 0x10, 0, 0, 0, 0], 4, 1),                                // MODE SELECT(6)
    (&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 0, 0], 7, 2),                    // MODE SELECT(10)
    (&[0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 10, 4), // EXTENDED COPY(LID1)
    (&[0x83, 0x10, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0], 10, 4), // POPULATE TOKEN
    (&[0x83, 0x11, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0], 10, 4), // WRITE USING TOKEN
    (&[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 6, 4),              // SET TARGET PORT GROUPS
    (&[0x04, 0x10, 0, 0, 0, 0], 0, 0),                                // FORMAT UNIT
    (&[0x48, 0x01, 0, 0, 0, 0, 0, 0, 0, 0], 7, 2),                    // SANITIZE, OVERWRITE
    (&[0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0], 7, 2),                    // SANITIZE, BLOCK ERASE
    (&[0x1d, 0x10, 0, 0, 0, 0], 3, 2),                                // SEND DIAGNOSTIC
    (&[0x3b, 0x02, 0, 0, 0, 0, 0, 0, 0, 0], 6, 3),                    // WRITE BUFFER
];

/// The kind of device, the command, how its CDB differs, how much of the list is sent; then the list.
pub fn parameters(data: &[u8]) {
    let mut choose = Choose::new(data);
    let (thin, kind, flags, sent) = (choose.byte(), choose.byte(), choose.byte(), choose.byte());
    let shape = if thin & 1 == 0 { Shape::SKILLED } else { Shape { thin: true, zeroes: true, ..Shape::PLAIN } };
    let (template, at, width) = COMMANDS[usize::from(kind) % COMMANDS.len()];
    let mut rig = Rig::new(shape, 1).expect("a new device");
    let mut list = choose.rest().to_vec();
    if flags & 0x80 != 0 {
        name_the_unit(&mut list, &rig.disk.facts.naa);
    }
    let mut cdb = template.to_vec();
    cdb[1] ^= flags & 0x31 & if template[0] == 0x83 { 0 } else { 0xff };
    let length = (list.len() as u32).wrapping_add(u32::from(sent >> 6)).to_be_bytes();
    cdb[at..at + width].copy_from_slice(&length[4 - width..]);
    list.truncate(list.len().saturating_sub(usize::from(sent & 0x3f) % 5));
    let outcome = rig.one((cdb, Data::Out(list))).and_then(|()| rig.finish());
    outcome.unwrap_or_else(|why| panic!("{why}"));
}

/// A copy that names another unit ends soon: puts our designator where the first descriptor has its own.
fn name_the_unit(list: &mut [u8], naa: &[u8]) {
    if let Some(descriptor) = list.get_mut(16..48) {
        (descriptor[0], descriptor[4], descriptor[5], descriptor[7]) = (0xe4, 1, 3, naa.len() as u8);
        descriptor[8..8 + naa.len()].copy_from_slice(naa);
    }
}
