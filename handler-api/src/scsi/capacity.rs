//! READ CAPACITY data (SBC-4 5.20, 5.21) and REPORT LUNS data (SPC-6 6.33).
use super::UnitFacts;

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
