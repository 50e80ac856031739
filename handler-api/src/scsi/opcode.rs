//! The one table of commands. It drives parsing, the check of reserved bits, and REPORT SUPPORTED OPERATION CODES.

/// A command that this software knows, by its name in the standards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Opcode {
    TestUnitReady,
    RequestSense,
    Read6,
    Write6,
    Inquiry,
    ModeSelect6,
    ModeSense6,
    StartStopUnit,
    PreventAllowMediumRemoval,
    ReadCapacity10,
    Read10,
    Write10,
    SynchronizeCache10,
    WriteSame10,
    Unmap,
    ModeSelect10,
    ModeSense10,
    Read16,
    CompareAndWrite,
    Write16,
    SynchronizeCache16,
    WriteSame16,
    ReadCapacity16,
    ReportLuns,
    ReportSupportedOperationCodes,
    Read12,
    Write12,
}

/// What the table knows of a command.
#[derive(Debug)]
pub struct Entry {
    /// Which.
    pub opcode: Opcode,
    /// OPERATION CODE
    pub code: u8,
    /// SERVICE ACTION, where there is one (byte 1, bits 4 to 0).
    pub service_action: Option<u8>,
    /// CDB usage data (SPC-6 6.35.3): a bit is set where this software looks at, or tolerates, a bit of the CDB. As long as the CDB.
    pub usage: &'static [u8],
}

macro_rules! table {
    ($($opcode:ident $code:literal $(/ $action:literal)? : $($usage:literal)*;)*) => {
        /// All commands.
        pub static TABLE: &[Entry] = &[$(Entry {
            opcode: Opcode::$opcode,
            code: $code,
            service_action: table!(@action $($action)?),
            usage: &[$code, $($usage),*],
        }),*];
    };
    (@action) => { None };
    (@action $action:literal) => { Some($action) };
}

// Byte 0 is the operation code, the last one CONTROL: NACA is not supported, the rest of it is reserved or obsolete. GROUP NUMBER is
// tolerated and ignored (SBC-4 4.22 allows that).
table! {
    TestUnitReady                 0x00: 0x00 0x00 0x00 0x00 0x00;
    RequestSense                  0x03: 0x01 0x00 0x00 0xff 0x00;
    Read6                         0x08: 0x1f 0xff 0xff 0xff 0x00;
    Write6                        0x0a: 0x1f 0xff 0xff 0xff 0x00;
    Inquiry                       0x12: 0x01 0xff 0xff 0xff 0x00;
    ModeSelect6                   0x15: 0x11 0x00 0x00 0xff 0x00;
    ModeSense6                    0x1a: 0x08 0xff 0xff 0xff 0x00;
    StartStopUnit                 0x1b: 0x01 0x00 0x0f 0xf7 0x00;
    PreventAllowMediumRemoval     0x1e: 0x00 0x00 0x00 0x03 0x00;
    ReadCapacity10                0x25: 0x00 0xff 0xff 0xff 0xff 0x00 0x00 0x01 0x00;
    Read10                        0x28: 0xfa 0xff 0xff 0xff 0xff 0x3f 0xff 0xff 0x00;
    Write10                       0x2a: 0xfa 0xff 0xff 0xff 0xff 0x3f 0xff 0xff 0x00;
    SynchronizeCache10            0x35: 0x02 0xff 0xff 0xff 0xff 0x3f 0xff 0xff 0x00;
    WriteSame10                   0x41: 0xf8 0xff 0xff 0xff 0xff 0x3f 0xff 0xff 0x00;
    Unmap                         0x42: 0x01 0x00 0x00 0x00 0x00 0x3f 0xff 0xff 0x00;
    ModeSelect10                  0x55: 0x11 0x00 0x00 0x00 0x00 0x00 0xff 0xff 0x00;
    ModeSense10                   0x5a: 0x18 0xff 0xff 0x00 0x00 0x00 0xff 0xff 0x00;
    Read16                        0x88: 0xfa 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0x3f 0x00;
    CompareAndWrite               0x89: 0xfa 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0x00 0x00 0x00 0xff 0x3f 0x00;
    Write16                       0x8a: 0xfa 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0x3f 0x00;
    SynchronizeCache16            0x91: 0x02 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0x3f 0x00;
    WriteSame16                   0x93: 0xf9 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0x3f 0x00;
    ReadCapacity16                0x9e / 0x10: 0x1f 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0x01 0x00;
    ReportLuns                    0xa0: 0x00 0xff 0x00 0x00 0x00 0xff 0xff 0xff 0xff 0x00 0x00;
    ReportSupportedOperationCodes 0xa3 / 0x0c: 0x1f 0x87 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0x00 0x00;
    Read12                        0xa8: 0xfa 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0x3f 0x00;
    Write12                       0xaa: 0xfa 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0xff 0x3f 0x00;
}

/// The entry of an operation code and, where it has them, a service action. `Err(true)`: the operation code is known, the service
/// action is not.
pub fn find(code: u8, service_action: u8) -> Result<&'static Entry, bool> {
    let mut known = false;
    for entry in TABLE.iter().filter(|entry| entry.code == code) {
        match entry.service_action {
            Some(action) if action != service_action => known = true,
            _ => return Ok(entry),
        }
    }
    Err(known)
}

/// Whether an operation code has service actions in its byte 1.
pub fn has_service_actions(code: u8) -> bool {
    TABLE.iter().any(|entry| entry.code == code && entry.service_action.is_some())
}

/// The length of a CDB by its operation code (SPC-6 4.2.5.1). Vendor specific groups have none: `None`.
pub fn cdb_length(cdb: &[u8]) -> Option<usize> {
    match cdb.first()? >> 5 {
        0 => Some(6),
        1 | 2 => Some(10),
        3 => (cdb[0] == 0x7f).then(|| 8 + usize::from(super::be::u8(cdb, 7))),
        4 => Some(16),
        5 => Some(12),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usage_map_is_as_long_as_its_cdb() {
        for entry in TABLE {
            assert_eq!(Some(entry.usage.len()), cdb_length(entry.usage), "{:?}", entry.opcode);
        }
    }

    #[test]
    fn an_unknown_service_action_is_told_from_an_unknown_opcode() {
        assert!(find(0x9e, 0x10).is_ok());
        assert_eq!(find(0x9e, 0x1f).err(), Some(true));
        assert_eq!(find(0xff, 0).err(), Some(false));
    }
}
