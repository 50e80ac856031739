//! What a unit says of its blocks: READ CAPACITY, GET LBA STATUS and READ DEFECT DATA data (SBC-4 5.6, 5.17, 5.20, 5.21); and REPORT LUNS
//! data (SPC-6 6.33).
use super::{Blocks, Lba, Sense, UnitFacts, command::ReadDefects};

/// The last block's address. A unit of no blocks says 0, as there is no way to say less.
fn last_lba(facts: &UnitFacts) -> u64 {
    facts.capacity.0.saturating_sub(1)
}

/// READ CAPACITY(10) data: FFFF_FFFFh when the address needs more than 32 bits.
pub fn read_capacity_10(facts: &UnitFacts) -> [u8; 8] {
    let mut data = [0; 8];
    data[..4].copy_from_slice(&u32::try_from(last_lba(facts)).unwrap_or(u32::MAX).to_be_bytes());
    data[4..].copy_from_slice(&facts.block_size.bytes().to_be_bytes());
    data
}

/// READ CAPACITY(16) data.
pub fn read_capacity_16(facts: &UnitFacts) -> [u8; 32] {
    let mut data = [0; 32];
    data[..8].copy_from_slice(&last_lba(facts).to_be_bytes());
    data[8..12].copy_from_slice(&facts.block_size.bytes().to_be_bytes());
    data[13] = facts.physical_exponent & 0x0f;
    let provisioning = &facts.provisioning;
    if provisioning.unmap {
        data[14] = 0x80 | u8::from(provisioning.zeroes) << 6; // LBPME, LBPRZ
    }
    data
}

/// REPORT LUNS data: logical unit 0 alone. The kernel answers this command for targets; only embedded users see it.
pub fn report_luns() -> [u8; 16] {
    let mut data = [0; 16];
    data[3] = 8;
    data
}

/// PROVISIONING STATUS (SBC-4 table 36).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Provisioned {
    MappedOrUnknown = 0,
    Deallocated = 1,
    Anchored = 2,
}

/// GET LBA STATUS data: ranges in order and without gaps. Only whole descriptors count, and longer ranges than fit one go on in the next.
pub fn lba_status(ranges: impl IntoIterator<Item = (Lba, Blocks, Provisioned)>, most: usize) -> Vec<u8> {
    let mut data = vec![0; 8];
    'ranges: for (mut lba, mut blocks, status) in ranges {
        while blocks.0 > 0 {
            if data.len() + 16 > most.max(24) {
                break 'ranges;
            }
            let part = blocks.0.min(u64::from(u32::MAX));
            data.extend(lba.0.to_be_bytes());
            data.extend((part as u32).to_be_bytes());
            data.extend([status as u8, 0, 0, 0]);
            (lba, blocks) = (Lba(lba.0.saturating_add(part)), Blocks(blocks.0 - part));
        }
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

/// READ DEFECT DATA data: lists without defects. Any format can say that.
pub fn defects(request: &ReadDefects) -> Result<Vec<u8>, Sense> {
    // 0 short block, 3 long block, 4 bytes from index, 5 physical sector, 6 vendor specific; 1 and 2 extended (SBC-4 table 67).
    if request.format == 7 {
        return Err(Sense::invalid_cdb_field(if request.long { 1 } else { 2 }, Some(2)));
    }
    let lists = u8::from(request.primary) << 4 | u8::from(request.grown) << 3 | request.format;
    Ok(if request.long { vec![0, lists, 0, 0, 0, 0, 0, 0] } else { vec![0, lists, 0, 0] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_byte_by_byte() {
        let facts = UnitFacts::example();
        assert_eq!(read_capacity_10(&facts), [0, 0, 0, 99, 0, 0, 2, 0]);
        let long = read_capacity_16(&facts);
        assert_eq!(long[..16], [0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 2, 0, 0, 3, 0xc0, 0]);
        assert_eq!(long[16..], [0; 16]);
        let large = UnitFacts { capacity: Blocks(1 << 33), ..facts };
        assert_eq!(read_capacity_10(&large)[..4], [0xff; 4]);
        assert_eq!(read_capacity_16(&large)[..8], [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(report_luns(), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn long_ranges_are_told_in_several_descriptors() {
        let data = lba_status([(Lba(5), Blocks((1 << 32) + 1), Provisioned::Deallocated)], 1000);
        assert_eq!(data[..8], [0, 0, 0, 36, 0, 0, 0, 0]);
        assert_eq!(data[8..24], [0, 0, 0, 0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
        assert_eq!(data[24..40], [0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 2, 1, 0, 0, 0]);
    }

    #[test]
    fn descriptors_are_whole() {
        let ranges = (0..10).map(|n| (Lba(n), Blocks(1), Provisioned::MappedOrUnknown));
        assert_eq!(lba_status(ranges.clone(), 55).len(), 40);
        assert_eq!(lba_status(ranges, 0).len(), 24, "one at least");
    }

    #[test]
    fn lists_of_defects_are_empty() {
        let request = ReadDefects { long: false, primary: true, grown: true, format: 5, allocation: 4 };
        assert_eq!(defects(&request).unwrap(), [0, 0x1d, 0, 0]);
        assert_eq!(defects(&ReadDefects { long: true, primary: false, ..request }).unwrap(), [0, 0x0d, 0, 0, 0, 0, 0, 0]);
        assert!(defects(&ReadDefects { format: 7, ..request }).is_err());
    }
}
