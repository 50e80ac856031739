//! Parameter lists to try.
use super::{Choose, command::place, disk::Disk};

/// An identification descriptor CSCD descriptor for a unit (SPC-4 6.4.5.3).
pub fn cscd(naa: &[u8], block: usize) -> Vec<u8> {
    let mut descriptor = vec![0; 32];
    (descriptor[0], descriptor[4], descriptor[5], descriptor[7]) = (0xe4, 1, 3, naa.len() as u8);
    descriptor[8..8 + naa.len()].copy_from_slice(naa);
    descriptor[29..32].copy_from_slice(&(block as u32).to_be_bytes()[1..]);
    descriptor
}

/// An UNMAP parameter list.
pub fn unmap(choose: &mut Choose<'_>, disk: &Disk, room: Option<(u64, u64)>) -> Vec<u8> {
    let count = choose.below(4) as u16 + 1;
    let mut list = vec![0; 8];
    list[..2].copy_from_slice(&(16 * count + 6).to_be_bytes());
    list[2..4].copy_from_slice(&(16 * count).to_be_bytes());
    for _ in 0..count {
        let (lba, blocks) = place(choose, disk, room);
        list.extend(lba.to_be_bytes());
        list.extend((blocks as u32).to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

/// An EXTENDED COPY(LID1) parameter list with segments from block device to block device.
pub fn copy(choose: &mut Choose<'_>, disk: &Disk, room: Option<(u64, u64)>) -> Vec<u8> {
    let count = choose.below(3) as u32 + 1;
    let mut list = vec![0; 16];
    list[0] = choose.byte();
    list[3] = 32;
    list[8..12].copy_from_slice(&(28 * count).to_be_bytes());
    list.extend(cscd(&disk.facts.naa, disk.shape.block));
    for _ in 0..count {
        let (from, blocks) = place(choose, disk, room);
        let (to, other) = place(choose, disk, room);
        let blocks = if choose.seldom(16) { blocks } else { blocks.min(other) };
        list.extend([0x02, 0, 0, 24, 0, 0, 0, 0, 0, 0]);
        list.extend((blocks as u16).to_be_bytes());
        list.extend(from.to_be_bytes());
        list.extend(to.to_be_bytes());
    }
    list
}

/// A MODE SELECT(10) list that switches the write cache.
pub fn caching(on: bool) -> Vec<u8> {
    let mut list = vec![0; 8 + 20];
    (list[8], list[9], list[10]) = (0x08, 18, u8::from(on) << 2);
    list
}
