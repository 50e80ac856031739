//! Vital product data (SPC-6 7.7, SBC-4 6.6).
use super::UnitFacts;

/// The IEEE company id that LIO and tcmu-runner use for NAA designators; disks keep their identity when they move here.
const COMPANY_ID: u32 = 0x00_1405;

/// A VPD page, or `None` if there is no such page.
pub fn page(code: u8, facts: &UnitFacts) -> Option<Vec<u8>> {
    let block_device = matches!(facts.device_type, 0x00 | 0x14);
    let body = match code {
        0x00 => supported(facts, block_device),
        0x80 => facts.serial.bytes().take(252).collect(),
        0x83 => identification(facts),
        0xb0 if block_device => block_limits(facts),
        0xb1 if block_device => characteristics(facts),
        0xb2 if block_device => provisioning(facts),
        _ => return None,
    };
    let mut page = vec![facts.device_type & 0x1f, code];
    page.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    page.extend_from_slice(&body);
    Some(page)
}

/// SPC-6 7.7.16: the page codes in ascending order.
fn supported(_facts: &UnitFacts, block_device: bool) -> Vec<u8> {
    let mut codes = vec![0x00, 0x80, 0x83];
    if block_device {
        codes.extend([0xb0, 0xb1, 0xb2]);
    }
    codes
}

/// SPC-6 7.7.6. Designators of the logical unit: NAA and T10 vendor identification. Without a serial number there is nothing to tell
/// units apart by, and no designator that would claim to.
fn identification(facts: &UnitFacts) -> Vec<u8> {
    let mut page = Vec::new();
    if facts.serial.is_empty() {
        return page;
    }
    designator(&mut page, 0x01, 0x03, &naa(&facts.serial));
    let mut t10 = facts.vendor.to_vec();
    t10.extend(facts.serial.bytes().take(200));
    designator(&mut page, 0x02, 0x01, &t10);
    page
}

fn designator(page: &mut Vec<u8>, code_set: u8, kind: u8, designator: &[u8]) {
    let designator = &designator[..designator.len().min(255)];
    page.extend([code_set, kind, 0, designator.len() as u8]);
    page.extend_from_slice(designator);
}

/// NAA IEEE Registered Extended (SPC-6 7.7.6.6.5), as LIO makes it: the company id, then the serial's hexadecimal digits.
pub fn naa(serial: &str) -> [u8; 16] {
    let mut digits = vec![6];
    digits.extend((0..6).rev().map(|digit| (COMPANY_ID >> (4 * digit) & 0xf) as u8));
    digits.extend(serial.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8));
    digits.resize(32, 0);
    let mut naa = [0; 16];
    for (byte, pair) in naa.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    naa
}

/// SBC-4 6.6.4, 60 bytes.
fn block_limits(facts: &UnitFacts) -> Vec<u8> {
    let mut body = vec![0; 60];
    let put32 = |body: &mut Vec<u8>, at: usize, value: u32| body[at - 4..at].copy_from_slice(&value.to_be_bytes());
    body[0] = 0x01; // WSNZ: WRITE SAME of zero blocks is refused
    body[1] = facts.max_compare_and_write;
    body[2..4].copy_from_slice(&facts.transfer_granularity.to_be_bytes());
    put32(&mut body, 8, facts.max_transfer);
    put32(&mut body, 12, facts.optimal_transfer);
    let provisioning = &facts.provisioning;
    if provisioning.unmap {
        put32(&mut body, 20, provisioning.max_unmap);
        put32(&mut body, 24, provisioning.max_descriptors);
        put32(&mut body, 28, provisioning.granularity);
        if let Some(alignment) = provisioning.alignment {
            put32(&mut body, 32, alignment & 0x7fff_ffff | 0x8000_0000); // UGAVALID
        }
    }
    body[32..40].copy_from_slice(&facts.max_write_same.to_be_bytes());
    body
}

/// SBC-4 6.6.2, 60 bytes.
fn characteristics(facts: &UnitFacts) -> Vec<u8> {
    let mut body = vec![0; 60];
    body[0..2].copy_from_slice(&facts.rotation_rate.to_be_bytes());
    body
}

/// SBC-4 6.6.6, 4 bytes without a provisioning group descriptor.
fn provisioning(facts: &UnitFacts) -> Vec<u8> {
    let provisioning = &facts.provisioning;
    let mut flags = 0;
    if provisioning.unmap {
        flags |= 0xe0; // LBPU, LBPWS, LBPWS10
    }
    if provisioning.unmap && provisioning.zeroes {
        flags |= 0x04; // LBPRZ
    }
    let kind = if provisioning.thin { 2 } else { 0 };
    vec![0, flags, kind, 0]
}

#[cfg(test)]
mod tests {
    use super::{super::facts::Provisioning, *};
    use crate::scsi::{BlockSize, Blocks, facts::ascii_field};

    fn facts(serial: &str) -> UnitFacts {
        UnitFacts {
            device_type: 0,
            removable: false,
            vendor: ascii_field("LIO-ORG"),
            product: ascii_field("TCMU device"),
            revision: ascii_field("0002"),
            serial: serial.to_owned(),
            block_size: BlockSize::B512,
            capacity: Blocks(100),
            physical_exponent: 3,
            write_cache: true,
            write_cache_changeable: true,
            read_only: false,
            rotation_rate: 1,
            provisioning: Provisioning {
                thin: true,
                unmap: true,
                zeroes: true,
                max_unmap: 0x10_0000,
                max_descriptors: 32,
                granularity: 8,
                alignment: Some(0),
            },
            max_transfer: 1024,
            optimal_transfer: 256,
            transfer_granularity: 8,
            max_compare_and_write: 1,
            max_write_same: 0x1_0000,
        }
    }

    #[test]
    fn the_naa_designator_is_the_one_lio_makes() {
        let page = page(0x83, &facts("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9")).unwrap();
        assert_eq!(page[..8], [0, 0x83, 0, page.len() as u8 - 4, 0x01, 0x03, 0, 16]);
        assert_eq!(page[8..24], [0x60, 0x01, 0x40, 0x50, 0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x07, 0x18, 0x29, 0x3a, 0x4b, 0x5c]);
    }

    #[test]
    fn serials_of_every_length_make_a_whole_page() {
        for length in 0..=255 {
            let facts = facts(&"a".repeat(length));
            for code in [0x80, 0x83] {
                let page = page(code, &facts).unwrap();
                assert_eq!(usize::from(u16::from_be_bytes([page[2], page[3]])), page.len() - 4);
            }
            let page = page(0x83, &facts).unwrap();
            let mut rest = &page[4..];
            while !rest.is_empty() {
                rest = &rest[4 + usize::from(rest[3])..];
            }
        }
    }

    #[test]
    fn block_limits_say_what_is_true() {
        let page = page(0xb0, &facts("1")).unwrap();
        assert_eq!(page.len(), 64);
        assert_eq!(page[..8], [0, 0xb0, 0, 60, 1, 1, 0, 8]);
        assert_eq!(page[8..16], [0, 0, 4, 0, 0, 0, 1, 0]);
        assert_eq!(page[20..36], [0, 0x10, 0, 0, 0, 0, 0, 32, 0, 0, 0, 8, 0x80, 0, 0, 0]);
        assert_eq!(page[36..44], [0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_unit_that_cannot_unmap_does_not_claim_to() {
        let mut facts = facts("1");
        facts.provisioning.unmap = false;
        facts.provisioning.thin = false;
        assert_eq!(page(0xb2, &facts).unwrap(), [0, 0xb2, 0, 4, 0, 0, 0, 0]);
        assert_eq!(page(0xb0, &facts).unwrap()[20..36], [0; 16]);
        assert_eq!(page(0x99, &facts), None);
    }
}
