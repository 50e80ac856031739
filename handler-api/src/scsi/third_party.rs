//! The Third-party Copy VPD page (SPC-5 7.7.18): what the copy manager can do.
use super::{UnitFacts, copy, token};

/// Operation codes and service actions of third-party copy.
const COMMANDS: [(u8, &[u8]); 2] = [(0x83, &[0x00, 0x10, 0x11]), (0x84, &[0x00, 0x03, 0x07])];

/// The body of the page: descriptors of a type, a length and data that is a multiple of four bytes.
pub(super) fn copy(facts: &UnitFacts) -> Vec<u8> {
    let mut page = Vec::new();
    descriptor(&mut page, 0x0000, &token_limits(facts));
    descriptor(&mut page, 0x0001, &commands());
    descriptor(&mut page, 0x0004, &parameter_data());
    descriptor(&mut page, 0x0008, &[2, 0x02, 0xe4]);
    descriptor(&mut page, 0x000c, &[0, 0]); // no CSCD descriptor ids besides the indexes
    descriptor(&mut page, 0x0106, &token_features());
    descriptor(&mut page, 0x0108, &rod_types());
    descriptor(&mut page, 0x8001, &general(facts));
    page
}

fn descriptor(page: &mut Vec<u8>, kind: u16, data: &[u8]) {
    let length = data.len().next_multiple_of(4);
    page.extend(kind.to_be_bytes());
    page.extend((length as u16).to_be_bytes());
    page.extend(data);
    page.resize(page.len() + length - data.len(), 0);
}

/// Block Device ROD Token Limits (SBC-4 6.6.8.3).
fn token_limits(facts: &UnitFacts) -> Vec<u8> {
    let mut data = vec![0; 32];
    data[6..8].copy_from_slice(&token::MAX_RANGES.to_be_bytes());
    data[8..12].copy_from_slice(&token::MAX_TIMEOUT.to_be_bytes());
    data[12..16].copy_from_slice(&token::DEFAULT_TIMEOUT.to_be_bytes());
    data[16..24].copy_from_slice(&facts.capacity.0.to_be_bytes()); // MAXIMUM TOKEN TRANSFER SIZE
    data[24..32].copy_from_slice(&0u64.to_be_bytes()); // OPTIMAL TRANSFER COUNT: not said
    data
}

/// Supported Commands.
fn commands() -> Vec<u8> {
    let mut list = Vec::new();
    for (code, actions) in COMMANDS {
        list.extend([code, actions.len() as u8]);
        list.extend(actions);
    }
    let mut data = vec![list.len() as u8];
    data.extend(list);
    data
}

/// Parameter Data.
fn parameter_data() -> Vec<u8> {
    let mut data = vec![0; 28];
    data[4..6].copy_from_slice(&copy::MAX_CSCDS.to_be_bytes());
    data[6..8].copy_from_slice(&copy::MAX_SEGMENTS.to_be_bytes());
    data[8..12].copy_from_slice(&copy::MAX_DESCRIPTORS.to_be_bytes());
    data
}

/// ROD Token Features: tokens are of this unit, and live as long as they are used.
fn token_features() -> Vec<u8> {
    let mut data = vec![0; 44];
    data[12..16].copy_from_slice(&0u32.to_be_bytes()); // MINIMUM TOKEN LIFETIME
    data[16..20].copy_from_slice(&token::MAX_TIMEOUT.to_be_bytes());
    data[20..24].copy_from_slice(&token::MAX_TIMEOUT.to_be_bytes());
    data
}

/// Supported ROD Types: each can be made by POPULATE TOKEN and used by WRITE USING TOKEN, except that zeros are only used.
fn rod_types() -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, uses) in
        [(token::RodType::AccessUponReference, 0x03), (token::RodType::ChangeVulnerable, 0x03), (token::RodType::Zeros, 0x02)]
    {
        let mut rod = [0; 64];
        rod[..4].copy_from_slice(&kind.code().to_be_bytes());
        rod[4] = uses; // TOKEN_IN, TOKEN_OUT
        list.extend(rod);
    }
    let mut data = vec![0, 0];
    data.extend((list.len() as u16).to_be_bytes());
    data.extend(list);
    data
}

/// General Copy Operations.
fn general(facts: &UnitFacts) -> Vec<u8> {
    let mut data = vec![0; 32];
    data[..4].copy_from_slice(&255u32.to_be_bytes()); // TOTAL CONCURRENT COPIES
    data[4..8].copy_from_slice(&255u32.to_be_bytes());
    data[8..12].copy_from_slice(&copy::MAX_SEGMENT_BYTES.to_be_bytes());
    data[12] = facts.block_size.bytes().trailing_zeros() as u8;
    data
}
