//! What a logical unit says of itself. All pages are made from this one struct.
use super::{BlockSize, Blocks};

/// Facts about a logical unit.
#[derive(Clone, Debug)]
pub struct UnitFacts {
    /// PERIPHERAL DEVICE TYPE (SPC-6 6.7.2).
    pub device_type: u8,
    /// The medium can be removed.
    pub removable: bool,
    /// T10 VENDOR IDENTIFICATION
    pub vendor: [u8; 8],
    /// PRODUCT IDENTIFICATION
    pub product: [u8; 16],
    /// PRODUCT REVISION LEVEL
    pub revision: [u8; 4],
    /// The unit serial number, printable ASCII; empty if it has none yet.
    pub serial: String,
    /// Length of a logical block.
    pub block_size: BlockSize,
    /// Number of logical blocks.
    pub capacity: Blocks,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT
    pub physical_exponent: u8,
    /// A completed write may still be lost (WCE).
    pub write_cache: bool,
    /// WCE can be changed by MODE SELECT.
    pub write_cache_changeable: bool,
    /// The unit can't be written.
    pub read_only: bool,
    /// Initiators protected it against being written (SWP).
    pub software_write_protect: bool,
    /// Sense data comes in descriptor format (D_SENSE).
    pub descriptor_sense: bool,
    /// MEDIUM ROTATION RATE (SBC-4 6.6.2): 0 not reported, 1 not rotating, else per minute.
    pub rotation_rate: u16,
    /// Provisioning.
    pub provisioning: Provisioning,
    /// MAXIMUM TRANSFER LENGTH; 0 is no limit.
    pub max_transfer: u32,
    /// OPTIMAL TRANSFER LENGTH; 0 is unknown.
    pub optimal_transfer: u32,
    /// OPTIMAL TRANSFER LENGTH GRANULARITY; 0 is unknown.
    pub transfer_granularity: u16,
    /// MAXIMUM COMPARE AND WRITE LENGTH; 0: the command isn't supported.
    pub max_compare_and_write: u8,
    /// MAXIMUM WRITE SAME LENGTH
    pub max_write_same: u64,
    /// Atomic writes, if the unit has them.
    pub atomic: Option<Atomic>,
    /// How the unit is reached, if it is in one way only.
    pub port: Option<Port>,
    /// TPGS: bit 0 implicit, bit 1 explicit asymmetric access.
    pub asymmetric_access: u8,
}

/// Atomic writes (SBC-4 4.29), in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atomic {
    /// MAXIMUM ATOMIC TRANSFER LENGTH
    pub max_transfer: u32,
}

/// A target port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// RELATIVE TARGET PORT IDENTIFIER
    pub relative_id: u16,
    /// PROTOCOL IDENTIFIER (SPC-6 7.6.1)
    pub protocol: u8,
    /// TARGET PORT GROUP
    pub group: u16,
    /// Its SCSI name, such as `iqn.2001-04.com.example:disk,t,0x0001`.
    pub name: String,
    /// The SCSI name of its target device, such as `iqn.2001-04.com.example:disk`.
    pub device: String,
}

/// Logical block provisioning (SBC-4 4.7, 6.6.6), in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provisioning {
    /// Thinly provisioned: LBPME is set.
    pub thin: bool,
    /// UNMAP, and WRITE SAME with UNMAP, deallocate.
    pub unmap: bool,
    /// What was deallocated reads as zeros.
    pub zeroes: bool,
    /// MAXIMUM UNMAP LBA COUNT
    pub max_unmap: u32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT
    pub max_descriptors: u32,
    /// OPTIMAL UNMAP GRANULARITY; 0 is unknown.
    pub granularity: u32,
    /// UNMAP GRANULARITY ALIGNMENT, if known.
    pub alignment: Option<u32>,
}

/// Left-aligned ASCII in a field of fixed length, padded with blanks; anything that isn't printable becomes a blank (SPC-6 4.3.1).
pub fn ascii_field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = if (0x20..0x7f).contains(&from) { from } else { b' ' };
    }
    field
}

#[cfg(test)]
impl UnitFacts {
    /// A thin disk of 100 blocks of 512 bytes, for tests.
    pub(crate) fn example() -> UnitFacts {
        UnitFacts {
            device_type: 0,
            removable: false,
            vendor: ascii_field("LIO-ORG"),
            product: ascii_field("TCMU device"),
            revision: ascii_field("0002"),
            serial: "1".into(),
            block_size: BlockSize::B512,
            capacity: Blocks(100),
            physical_exponent: 3,
            write_cache: true,
            write_cache_changeable: true,
            read_only: false,
            software_write_protect: false,
            descriptor_sense: false,
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
            atomic: None,
            port: None,
            asymmetric_access: 0,
        }
    }
}
