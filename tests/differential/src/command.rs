//! The layout of CDBs, as SPC-6 and SBC-4 define it: written down here anew, not taken from the project, so that one mistake isn't in
//! both.

/// A number in a CDB, big-endian.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    at: usize,
    bytes: usize,
    mask: u64,
}

impl Field {
    /// Its value.
    pub fn get(self, cdb: &[u8]) -> u64 {
        let bytes = cdb.get(self.at..self.at + self.bytes).unwrap_or_default();
        bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)) & self.mask
    }

    /// Sets it, as much of it as there is room for.
    pub fn set(self, cdb: &mut [u8], value: u64) {
        let value = (value & self.mask).to_be_bytes();
        for (to, from) in cdb[self.at..self.at + self.bytes].iter_mut().zip(&value[8 - self.bytes..]) {
            *to |= from;
        }
    }
}

/// A part of one byte of a CDB.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Which byte.
    pub at: usize,
    /// Which bits of it.
    pub mask: u8,
    /// The field's name.
    pub name: &'static str,
    /// Its value matters, not only that it is set.
    pub valued: bool,
}

/// What kind of data goes with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    NoData,
    Read,
    Write,
    Verify,
    OrWrite,
    CompareAndWrite,
    WriteSame,
    Unmap,
    ModeSelect,
    /// Parameter data that says what the unit is.
    Describe(Format),
}

/// Parameter data by its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Sense,
    Inquiry,
    Mode6,
    Mode10,
    Log,
    Capacity10,
    Capacity16,
    LbaStatus,
    Luns,
    PortGroups,
    Opcodes,
    TaskManagement,
    Opaque,
}

/// A command.
#[derive(Debug)]
pub struct Definition {
    /// As in the standards.
    pub name: &'static str,
    /// OPERATION CODE
    pub code: u8,
    /// SERVICE ACTION in byte 1.
    pub action: Option<u8>,
    /// Bytes of the CDB.
    pub length: usize,
    /// LOGICAL BLOCK ADDRESS
    pub lba: Option<Field>,
    /// TRANSFER LENGTH, ALLOCATION LENGTH, PARAMETER LIST LENGTH, NUMBER OF LOGICAL BLOCKS
    pub count: Option<Field>,
    /// The other fields.
    pub flags: &'static [Flag],
    /// Its data.
    pub kind: Kind,
}

const fn field(at: usize, bytes: usize) -> Option<Field> {
    let mask = if bytes == 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
    Some(Field { at, bytes, mask })
}

const LBA6: Option<Field> = Some(Field { at: 1, bytes: 3, mask: 0x1f_ffff });
const LBA10: Option<Field> = field(2, 4);
const LBA16: Option<Field> = field(2, 8);

const fn bit(at: usize, bit: u8, name: &'static str) -> Flag {
    Flag { at, mask: 1 << bit, name, valued: false }
}

const fn some(at: usize, mask: u8, name: &'static str) -> Flag {
    Flag { at, mask, name, valued: false }
}

const fn value(at: usize, mask: u8, name: &'static str) -> Flag {
    Flag { at, mask, name, valued: true }
}

macro_rules! commands {
    ($($name:literal $code:literal $(/ $action:literal)? $length:literal $lba:expr, $count:expr, $kind:expr, [$($flag:expr),*];)*) => {
        /// The commands that are sent.
        pub static COMMANDS: &[Definition] = &[$(Definition {
            name: $name,
            code: $code,
            action: commands!(@action $($action)?),
            length: $length,
            lba: $lba,
            count: $count,
            flags: &[$($flag),*],
            kind: $kind,
        }),*];
    };
    (@action) => { None };
    (@action $action:literal) => { Some($action) };
}

const PROTECT: Flag = some(1, 0xe0, "protect");
const DPO: Flag = bit(1, 4, "dpo");
const FUA: Flag = bit(1, 3, "fua");
const RARC: Flag = bit(1, 2, "rarc");
const FUA_NV: Flag = bit(1, 1, "fua_nv");
const BYTCHK: Flag = value(1, 0x06, "bytchk");
const IMMED: Flag = bit(1, 1, "immed");
const SYNC_NV: Flag = bit(1, 2, "sync_nv");
const ANCHOR: Flag = bit(1, 4, "anchor");
const UNMAP: Flag = bit(1, 3, "unmap");
const LBDATA: Flag = bit(1, 1, "lbdata");
const PBDATA: Flag = bit(1, 2, "pbdata");
const PAGE: Flag = value(2, 0x3f, "page");
const PC: Flag = value(2, 0xc0, "pc");
const SUBPAGE: Flag = value(3, 0xff, "subpage");
const DBD: Flag = bit(1, 3, "dbd");
const PF: Flag = bit(1, 4, "pf");
const SP: Flag = bit(1, 0, "sp");

const fn group(at: usize) -> Flag {
    some(at, 0x3f, "group")
}

use Format::*;
use Kind::*;
commands! {
    "TEST UNIT READY" 0x00 6 None, None, NoData, [];
    "REQUEST SENSE" 0x03 6 None, field(4, 1), Describe(Sense), [bit(1, 0, "desc")];
    "READ(6)" 0x08 6 LBA6, field(4, 1), Read, [];
    "WRITE(6)" 0x0a 6 LBA6, field(4, 1), Write, [];
    "INQUIRY" 0x12 6 None, field(3, 2), Describe(Inquiry), [bit(1, 0, "evpd"), bit(1, 1, "cmddt"), value(2, 0xff, "page")];
    "MODE SELECT(6)" 0x15 6 None, field(4, 1), ModeSelect, [PF, SP, bit(1, 1, "rtd")];
    "MODE SENSE(6)" 0x1a 6 None, field(4, 1), Describe(Mode6), [DBD, PC, PAGE, SUBPAGE];
    "START STOP UNIT" 0x1b 6 None, None, NoData, [bit(1, 0, "immed"), value(3, 0x0f, "modifier"), value(4, 0xf0, "power condition"),
        bit(4, 2, "no_flush"), bit(4, 1, "loej"), bit(4, 0, "start")];
    "READ CAPACITY(10)" 0x25 10 LBA10, None, Describe(Capacity10), [bit(8, 0, "pmi")];
    "READ(10)" 0x28 10 LBA10, field(7, 2), Read, [PROTECT, DPO, FUA, RARC, FUA_NV, group(6)];
    "WRITE(10)" 0x2a 10 LBA10, field(7, 2), Write, [PROTECT, DPO, FUA, FUA_NV, group(6)];
    "WRITE AND VERIFY(10)" 0x2e 10 LBA10, field(7, 2), Write, [PROTECT, DPO, BYTCHK, group(6)];
    "VERIFY(10)" 0x2f 10 LBA10, field(7, 2), Verify, [PROTECT, DPO, BYTCHK, group(6)];
    "PRE-FETCH(10)" 0x34 10 LBA10, field(7, 2), NoData, [IMMED, group(6)];
    "SYNCHRONIZE CACHE(10)" 0x35 10 LBA10, field(7, 2), NoData, [IMMED, SYNC_NV, group(6)];
    "WRITE SAME(10)" 0x41 10 LBA10, field(7, 2), WriteSame, [PROTECT, ANCHOR, UNMAP, PBDATA, LBDATA, group(6)];
    "UNMAP" 0x42 10 None, field(7, 2), Unmap, [bit(1, 0, "anchor"), group(6)];
    "LOG SENSE" 0x4d 10 None, field(7, 2), Describe(Log), [SP, bit(1, 1, "ppc"), PAGE, PC, SUBPAGE, some(5, 0xff, "pointer"),
        some(6, 0xff, "pointer")];
    "MODE SELECT(10)" 0x55 10 None, field(7, 2), ModeSelect, [PF, SP, bit(1, 1, "rtd")];
    "MODE SENSE(10)" 0x5a 10 None, field(7, 2), Describe(Mode10), [bit(1, 4, "llbaa"), DBD, PC, PAGE, SUBPAGE];
    "RECEIVE COPY STATUS(LID1)" 0x84 / 0x00 16 None, field(10, 4), Describe(Opaque), [some(2, 0xff, "list identifier")];
    "RECEIVE COPY OPERATING PARAMETERS" 0x84 / 0x03 16 None, field(10, 4), Describe(Opaque), [some(2, 0xff, "list identifier")];
    "READ(16)" 0x88 16 LBA16, field(10, 4), Read, [PROTECT, DPO, FUA, RARC, FUA_NV, group(14)];
    "COMPARE AND WRITE" 0x89 16 LBA16, field(13, 1), CompareAndWrite, [PROTECT, DPO, FUA, FUA_NV, group(14)];
    "WRITE(16)" 0x8a 16 LBA16, field(10, 4), Write, [PROTECT, DPO, FUA, FUA_NV, group(14)];
    "ORWRITE(16)" 0x8b 16 LBA16, field(10, 4), OrWrite, [PROTECT, DPO, FUA, FUA_NV, group(14)];
    "WRITE AND VERIFY(16)" 0x8e 16 LBA16, field(10, 4), Write, [PROTECT, DPO, BYTCHK, group(14)];
    "VERIFY(16)" 0x8f 16 LBA16, field(10, 4), Verify, [PROTECT, DPO, BYTCHK, group(14)];
    "PRE-FETCH(16)" 0x90 16 LBA16, field(10, 4), NoData, [IMMED, group(14)];
    "SYNCHRONIZE CACHE(16)" 0x91 16 LBA16, field(10, 4), NoData, [IMMED, SYNC_NV, group(14)];
    "WRITE SAME(16)" 0x93 16 LBA16, field(10, 4), WriteSame, [PROTECT, ANCHOR, UNMAP, PBDATA, LBDATA, bit(1, 0, "ndob"), group(14)];
    "WRITE ATOMIC(16)" 0x9c 16 LBA16, field(12, 2), Write, [PROTECT, DPO, FUA, some(10, 0xff, "boundary"), some(11, 0xff, "boundary"),
        group(14)];
    "READ CAPACITY(16)" 0x9e / 0x10 16 LBA16, field(10, 4), Describe(Capacity16), [bit(14, 0, "pmi")];
    "GET LBA STATUS(16)" 0x9e / 0x12 16 LBA16, field(10, 4), Describe(LbaStatus), [value(14, 0xff, "report type")];
    "REPORT LUNS" 0xa0 12 None, field(6, 4), Describe(Luns), [value(2, 0xff, "select report")];
    "REPORT TARGET PORT GROUPS" 0xa3 / 0x0a 12 None, field(6, 4), Describe(PortGroups), [value(1, 0xe0, "format")];
    "REPORT SUPPORTED OPERATION CODES" 0xa3 / 0x0c 12 None, field(6, 4), Describe(Opcodes), [bit(2, 7, "rctd"), value(2, 0x07, "options"),
        some(3, 0xff, "operation code"), some(4, 0xff, "service action"), some(5, 0xff, "service action")];
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS" 0xa3 / 0x0d 12 None, field(6, 4), Describe(TaskManagement), [bit(2, 7, "repd")];
    "READ(12)" 0xa8 12 LBA10, field(6, 4), Read, [PROTECT, DPO, FUA, RARC, FUA_NV, group(10)];
    "WRITE(12)" 0xaa 12 LBA10, field(6, 4), Write, [PROTECT, DPO, FUA, FUA_NV, group(10)];
    "WRITE AND VERIFY(12)" 0xae 12 LBA10, field(6, 4), Write, [PROTECT, DPO, BYTCHK, group(10)];
    "VERIFY(12)" 0xaf 12 LBA10, field(6, 4), Verify, [PROTECT, DPO, BYTCHK, group(10)];
}

impl Definition {
    /// The command of a CDB, if it is one of those that are sent.
    pub fn of(cdb: &[u8]) -> Option<&'static Definition> {
        COMMANDS
            .iter()
            .find(|c| Some(&c.code) == cdb.first() && c.action.is_none_or(|a| cdb.get(1).is_some_and(|b| b & 0x1f == a)))
    }

    /// How many blocks, or bytes, it is about. No blocks are 256 in the 6-byte commands (SBC-4 5.16).
    pub fn count(&self, cdb: &[u8]) -> u64 {
        match self.count.map_or(0, |field| field.get(cdb)) {
            0 if self.length == 6 && self.lba.is_some() => 256,
            count => count,
        }
    }

    /// The value of a field by its name, or 0.
    pub fn value(&self, cdb: &[u8], name: &str) -> u8 {
        let flag = self.flags.iter().find(|flag| flag.name == name);
        flag.map_or(0, |f| (cdb.get(f.at).unwrap_or(&0) & f.mask) >> f.mask.trailing_zeros())
    }

    /// The bits of a CDB that are defined, without CONTROL.
    pub fn defined(&self) -> Vec<u8> {
        let mut bits = vec![0; self.length];
        bits[0] = 0xff;
        if self.action.is_some() {
            bits[1] = 0x1f;
        }
        for field in [self.lba, self.count].into_iter().flatten() {
            field.set(&mut bits, u64::MAX);
        }
        for flag in self.flags {
            bits[flag.at] |= flag.mask;
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_one_command_do_not_overlap() {
        for command in COMMANDS {
            let mut seen = vec![0u8; command.length];
            let fields = [command.lba, command.count].into_iter().flatten().map(|field| {
                let mut bits = vec![0; command.length];
                field.set(&mut bits, u64::MAX);
                bits
            });
            let flags = command.flags.iter().map(|flag| {
                let mut bits = vec![0; command.length];
                bits[flag.at] = flag.mask;
                bits
            });
            for bits in fields.chain(flags) {
                for (seen, bits) in seen.iter_mut().zip(bits) {
                    assert_eq!(*seen & bits, 0, "{}", command.name);
                    *seen |= bits;
                }
            }
            assert_eq!(seen[0] | seen[command.length - 1], 0, "{}: operation code and CONTROL", command.name);
        }
    }

    #[test]
    fn a_number_that_was_set_is_read_back() {
        let mut cdb = [0; 16];
        LBA16.unwrap().set(&mut cdb, 0x0102_0304_0506_0708);
        assert_eq!((cdb[2], cdb[9], LBA16.unwrap().get(&cdb)), (1, 8, 0x0102_0304_0506_0708));
        let mut cdb = [0; 6];
        LBA6.unwrap().set(&mut cdb, u64::MAX);
        assert_eq!(cdb, [0, 0x1f, 0xff, 0xff, 0, 0]);
    }

    #[test]
    fn a_command_is_found_by_code_and_service_action() {
        assert_eq!(Definition::of(&[0x9e, 0x12]).map(|c| c.name), Some("GET LBA STATUS(16)"));
        assert!(Definition::of(&[0x9e, 0x1f]).is_none());
        assert_eq!(Definition::of(&[0x08, 0, 0, 0, 0, 0]).unwrap().count(&[0x08, 0, 0, 0, 0, 0]), 256);
    }
}
