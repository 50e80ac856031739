//! What the unit says of itself: its limits, and the commands that it has.
use std::collections::HashMap;

/// Limits and abilities, read from VPD pages and from REPORT SUPPORTED OPERATION CODES.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// WSNZ: WRITE SAME of zero blocks is refused.
    pub wsnz: bool,
    /// 0: no limit, here and below.
    pub max_transfer: u64,
    pub max_compare_and_write: u64,
    pub max_unmap: u64,
    pub max_unmap_descriptors: u64,
    pub unmap_granularity: u64,
    pub unmap_alignment: u64,
    pub max_write_same: u64,
    pub max_atomic: u64,
    pub atomic_alignment: u64,
    pub atomic_granularity: u64,
    pub max_atomic_with_boundary: u64,
    pub max_atomic_boundary: u64,
    /// UNMAP bit in WRITE SAME(16), and in WRITE SAME(10).
    pub lbpws: [bool; 2],
    pub lbprz: bool,
    pub anchors: bool,
    /// The NAA designator.
    pub naa: Vec<u8>,
    /// CDB usage data by operation code and service action.
    pub usage: HashMap<(u8, Option<u8>), Vec<u8>>,
    /// WP and WCE: initiators can change them.
    pub write_protected: bool,
    pub write_cache: bool,
}

pub fn be16(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 2).map_or(0, |b| b.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

pub fn be32(bytes: &[u8], at: usize) -> u64 {
    be16(bytes, at) << 16 | be16(bytes, at + 2)
}

pub fn be64(bytes: &[u8], at: usize) -> u64 {
    be32(bytes, at) << 32 | be32(bytes, at + 4)
}

/// The length of a CDB by its operation code (SPC-6 4.2.5.1); vendor specific ones have 16 bytes here.
pub fn cdb_length(cdb: &[u8]) -> usize {
    match cdb[0] >> 5 {
        0 => 6,
        1 | 2 => 10,
        3 if cdb[0] == 0x7f => 8 + usize::from(cdb.get(7).copied().unwrap_or(0)),
        5 => 12,
        _ => 16,
    }
}

impl Facts {
    /// SBC-4 6.6.4
    pub fn block_limits(&mut self, page: &[u8]) {
        self.wsnz = page[4] & 1 != 0;
        self.max_compare_and_write = u64::from(page[5]);
        self.max_transfer = be32(page, 8);
        self.max_unmap = be32(page, 20);
        self.max_unmap_descriptors = be32(page, 24);
        self.unmap_granularity = be32(page, 28);
        let alignment = be32(page, 32);
        self.unmap_alignment = if alignment >> 31 != 0 { alignment & 0x7fff_ffff } else { 0 };
        self.max_write_same = be64(page, 36);
        self.max_atomic = be32(page, 44);
        self.atomic_alignment = be32(page, 48);
        self.atomic_granularity = be32(page, 52);
        self.max_atomic_with_boundary = be32(page, 56);
        self.max_atomic_boundary = be32(page, 60);
    }

    /// SBC-4 6.6.6
    pub fn provisioning(&mut self, page: &[u8]) {
        self.lbpws = [page[5] & 0x40 != 0, page[5] & 0x20 != 0];
        self.lbprz = page[5] & 0x1c == 0x04;
        self.anchors = page[5] & 0x02 != 0;
    }

    /// SPC-6 7.7.6: the first NAA designator of the logical unit.
    pub fn identification(&mut self, page: &[u8]) {
        let mut rest = page.get(4..).unwrap_or(&[]);
        while let [_, kind, _, length, ..] = *rest {
            let end = 4 + usize::from(length);
            if kind & 0x3f == 0x03 && self.naa.is_empty() {
                self.naa = rest[4..end].to_vec();
            }
            rest = &rest[end..];
        }
    }

    /// The usage map for a CDB. `Err(true)`: only the service action is unknown.
    pub fn usage_of(&self, cdb: &[u8]) -> Result<&[u8], bool> {
        let action = cdb.get(1).map_or(0, |byte| byte & 0x1f);
        if let Some(usage) = self.usage.get(&(cdb[0], None)).or_else(|| self.usage.get(&(cdb[0], Some(action)))) {
            return Ok(usage);
        }
        Err(self.usage.keys().any(|(code, _)| *code == cdb[0]))
    }

    /// Whether the unit says that it has this command.
    pub fn has(&self, code: u8, action: Option<u8>) -> bool {
        self.usage.contains_key(&(code, action))
    }

    /// Whether a bit of the CDB is outside of the usage map. The logical unit number of SCSI-2 in 6-byte commands is ignored.
    pub fn reserved(&self, cdb: &[u8]) -> bool {
        let Ok(usage) = self.usage_of(cdb) else { return false };
        let ignored = |at: usize| if at == 1 && usage.len() == 6 { 0xe0 } else { 0 };
        usage.iter().zip(cdb).enumerate().skip(1).any(|(at, (usage, byte))| byte & !usage & !ignored(at) != 0)
    }
}
