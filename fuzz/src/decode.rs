//! The decoder, and what REPORT SUPPORTED OPERATION CODES says of it.
use std::cell::RefCell;

use tcmu::sim::Data;
use tcmu_handler_api::scsi::{
    Sense,
    command::decode as decode_cdb,
    opcode::{self, Entry},
    sense::Specific,
};

use crate::model::{Rig, Shape, facts::cdb_length};

thread_local! {
    /// Only commands that must be refused are sent to it, so it is always as new.
    static RIG: RefCell<Rig> = RefCell::new(Rig::new(Shape::SKILLED, 1).expect("a new device"));
}

/// A CDB; bytes that are missing are zeros.
pub fn decode(data: &[u8]) {
    if data.is_empty() {
        assert!(decode_cdb(data).is_err());
        return;
    }
    // However short, it is refused at most.
    let _ = decode_cdb(data);
    let mut cdb = data.to_vec();
    cdb.resize(cdb_length(data), 0);
    let decoded = decode_cdb(&cdb);
    if let Err(sense) = &decoded {
        points_into(sense, &cdb);
    }
    let entry = opcode::find(cdb[0], cdb.get(1).map_or(0, |byte| byte & 0x1f));
    match entry {
        Err(false) => assert_eq!(code(&decoded.expect_err("an unknown command")), (0x20, 0), "{cdb:02x?}"),
        Err(true) => assert_eq!(code(&decoded.expect_err("an unknown service action")), (0x24, 0), "{cdb:02x?}"),
        Ok(entry) => {
            let Some(outside) = first_outside(entry, &cdb) else { return };
            let sense = decoded.expect_err("a bit outside of the usage map");
            assert_eq!(code(&sense), (0x24, 0), "{cdb:02x?}");
            let Some(Specific::Field(field)) = sense.specific else { panic!("no field pointer: {cdb:02x?}") };
            assert_eq!(usize::from(field.byte), outside, "{cdb:02x?}: {sense:?}");
            let bit = field.bit.unwrap_or(7);
            let wrong = cdb[outside] & !entry.usage[outside];
            assert!(wrong >> bit & 1 != 0, "{cdb:02x?}: bit {bit} of byte {outside} is not wrong");
        }
    }
    refused_by_the_unit(&cdb);
}

fn code(sense: &Sense) -> (u8, u8) {
    (sense.code.asc, sense.code.ascq)
}

fn points_into(sense: &Sense, cdb: &[u8]) {
    assert_eq!(sense.key as u8, 5, "{cdb:02x?}: {sense:?}");
    if let Some(Specific::Field(field)) = sense.specific {
        assert!(field.in_cdb && usize::from(field.byte) < cdb.len(), "{cdb:02x?}: {sense:?}");
        assert!(field.bit.is_none_or(|bit| bit < 8));
    }
}

/// The first byte with a bit that the usage map has not. The logical unit number of SCSI-2 in 6-byte commands is ignored.
fn first_outside(entry: &Entry, cdb: &[u8]) -> Option<usize> {
    (1..entry.usage.len()).find(|at| {
        let ignored = if *at == 1 && entry.usage.len() == 6 { 0xe0 } else { 0 };
        cdb[*at] & !entry.usage[*at] & !ignored != 0
    })
}

/// What the unit itself reports as not supported, it refuses.
fn refused_by_the_unit(cdb: &[u8]) {
    RIG.with_borrow_mut(|rig| {
        let known = rig.disk.facts.usage_of(cdb).is_ok();
        if known && !rig.disk.facts.reserved(cdb) {
            return;
        }
        let done = rig.send(cdb, Data::In(64)).unwrap_or_else(|why| panic!("{why}: {cdb:02x?}"));
        let sense = Sense::parse(&done.sense).unwrap_or_else(|| panic!("not refused: {cdb:02x?}: {done:?}"));
        points_into(&sense, cdb);
        assert_eq!(code(&sense).0, if known { 0x24 } else { code(&sense).0 }, "{cdb:02x?}");
        assert!(matches!(code(&sense), (0x20 | 0x24, 0)), "{cdb:02x?}: {sense:?}");
        assert!(!known || sense.specific.is_some(), "no field pointer: {cdb:02x?}");
    });
}
