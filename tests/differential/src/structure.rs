//! Whether parameter data is as its format has it. It says of each unit something else, so the two can't be compared; but each must
//! agree with itself and with what was asked for.
use crate::{
    answer::number,
    command::{Definition, Format},
};

/// What is wrong with the data of a GOOD answer, if something is. `data` is what came, of `room` bytes.
pub fn complaint(format: Format, cdb: &[u8], data: &[u8], room: usize) -> Option<String> {
    let definition = Definition::of(cdb)?;
    let allocation = definition.count.map_or(8, |field| field.get(cdb));
    let limit = usize::try_from(allocation).unwrap_or(usize::MAX).min(room);
    if data.len() > limit {
        return Some("more data than ALLOCATION LENGTH".to_string());
    }
    let Some(total) = total(format, cdb, data) else {
        // The header itself may be cut off, but only by what was asked for.
        return (data.len() < limit && format != Format::Opaque).then(|| "the header is cut off".to_string());
    };
    if data.len() < total.min(limit) {
        return Some("less data than the header says".to_string());
    }
    if data.len() > total {
        return Some("more data than the header says".to_string());
    }
    // What is inside can only be judged if all of it is there.
    if data.len() == total { inside(format, cdb, data).err().map(str::to_string) } else { None }
}

/// The length of the whole data by its header, if that came.
fn total(format: Format, cdb: &[u8], data: &[u8]) -> Option<usize> {
    let at = |from: usize, to: usize| data.get(from..to).map(|bytes| number(bytes) as usize);
    Some(match format {
        Format::Sense => 8 + at(7, 8)?,
        Format::Inquiry if cdb[1] & 1 == 0 => 5 + at(4, 5)?,
        Format::Inquiry | Format::Log => 4 + at(2, 4)?,
        Format::Mode6 => 1 + at(0, 1)?,
        Format::Mode10 => 2 + at(0, 2)?,
        Format::Capacity10 => 8,
        Format::Capacity16 => 32,
        Format::LbaStatus | Format::PortGroups => 4 + at(0, 4)?,
        Format::Luns => 8 + at(0, 4)?,
        Format::Opcodes if cdb[2] & 7 == 0 => 4 + at(0, 4)?,
        Format::Opcodes => {
            let known = at(1, 2)? & 7 == 3 || at(1, 2)? & 7 == 5;
            let timeouts = if at(1, 2)? & 0x80 != 0 { 12 } else { 0 };
            if known { 4 + at(2, 4)? + timeouts } else { 4 }
        }
        Format::TaskManagement => 4 + at(3, 4)?,
        Format::Opaque => return None,
    })
}

fn inside(format: Format, cdb: &[u8], data: &[u8]) -> Result<(), &'static str> {
    match format {
        Format::Sense => check(
            matches!((data[0] & 0x7f, cdb[1] & 1), (0x70 | 0x71, 0) | (0x72 | 0x73, 1)),
            "the format of sense data is not the one DESC asks for",
        ),
        Format::Inquiry if cdb[1] & 1 == 0 => {
            check(data.len() >= 36, "standard INQUIRY data of less than 36 bytes")?;
            check(data[8..36].iter().all(|byte| (0x20..0x7f).contains(byte)), "an identification that is not ASCII")
        }
        Format::Inquiry => vpd(cdb[2], data),
        Format::Mode6 => mode(cdb, data, 4, usize::from(data[3])),
        Format::Mode10 => mode(cdb, data, 8, number(&data[6..8]) as usize),
        Format::Log => log(cdb, data),
        Format::Capacity10 => check(number(&data[4..8]) > 0, "a block length of 0"),
        Format::Capacity16 => check(data[16..].iter().all(|byte| *byte == 0), "reserved bytes are set"),
        Format::LbaStatus => lba_status(cdb, data),
        Format::Luns => check((data.len() - 8).is_multiple_of(8), "LUN LIST LENGTH is no multiple of 8"),
        Format::PortGroups => port_groups(cdb, data),
        Format::Opcodes => opcodes(cdb, data),
        Format::TaskManagement => {
            check(data.len() == if cdb[2] & 0x80 != 0 { 16 } else { 4 }, "the length is not what REPD asks for")
        }
        Format::Opaque => Ok(()),
    }
}

fn check(holds: bool, complaint: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(complaint) }
}

fn vpd(page: u8, data: &[u8]) -> Result<(), &'static str> {
    check(data[1] == page, "the PAGE CODE is another one")?;
    match page {
        0x00 => check(data[4..].is_sorted_by(|a, b| a < b), "pages are not in ascending order"),
        0x83 => {
            let mut rest = &data[4..];
            while !rest.is_empty() {
                let length = 4 + usize::from(*rest.get(3).ok_or("a designation descriptor is cut off")?);
                rest = rest.get(length..).ok_or("a designation descriptor is cut off")?;
            }
            Ok(())
        }
        0x86 | 0xb0 | 0xb1 => check(data.len() == 64, "PAGE LENGTH is not 3Ch"),
        0xb2 => check(data.len() >= 8, "PAGE LENGTH is less than 4"),
        _ => Ok(()),
    }
}

fn mode(cdb: &[u8], data: &[u8], header: usize, descriptors: usize) -> Result<(), &'static str> {
    check(cdb[1] & 0x08 == 0 || descriptors == 0, "block descriptors in spite of DBD")?;
    check(matches!(descriptors, 0 | 8 | 16), "BLOCK DESCRIPTOR LENGTH is none of 0, 8 and 16")?;
    let long = header == 8 && data[4] & 1 != 0;
    check(descriptors == 0 || (descriptors == 16) == long, "BLOCK DESCRIPTOR LENGTH and LONGLBA disagree")?;
    check(!long || cdb[1] & 0x10 != 0, "LONGLBA without LLBAA")?;
    let mut rest = data.get(header + descriptors..).ok_or("block descriptors are cut off")?;
    let asked = cdb[2] & 0x3f;
    check(!rest.is_empty(), "there is no page")?;
    while !rest.is_empty() {
        let code = rest[0] & 0x3f;
        let subpage = rest[0] & 0x40 != 0;
        let size = if subpage { rest.get(2..4).map(|b| 4 + number(b)) } else { rest.get(1).map(|b| 2 + u64::from(*b)) };
        check(asked == 0x3f || code == asked, "a page that was not asked for")?;
        check(!subpage || cdb[3] == 0xff || rest.get(1) == Some(&cdb[3]), "a subpage that was not asked for")?;
        check(subpage || matches!(cdb[3], 0 | 0xff), "a page instead of a subpage")?;
        rest = size.and_then(|size| rest.get(size as usize..)).ok_or("a mode page is cut off")?;
    }
    Ok(())
}

fn log(cdb: &[u8], data: &[u8]) -> Result<(), &'static str> {
    check(data[0] & 0x3f == cdb[2] & 0x3f, "the PAGE CODE is another one")?;
    check((data[0] & 0x40 != 0) == (data[1] != 0), "SPF and SUBPAGE CODE disagree")?;
    if cdb[2] & 0x3f == 0 || cdb[3] == 0xff {
        return Ok(());
    }
    let mut rest = &data[4..];
    while !rest.is_empty() {
        let length = 4 + usize::from(*rest.get(3).ok_or("a log parameter is cut off")?);
        rest = rest.get(length..).ok_or("a log parameter is cut off")?;
    }
    Ok(())
}

fn lba_status(cdb: &[u8], data: &[u8]) -> Result<(), &'static str> {
    check(data.len() >= 8 && (data.len() - 8).is_multiple_of(16), "the length is not that of whole descriptors")?;
    let mut next = number(&cdb[2..10]);
    for descriptor in data[8..].chunks(16) {
        check(number(&descriptor[..8]) == next, "descriptors do not follow one another from the address asked for")?;
        let blocks = number(&descriptor[8..12]);
        check(blocks > 0, "a descriptor of no blocks")?;
        check(descriptor[12] & 0x0f <= 4, "a reserved PROVISIONING STATUS")?;
        next += blocks;
    }
    Ok(())
}

fn port_groups(cdb: &[u8], data: &[u8]) -> Result<(), &'static str> {
    let header = if cdb[1] >> 5 == 1 { 8 } else { 4 };
    let mut rest = data.get(header..).ok_or("the header is cut off")?;
    while !rest.is_empty() {
        let length = 8 + 4 * usize::from(*rest.get(7).ok_or("a descriptor is cut off")?);
        rest = rest.get(length..).ok_or("a descriptor is cut off")?;
    }
    Ok(())
}

fn opcodes(cdb: &[u8], data: &[u8]) -> Result<(), &'static str> {
    if cdb[2] & 7 != 0 {
        let supported = data[1] & 7 == 3;
        return check(!supported || data[4] == cdb[3], "the usage data is that of another command");
    }
    let mut rest = &data[4..];
    while rest.len() >= 8 {
        let length = if rest[5] & 2 != 0 { 20 } else { 8 };
        check((length == 20) == (cdb[2] & 0x80 != 0), "CTDP is not what RCTD asks for")?;
        let size = number(&rest[6..8]);
        check(matches!(size, 6 | 10 | 12 | 16 | 32), "a CDB LENGTH that no command has")?;
        rest = rest.get(length..).ok_or("a descriptor is cut off")?;
    }
    check(rest.is_empty(), "the length is not that of whole descriptors")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inquiry(page: u8, data: &[u8]) -> Option<String> {
        complaint(Format::Inquiry, &[0x12, 1, page, 0, 96, 0], data, 96)
    }

    #[test]
    fn a_sound_page_is_not_complained_of_whole_or_cut_off() {
        let page = [0, 0, 0, 3, 0x00, 0x80, 0x83];
        assert_eq!(inquiry(0, &page), None);
        assert_eq!(complaint(Format::Inquiry, &[0x12, 1, 0, 0, 5, 0], &page[..5], 5), None);
        assert_eq!(complaint(Format::Inquiry, &[0x12, 1, 0, 0, 0, 0], &[], 0), None);
    }

    #[test]
    fn a_length_that_does_not_fit_is_complained_of() {
        assert_eq!(inquiry(0, &[0, 0, 0, 4, 0x00, 0x80, 0x83]).unwrap(), "less data than the header says");
        assert_eq!(inquiry(0, &[0, 0, 0, 2, 0x00, 0x80, 0x83]).unwrap(), "more data than the header says");
        assert_eq!(inquiry(0, &[0, 0]).unwrap(), "the header is cut off");
    }

    #[test]
    fn what_is_inside_is_judged() {
        assert_eq!(inquiry(0, &[0, 0, 0, 2, 0x83, 0x80]).unwrap(), "pages are not in ascending order");
        assert_eq!(inquiry(0x83, &[0, 0x83, 0, 5, 1, 3, 0, 8, 0]).unwrap(), "a designation descriptor is cut off");
        let sense = |data: &[u8], pages: u8| complaint(Format::Mode6, &[0x1a, 8, pages, 0, 64, 0], data, 64);
        assert_eq!(sense(&[5, 0, 0, 0, 8, 0], 8), None);
        assert_eq!(sense(&[5, 0, 0, 0, 8, 0], 0x0a).unwrap(), "a page that was not asked for");
        assert_eq!(sense(&[5, 0, 0, 0, 8, 9], 8).unwrap(), "a mode page is cut off");
        assert_eq!(sense(&[13, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0, 8, 0], 8).unwrap(), "block descriptors in spite of DBD");
    }

    #[test]
    fn lba_status_goes_on_from_the_address_asked_for() {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[9], cdb[13]) = (0x9e, 0x12, 5, 24);
        let mut data = vec![0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 1, 0, 0, 0];
        assert_eq!(complaint(Format::LbaStatus, &cdb, &data, 24), None);
        data[15] = 4;
        assert!(complaint(Format::LbaStatus, &cdb, &data, 24).unwrap().contains("follow one another"));
    }
}
