//! A command as it is sent: the CDB and its data.
use std::{fmt, str::FromStr};

use anyhow::{Context, bail};

use crate::{
    command::{Definition, Kind},
    random::Random,
};

/// What both disks look like.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Bytes of a logical block.
    pub block: usize,
    /// Number of logical blocks.
    pub capacity: u64,
}

/// Where Data-Out comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// There is none.
    None,
    /// These bytes; the label says what is special about them.
    Bytes {
        /// The data.
        bytes: Vec<u8>,
        /// What is special about it.
        label: &'static str,
    },
    /// Random bytes.
    Random {
        /// Where the numbers begin.
        seed: u64,
        /// How many.
        length: usize,
    },
    /// What the medium holds from a block on, maybe with one byte changed. What the medium has not is random.
    Medium {
        /// The first block.
        lba: u64,
        /// So many bytes from there.
        held: usize,
        /// The byte that is changed.
        flip: Option<usize>,
        /// Bytes altogether.
        length: usize,
    },
    /// A mode parameter list that is made from the unit's own pages.
    Mode(ModeList),
}

/// A mode parameter list, by what is changed in what the unit says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeList {
    /// PAGE CODE
    pub page: u8,
    /// For the 10-byte command.
    pub ten: bool,
    /// With a block descriptor.
    pub descriptor: bool,
    /// Which bit of which byte of the page is inverted.
    pub flip: Option<(usize, u8)>,
    /// Bytes that are added to the list, or cut off.
    pub extra: isize,
}

impl Payload {
    /// How many bytes; of a [`Payload::Mode`] it isn't known before it is made.
    #[cfg(test)]
    pub fn length(&self) -> usize {
        match self {
            Payload::None | Payload::Mode(_) => 0,
            Payload::Bytes { bytes, .. } => bytes.len(),
            Payload::Random { length, .. } | Payload::Medium { length, .. } => *length,
        }
    }

    /// What is special about it.
    pub fn label(&self) -> String {
        match self {
            Payload::Bytes { label, .. } => (*label).to_string(),
            Payload::Medium { flip: Some(_), .. } => "miscompare".to_string(),
            Payload::Mode(list) => {
                let flip = list.flip.map(|(byte, bit)| format!(" byte {byte} bit {bit} changed")).unwrap_or_default();
                let extra = match list.extra {
                    0 => "",
                    1.. => " with more after it",
                    _ => " cut off",
                };
                let descriptor = if list.descriptor { " with a block descriptor" } else { "" };
                format!("page {:02X}h{flip}{descriptor}{extra}", list.page)
            }
            _ => String::new(),
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::None | Payload::Mode(_) => write!(f, "none"),
            Payload::Bytes { bytes, .. } => write!(f, "{}", hex(bytes)),
            Payload::Random { seed, length } => write!(f, "random:{seed}:{length}"),
            Payload::Medium { lba, held, flip, length } => {
                write!(f, "medium:{lba}:{held}:{}:{length}", flip.map_or("-".to_string(), |flip| flip.to_string()))
            }
        }
    }
}

impl FromStr for Payload {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Payload> {
        let parts: Vec<&str> = text.split(':').collect();
        Ok(match parts[..] {
            ["none"] => Payload::None,
            ["random", seed, length] => Payload::Random { seed: seed.parse()?, length: length.parse()? },
            ["medium", lba, held, flip, length] => Payload::Medium {
                lba: lba.parse()?,
                held: held.parse()?,
                flip: (flip != "-").then(|| flip.parse()).transpose()?,
                length: length.parse()?,
            },
            [digits] => Payload::Bytes { bytes: unhex(digits)?, label: "" },
            _ => bail!("{text}: not hexadecimal, none, random:SEED:LENGTH or medium:LBA:HELD:FLIP:LENGTH"),
        })
    }
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The CDB.
    pub cdb: Vec<u8>,
    /// Data-Out.
    pub out: Payload,
    /// Bytes of room for Data-In.
    pub room: usize,
}

impl Request {
    /// What it is, if it is known.
    pub fn definition(&self) -> Option<&'static Definition> {
        Definition::of(&self.cdb)
    }

    /// Its name in the standards, or its code.
    pub fn name(&self) -> String {
        match (self.definition(), &self.cdb[..]) {
            (Some(definition), _) => definition.name.to_string(),
            (None, [code @ (0x5e | 0x7f | 0x83 | 0x84 | 0x9e | 0x9f | 0xa3 | 0xa4), second, ..]) => {
                format!("OPERATION CODE {code:02X}h/{:02X}h", second & 0x1f)
            }
            (None, cdb) => format!("OPERATION CODE {:02X}h", cdb.first().unwrap_or(&0)),
        }
    }
}

/// The bytes that a command transfers by its CDB.
pub fn needed(definition: &Definition, cdb: &[u8], geometry: &Geometry) -> u64 {
    let block = geometry.block as u64;
    let count = definition.count(cdb);
    match definition.kind {
        Kind::NoData => 0,
        Kind::Read | Kind::Write | Kind::OrWrite => count.saturating_mul(block),
        Kind::CompareAndWrite => 2 * count * block,
        Kind::Verify => match definition.value(cdb, "bytchk") {
            1 => count.saturating_mul(block),
            3 => block.min(count.saturating_mul(block)),
            _ => 0,
        },
        Kind::WriteSame => u64::from(definition.value(cdb, "ndob") == 0) * block,
        Kind::Describe(_) if definition.count.is_none() => 8,
        Kind::Unmap | Kind::ModeSelect | Kind::Describe(_) => count,
    }
}

/// Random bytes of a seed.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    Random::new(seed).bytes(length)
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal digits; blanks between them are skipped.
pub fn unhex(digits: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<u32> = digits
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).with_context(|| format!("{c} is no hexadecimal digit")))
        .collect::<anyhow::Result<_>>()?;
    if !digits.len().is_multiple_of(2) {
        bail!("an odd number of hexadecimal digits");
    }
    Ok(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_read_back_from_its_text() {
        let payloads = [
            Payload::None,
            Payload::Bytes { bytes: vec![0, 0xff], label: "" },
            Payload::Random { seed: 5, length: 512 },
            Payload::Medium { lba: 9, held: 512, flip: Some(3), length: 1024 },
            Payload::Medium { lba: 9, held: 512, flip: None, length: 512 },
        ];
        for payload in payloads {
            assert_eq!(payload.to_string().parse::<Payload>().unwrap(), payload);
        }
        assert!("0g".parse::<Payload>().is_err());
        assert!("abc".parse::<Payload>().is_err());
        assert!("random:1".parse::<Payload>().is_err());
    }

    #[test]
    fn data_is_as_long_as_the_cdb_says() {
        let geometry = Geometry { block: 512, capacity: 1000 };
        let needed = |cdb: &[u8]| needed(Definition::of(cdb).unwrap(), cdb, &geometry);
        assert_eq!(needed(&[0x08, 0, 0, 0, 0, 0]), 256 * 512);
        assert_eq!(needed(&[0x2f, 0x02, 0, 0, 0, 0, 0, 0, 3, 0]), 3 * 512);
        assert_eq!(needed(&[0x2f, 0x06, 0, 0, 0, 0, 0, 0, 3, 0]), 512);
        assert_eq!(needed(&[0x2f, 0x00, 0, 0, 0, 0, 0, 0, 3, 0]), 0);
        assert_eq!(needed(&[0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0]), 0);
    }
}
