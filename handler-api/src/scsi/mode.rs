//! Mode parameters (SPC-6 7.5, SBC-4 6.5).
use super::{
    AdditionalSense, Sense, UnitFacts, be,
    command::{ModeSense, PageControl},
};

/// What MODE SELECT changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModeChange {
    /// WCE of the caching page.
    pub write_cache: Option<bool>,
    /// D_SENSE of the control page.
    pub descriptor_sense: Option<bool>,
    /// SWP of the control page.
    pub write_protect: Option<bool>,
}

const CONTROL: u8 = 0x0a;
/// Byte 2 of the control page, bit D_SENSE.
const D_SENSE: u8 = 0x04;
/// Byte 4 of the control page, bit SWP.
const SWP: u8 = 0x08;
const CACHING: u8 = 0x08;
/// Byte 2 of the caching page, bit WCE.
const WCE: u8 = 0x04;

/// The pages of a unit, in ascending order. `defaults`: as they are before an initiator changes them.
fn pages(facts: &UnitFacts, defaults: bool) -> Vec<Vec<u8>> {
    let mut facts = facts.clone();
    if defaults {
        facts.write_cache = facts.write_cache || facts.write_cache_changeable;
        (facts.descriptor_sense, facts.software_write_protect) = (false, false);
    }
    if !matches!(facts.device_type, 0x00 | 0x14) {
        return vec![control(&facts)];
    }
    vec![error_recovery(), caching(&facts), control(&facts), informational_exceptions()]
}

/// SBC-4 6.5.10
fn error_recovery() -> Vec<u8> {
    let mut page = vec![0; 12];
    (page[0], page[1]) = (0x01, 10);
    page
}

/// SBC-4 6.5.6
fn caching(facts: &UnitFacts) -> Vec<u8> {
    let mut page = vec![0; 20];
    (page[0], page[1]) = (CACHING, 18);
    page[2] = if facts.write_cache { WCE } else { 0 };
    page
}

/// SPC-6 7.5.10: one task set, commands that another initiator aborts end with TASK ABORTED (TAS).
fn control(facts: &UnitFacts) -> Vec<u8> {
    let mut page = vec![0; 12];
    (page[0], page[1]) = (CONTROL, 10);
    page[2] = 0x02 | if facts.descriptor_sense { D_SENSE } else { 0 }; // GLTSD
    page[4] = if facts.software_write_protect { SWP } else { 0 };
    page[5] = 0x40; // TAS
    page[8..10].copy_from_slice(&[0xff, 0xff]); // BUSY TIMEOUT PERIOD: unlimited
    page
}

/// SPC-6 7.5.13
fn informational_exceptions() -> Vec<u8> {
    let mut page = vec![0; 12];
    (page[0], page[1]) = (0x1c, 10);
    page[2] = 0x08; // DEXCPT
    page
}

/// The bits of a page that MODE SELECT can change.
fn changeable(page: &[u8], facts: &UnitFacts) -> Vec<u8> {
    let mut mask = vec![0; page.len()];
    mask[..2].copy_from_slice(&page[..2]);
    match page[0] {
        CACHING if facts.write_cache_changeable => mask[2] = WCE,
        CONTROL => (mask[2], mask[4]) = (D_SENSE, SWP),
        _ => {}
    }
    mask
}

/// The data of a MODE SENSE.
pub fn sense(request: &ModeSense, facts: &UnitFacts) -> Result<Vec<u8>, Sense> {
    if request.page_control == PageControl::Saved {
        return Err(Sense::illegal(AdditionalSense::SAVING_PARAMETERS_NOT_SUPPORTED));
    }
    // There are no subpages: 00h is the page itself, FFh also stands for all (SPC-6 6.14.1).
    if !matches!(request.subpage, 0x00 | 0xff) {
        return Err(Sense::invalid_cdb_field(3, None));
    }
    let mut body = Vec::new();
    let defaults = request.page_control == PageControl::Default;
    for page in pages(facts, defaults).iter().filter(|page| request.page == 0x3f || request.page == page[0]) {
        match request.page_control {
            PageControl::Changeable => body.extend(changeable(page, facts)),
            _ => body.extend(page),
        }
    }
    if body.is_empty() {
        return Err(Sense::invalid_cdb_field(2, Some(5)));
    }
    // WP, and DPOFUA: both bits are honoured (SBC-4 6.5.1).
    let disk = matches!(facts.device_type, 0x00 | 0x14);
    let specific = u8::from(facts.read_only || facts.software_write_protect) << 7 | if disk { 0x10 } else { 0 };
    let descriptor = if request.no_block_descriptor || !disk { Vec::new() } else { block_descriptor(request, facts) };
    let length = descriptor.len() as u8;
    let long = u8::from(descriptor.len() == 16);
    let mut data = if request.ten { vec![0, 0, 0, specific, long, 0, 0, length] } else { vec![0, 0, specific, length] };
    data.extend(descriptor);
    data.extend(body);
    if request.ten {
        let length = (data.len() - 2) as u16;
        data[..2].copy_from_slice(&length.to_be_bytes());
    } else {
        data[0] = (data.len() - 1) as u8;
    }
    Ok(data)
}

/// The block descriptor (SBC-4 6.5.2): the capacity and the length of a block.
fn block_descriptor(request: &ModeSense, facts: &UnitFacts) -> Vec<u8> {
    let (blocks, size) = match request.page_control {
        PageControl::Changeable => (0, 0),
        _ => (facts.capacity.0, facts.block_size.bytes()),
    };
    let mut descriptor = Vec::new();
    if request.long_block_address {
        descriptor.extend(blocks.to_be_bytes());
        descriptor.extend([0; 4]);
    } else {
        descriptor.extend(u32::try_from(blocks).unwrap_or(u32::MAX).to_be_bytes());
    }
    descriptor.extend(size.to_be_bytes()); // in the short one the first byte is reserved; sizes need but three
    descriptor
}

/// Judges the whole parameter list of a MODE SELECT before anything changes.
pub fn select(ten: bool, page_format: bool, save: bool, list: &[u8], facts: &UnitFacts) -> Result<ModeChange, Sense> {
    if save {
        return Err(Sense::invalid_cdb_field(1, Some(0)));
    }
    if !page_format {
        return Err(Sense::invalid_cdb_field(1, Some(4)));
    }
    let mut change = ModeChange::default();
    if list.is_empty() {
        return Ok(change); // SPC-6 6.12: no parameters is no error
    }
    let (header, descriptors) = if ten { (8, usize::from(be::u16(list, 6))) } else { (4, usize::from(be::u8(list, 3))) };
    let short = Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    let mut at = header + descriptors;
    if list.len() < at {
        return Err(short);
    }
    if descriptors != 0 {
        check_block_descriptor(&list[header..at], ten && list[4] & 0x01 != 0, header as u16, facts)?;
    }
    let pages = pages(facts, false);
    while at < list.len() {
        let sent = &list[at..];
        if sent[0] & 0x40 != 0 {
            return Err(Sense::invalid_parameter(at as u16, Some(6))); // SPF: there are no subpages
        }
        let Some(page) = pages.iter().find(|page| page[0] == sent[0] & 0x3f) else {
            return Err(Sense::invalid_parameter(at as u16, Some(5)));
        };
        if sent.len() < 2 {
            return Err(short);
        }
        if sent[1] != page[1] {
            return Err(Sense::invalid_parameter(at as u16 + 1, None));
        }
        if sent.len() < page.len() {
            return Err(short);
        }
        let mask = changeable(page, facts);
        for byte in 2..page.len() {
            let wrong = (sent[byte] ^ page[byte]) & !mask[byte];
            if wrong != 0 {
                return Err(Sense::invalid_parameter((at + byte) as u16, Some(7 - wrong.leading_zeros() as u8)));
            }
        }
        match page[0] {
            CACHING if sent[2] != page[2] => change.write_cache = Some(sent[2] & WCE != 0),
            CONTROL => {
                change.descriptor_sense = Some(sent[2] & D_SENSE != 0);
                change.write_protect = Some(sent[4] & SWP != 0);
            }
            _ => {}
        }
        at += page.len();
    }
    Ok(change)
}

/// A block descriptor (SBC-4 6.5.2) may say what is so already, or nothing.
fn check_block_descriptor(descriptor: &[u8], long: bool, at: u16, facts: &UnitFacts) -> Result<(), Sense> {
    let (length, blocks, size) = if long {
        (16, be::u64(descriptor, 0), be::u32(descriptor, 12))
    } else {
        (8, u64::from(be::u32(descriptor, 0)), be::u32(descriptor, 4) & 0xff_ffff)
    };
    if descriptor.len() != length {
        return Err(Sense::invalid_parameter(if long { 6 } else { 3 }, None));
    }
    let all = if long { u64::MAX } else { u64::from(u32::MAX) };
    if blocks != 0 && blocks != all && blocks != facts.capacity.0 {
        return Err(Sense::invalid_parameter(at, None));
    }
    if size != 0 && size != facts.block_size.bytes() {
        return Err(Sense::invalid_parameter(at + if long { 12 } else { 5 }, None));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scsi::Blocks;

    fn facts() -> UnitFacts {
        UnitFacts { capacity: Blocks(8), ..UnitFacts::example() }
    }

    fn request(page: u8, page_control: PageControl, ten: bool) -> ModeSense {
        ModeSense { ten, no_block_descriptor: true, long_block_address: false, page_control, page, subpage: 0, allocation: 255 }
    }

    #[test]
    fn the_caching_page_shows_the_write_cache() {
        let data = sense(&request(0x08, PageControl::Current, false), &facts()).unwrap();
        assert_eq!(data[..7], [23, 0, 0x10, 0, 0x08, 18, WCE]);
        let data = sense(&request(0x08, PageControl::Changeable, true), &facts()).unwrap();
        assert_eq!(data[..11], [0, 26, 0, 0x10, 0, 0, 0, 0, 0x08, 18, WCE]);
    }

    #[test]
    fn all_pages_byte_by_byte() {
        let data = sense(&request(0x3f, PageControl::Current, false), &facts()).unwrap();
        let pages: [&[u8]; 5] = [
            &[59, 0, 0x10, 0],
            &[0x01, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x08, 18, WCE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x0a, 10, 0x02, 0, 0, 0x40, 0, 0, 0xff, 0xff, 0, 0],
            &[0x1c, 10, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(data, pages.concat());
        let masks = sense(&request(0x3f, PageControl::Changeable, false), &facts()).unwrap();
        let set: Vec<_> = masks[4..].iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, byte)| (at, *byte)).collect();
        // codes, lengths, and WCE, D_SENSE, SWP
        assert_eq!(
            set,
            [
                (0, 0x01),
                (1, 10),
                (12, 0x08),
                (13, 18),
                (14, WCE),
                (32, 0x0a),
                (33, 10),
                (34, D_SENSE),
                (36, SWP),
                (44, 0x1c),
                (45, 10)
            ]
        );
    }

    #[test]
    fn the_block_descriptor_comes_unless_it_is_disabled() {
        let with = |ten, long_block_address| {
            let request =
                ModeSense { no_block_descriptor: false, long_block_address, ..request(0x0a, PageControl::Current, ten) };
            sense(&request, &facts()).unwrap()
        };
        assert_eq!(with(false, false)[..12], [23, 0, 0x10, 8, 0, 0, 0, 8, 0, 0, 2, 0]);
        assert_eq!(with(true, false)[..16], [0, 26, 0, 0x10, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 2, 0]);
        assert_eq!(with(true, true)[..24], [0, 34, 0, 0x10, 1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0]);
    }

    #[test]
    fn the_control_page_changes_the_sense_format_and_the_write_protection() {
        let mut list = sense(&request(0x0a, PageControl::Current, false), &facts()).unwrap();
        (list[0], list[6], list[8]) = (0, list[6] | D_SENSE, list[8] | SWP);
        let change = select(false, true, false, &list, &facts()).unwrap();
        assert_eq!((change.descriptor_sense, change.write_protect), (Some(true), Some(true)));
        let changed = UnitFacts { descriptor_sense: true, software_write_protect: true, ..facts() };
        let current = sense(&request(0x0a, PageControl::Current, false), &changed).unwrap();
        assert_eq!((current[2], current[6], current[8]), (0x90, 0x06, 0x08));
        let default = sense(&request(0x0a, PageControl::Default, false), &changed).unwrap();
        assert_eq!((default[6], default[8]), (0x02, 0));
    }

    #[test]
    fn read_only_sets_wp() {
        let data = sense(&request(0x3f, PageControl::Current, false), &UnitFacts { read_only: true, ..facts() }).unwrap();
        assert_eq!(data[2] & 0x80, 0x80);
        assert_eq!(usize::from(data[0]), data.len() - 1);
    }

    #[test]
    fn saved_pages_and_unknown_pages_are_refused() {
        let refused = sense(&request(0x08, PageControl::Saved, false), &facts()).unwrap_err();
        assert_eq!(refused.code, AdditionalSense::SAVING_PARAMETERS_NOT_SUPPORTED);
        assert_eq!(sense(&request(0x02, PageControl::Current, false), &facts()), Err(Sense::invalid_cdb_field(2, Some(5))));
    }

    #[test]
    fn select_changes_the_write_cache_and_nothing_else() {
        let mut list = sense(&request(0x08, PageControl::Current, false), &facts()).unwrap();
        list[0] = 0;
        assert_eq!(select(false, true, false, &list, &facts()), Ok(ModeChange::default()));
        list[6] = 0;
        assert_eq!(
            select(false, true, false, &list, &facts()),
            Ok(ModeChange { write_cache: Some(false), ..ModeChange::default() })
        );
        list[7] = 1;
        assert_eq!(select(false, true, false, &list, &facts()), Err(Sense::invalid_parameter(7, Some(0))));
        list.truncate(20);
        assert_eq!(
            select(false, true, false, &list, &facts()),
            Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR))
        );
    }

    proptest! {
        #[test]
        fn select_never_panics(list in proptest::collection::vec(any::<u8>(), 0..80), ten: bool) {
            let _ = select(ten, true, false, &list, &facts());
        }
    }
}
