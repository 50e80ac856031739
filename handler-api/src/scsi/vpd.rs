//! Vital product data (SPC-6 7.7, SBC-4 6.6).
use super::{UnitFacts, third_party};

/// The IEEE company id that LIO and tcmu-runner use for NAA designators; disks keep their identity when they move here.
const COMPANY_ID: u32 = 0x00_1405;

/// A VPD page, or `None` if there is no such page.
pub fn page(code: u8, facts: &UnitFacts) -> Option<Vec<u8>> {
    if !codes(facts).contains(&code) {
        return None;
    }
    let body = match code {
        0x00 => codes(facts),
        0x80 => facts.serial.bytes().take(252).collect(),
        0x83 => identification(facts),
        0x86 => extended_inquiry(facts),
        0x87 => vec![0x3f, 0xff, 0x00, 0x00], // SPC-6 7.7.13: all pages are shared by all I_T nexuses
        0x8f => third_party::copy(facts),
        0xb0 => block_limits(facts),
        0xb1 => characteristics(facts),
        0xb2 => provisioning(facts),
        _ => zoned(),
    };
    let mut page = vec![facts.device_type & 0x1f, code];
    page.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    page.extend_from_slice(&body);
    Some(page)
}

/// SPC-6 7.7.16: the page codes in ascending order.
fn codes(facts: &UnitFacts) -> Vec<u8> {
    let mut codes = vec![0x00, 0x80, 0x83, 0x86, 0x87];
    if matches!(facts.device_type, 0x00 | 0x14) {
        codes.extend([0x8f, 0xb0, 0xb1, 0xb2]);
    }
    if facts.device_type == 0x14 {
        codes.push(0xb6);
    }
    codes
}

/// SPC-6 7.7.6. Of the logical unit: NAA, T10 vendor identification, SCSI name. Without a serial number there is nothing to tell units
/// apart by, and no designator that would claim to. Of the port and its device only where the unit has but one: the ring does not tell
/// which port a command came through, and the wrong one would be a wrong answer.
fn identification(facts: &UnitFacts) -> Vec<u8> {
    let mut page = Vec::new();
    if !facts.serial.is_empty() {
        let naa = naa(&facts.serial);
        designator(&mut page, 0x01, 0x03, &naa);
        let mut t10 = facts.vendor.to_vec();
        t10.extend(facts.serial.bytes().take(200));
        designator(&mut page, 0x02, 0x01, &t10);
        let digits: String = naa.iter().map(|byte| format!("{byte:02x}")).collect();
        name(&mut page, 0, 0x08, &format!("naa.{digits}"));
    }
    if let Some(port) = &facts.port {
        const PIV: u8 = 0x80;
        const PORT: u8 = 0x10;
        let [high, low] = port.relative_id.to_be_bytes();
        let first = page.len();
        designator(&mut page, 0x01, PIV | PORT | 0x04, &[0, 0, high, low]);
        page[first] |= port.protocol << 4;
        let [high, low] = port.group.to_be_bytes();
        let second = page.len();
        designator(&mut page, 0x01, PIV | PORT | 0x05, &[0, 0, high, low]);
        page[second] |= port.protocol << 4;
        name(&mut page, port.protocol, PIV | PORT | 0x08, &port.name);
        name(&mut page, port.protocol, PIV | 0x20 | 0x08, &port.device);
    }
    page
}

/// A SCSI name string (SPC-6 7.7.6.11): UTF-8, ended by NULs to a multiple of four bytes.
fn name(page: &mut Vec<u8>, protocol: u8, kind: u8, name: &str) {
    let mut bytes: Vec<u8> = name.bytes().take(247).collect();
    bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
    let start = page.len();
    designator(page, 0x03, kind, &bytes);
    page[start] |= protocol << 4;
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

/// SPC-6 7.7.7, 60 bytes.
fn extended_inquiry(facts: &UnitFacts) -> Vec<u8> {
    let mut body = vec![0; 60];
    body[1] = 0x01; // SIMPSUP: the kernel's target orders nothing for units whose commands it passes on
    body[2] = u8::from(facts.write_cache_changeable); // V_SUP: a volatile cache
    body[3] = 0x01; // LUICLR: a reset clears unit attentions as it should
    body
}

/// SBC-4 6.6.9, 60 bytes: a host-managed device without limits of its own.
fn zoned() -> Vec<u8> {
    let mut body = vec![0; 60];
    body[8..12].fill(0xff); // MAXIMUM NUMBER OF OPEN SEQUENTIAL WRITE REQUIRED ZONES: no limit
    body[0] = 0x00; // URSWRZ: reads of unwritten zones fail
    body
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
    if let Some(atomic) = facts.atomic {
        // No alignment, no granularity, no boundary within which an atomic write could be torn.
        put32(&mut body, 44, atomic.max_transfer);
    }
    body
}

/// SBC-4 6.6.2, 60 bytes.
fn characteristics(facts: &UnitFacts) -> Vec<u8> {
    let mut body = vec![0; 60];
    body[0..2].copy_from_slice(&facts.rotation_rate.to_be_bytes());
    // WABEREQ 01b: what was erased reads as it reads when it is deallocated; WACEREQ 0: there is no cryptographic erase.
    body[3] = if facts.provisioning.unmap && facts.provisioning.zeroes { 0x40 } else { 0 };
    body[4] = 0x02; // FUAB: after SYNCHRONIZE CACHE, FUA reads see the medium
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
    use super::*;
    use crate::scsi::facts::Port;

    fn facts(serial: &str) -> UnitFacts {
        UnitFacts { serial: serial.to_owned(), ..UnitFacts::example() }
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
    fn a_unit_with_one_port_names_it() {
        let port = Port { relative_id: 1, protocol: 5, group: 0x10, name: "iqn.x:y,t,0x0001".into(), device: "iqn.x:y".into() };
        let page = page(0x83, &UnitFacts { port: Some(port), ..facts("1") }).unwrap();
        let mut rest = &page[4..];
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            kinds.push((rest[0], rest[1]));
            rest = &rest[4 + usize::from(rest[3])..];
        }
        let of_unit = [(0x01, 0x03), (0x02, 0x01), (0x03, 0x08)];
        assert_eq!(kinds, [&of_unit[..], &[(0x51, 0x94), (0x51, 0x95), (0x53, 0x98), (0x53, 0xa8)]].concat());
        assert!(page.windows(20).any(|w| w == b"iqn.x:y,t,0x0001\0\0\0\0"));
    }

    #[test]
    fn every_page_that_is_listed_is_there() {
        for device_type in [0x00, 0x05, 0x14] {
            let facts = UnitFacts { device_type, ..facts("1") };
            let list = page(0x00, &facts).unwrap();
            assert!(list[4..].is_sorted());
            for code in 0..=255 {
                let page = page(code, &facts);
                assert_eq!(page.is_some(), list[4..].contains(&code), "{code:x}");
                if let Some(page) = page {
                    assert_eq!((page[1], usize::from(u16::from_be_bytes([page[2], page[3]]))), (code, page.len() - 4));
                }
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
    fn the_other_pages_byte_by_byte() {
        let page = |code| page(code, &facts("1")).unwrap();
        assert_eq!(page(0x00), [0, 0, 0, 9, 0x00, 0x80, 0x83, 0x86, 0x87, 0x8f, 0xb0, 0xb1, 0xb2]);
        assert_eq!(page(0x80), [0, 0x80, 0, 1, b'1']);
        assert_eq!(page(0x86)[..8], [0, 0x86, 0, 60, 0, 0x01, 0x01, 0x01]);
        assert!(page(0x86)[8..].iter().all(|byte| *byte == 0));
        assert_eq!(page(0x87), [0, 0x87, 0, 4, 0x3f, 0xff, 0, 0]);
        assert_eq!(page(0xb1)[..9], [0, 0xb1, 0, 60, 0, 1, 0, 0x40, 0x02]);
        assert!(page(0xb1)[9..].iter().all(|byte| *byte == 0));
        assert_eq!(page(0xb2), [0, 0xb2, 0, 4, 0, 0xe4, 2, 0]);
    }

    #[test]
    fn the_third_party_copy_page_is_a_list_of_whole_descriptors() {
        let page = page(0x8f, &facts("1")).unwrap();
        let mut rest = &page[4..];
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            assert_eq!(length % 4, 0);
            kinds.push(u16::from_be_bytes([rest[0], rest[1]]));
            if kinds.last() == Some(&0x0001) {
                assert_eq!(rest[4..16], [10, 0x83, 3, 0x00, 0x10, 0x11, 0x84, 3, 0x00, 0x03, 0x07, 0]);
            }
            rest = &rest[4 + length..];
        }
        assert_eq!(kinds, [0x0000, 0x0001, 0x0004, 0x0008, 0x000c, 0x0106, 0x0108, 0x8001]);
        assert_eq!(page.len(), 4 + 36 + 16 + 32 + 8 + 8 + 48 + 200 + 36);
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
