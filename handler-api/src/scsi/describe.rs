//! Commands, status and sense data in words, for logs and traces.
use std::fmt;

use super::{
    AdditionalSense, Command, Sense, SenseKey, Specific, Status, be,
    command::{decode_as, identify},
    opcode::Opcode,
};

/// What a CDB says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description<'a> {
    cdb: &'a [u8],
    /// Which command, if it is one that this software knows.
    pub opcode: Option<Opcode>,
    /// The first logical block, of commands about a range.
    pub lba: Option<u64>,
    /// How many blocks it has.
    pub blocks: Option<u64>,
    /// FUA: the medium, not a cache.
    pub fua: bool,
}

/// Looks at a CDB. Fields that are not allowed do not keep it from saying what it can.
pub fn describe(cdb: &[u8]) -> Description<'_> {
    let mut description = Description { cdb, opcode: None, lba: None, blocks: None, fua: false };
    let Ok(entry) = identify(cdb) else { return description };
    description.opcode = Some(entry.opcode);
    let range = match decode_as(entry, cdb) {
        Ok(
            Command::Read(access)
            | Command::Write(access)
            | Command::WriteAndVerify(access, _)
            | Command::Verify(access, _)
            | Command::CompareAndWrite(access)
            | Command::OrWrite(access)
            | Command::WriteAtomic { access, .. },
        ) => {
            description.fua = access.fua;
            Some((access.lba.0, Some(access.blocks.0)))
        }
        Ok(Command::Prefetch { lba, blocks } | Command::SynchronizeCache { lba, blocks, .. }) => Some((lba.0, Some(blocks.0))),
        Ok(Command::WriteSame(same)) => Some((same.lba.0, Some(same.blocks.0))),
        Ok(Command::GetLbaStatus { lba, .. }) => Some((lba.0, None)),
        _ => None,
    };
    (description.lba, description.blocks) = (range.map(|(lba, _)| lba), range.and_then(|(_, blocks)| blocks));
    description
}

impl Description<'_> {
    /// The command's name as the standards write it; `OPCODE 0x..` for those that this software doesn't know.
    pub fn name(&self) -> String {
        match self.opcode {
            // Those that the kernel answers.
            None => match be::u8(self.cdb, 0) {
                0x16 => "RESERVE(6)".into(),
                0x17 => "RELEASE(6)".into(),
                0x56 => "RESERVE(10)".into(),
                0x57 => "RELEASE(10)".into(),
                0x5e => "PERSISTENT RESERVE IN".into(),
                0x5f => "PERSISTENT RESERVE OUT".into(),
                0xa0 => "REPORT LUNS".into(),
                other => format!("OPCODE {other:#04x}"),
            },
            Some(Opcode::OrWrite16) => "ORWRITE(16)".into(),
            Some(Opcode::Prefetch10) => "PRE-FETCH(10)".into(),
            Some(Opcode::Prefetch16) => "PRE-FETCH(16)".into(),
            Some(opcode) => words(&format!("{opcode:?}")),
        }
    }
}

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(lba) = self.lba {
            write!(f, " lba {lba}")?;
        }
        if let Some(blocks) = self.blocks {
            write!(f, " blocks {blocks}")?;
        }
        if self.fua {
            f.write_str(" fua")?;
        }
        if self.opcode.is_none() {
            write!(f, " cdb {:02x?}", self.cdb)?;
        }
        Ok(())
    }
}

/// `ReadCapacity10` as `READ CAPACITY(10)`.
fn words(name: &str) -> String {
    let end = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (name, length) = name.split_at(end);
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_uppercase());
    }
    match length {
        "6" | "10" | "12" | "16" => words + "(" + length + ")",
        length => words + length,
    }
}

/// The words of a sense key.
pub fn sense_key(key: SenseKey) -> String {
    words(&format!("{key:?}"))
}

/// How a command ended: its status, and the sense data in words.
pub fn outcome(status: u8, sense: &[u8]) -> Outcome {
    Outcome { status, sense: Sense::parse(sense) }
}

/// Status and sense data, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// SCSI status.
    pub status: u8,
    /// Sense data that can be understood.
    pub sense: Option<Sense>,
}

/// The words of a status.
pub fn status(status: u8) -> String {
    use Status::*;
    let known = [Good, CheckCondition, ConditionMet, Busy, ReservationConflict, TaskSetFull, AcaActive, TaskAborted];
    known
        .into_iter()
        .find(|known| *known as u8 == status)
        .map_or_else(|| format!("STATUS {status:#04x}"), |known| words(&format!("{known:?}")))
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&status(self.status))?;
        let Some(sense) = self.sense else { return Ok(()) };
        write!(f, ": {}, {}", sense_key(sense.key), sense.code)?;
        if let Some(information) = sense.information {
            write!(f, ", information {information}")?;
        }
        match sense.specific {
            Some(Specific::Field(field)) => {
                let place = if field.in_cdb { "CDB" } else { "parameter list" };
                write!(f, ", byte {}", field.byte)?;
                if let Some(bit) = field.bit {
                    write!(f, " bit {bit}")?;
                }
                write!(f, " of the {place}")
            }
            Some(Specific::Progress(done)) => write!(f, ", {} % done", u32::from(done) * 100 / 65_536),
            Some(Specific::Segment(byte)) => write!(f, ", byte {byte} of a segment"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for AdditionalSense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(&name.replace('_', " ")),
            None => write!(f, "ASC {:#04x} ASCQ {:#04x}", self.asc, self.ascq),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scsi::{opcode::TABLE, sense::SENSE_BUFFER};

    #[test]
    fn commands_are_told_by_their_names_and_ranges() {
        let said = |cdb: &[u8]| describe(cdb).to_string();
        assert_eq!(said(&[0x2a, 0x08, 0, 0, 0x10, 0, 0, 0, 8, 0]), "WRITE(10) lba 4096 blocks 8 fua");
        assert_eq!(said(&[0x88, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0]), "READ(16) lba 1099511627776 blocks 2");
        assert_eq!(said(&[0x08, 0, 0, 5, 0, 0]), "READ(6) lba 5 blocks 256");
        assert_eq!(said(&[0; 6]), "TEST UNIT READY");
        assert_eq!(said(&[0x35, 0, 0, 0, 0, 1, 0, 0, 0, 0]), "SYNCHRONIZE CACHE(10) lba 1 blocks 0");
        assert_eq!(said(&[0x12, 0, 0, 0, 36, 0]), "INQUIRY");
        assert_eq!(said(&[0xc1, 7]), "OPCODE 0xc1 cdb [c1, 07]");
        assert_eq!(said(&[]), "OPCODE 0x00 cdb []");
    }

    #[test]
    fn every_command_has_a_name_in_capitals() {
        for entry in TABLE {
            let mut cdb = entry.usage.to_vec();
            if let Some(action) = entry.service_action {
                cdb[1] = action;
            }
            let name = describe(&cdb).name();
            assert!(name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || " ()-".contains(c)), "{name}");
        }
    }

    #[test]
    fn sense_data_is_told_in_words() {
        let mut buffer = [0; SENSE_BUFFER];
        let length = Sense::invalid_cdb_field(1, Some(4)).write_fixed(&mut buffer);
        let said = outcome(2, &buffer[..length]).to_string();
        assert_eq!(said, "CHECK CONDITION: ILLEGAL REQUEST, INVALID FIELD IN CDB, byte 1 bit 4 of the CDB");
        let sense = Sense::new(SenseKey::MediumError, AdditionalSense { asc: 0x99, ascq: 1 }).with_information(7);
        let length = sense.write_descriptor(&mut buffer);
        let said = outcome(2, &buffer[..length]).to_string();
        assert_eq!(said, "CHECK CONDITION: MEDIUM ERROR, ASC 0x99 ASCQ 0x01, information 7");
        assert_eq!(outcome(8, &[]).to_string(), "BUSY");
        assert_eq!(outcome(0x77, &[1]).to_string(), "STATUS 0x77");
    }

    proptest! {
        #[test]
        fn anything_can_be_told(cdb in proptest::collection::vec(any::<u8>(), 0..40), status: u8, sense in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(!describe(&cdb).to_string().is_empty());
            prop_assert!(!outcome(status, &sense).to_string().is_empty());
        }
    }
}
