//! Standard INQUIRY data (SPC-6 6.7.2).
use super::UnitFacts;

/// The version descriptors: SAM-5, SPC-4, SBC-3, the level that initiators know how to read.
const VERSION_DESCRIPTORS: [u16; 3] = [0x00a0, 0x0460, 0x04c0];

/// Standard INQUIRY data.
pub fn standard(facts: &UnitFacts) -> Vec<u8> {
    let mut data = vec![0; 74];
    data[0] = facts.device_type & 0x1f;
    data[1] = u8::from(facts.removable) << 7;
    data[2] = 0x06; // SPC-4
    data[3] = 0x12; // HISUP, response data format 2
    data[4] = (data.len() - 5) as u8;
    data[5] = (facts.asymmetric_access & 0x03) << 4 | 0x08; // TPGS, 3PC
    data[7] = 0x02; // CMDQUE
    data[8..16].copy_from_slice(&facts.vendor);
    data[16..32].copy_from_slice(&facts.product);
    data[32..36].copy_from_slice(&facts.revision);
    for (at, descriptor) in VERSION_DESCRIPTORS.iter().enumerate() {
        data[58 + 2 * at..60 + 2 * at].copy_from_slice(&descriptor.to_be_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_data_byte_by_byte() {
        let data = standard(&UnitFacts { removable: true, asymmetric_access: 3, ..UnitFacts::example() });
        assert_eq!(data[..8], [0x00, 0x80, 0x06, 0x12, 69, 0x38, 0, 0x02]);
        assert_eq!(&data[8..36], b"LIO-ORG TCMU device     0002");
        assert_eq!(data[36..58], [0; 22]);
        assert_eq!(data[58..], [0x00, 0xa0, 0x04, 0x60, 0x04, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
