//! Status and sense data (SAM-6 5.3.1, SPC-6 4.4).

/// Bytes of sense data that TCMU carries.
pub const SENSE_BUFFER: usize = 96;

/// A SCSI status byte (SAM-6 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Status {
    Good = 0x00,
    CheckCondition = 0x02,
    ConditionMet = 0x04,
    Busy = 0x08,
    ReservationConflict = 0x18,
    TaskSetFull = 0x28,
    AcaActive = 0x30,
    TaskAborted = 0x40,
}

/// What kind of trouble (SPC-6 table 56).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum SenseKey {
    NoSense = 0x0,
    RecoveredError = 0x1,
    NotReady = 0x2,
    MediumError = 0x3,
    HardwareError = 0x4,
    IllegalRequest = 0x5,
    UnitAttention = 0x6,
    DataProtect = 0x7,
    BlankCheck = 0x8,
    CopyAborted = 0xa,
    AbortedCommand = 0xb,
    VolumeOverflow = 0xd,
    Miscompare = 0xe,
    Completed = 0xf,
}

/// Additional sense code and qualifier (SPC-6 table 57).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdditionalSense {
    /// ADDITIONAL SENSE CODE
    pub asc: u8,
    /// ADDITIONAL SENSE CODE QUALIFIER
    pub ascq: u8,
}

macro_rules! additional_sense {
    ($($name:ident = $asc:literal, $ascq:literal;)*) => {
        #[allow(missing_docs)]
        impl AdditionalSense {
            $(pub const $name: AdditionalSense = AdditionalSense { asc: $asc, ascq: $ascq };)*

            /// The constant that it is, if there is one.
            pub fn name(self) -> Option<&'static str> {
                match (self.asc, self.ascq) {
                    $(($asc, $ascq) => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

additional_sense! {
    NONE = 0x00, 0x00;
    NOT_READY_CAUSE_NOT_REPORTABLE = 0x04, 0x00;
    FORMAT_IN_PROGRESS = 0x04, 0x04;
    ASYMMETRIC_ACCESS_STATE_TRANSITION = 0x04, 0x0a;
    TARGET_PORT_IN_STANDBY_STATE = 0x04, 0x0b;
    TARGET_PORT_IN_UNAVAILABLE_STATE = 0x04, 0x0c;
    SANITIZE_IN_PROGRESS = 0x04, 0x1b;
    OPERATION_IN_PROGRESS = 0x00, 0x16;
    WRITE_ERROR = 0x0c, 0x00;
    THIRD_PARTY_DEVICE_FAILURE = 0x0d, 0x01;
    COPY_TARGET_DEVICE_NOT_REACHABLE = 0x0d, 0x02;
    INCORRECT_COPY_TARGET_DEVICE_TYPE = 0x0d, 0x03;
    UNRECOVERED_READ_ERROR = 0x11, 0x00;
    PARAMETER_LIST_LENGTH_ERROR = 0x1a, 0x00;
    DEFECT_LIST_NOT_FOUND = 0x1c, 0x00;
    MISCOMPARE_DURING_VERIFY = 0x1d, 0x00;
    INVALID_COMMAND_OPERATION_CODE = 0x20, 0x00;
    LBA_OUT_OF_RANGE = 0x21, 0x00;
    INVALID_TOKEN_UNSUPPORTED_TYPE = 0x23, 0x01;
    INVALID_TOKEN_UNKNOWN = 0x23, 0x04;
    INVALID_TOKEN_CORRUPT = 0x23, 0x05;
    INVALID_TOKEN_REVOKED = 0x23, 0x06;
    INVALID_TOKEN_EXPIRED = 0x23, 0x07;
    INVALID_TOKEN_LENGTH = 0x23, 0x0a;
    INVALID_FIELD_IN_CDB = 0x24, 0x00;
    COMMAND_SEQUENCE_ERROR = 0x2c, 0x00;
    INVALID_FIELD_IN_PARAMETER_LIST = 0x26, 0x00;
    TOO_MANY_TARGET_DESCRIPTORS = 0x26, 0x06;
    UNSUPPORTED_TARGET_DESCRIPTOR = 0x26, 0x07;
    TOO_MANY_SEGMENT_DESCRIPTORS = 0x26, 0x08;
    UNSUPPORTED_SEGMENT_DESCRIPTOR = 0x26, 0x09;
    WRITE_PROTECTED = 0x27, 0x00;
    SOFTWARE_WRITE_PROTECTED = 0x27, 0x02;
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT = 0x27, 0x07;
    MEDIUM_MAY_HAVE_CHANGED = 0x28, 0x00;
    BUS_DEVICE_RESET_FUNCTION_OCCURRED = 0x29, 0x03;
    MODE_PARAMETERS_CHANGED = 0x2a, 0x01;
    ASYMMETRIC_ACCESS_STATE_CHANGED = 0x2a, 0x06;
    CAPACITY_DATA_HAS_CHANGED = 0x2a, 0x09;
    MEDIUM_FORMAT_CORRUPTED = 0x31, 0x00;
    FORMAT_COMMAND_FAILED = 0x31, 0x01;
    SANITIZE_COMMAND_FAILED = 0x31, 0x03;
    SAVING_PARAMETERS_NOT_SUPPORTED = 0x39, 0x00;
    MEDIUM_NOT_PRESENT = 0x3a, 0x00;
    INQUIRY_DATA_HAS_CHANGED = 0x3f, 0x03;
    INTERNAL_TARGET_FAILURE = 0x44, 0x00;
    MEDIUM_REMOVAL_PREVENTED = 0x53, 0x02;
    INSUFFICIENT_RESOURCES = 0x55, 0x03;
    SET_TARGET_PORT_GROUPS_COMMAND_FAILED = 0x67, 0x0a;
}

/// Which field is wrong (SPC-6 4.4.2.4.2): a byte and maybe a bit of the CDB or of the parameter list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPointer {
    /// In the CDB, else in the parameter list.
    pub in_cdb: bool,
    /// First byte of the field.
    pub byte: u16,
    /// Its most significant bit, if it is no whole byte.
    pub bit: Option<u8>,
}

/// The sense-key-specific field (SPC-6 4.4.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specific {
    /// The field that is wrong, for ILLEGAL REQUEST.
    Field(FieldPointer),
    /// How much of a long operation is done, of 65536, for NOT READY and NO SENSE.
    Progress(u16),
    /// The byte of a segment descriptor that a copy failed at, for COPY ABORTED.
    Segment(u16),
}

/// Sense data as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// What kind of trouble.
    pub key: SenseKey,
    /// Which trouble.
    pub code: AdditionalSense,
    /// The INFORMATION field, if valid.
    pub information: Option<u64>,
    /// What the key has to say besides.
    pub specific: Option<Specific>,
}

impl Sense {
    /// Sense data with a key and a code only.
    pub const fn new(key: SenseKey, code: AdditionalSense) -> Sense {
        Sense { key, code, information: None, specific: None }
    }

    /// ILLEGAL REQUEST with a code.
    pub const fn illegal(code: AdditionalSense) -> Sense {
        Sense::new(SenseKey::IllegalRequest, code)
    }

    /// INVALID FIELD IN CDB, pointing at a byte and maybe a bit of it.
    pub const fn invalid_cdb_field(byte: u16, bit: Option<u8>) -> Sense {
        Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB).at(true, byte, bit)
    }

    /// INVALID FIELD IN PARAMETER LIST, pointing at a byte and maybe a bit of it.
    pub const fn invalid_parameter(byte: u16, bit: Option<u8>) -> Sense {
        Sense::illegal(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST).at(false, byte, bit)
    }

    /// Pointing at a byte, and maybe a bit of it, of the CDB or of the parameter list.
    pub const fn at(self, in_cdb: bool, byte: u16, bit: Option<u8>) -> Sense {
        Sense { specific: Some(Specific::Field(FieldPointer { in_cdb, byte, bit })), ..self }
    }

    /// With a progress indication, of 65536.
    pub const fn with_progress(self, progress: u16) -> Sense {
        Sense { specific: Some(Specific::Progress(progress)), ..self }
    }

    /// UNIT ATTENTION with a code.
    pub const fn attention(code: AdditionalSense) -> Sense {
        Sense::new(SenseKey::UnitAttention, code)
    }

    /// NOT READY with a code.
    pub const fn not_ready(code: AdditionalSense) -> Sense {
        Sense::new(SenseKey::NotReady, code)
    }

    /// COPY ABORTED with a code (SPC-6 6.4.1).
    pub const fn copy_aborted(code: AdditionalSense) -> Sense {
        Sense::new(SenseKey::CopyAborted, code)
    }

    /// With an INFORMATION field.
    pub const fn with_information(self, information: u64) -> Sense {
        Sense { information: Some(information), ..self }
    }

    /// Writes fixed format sense data (SPC-6 4.4.3, 18 bytes). INFORMATION that needs more than 32 bits is left out, as it must be.
    pub fn write_fixed(&self, buffer: &mut [u8; SENSE_BUFFER]) -> usize {
        *buffer = [0; SENSE_BUFFER];
        buffer[0] = 0x70;
        buffer[2] = self.key as u8;
        buffer[7] = 10;
        buffer[12] = self.code.asc;
        buffer[13] = self.code.ascq;
        if let Some(information) = self.information.and_then(|i| u32::try_from(i).ok()) {
            buffer[0] |= 0x80; // VALID
            buffer[3..7].copy_from_slice(&information.to_be_bytes());
        }
        if let Some(specific) = self.specific {
            buffer[15..18].copy_from_slice(&sense_key_specific(specific));
        }
        18
    }

    /// Writes descriptor format sense data (SPC-6 4.4.2).
    pub fn write_descriptor(&self, buffer: &mut [u8; SENSE_BUFFER]) -> usize {
        *buffer = [0; SENSE_BUFFER];
        buffer[0] = 0x72;
        buffer[1] = self.key as u8;
        buffer[2] = self.code.asc;
        buffer[3] = self.code.ascq;
        let mut at = 8;
        if let Some(information) = self.information {
            buffer[at] = 0x00;
            buffer[at + 1] = 0x0a;
            buffer[at + 2] = 0x80; // VALID
            buffer[at + 4..at + 12].copy_from_slice(&information.to_be_bytes());
            at += 12;
        }
        if let Some(specific) = self.specific {
            buffer[at] = 0x02;
            buffer[at + 1] = 0x06;
            buffer[at + 4..at + 7].copy_from_slice(&sense_key_specific(specific));
            at += 8;
        }
        buffer[7] = (at - 8) as u8;
        at
    }

    /// Reads current sense data of either format back; `None` when it is neither or too short.
    pub fn parse(sense: &[u8]) -> Option<Sense> {
        let response = sense.first()? & 0x7f;
        let mut parsed = Sense::new(SenseKey::NoSense, AdditionalSense::NONE);
        match response {
            0x70 | 0x71 => {
                parsed.key = key_of(*sense.get(2)?)?;
                parsed.code = AdditionalSense { asc: super::be::u8(sense, 12), ascq: super::be::u8(sense, 13) };
                if sense[0] & 0x80 != 0 {
                    parsed.information = Some(u64::from(super::be::u32(sense, 3)));
                }
                parsed.specific = parsed.specific_of(sense.get(15..18));
            }
            0x72 | 0x73 => {
                parsed.key = key_of(*sense.get(1)?)?;
                parsed.code = AdditionalSense { asc: *sense.get(2)?, ascq: *sense.get(3)? };
                let mut rest = sense.get(8..8 + usize::from(*sense.get(7)?))?;
                while let [kind, length, ..] = *rest {
                    let descriptor = rest.get(..2 + usize::from(length))?;
                    match kind {
                        0x00 if descriptor.len() >= 12 => parsed.information = Some(super::be::u64(descriptor, 4)),
                        0x02 => parsed.specific = parsed.specific_of(descriptor.get(4..7)),
                        _ => {}
                    }
                    rest = &rest[descriptor.len()..];
                }
            }
            _ => return None,
        }
        Some(parsed)
    }

    fn specific_of(&self, specific: Option<&[u8]>) -> Option<Specific> {
        let specific = specific.filter(|specific| specific[0] & 0x80 != 0)?;
        let value = super::be::u16(specific, 1);
        match self.key {
            SenseKey::IllegalRequest => Some(Specific::Field(FieldPointer {
                in_cdb: specific[0] & 0x40 != 0,
                bit: (specific[0] & 0x08 != 0).then_some(specific[0] & 0x07),
                byte: value,
            })),
            SenseKey::NotReady | SenseKey::NoSense => Some(Specific::Progress(value)),
            SenseKey::CopyAborted => Some(Specific::Segment(value)),
            _ => None,
        }
    }
}

/// SPC-6 4.4.2.4: SKSV and what the sense key says there.
fn sense_key_specific(specific: Specific) -> [u8; 3] {
    let (flags, value) = match specific {
        Specific::Field(field) => {
            let bit = field.bit.map_or(0, |bit| 0x08 | (bit & 0x07));
            (if field.in_cdb { 0x40 } else { 0 } | bit, field.byte)
        }
        Specific::Progress(done) => (0, done),
        Specific::Segment(byte) => (0x20, byte), // SD
    };
    let [high, low] = value.to_be_bytes();
    [0x80 | flags, high, low]
}

fn key_of(byte: u8) -> Option<SenseKey> {
    use SenseKey::*;
    [
        NoSense,
        RecoveredError,
        NotReady,
        MediumError,
        HardwareError,
        IllegalRequest,
        UnitAttention,
        DataProtect,
        BlankCheck,
        CopyAborted,
        AbortedCommand,
        VolumeOverflow,
        Miscompare,
        Completed,
    ]
    .into_iter()
    .find(|key| *key as u8 == byte & 0x0f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fixed_sense_points_at_the_wrong_bit() {
        let mut buffer = [0xff; SENSE_BUFFER];
        assert_eq!(Sense::invalid_cdb_field(1, Some(4)).write_fixed(&mut buffer), 18);
        assert_eq!(buffer[..18], [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcc, 0, 1]);
        assert!(buffer[18..].iter().all(|b| *b == 0));
    }

    #[test]
    fn information_beyond_32_bits_needs_the_descriptor_format() {
        let sense = Sense::new(SenseKey::Miscompare, AdditionalSense::MISCOMPARE_DURING_VERIFY).with_information(1 << 33);
        let mut buffer = [0; SENSE_BUFFER];
        sense.write_fixed(&mut buffer);
        assert_eq!(buffer[0], 0x70, "VALID must not be set");
        let length = sense.write_descriptor(&mut buffer);
        assert_eq!(Sense::parse(&buffer[..length]), Some(sense));
    }

    proptest! {
        #[test]
        fn sense_data_reads_back(asc: u8, ascq: u8, information: Option<u32>, byte: u16, bit in proptest::option::of(0u8..8)) {
            let sense = Sense {
                information: information.map(u64::from),
                specific: Some(Specific::Field(FieldPointer { in_cdb: byte % 2 == 0, byte, bit })),
                ..Sense::illegal(AdditionalSense { asc, ascq })
            };
            let mut buffer = [0; SENSE_BUFFER];
            let n = sense.write_fixed(&mut buffer);
            prop_assert_eq!(Sense::parse(&buffer[..n]), Some(sense));
            let n = sense.write_descriptor(&mut buffer);
            prop_assert_eq!(Sense::parse(&buffer[..n]), Some(sense));
        }

        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Sense::parse(&bytes);
        }
    }
}
