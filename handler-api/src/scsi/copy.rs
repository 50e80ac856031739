//! Third-party copy, the short form: EXTENDED COPY(LID1) and what goes with it (SPC-4 5.17, 6.4, 6.18).
use super::{AdditionalSense, Blocks, Lba, Sense, be};

/// Most CSCD descriptors in one command.
pub const MAX_CSCDS: u16 = 8;
/// Most segment descriptors in one command.
pub const MAX_SEGMENTS: u16 = 64;
/// Most bytes of descriptors in one command.
pub const MAX_DESCRIPTORS: u32 = MAX_CSCDS as u32 * CSCD as u32 + MAX_SEGMENTS as u32 * BLOCK_TO_BLOCK as u32;
/// Most bytes of one segment: 65535 blocks fit, whatever their size.
pub const MAX_SEGMENT_BYTES: u32 = u32::MAX;

const HEADER: usize = 16;
const CSCD: usize = 32;
const BLOCK_TO_BLOCK: usize = 28;

/// A unit that takes part, as the initiator names it: a designator of its Device Identification page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cscd {
    /// DESIGNATOR TYPE
    pub kind: u8,
    /// DESIGNATOR LENGTH and DESIGNATOR
    pub length: u8,
    /// The designator, padded with zeros.
    pub designator: [u8; 20],
    /// PERIPHERAL DEVICE TYPE
    pub device_type: u8,
    /// DISK BLOCK LENGTH; 0: not said.
    pub block_length: u32,
}

/// A block device to block device segment (SPC-4 6.4.6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// SOURCE CSCD DESCRIPTOR ID
    pub source: u16,
    /// DESTINATION CSCD DESCRIPTOR ID
    pub destination: u16,
    /// DC: `blocks` are the destination's.
    pub in_destination_blocks: bool,
    /// BLOCK DEVICE NUMBER OF BLOCKS
    pub blocks: Blocks,
    /// Where it is read.
    pub from: Lba,
    /// Where it is written.
    pub to: Lba,
}

/// A parameter list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyList {
    /// LIST IDENTIFIER, unless LIST ID USAGE says that there is none.
    pub id: Option<u8>,
    /// Who takes part.
    pub cscds: Vec<Cscd>,
    /// What is to be done, in this order.
    pub segments: Vec<Segment>,
}

/// Reads a parameter list that is not empty.
pub fn parse(list: &[u8]) -> Result<CopyList, Sense> {
    let short = Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    if list.len() < HEADER {
        return Err(short);
    }
    let (cscd_bytes, segment_bytes) = (u32::from(be::u16(list, 2)), be::u32(list, 8));
    let inline = be::u32(list, 12);
    let descriptors = u64::from(cscd_bytes) + u64::from(segment_bytes);
    if descriptors > u64::from(MAX_DESCRIPTORS) || HEADER as u64 + descriptors + u64::from(inline) > list.len() as u64 {
        return Err(short);
    }
    let usage = list[1] >> 3 & 0x03;
    if usage == 1 {
        return Err(Sense::invalid_parameter(1, Some(4))); // reserved
    }
    if inline != 0 {
        return Err(Sense::invalid_parameter(12, None)); // MAXIMUM INLINE DATA LENGTH is 0
    }
    let id = (usage != 3).then_some(list[0]);
    let (cscds, segments) = list[HEADER..HEADER + descriptors as usize].split_at(cscd_bytes as usize);
    Ok(CopyList { id, cscds: parse_cscds(cscds)?, segments: parse_segments(segments, HEADER + cscd_bytes as usize)? })
}

fn parse_cscds(bytes: &[u8]) -> Result<Vec<Cscd>, Sense> {
    let mut cscds = Vec::new();
    for (n, descriptor) in bytes.chunks(CSCD).enumerate() {
        let at = HEADER + n * CSCD;
        if descriptor[0] != 0xe4 {
            return Err(Sense::illegal(AdditionalSense::UNSUPPORTED_TARGET_DESCRIPTOR).at(false, at as u16, None));
        }
        if descriptor.len() < CSCD {
            return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
        }
        if n >= usize::from(MAX_CSCDS) {
            return Err(Sense::illegal(AdditionalSense::TOO_MANY_TARGET_DESCRIPTORS).at(false, 2, None));
        }
        // LU ID TYPE is to be ignored, NUL is obsolete (SPC-4 6.4.5.1).
        if descriptor[7] > 20 {
            return Err(Sense::invalid_parameter(at as u16 + 7, None));
        }
        let mut designator = [0; 20];
        let length = usize::from(descriptor[7]);
        designator[..length].copy_from_slice(&descriptor[8..8 + length]);
        cscds.push(Cscd {
            kind: descriptor[5] & 0x0f,
            length: descriptor[7],
            designator,
            device_type: descriptor[1] & 0x1f,
            block_length: be::u32(descriptor, 28) & 0xff_ffff,
        });
    }
    Ok(cscds)
}

fn parse_segments(bytes: &[u8], start: usize) -> Result<Vec<Segment>, Sense> {
    let mut segments = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (rest, field) = (&bytes[at..], (start + at) as u16);
        if rest[0] != 0x02 {
            return Err(Sense::illegal(AdditionalSense::UNSUPPORTED_SEGMENT_DESCRIPTOR).at(false, field, None));
        }
        if rest.len() < BLOCK_TO_BLOCK {
            return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
        }
        if usize::from(be::u16(rest, 2)) != BLOCK_TO_BLOCK - 4 {
            return Err(Sense::invalid_parameter(field + 2, None));
        }
        if segments.len() >= usize::from(MAX_SEGMENTS) {
            return Err(Sense::illegal(AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS).at(false, 8, None));
        }
        segments.push(Segment {
            source: be::u16(rest, 4),
            destination: be::u16(rest, 6),
            in_destination_blocks: rest[1] & 0x02 != 0,
            blocks: Blocks(u64::from(be::u16(rest, 10))),
            from: Lba(be::u64(rest, 12)),
            to: Lba(be::u64(rest, 20)),
        });
        at += BLOCK_TO_BLOCK;
    }
    Ok(segments)
}

/// How an EXTENDED COPY ended, for RECEIVE COPY STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyStatus {
    /// LIST IDENTIFIER
    pub id: u8,
    /// `None` while it goes on; else whether all was done.
    pub success: Option<bool>,
    /// SEGMENTS PROCESSED
    pub segments: u16,
    /// Bytes written.
    pub bytes: u64,
}

/// RECEIVE COPY STATUS(LID1) data (SPC-4 6.19). TRANSFER COUNT is in units that make it fit.
pub fn status(status: &CopyStatus) -> [u8; 12] {
    let mut data = [0; 12];
    data[3] = 8;
    data[4] = match status.success {
        None => 0x00,
        Some(true) => 0x01,
        Some(false) => 0x02,
    };
    data[5..7].copy_from_slice(&status.segments.to_be_bytes());
    let (mut units, mut count) = (0, status.bytes);
    while count > u64::from(u32::MAX) {
        (units, count) = (units + 1, count >> 10); // bytes, KiB, MiB, ...
    }
    data[7] = units;
    data[8..12].copy_from_slice(&(count as u32).to_be_bytes());
    data
}

/// RECEIVE COPY OPERATING PARAMETERS data (SPC-4 6.20). `block_shift` is the granularity as a power of two.
pub fn operating_parameters(block_shift: u8) -> Vec<u8> {
    let mut data = vec![0; 44];
    data[4] = 0x01; // SNLID: a list without an identifier is taken
    data[8..10].copy_from_slice(&MAX_CSCDS.to_be_bytes());
    data[10..12].copy_from_slice(&MAX_SEGMENTS.to_be_bytes());
    data[12..16].copy_from_slice(&MAX_DESCRIPTORS.to_be_bytes());
    data[16..20].copy_from_slice(&MAX_SEGMENT_BYTES.to_be_bytes());
    data[34..36].copy_from_slice(&255u16.to_be_bytes()); // TOTAL CONCURRENT COPIES
    data[36] = 255; // MAXIMUM CONCURRENT COPIES
    data[37] = block_shift;
    let implemented = [0x02, 0xe4];
    data[43] = implemented.len() as u8;
    data.extend(implemented);
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cscd() -> Vec<u8> {
        let mut descriptor = vec![0; 32];
        (descriptor[0], descriptor[4], descriptor[5], descriptor[7]) = (0xe4, 1, 3, 16);
        (descriptor[8], descriptor[30]) = (0x60, 2);
        descriptor
    }

    fn segment() -> Vec<u8> {
        let mut descriptor = vec![0; 28];
        (descriptor[0], descriptor[3], descriptor[11], descriptor[19], descriptor[27]) = (0x02, 24, 5, 7, 9);
        descriptor
    }

    fn list(cscds: usize, segments: usize) -> Vec<u8> {
        let mut list = vec![0; 16];
        list[2..4].copy_from_slice(&((cscds * 32) as u16).to_be_bytes());
        list[8..12].copy_from_slice(&((segments * 28) as u32).to_be_bytes());
        list.extend(cscd().repeat(cscds));
        list.extend(segment().repeat(segments));
        list
    }

    fn code(list: &[u8]) -> AdditionalSense {
        parse(list).unwrap_err().code
    }

    #[test]
    fn a_list_is_read() {
        let parsed = parse(&list(1, 1)).unwrap();
        assert_eq!((parsed.id, parsed.cscds[0].kind, parsed.cscds[0].block_length), (Some(0), 3, 512));
        let segment = parsed.segments[0];
        assert_eq!((segment.blocks, segment.from, segment.to), (Blocks(5), Lba(7), Lba(9)));
    }

    #[test]
    fn limits_and_descriptors_that_are_not_known_are_told_apart() {
        let (cscds, segments) = (usize::from(MAX_CSCDS), usize::from(MAX_SEGMENTS));
        assert_eq!(code(&list(cscds + 1, 1)), AdditionalSense::TOO_MANY_TARGET_DESCRIPTORS);
        assert_eq!(code(&list(1, segments + 1)), AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS);
        assert_eq!(code(&list(cscds + 1, segments + 1)), AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
        assert_eq!(code(&list(1, 1)[..70]), AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
        let mut other = list(1, 1);
        other[16] = 0xe0;
        assert_eq!(code(&other), AdditionalSense::UNSUPPORTED_TARGET_DESCRIPTOR);
        let mut other = list(1, 1);
        other[48] = 0x03;
        assert_eq!(code(&other), AdditionalSense::UNSUPPORTED_SEGMENT_DESCRIPTOR);
    }

    #[test]
    fn operating_parameters_say_what_is_taken() {
        let data = operating_parameters(9);
        assert_eq!(data[..12], [0, 0, 0, 42, 1, 0, 0, 0, 0, 8, 0, 64]);
        assert_eq!(data[34..46], [0, 255, 255, 9, 0, 0, 0, 0, 0, 2, 0x02, 0xe4]);
    }

    #[test]
    fn the_count_of_a_long_copy_is_in_larger_units() {
        let status = |bytes| status(&CopyStatus { id: 1, success: Some(true), segments: 1, bytes });
        assert_eq!(status(512), [0, 0, 0, 8, 1, 0, 1, 0, 0, 0, 2, 0]);
        assert_eq!(status(1 << 33)[7..], [1, 0, 0x80, 0, 0]);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(mut list in proptest::collection::vec(any::<u8>(), 0..300), plausible: bool) {
            if plausible && list.len() > 60 {
                list[2..4].copy_from_slice(&[0, 32]);
                list[8..16].copy_from_slice(&[0, 0, 0, 28, 0, 0, 0, 0]);
                list[16] = 0xe4;
                list[48] = 0x02;
            }
            let _ = parse(&list);
        }
    }
}
