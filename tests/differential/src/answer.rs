//! What a unit answers: status, sense data (SPC-6 4.4) and data.
use std::fmt;

/// The answer to a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status (SAM-6 5.3.1).
    pub status: u8,
    /// What went wrong on the way, if not 0 (`DID_*` of Linux).
    pub host: u16,
    /// Sense data.
    pub sense: Vec<u8>,
    /// Data-In, without what was not filled.
    pub data: Vec<u8>,
    /// How many bytes fewer were transferred than there was room for.
    pub residual: i32,
}

/// Sense data, read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sense {
    /// SENSE KEY
    pub key: u8,
    /// ADDITIONAL SENSE CODE and its QUALIFIER.
    pub code: (u8, u8),
    /// INFORMATION, if valid.
    pub information: Option<u64>,
    /// The field pointer, for ILLEGAL REQUEST.
    pub field: Option<Pointer>,
}

/// A field pointer (SPC-6 4.4.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// C/D: in the CDB, not in the parameter list.
    pub in_cdb: bool,
    /// FIELD POINTER
    pub byte: u16,
    /// BIT POINTER, if BPV.
    pub bit: Option<u8>,
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte {}", if self.in_cdb { "CDB" } else { "list" }, self.byte)?;
        self.bit.map_or(Ok(()), |bit| write!(f, " bit {bit}"))
    }
}

impl Answer {
    /// Whether it is GOOD.
    pub fn good(&self) -> bool {
        self.status == 0 && self.host == 0
    }

    /// The sense data, if there is some.
    pub fn sense(&self) -> Option<Sense> {
        read_sense(&self.sense)
    }

    /// Whether it says no more than that something happened earlier.
    pub fn unit_attention(&self) -> bool {
        self.status == 0x02 && self.sense().is_some_and(|sense| sense.key == 6)
    }

    /// Whether the unit does not have the command.
    pub fn unknown_command(&self) -> bool {
        self.status == 0x02 && self.sense().is_some_and(|sense| sense.key == 5 && sense.code == (0x20, 0))
    }

    /// The outcome in the standards' words.
    pub fn outcome(&self) -> String {
        match (self.host, self.status, self.sense()) {
            (0, 0x00, _) => "GOOD".to_string(),
            (0, 0x02, Some(sense)) => format!("{}/{}", key_name(sense.key), code_name(sense.code)),
            (0, 0x02, None) => "CHECK CONDITION without sense data".to_string(),
            (0, 0x08, _) => "BUSY".to_string(),
            (0, 0x18, _) => "RESERVATION CONFLICT".to_string(),
            (0, status, _) => format!("status {status:02X}h"),
            (host, ..) => format!("no answer (host status {host:02X}h)"),
        }
    }
}

fn read_sense(sense: &[u8]) -> Option<Sense> {
    let mut read = Sense::default();
    let at = |at: usize| sense.get(at).copied().unwrap_or(0);
    match sense.first()? & 0x7f {
        0x70 | 0x71 => {
            (read.key, read.code) = (at(2) & 0x0f, (at(12), at(13)));
            read.information = sense.get(3..7).filter(|_| at(0) & 0x80 != 0).map(number);
            read.field = sense.get(15..18).and_then(|specific| pointer(read.key, specific));
        }
        0x72 | 0x73 => {
            (read.key, read.code) = (at(1) & 0x0f, (at(2), at(3)));
            let mut rest = sense.get(8..)?;
            while let [kind, length, ..] = *rest {
                let Some(descriptor) = rest.get(..2 + usize::from(length)) else { break };
                match kind {
                    0x00 if descriptor.len() == 12 && descriptor[2] & 0x80 != 0 => {
                        read.information = Some(number(&descriptor[4..]));
                    }
                    0x02 if descriptor.len() == 8 => read.field = pointer(read.key, &descriptor[4..7]),
                    _ => {}
                }
                rest = &rest[descriptor.len()..];
            }
        }
        _ => return None,
    }
    Some(read)
}

fn pointer(key: u8, specific: &[u8]) -> Option<Pointer> {
    let [first, high, low] = *specific else { return None };
    (key == 5 && first & 0x80 != 0).then(|| Pointer {
        in_cdb: first & 0x40 != 0,
        byte: u16::from_be_bytes([high, low]),
        bit: (first & 0x08 != 0).then_some(first & 0x07),
    })
}

/// A big-endian number.
pub fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn key_name(key: u8) -> String {
    const NAMES: &[&str] = &[
        "NO SENSE",
        "RECOVERED ERROR",
        "NOT READY",
        "MEDIUM ERROR",
        "HARDWARE ERROR",
        "ILLEGAL REQUEST",
        "UNIT ATTENTION",
        "DATA PROTECT",
        "BLANK CHECK",
        "VENDOR SPECIFIC",
        "COPY ABORTED",
        "ABORTED COMMAND",
        "reserved",
        "VOLUME OVERFLOW",
        "MISCOMPARE",
        "COMPLETED",
    ];
    NAMES.get(usize::from(key)).map_or_else(|| format!("sense key {key:X}h"), |name| (*name).to_string())
}

fn code_name(code: (u8, u8)) -> String {
    let name = match code {
        (0x00, 0x00) => "NO ADDITIONAL SENSE INFORMATION",
        (0x04, 0x02) => "INITIALIZING COMMAND REQUIRED",
        (0x0e, 0x03) => "INVALID FIELD IN COMMAND INFORMATION UNIT",
        (0x1a, 0x00) => "PARAMETER LIST LENGTH ERROR",
        (0x1d, 0x00) => "MISCOMPARE DURING VERIFY OPERATION",
        (0x20, 0x00) => "INVALID COMMAND OPERATION CODE",
        (0x21, 0x00) => "LOGICAL BLOCK ADDRESS OUT OF RANGE",
        (0x24, 0x00) => "INVALID FIELD IN CDB",
        (0x25, 0x00) => "LOGICAL UNIT NOT SUPPORTED",
        (0x26, 0x00) => "INVALID FIELD IN PARAMETER LIST",
        (0x27, 0x00) => "WRITE PROTECTED",
        (0x29, _) => "POWER ON, RESET, OR BUS DEVICE RESET OCCURRED",
        (0x2a, 0x01) => "MODE PARAMETERS CHANGED",
        (0x39, 0x00) => "SAVING PARAMETERS NOT SUPPORTED",
        (asc, ascq) => return format!("{asc:02X}h/{ascq:02X}h"),
    };
    name.to_string()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// CHECK CONDITION with fixed format sense data that points at a byte of the CDB.
    pub fn check(key: u8, asc: u8, byte: Option<u8>) -> Answer {
        let mut sense = vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, 0, 0, 0, 0, 0];
        if let Some(byte) = byte {
            (sense[15], sense[17]) = (0xc0, byte);
        }
        Answer { status: 2, sense, ..Answer::default() }
    }

    #[test]
    fn both_formats_of_sense_data_say_the_same() {
        let fixed = [0xf0, 0, 5, 0, 0, 0, 9, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcd, 0, 3];
        let descriptor = [0x72, 5, 0x24, 0, 0, 0, 0, 20, 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 9, 2, 6, 0, 0, 0xcd, 0, 3, 0];
        let sense = read_sense(&fixed).unwrap();
        assert_eq!(read_sense(&descriptor), Some(sense));
        assert_eq!(sense.information, Some(9));
        assert_eq!(sense.field, Some(Pointer { in_cdb: true, byte: 3, bit: Some(5) }));
        assert_eq!(sense.field.unwrap().to_string(), "CDB byte 3 bit 5");
    }

    #[test]
    fn outcomes_have_the_standards_names() {
        assert_eq!(Answer::default().outcome(), "GOOD");
        assert_eq!(check(5, 0x24, None).outcome(), "ILLEGAL REQUEST/INVALID FIELD IN CDB");
        assert_eq!(check(3, 0x11, None).outcome(), "MEDIUM ERROR/11h/00h");
        assert_eq!(Answer { host: 7, ..Answer::default() }.outcome(), "no answer (host status 07h)");
        assert_eq!(Answer { status: 2, ..Answer::default() }.outcome(), "CHECK CONDITION without sense data");
    }

    #[test]
    fn cut_off_sense_data_is_read_as_far_as_it_goes() {
        assert_eq!(read_sense(&[]), None);
        assert_eq!(read_sense(&[0x70, 0, 5]).unwrap().key, 5);
        assert_eq!(read_sense(&[0x72, 5, 0x24, 0, 0, 0, 0, 12, 0, 10]).unwrap().information, None);
    }
}
