//! What is remarkable about a command: the part of a difference's key that is the same for the same mistake.
use crate::{
    command::{Definition, Kind},
    request::{Geometry, Request, needed},
};

/// In fixed order, so that two commands with the same features have the same key.
pub fn features(request: &Request, sent: usize, geometry: &Geometry) -> Vec<String> {
    let cdb = &request.cdb;
    let Some(definition) = request.definition() else { return Vec::new() };
    let mut found = Vec::new();
    if cdb.len() != definition.length {
        found.push("CDB of wrong length".to_string());
        return found;
    }
    let defined = definition.defined();
    let last = definition.length - 1;
    let wrong = |at: usize| cdb[at] & !defined[at];
    if cdb[last] & 0x04 != 0 {
        found.push("naca".to_string());
    }
    if definition.length == 6 && wrong(1) & 0xe0 != 0 {
        found.push("LUN".to_string());
    }
    let obsolete = if definition.length == 6 { 0x1f } else { 0xff };
    if (1..last).any(|at| wrong(at) & if at == 1 { obsolete } else { 0xff } != 0) || cdb[last] & 0x3b != 0 {
        found.push("reserved".to_string());
    } else if cdb[last] & 0xc0 != 0 {
        found.push("vendor".to_string());
    }
    for flag in definition.flags {
        let value = (cdb[flag.at] & flag.mask) >> flag.mask.trailing_zeros();
        let text = if flag.valued { format!("{}={value:X}h", flag.name) } else { flag.name.to_string() };
        if value != 0 && !found.contains(&text) {
            found.push(text);
        }
    }
    found.extend(range(definition, cdb, geometry).map(str::to_string));
    found.extend(buffer(request, definition, sent, geometry).map(str::to_string));
    found.push(request.out.label());
    found.retain(|feature| !feature.is_empty());
    found
}

fn range(definition: &Definition, cdb: &[u8], geometry: &Geometry) -> Option<&'static str> {
    let count = definition.count(cdb);
    let Some(field) = definition.lba else {
        return (count == 0 && definition.count.is_some()).then_some("no length");
    };
    let lba = field.get(cdb);
    match definition.kind {
        Kind::Describe(_) if count == 0 && definition.count.is_some() => Some("no length"),
        Kind::Describe(_) if lba >= geometry.capacity => Some("out of range"),
        Kind::Describe(_) => (lba != 0).then_some("lba"),
        _ if lba == geometry.capacity && count == 0 => Some("at the end"),
        _ if lba.checked_add(count).is_none_or(|end| end > geometry.capacity) => Some("out of range"),
        _ => (count == 0).then_some("no blocks"),
    }
}

fn buffer(request: &Request, definition: &Definition, sent: usize, geometry: &Geometry) -> Option<&'static str> {
    let needed = needed(definition, &request.cdb, geometry);
    let has = sent.max(request.room) as u64;
    match has.cmp(&needed) {
        std::cmp::Ordering::Less => Some("short buffer"),
        std::cmp::Ordering::Greater => Some("long buffer"),
        std::cmp::Ordering::Equal => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Payload;

    fn of(cdb: &[u8], sent: usize, room: usize) -> String {
        let out = if sent > 0 { Payload::Random { seed: 0, length: sent } } else { Payload::None };
        let request = Request { cdb: cdb.to_vec(), out, room };
        features(&request, sent, &Geometry { block: 512, capacity: 1000 }).join(" ")
    }

    #[test]
    fn an_ordinary_read_has_no_features() {
        assert_eq!(of(&[0x28, 0, 0, 0, 0, 1, 0, 0, 2, 0], 0, 1024), "");
    }

    #[test]
    fn flags_ranges_and_reserved_bits_are_named() {
        assert_eq!(of(&[0x28, 0x08, 0, 0, 3, 0xe7, 0, 0, 2, 0], 0, 1024), "fua out of range");
        assert_eq!(of(&[0x28, 0x01, 0, 0, 3, 0xe8, 0, 0, 0, 0], 0, 0), "reserved at the end");
        assert_eq!(of(&[0x12, 0x01, 0x83, 0, 96, 4], 0, 96), "naca evpd page=83h");
        assert_eq!(of(&[0x00, 0xe0, 0, 0, 0, 0], 0, 0), "LUN");
        assert_eq!(of(&[0x2f, 0x06, 0, 0, 0, 0, 0, 0, 2, 0], 512, 0), "bytchk=3h");
    }

    #[test]
    fn buffers_that_disagree_with_the_cdb_are_named() {
        assert_eq!(of(&[0x2a, 0, 0, 0, 0, 1, 0, 0, 2, 0], 512, 0), "short buffer");
        assert_eq!(of(&[0x28, 0, 0, 0, 0, 1, 0, 0, 2, 0], 0, 2048), "long buffer");
    }

    #[test]
    fn the_end_of_64_bits_is_out_of_range() {
        let mut cdb = [0xff; 16];
        (cdb[0], cdb[1], cdb[14], cdb[15]) = (0x88, 0, 0, 0);
        assert!(of(&cdb, 0, 512).starts_with("out of range"));
    }
}
