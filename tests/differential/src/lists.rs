//! Parameter lists of UNMAP (SBC-4 5.35.2) and MODE SELECT (SPC-6 7.5), right and wrong.
use crate::{
    command::Definition,
    random::Random,
    request::{Geometry, ModeList, Payload},
};

/// An UNMAP parameter list.
pub fn unmap(random: &mut Random, geometry: &Geometry) -> Payload {
    let mut descriptors = Vec::new();
    let mut label = "";
    for _ in 0..random.pick(&[0, 1, 1, 1, 2, 3, 5]) {
        let blocks = random.pick(&[0, 1, 2, 8, 8, 16, 31]);
        let lba = match random.below(16) {
            0 => geometry.capacity,
            1 => u64::MAX - random.below(3),
            2 => geometry.capacity - blocks,
            _ => random.below(160),
        };
        let wrong = lba.checked_add(blocks).is_none_or(|end| end > geometry.capacity);
        if wrong {
            label = "a descriptor out of range";
        } else if lba == geometry.capacity && label.is_empty() {
            label = "a descriptor at the end";
        }
        let count = if random.once_in(60) { 0xffff_ffff } else { blocks as u32 };
        if count == 0xffff_ffff {
            label = "a descriptor out of range";
        }
        descriptors.extend(lba.to_be_bytes());
        descriptors.extend(count.to_be_bytes());
        descriptors.extend([0; 4]);
    }
    let mut bytes = Vec::new();
    bytes.extend((descriptors.len() as u16 + 6).to_be_bytes());
    bytes.extend((descriptors.len() as u16).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(descriptors);
    if random.once_in(4) {
        label = break_unmap(random, &mut bytes, label);
    }
    Payload::Bytes { bytes, label }
}

fn break_unmap(random: &mut Random, bytes: &mut Vec<u8>, label: &'static str) -> &'static str {
    match random.below(7) {
        0 => {
            bytes[1] = bytes[1].wrapping_add(1);
            "UNMAP DATA LENGTH too large"
        }
        1 => {
            bytes[1] = 0;
            "UNMAP DATA LENGTH of 0"
        }
        2 => {
            bytes[3] = bytes[3].wrapping_add(16);
            "BLOCK DESCRIPTOR DATA LENGTH too large"
        }
        3 if bytes.len() > 8 => {
            bytes[3] -= 1;
            "BLOCK DESCRIPTOR DATA LENGTH is no multiple of 16"
        }
        4 => {
            bytes.truncate(random.pick(&[0, 1, 4, 7]));
            "header cut off"
        }
        5 if bytes.len() > 8 => {
            let cut = 1 + random.below(15) as usize;
            bytes.truncate(bytes.len() - cut);
            "descriptor cut off"
        }
        6 => {
            bytes[4] = 0xff;
            if bytes.len() > 8 {
                bytes[20] = 0xff;
            }
            if label.is_empty() { "reserved bytes set" } else { label }
        }
        _ => label,
    }
}

/// A mode parameter list. PARAMETER LIST LENGTH is filled in when its length is known. PF is mostly set.
pub fn mode(random: &mut Random, cdb: &mut [u8], definition: &Definition) -> Payload {
    if !random.once_in(12) {
        cdb[1] |= 0x10; // PF
    }
    let ten = definition.length == 10;
    let page = random.pick(&[0x01, 0x08, 0x08, 0x08, 0x0a, 0x0a, 0x1c, 0x02, 0x3e]);
    let flip = match random.below(8) {
        0..3 => None,
        3 => Some((0, random.below(8) as u8)),
        4 => Some((1, random.below(5) as u8)),
        5 if page == 0x08 => Some((2, 2)), // WCE
        _ => Some((2 + random.below(10) as usize, random.below(8) as u8)),
    };
    let extra = match random.below(10) {
        0 => -1 - random.below(14) as isize,
        1 => 1 + random.below(20) as isize,
        _ => 0,
    };
    Payload::Mode(ModeList { page, ten, descriptor: random.once_in(3), flip, extra })
}

/// Makes the list from a unit's answer to MODE SENSE(10) for all pages, with a short block descriptor. A page that the unit has not
/// becomes ten zeros.
pub fn mode_bytes(list: &ModeList, sensed: &[u8]) -> Vec<u8> {
    let descriptors = sensed.get(6..8).map_or(0, |l| usize::from(l[0]) << 8 | usize::from(l[1]));
    let mut bytes = vec![0; if list.ten { 8 } else { 4 }];
    if list.descriptor && descriptors == 8 {
        let at = bytes.len() - 1;
        bytes[at] = 8;
        bytes.extend(sensed.get(8..16).unwrap_or_default());
    }
    let mut page = page_of(list.page, sensed.get(8 + descriptors..).unwrap_or_default()).unwrap_or_else(|| {
        let mut page = vec![0; 12];
        (page[0], page[1]) = (list.page, 10);
        page
    });
    page[0] &= 0x7f; // PS is reserved in MODE SELECT
    if let Some((byte, bit)) = list.flip
        && let Some(byte) = page.get_mut(byte)
    {
        *byte ^= 1 << bit;
    }
    bytes.extend(page);
    let length = bytes.len().saturating_add_signed(list.extra);
    bytes.resize(length, 0);
    bytes
}

/// The page of a code in a list of pages.
pub fn page_of(code: u8, mut pages: &[u8]) -> Option<Vec<u8>> {
    while let [first, second, ..] = *pages {
        let length = if first & 0x40 == 0 { 2 + usize::from(second) } else { 4 + usize::from(*pages.get(3)?) };
        let page = pages.get(..length)?;
        if first & 0x7f == code {
            return Some(page.to_vec());
        }
        pages = &pages[length..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENSED: &[u8] = &[0, 26, 0, 0, 0, 0, 0, 8, 0, 0, 4, 0, 0, 0, 2, 0, 0x88, 2, 4, 0, 0x0a, 2, 1, 2];

    #[test]
    fn a_mode_list_is_made_from_the_units_own_page() {
        let list = ModeList { page: 0x08, ten: false, descriptor: false, flip: Some((2, 2)), extra: 0 };
        assert_eq!(mode_bytes(&list, SENSED), [0, 0, 0, 0, 0x08, 2, 0, 0]);
        let list = ModeList { page: 0x0a, ten: true, descriptor: true, flip: None, extra: -1 };
        assert_eq!(mode_bytes(&list, SENSED), [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 4, 0, 0, 0, 2, 0, 0x0a, 2, 1]);
    }

    #[test]
    fn a_page_that_is_missing_is_made_up() {
        let list = ModeList { page: 0x3e, ten: false, descriptor: false, flip: None, extra: 0 };
        assert_eq!(mode_bytes(&list, SENSED).len(), 4 + 12);
        assert_eq!(page_of(0x0a, &[0x08, 9, 0]), None, "a page that is longer than the list");
    }

    #[test]
    fn an_unmap_list_that_is_not_broken_says_its_own_length() {
        let geometry = Geometry { block: 512, capacity: 1000 };
        let mut random = Random::new(1);
        let mut sound = 0;
        for _ in 0..200 {
            let Payload::Bytes { bytes, label: "" } = unmap(&mut random, &geometry) else { continue };
            assert_eq!(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) + 2, bytes.len());
            sound += 1;
        }
        assert!(sound > 50);
    }
}
