//! Third-party copy by tokens, also known as ODX: POPULATE TOKEN, WRITE USING TOKEN, RECEIVE ROD TOKEN INFORMATION (SBC-4 4.28, 5.10,
//! 5.48; SPC-5 5.18.6, 6.30).
use super::{AdditionalSense, Blocks, Lba, Sense, be};

/// Bytes of a ROD token.
pub const TOKEN: usize = 512;
/// Most ranges in one command.
pub const MAX_RANGES: u16 = 128;
/// Seconds that a token lives when it isn't used, if the initiator doesn't say.
pub const DEFAULT_TIMEOUT: u32 = 60;
/// Most seconds that an initiator can ask for.
pub const MAX_TIMEOUT: u32 = 600;

/// ROD TYPE: what a token stands for (SPC-5 5.18.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RodType {
    /// Whatever is there when it is used.
    AccessUponReference,
    /// What was there when it was made; a change of it revokes the token.
    ChangeVulnerable,
    /// Zeros (SBC-4 4.28.4); made by initiators.
    Zeros,
}

impl RodType {
    /// ROD TYPE
    pub fn code(self) -> u32 {
        match self {
            RodType::AccessUponReference => 0x0001_0000,
            RodType::ChangeVulnerable => 0x0080_0001,
            RodType::Zeros => 0xffff_0001,
        }
    }
}

/// POPULATE TOKEN's parameter list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Populate {
    /// Complete the command before it is done.
    pub immediate: bool,
    /// Seconds.
    pub timeout: u32,
    /// What kind of token.
    pub rod: RodType,
    /// What it stands for, in this order.
    pub ranges: Vec<(Lba, Blocks)>,
}

/// WRITE USING TOKEN's parameter list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteUsing {
    /// Complete the command before it is done.
    pub immediate: bool,
    /// The token is not needed any more.
    pub delete: bool,
    /// Blocks of the token's data to skip.
    pub offset: u64,
    /// The token.
    pub token: [u8; TOKEN],
    /// Where its data goes, in this order.
    pub ranges: Vec<(Lba, Blocks)>,
}

/// Reads a POPULATE TOKEN parameter list.
pub fn parse_populate(list: &[u8]) -> Result<Populate, Sense> {
    if list.len() < 16 || list.len() < usize::from(be::u16(list, 0)) + 2 {
        return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    }
    let timeout = match be::u32(list, 4) {
        0 => DEFAULT_TIMEOUT,
        seconds if seconds <= MAX_TIMEOUT => seconds,
        _ => return Err(Sense::invalid_parameter(4, None)),
    };
    let valid = list[2] & 0x02 != 0; // RTV
    let rod = match be::u32(list, 8) {
        _ if !valid => RodType::ChangeVulnerable,
        0x0080_0001 | 0x0080_ffff => RodType::ChangeVulnerable,
        0x0001_0000 => RodType::AccessUponReference,
        _ => return Err(Sense::invalid_parameter(8, None)),
    };
    Ok(Populate { immediate: list[2] & 0x01 != 0, timeout, rod, ranges: parse_ranges(list, 14)? })
}

/// Reads a WRITE USING TOKEN parameter list.
pub fn parse_write_using(list: &[u8]) -> Result<WriteUsing, Sense> {
    if list.len() < 536 || list.len() < usize::from(be::u16(list, 0)) + 2 {
        return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    }
    let mut token = [0; TOKEN];
    token.copy_from_slice(&list[16..528]);
    Ok(WriteUsing {
        immediate: list[2] & 0x01 != 0,
        delete: list[2] & 0x02 != 0,
        offset: be::u64(list, 8),
        token,
        ranges: parse_ranges(list, 534)?,
    })
}

/// BLOCK DEVICE RANGE DESCRIPTOR LENGTH at `at`, and the descriptors (SBC-4 5.10.2).
fn parse_ranges(list: &[u8], at: usize) -> Result<Vec<(Lba, Blocks)>, Sense> {
    let bytes = usize::from(be::u16(list, at));
    let descriptors = list.get(at + 2..at + 2 + bytes);
    let descriptors = descriptors.ok_or(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR))?;
    if bytes < 16 {
        return Err(Sense::invalid_parameter(at as u16, None));
    }
    let ranges: Vec<_> = descriptors.chunks_exact(16).map(|d| (Lba(be::u64(d, 0)), Blocks(u64::from(be::u32(d, 8))))).collect();
    if ranges.len() > usize::from(MAX_RANGES) {
        return Err(Sense::illegal(AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS).at(false, at as u16, None));
    }
    // Ranges of one command may not overlap (SBC-4 5.10.2).
    let mut sorted = ranges.clone();
    sorted.sort();
    let overlap = sorted.windows(2).any(|pair| pair[0].0.0.checked_add(pair[0].1.0).is_none_or(|end| end > pair[1].0.0));
    if overlap {
        return Err(Sense::invalid_parameter(at as u16 + 2, None));
    }
    Ok(ranges)
}

/// A token of this software's: its type, a number, and the unit and size it speaks of (SPC-5 5.18.6.4).
pub fn make(rod: RodType, number: u64, naa: &[u8; 16], bytes: u64, block_size: u32) -> [u8; TOKEN] {
    let mut token = [0; TOKEN];
    token[..4].copy_from_slice(&rod.code().to_be_bytes());
    token[6..8].copy_from_slice(&0x01f8u16.to_be_bytes());
    token[8..16].copy_from_slice(&number.to_be_bytes());
    (token[16], token[20], token[21], token[23]) = (0xe4, 0x01, 0x03, 16);
    token[24..40].copy_from_slice(naa);
    token[56..64].copy_from_slice(&bytes.to_be_bytes());
    token[96..100].copy_from_slice(&block_size.to_be_bytes());
    token
}

/// The type and the number of a token.
pub fn read(token: &[u8; TOKEN]) -> Result<(RodType, u64), Sense> {
    if be::u16(token, 6) != 0x01f8 {
        return Err(Sense::illegal(AdditionalSense::INVALID_TOKEN_LENGTH));
    }
    let rod = match be::u32(token, 0) {
        0xffff_0001 => RodType::Zeros,
        0x0001_0000 => RodType::AccessUponReference,
        0x0080_0001 => RodType::ChangeVulnerable,
        _ => return Err(Sense::illegal(AdditionalSense::INVALID_TOKEN_UNSUPPORTED_TYPE)),
    };
    Ok((rod, be::u64(token, 8)))
}

/// What became of a POPULATE TOKEN or WRITE USING TOKEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenStatus {
    /// LIST IDENTIFIER
    pub list: u32,
    /// The service action: 10h or 11h.
    pub action: u8,
    /// `None` while it goes on; else how it ended.
    pub outcome: Option<Result<(), Sense>>,
    /// Blocks transferred, or that the token stands for.
    pub blocks: u64,
    /// The token that was made.
    pub token: Option<Box<[u8; TOKEN]>>,
}

/// RECEIVE ROD TOKEN INFORMATION data (SPC-5 6.30).
pub fn information(status: &TokenStatus) -> Vec<u8> {
    let mut data = vec![0; 32];
    data[4] = status.action;
    data[5] = match &status.outcome {
        None => 0x11,         // in progress, in the background
        Some(Ok(())) => 0x01, // without errors
        Some(Err(_)) => 0x02,
    };
    data[15] = 0xf1; // TRANSFER COUNT UNITS: blocks
    data[16..24].copy_from_slice(&status.blocks.to_be_bytes());
    if let Some(Err(sense)) = &status.outcome {
        let mut buffer = [0; super::sense::SENSE_BUFFER];
        let length = sense.write_fixed(&mut buffer);
        data[12] = 0x02; // CHECK CONDITION
        (data[13], data[14]) = (length as u8, length as u8);
        data.extend(&buffer[..length]);
    }
    match &status.token {
        Some(token) => {
            data.extend((TOKEN as u32 + 2).to_be_bytes());
            data.extend([0, 0]);
            data.extend(token.iter());
        }
        None => data.extend([0; 4]),
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn populate(ranges: &[(u64, u32)]) -> Vec<u8> {
        let mut list = vec![0; 16];
        list[..2].copy_from_slice(&(14 + 16 * ranges.len() as u16).to_be_bytes());
        list[14..16].copy_from_slice(&(16 * ranges.len() as u16).to_be_bytes());
        for (lba, blocks) in ranges {
            list.extend(lba.to_be_bytes());
            list.extend(blocks.to_be_bytes());
            list.extend([0; 4]);
        }
        list
    }

    #[test]
    fn a_populate_list_is_read() {
        let parsed = parse_populate(&populate(&[(8, 2), (1, 3)])).unwrap();
        assert_eq!(parsed.ranges, [(Lba(8), Blocks(2)), (Lba(1), Blocks(3))]);
        assert_eq!((parsed.timeout, parsed.rod, parsed.immediate), (DEFAULT_TIMEOUT, RodType::ChangeVulnerable, false));
        assert!(parse_populate(&populate(&[(8, 2), (9, 3)])).is_err(), "they overlap");
        assert!(parse_populate(&populate(&[(u64::MAX, 2), (9, 3)])).is_ok(), "beyond the end is for the unit to judge");
        assert!(parse_populate(&populate(&[])).is_err());
        assert!(parse_populate(&populate(&[(1, 1)])[..31]).is_err());
    }

    #[test]
    fn tokens_read_back() {
        let token = make(RodType::ChangeVulnerable, 77, &[6; 16], 4096, 512);
        assert_eq!(read(&token), Ok((RodType::ChangeVulnerable, 77)));
        let mut zero = [0; TOKEN];
        zero[..8].copy_from_slice(&[0xff, 0xff, 0, 1, 0, 0, 1, 0xf8]);
        assert_eq!(read(&zero), Ok((RodType::Zeros, 0)));
        assert_eq!(read(&[0; TOKEN]), Err(Sense::illegal(AdditionalSense::INVALID_TOKEN_LENGTH)));
    }

    #[test]
    fn information_carries_the_token() {
        let token = make(RodType::ChangeVulnerable, 1, &[6; 16], 512, 512);
        let status = TokenStatus { list: 1, action: 0x10, outcome: Some(Ok(())), blocks: 1, token: Some(Box::new(token)) };
        let data = information(&status);
        assert_eq!(data.len(), 32 + 4 + 2 + 512);
        assert_eq!(data[..6], [0, 0, 2, 0x22, 0x10, 0x01]);
        assert_eq!(data[32..38], [0, 0, 2, 2, 0, 0]);
        assert_eq!(data[38..], token);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(list in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = parse_populate(&list);
            let _ = parse_write_using(&list);
        }
    }
}
