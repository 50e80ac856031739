use proptest::prelude::*;

use super::*;

fn read(lba: u64, blocks: u64, length_at: u8) -> Command {
    Command::Read(Access { lba: Lba(lba), blocks: Blocks(blocks), fua: false, dpo: false, length_at })
}

#[test]
fn read_in_all_its_lengths() {
    assert_eq!(decode(&[0x08, 0x1f, 0xff, 0xfe, 0x10, 0]), Ok(read(0x1f_fffe, 16, 4)));
    assert_eq!(decode(&[0x08, 0, 0, 1, 0, 0]), Ok(read(1, 256, 4)), "0 blocks in READ(6) are 256");
    assert_eq!(decode(&[0x28, 0, 1, 2, 3, 4, 0, 0, 0, 0]), Ok(read(0x0102_0304, 0, 7)));
    assert_eq!(decode(&[0xa8, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 0]), Ok(read(9, 0x1_0000, 6)));
    let mut cdb = [0; 16];
    (cdb[0], cdb[2], cdb[13]) = (0x88, 0x80, 7);
    assert_eq!(decode(&cdb), Ok(read(1 << 63, 7, 10)));
}

#[test]
fn fua_and_dpo_are_read() {
    let Ok(Command::Write(access)) = decode(&[0x2a, 0x18, 0, 0, 0, 0, 0, 0, 1, 0]) else { panic!() };
    assert!(access.fua && access.dpo);
}

#[test]
fn reserved_bits_are_pointed_at() {
    assert_eq!(decode(&[0x00, 0, 0, 1, 0, 0]), Err(Sense::invalid_cdb_field(3, Some(0))));
    assert_eq!(decode(&[0x28, 0x01, 0, 0, 0, 0, 0, 0, 1, 0]), Err(Sense::invalid_cdb_field(1, Some(0))), "RELADR is gone");
    assert_eq!(decode(&[0x00, 0, 0, 0, 0, 4]), Err(Sense::invalid_cdb_field(5, Some(2))), "NACA");
    assert_eq!(decode(&[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0]), Err(Sense::invalid_cdb_field(1, Some(7))), "RDPROTECT");
    assert_eq!(decode(&[0x12, 0, 0x80, 0, 255, 0]), Err(Sense::invalid_cdb_field(2, None)), "a page without EVPD");
}

#[test]
fn unknown_commands_and_service_actions_differ() {
    assert_eq!(decode(&[0xc1; 10]), Err(Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE)));
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x9e, 0x1f);
    assert_eq!(decode(&cdb), Err(Sense::invalid_cdb_field(1, Some(4))));
}

#[test]
fn a_short_cdb_is_an_invalid_field() {
    assert_eq!(decode(&[0x28, 0, 0]), Err(Sense::invalid_cdb_field(3, None)));
    assert!(decode(&[]).is_err());
}

#[test]
fn the_obsolete_lun_field_of_six_byte_cdbs_is_ignored() {
    assert_eq!(decode(&[0x00, 0xe0, 0, 0, 0, 0]), Ok(Command::TestUnitReady));
}

proptest! {
    #[test]
    fn decoding_never_panics(mut cdb in proptest::collection::vec(any::<u8>(), 0..40), pick in 0..opcode::TABLE.len(), known: bool) {
        if known && cdb.len() > 1 {
            cdb[0] = opcode::TABLE[pick].code;
            cdb[1] = opcode::TABLE[pick].service_action.unwrap_or(cdb[1]);
        }
        let _ = decode(&cdb);
    }
}
