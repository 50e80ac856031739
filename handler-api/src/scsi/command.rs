//! From a CDB to a typed command. Decoded once, at the border; by value, without allocation.
use super::{
    AdditionalSense, Blocks, Lba, Sense, be,
    opcode::{self, Entry, Opcode},
};

/// A medium access: where, how much and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// LOGICAL BLOCK ADDRESS
    pub lba: Lba,
    /// TRANSFER LENGTH or NUMBER OF LOGICAL BLOCKS
    pub blocks: Blocks,
    /// FUA: the medium, not a cache.
    pub fua: bool,
    /// DPO: don't keep it in a cache.
    pub dpo: bool,
    /// The byte of the CDB that the length begins at, to point at when it is wrong.
    pub length_at: u8,
}

/// WRITE SAME (SBC-4 5.50, 5.51).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct WriteSame {
    pub lba: Lba,
    pub blocks: Blocks,
    pub unmap: bool,
    pub anchor: bool,
    /// No data-out buffer: zeros are written.
    pub ndob: bool,
    /// The 10-byte form.
    pub short: bool,
}

/// MODE SENSE (SPC-6 6.14, 6.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ModeSense {
    /// The 10-byte form, with its longer header.
    pub ten: bool,
    /// DBD
    pub no_block_descriptor: bool,
    /// LLBAA: a block descriptor may have 64 bits of address.
    pub long_block_address: bool,
    pub page_control: PageControl,
    pub page: u8,
    pub subpage: u8,
    pub allocation: u32,
}

/// Which values MODE SENSE wants (SPC-6 6.14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PageControl {
    Current,
    Changeable,
    Default,
    Saved,
}

/// What REPORT SUPPORTED OPERATION CODES wants (SPC-6 6.35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ReportOpcodes {
    /// REPORTING OPTIONS
    pub options: u8,
    /// Return command time-outs descriptors.
    pub rctd: bool,
    pub opcode: u8,
    pub service_action: u16,
    pub allocation: u32,
}

/// What a VERIFY, or the second half of a WRITE AND VERIFY, compares with (BYTCHK, SBC-4 5.36).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteCheck {
    /// 00b: nothing; the blocks are only read.
    Medium,
    /// 01b: each block with its own in the Data-Out buffer.
    EachBlock,
    /// 11b: every block with the only one in the Data-Out buffer.
    OneBlock,
}

/// Which log page LOG SENSE wants (SPC-6 6.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LogSense {
    pub save: bool,
    /// 0 threshold, 1 cumulative, 2 default threshold, 3 default cumulative.
    pub page_control: u8,
    pub page: u8,
    pub subpage: u8,
    /// PARAMETER POINTER
    pub parameter: u16,
    pub allocation: u32,
}

/// READ DEFECT DATA (SBC-4 5.17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ReadDefects {
    /// The 12-byte form, with its longer header.
    pub long: bool,
    pub primary: bool,
    pub grown: bool,
    pub format: u8,
    pub allocation: u32,
}

/// FORMAT UNIT (SBC-4 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FormatUnit {
    pub protection: u8,
    pub long_list: bool,
    pub format_data: bool,
    pub complete_list: bool,
    pub defect_list_format: u8,
    /// FFMT: 0 the whole medium, 1 and 2 leave the data undefined.
    pub fast: u8,
}

/// What SANITIZE shall do (SBC-4 5.30).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SanitizeAction {
    Overwrite,
    BlockErase,
    ExitFailureMode,
}

/// SANITIZE (SBC-4 5.30).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sanitize {
    pub action: SanitizeAction,
    pub immediate: bool,
    /// AUSE: a failure can be left by EXIT FAILURE MODE.
    pub unrestricted_exit: bool,
    pub length: u32,
}

/// READ BUFFER and WRITE BUFFER (SPC-6 6.18, 6.49).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BufferAccess {
    pub mode: u8,
    pub mode_specific: u8,
    pub id: u8,
    pub offset: u32,
    /// ALLOCATION LENGTH or PARAMETER LIST LENGTH
    pub length: u32,
}

/// SEND DIAGNOSTIC (SPC-6 6.42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SendDiagnostic {
    pub self_test_code: u8,
    pub page_format: bool,
    pub self_test: bool,
    pub length: u32,
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    TestUnitReady,
    RequestSense {
        descriptor: bool,
        allocation: u32,
    },
    FormatUnit(FormatUnit),
    Inquiry {
        page: Option<u8>,
        allocation: u32,
    },
    ModeSense(ModeSense),
    ModeSelect {
        ten: bool,
        page_format: bool,
        save: bool,
        length: u32,
    },
    StartStopUnit {
        immediate: bool,
        power_condition: u8,
        load_eject: bool,
        start: bool,
    },
    ReceiveDiagnosticResults {
        page: Option<u8>,
        allocation: u32,
    },
    SendDiagnostic(SendDiagnostic),
    PreventAllowMediumRemoval {
        prevent: bool,
    },
    ReadCapacity10,
    ReadCapacity16 {
        allocation: u32,
    },
    Read(Access),
    Write(Access),
    WriteAndVerify(Access, ByteCheck),
    Verify(Access, ByteCheck),
    Prefetch {
        lba: Lba,
        blocks: Blocks,
    },
    SynchronizeCache {
        immediate: bool,
        lba: Lba,
        blocks: Blocks,
    },
    ReadDefects(ReadDefects),
    WriteBuffer(BufferAccess),
    ReadBuffer(BufferAccess),
    Unmap {
        anchor: bool,
        length: u32,
    },
    WriteSame(WriteSame),
    Sanitize(Sanitize),
    LogSense(LogSense),
    ExtendedCopy {
        length: u32,
    },
    PopulateToken {
        list: u32,
        length: u32,
    },
    WriteUsingToken {
        list: u32,
        length: u32,
    },
    ReceiveCopyStatus {
        list: u8,
        allocation: u32,
    },
    ReceiveCopyOperatingParameters {
        allocation: u32,
    },
    ReceiveRodTokenInformation {
        list: u32,
        allocation: u32,
    },
    CompareAndWrite(Access),
    OrWrite(Access),
    WriteAtomic {
        access: Access,
        boundary: Blocks,
    },
    GetLbaStatus {
        lba: Lba,
        report: u8,
        allocation: u32,
    },
    ReportLuns {
        select: u8,
        allocation: u32,
    },
    /// INC_512: the allocation length is already in bytes here.
    SecurityProtocolIn {
        protocol: u8,
        specific: u16,
        allocation: u32,
    },
    ReportTargetPortGroups {
        extended: bool,
        allocation: u32,
    },
    SetTargetPortGroups {
        length: u32,
    },
    ReportSupportedOperationCodes(ReportOpcodes),
    ReportSupportedTaskManagement {
        long: bool,
        allocation: u32,
    },
}

/// Decodes a CDB. An error is the sense data to answer with: INVALID COMMAND OPERATION CODE, or INVALID FIELD IN CDB that points at the
/// field. Bits that are reserved, or that ask for what this software has not (protection information, NACA), are refused.
pub fn decode(cdb: &[u8]) -> Result<Command, Sense> {
    decode_as(identify(cdb)?, cdb)
}

/// Which command a CDB is, before its fields are looked at.
pub fn identify(cdb: &[u8]) -> Result<&'static Entry, Sense> {
    let Some(&code) = cdb.first() else { return Err(Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE)) };
    opcode::find(code, be::u8(cdb, 1) & 0x1f).map_err(|known| match known {
        true => Sense::invalid_cdb_field(1, Some(4)),
        false => Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE),
    })
}

/// Decodes a CDB of a command that is known.
pub fn decode_as(entry: &Entry, cdb: &[u8]) -> Result<Command, Sense> {
    check_reserved(entry, cdb)?;
    parse(entry.opcode, cdb)
}

fn check_reserved(entry: &Entry, cdb: &[u8]) -> Result<(), Sense> {
    if cdb.len() < entry.usage.len() {
        return Err(Sense::invalid_cdb_field(cdb.len() as u16, None));
    }
    match entry.wrong_bit(cdb) {
        None => Ok(()),
        Some((at, bit)) => Err(Sense::invalid_cdb_field(at as u16, Some(bit))),
    }
}

fn parse(opcode: Opcode, cdb: &[u8]) -> Result<Command, Sense> {
    let bit = |byte: usize, bit: u8| cdb[byte] >> bit & 1 != 0;
    Ok(match opcode {
        Opcode::TestUnitReady => Command::TestUnitReady,
        Opcode::RequestSense => Command::RequestSense { descriptor: bit(1, 0), allocation: u32::from(cdb[4]) },
        Opcode::Inquiry => {
            if !bit(1, 0) && cdb[2] != 0 {
                return Err(Sense::invalid_cdb_field(2, None)); // SPC-6 6.7.1: a page code needs EVPD
            }
            Command::Inquiry { page: bit(1, 0).then_some(cdb[2]), allocation: u32::from(be::u16(cdb, 3)) }
        }
        Opcode::ModeSense6 => mode_sense(cdb, false, u32::from(cdb[4])),
        Opcode::ModeSense10 => mode_sense(cdb, true, u32::from(be::u16(cdb, 7))),
        Opcode::ModeSelect6 => mode_select(cdb, false, u32::from(cdb[4])),
        Opcode::ModeSelect10 => mode_select(cdb, true, u32::from(be::u16(cdb, 7))),
        Opcode::StartStopUnit => {
            Command::StartStopUnit { immediate: bit(1, 0), power_condition: cdb[4] >> 4, load_eject: bit(4, 1), start: bit(4, 0) }
        }
        Opcode::FormatUnit => Command::FormatUnit(FormatUnit {
            protection: cdb[1] >> 6,
            long_list: bit(1, 5),
            format_data: bit(1, 4),
            complete_list: bit(1, 3),
            defect_list_format: cdb[1] & 0x07,
            fast: cdb[4] & 0x03,
        }),
        Opcode::ReceiveDiagnosticResults => {
            Command::ReceiveDiagnosticResults { page: bit(1, 0).then_some(cdb[2]), allocation: u32::from(be::u16(cdb, 3)) }
        }
        Opcode::SendDiagnostic => Command::SendDiagnostic(SendDiagnostic {
            self_test_code: cdb[1] >> 5,
            page_format: bit(1, 4),
            self_test: bit(1, 2),
            length: u32::from(be::u16(cdb, 3)),
        }),
        Opcode::PreventAllowMediumRemoval => Command::PreventAllowMediumRemoval { prevent: bit(4, 0) },
        Opcode::ReadCapacity10 => {
            // PMI is obsolete; without it the address must be zero (SBC-3 5.15).
            if bit(8, 0) || be::u32(cdb, 2) != 0 {
                return Err(Sense::invalid_cdb_field(if bit(8, 0) { 8 } else { 2 }, None));
            }
            Command::ReadCapacity10
        }
        Opcode::ReadCapacity16 => {
            if bit(14, 0) || be::u64(cdb, 2) != 0 {
                return Err(Sense::invalid_cdb_field(if bit(14, 0) { 14 } else { 2 }, None));
            }
            Command::ReadCapacity16 { allocation: be::u32(cdb, 10) }
        }
        Opcode::Read6 => Command::Read(access6(cdb)),
        Opcode::Write6 => Command::Write(access6(cdb)),
        Opcode::Read10 => Command::Read(access(cdb, u64::from(be::u32(cdb, 2)), u64::from(be::u16(cdb, 7)))?),
        Opcode::Write10 => Command::Write(access(cdb, u64::from(be::u32(cdb, 2)), u64::from(be::u16(cdb, 7)))?),
        Opcode::Read12 => Command::Read(access(cdb, u64::from(be::u32(cdb, 2)), u64::from(be::u32(cdb, 6)))?),
        Opcode::Write12 => Command::Write(access(cdb, u64::from(be::u32(cdb, 2)), u64::from(be::u32(cdb, 6)))?),
        Opcode::Read16 => Command::Read(access(cdb, be::u64(cdb, 2), u64::from(be::u32(cdb, 10)))?),
        Opcode::Write16 => Command::Write(access(cdb, be::u64(cdb, 2), u64::from(be::u32(cdb, 10)))?),
        Opcode::WriteAndVerify10 => verify(cdb, u64::from(be::u32(cdb, 2)), u64::from(be::u16(cdb, 7)), true)?,
        Opcode::WriteAndVerify12 => verify(cdb, u64::from(be::u32(cdb, 2)), u64::from(be::u32(cdb, 6)), true)?,
        Opcode::WriteAndVerify16 => verify(cdb, be::u64(cdb, 2), u64::from(be::u32(cdb, 10)), true)?,
        Opcode::Verify10 => verify(cdb, u64::from(be::u32(cdb, 2)), u64::from(be::u16(cdb, 7)), false)?,
        Opcode::Verify12 => verify(cdb, u64::from(be::u32(cdb, 2)), u64::from(be::u32(cdb, 6)), false)?,
        Opcode::Verify16 => verify(cdb, be::u64(cdb, 2), u64::from(be::u32(cdb, 10)), false)?,
        Opcode::Prefetch10 => {
            Command::Prefetch { lba: Lba(u64::from(be::u32(cdb, 2))), blocks: Blocks(u64::from(be::u16(cdb, 7))) }
        }
        Opcode::Prefetch16 => Command::Prefetch { lba: Lba(be::u64(cdb, 2)), blocks: Blocks(u64::from(be::u32(cdb, 10))) },
        Opcode::ReadDefectData10 => defects(cdb[2], false, u32::from(be::u16(cdb, 7))),
        Opcode::ReadDefectData12 => defects(cdb[1], true, be::u32(cdb, 6)),
        Opcode::WriteBuffer => Command::WriteBuffer(buffer(cdb)),
        Opcode::ReadBuffer10 => Command::ReadBuffer(buffer(cdb)),
        Opcode::SanitizeOverwrite => sanitize(cdb, SanitizeAction::Overwrite),
        Opcode::SanitizeBlockErase => sanitize(cdb, SanitizeAction::BlockErase),
        Opcode::SanitizeExitFailureMode => sanitize(cdb, SanitizeAction::ExitFailureMode),
        Opcode::LogSense => Command::LogSense(LogSense {
            save: bit(1, 0),
            page_control: cdb[2] >> 6,
            page: cdb[2] & 0x3f,
            subpage: cdb[3],
            parameter: be::u16(cdb, 5),
            allocation: u32::from(be::u16(cdb, 7)),
        }),
        Opcode::ExtendedCopyLid1 => Command::ExtendedCopy { length: be::u32(cdb, 10) },
        Opcode::PopulateToken => Command::PopulateToken { list: be::u32(cdb, 6), length: be::u32(cdb, 10) },
        Opcode::WriteUsingToken => Command::WriteUsingToken { list: be::u32(cdb, 6), length: be::u32(cdb, 10) },
        Opcode::ReceiveCopyStatusLid1 => Command::ReceiveCopyStatus { list: cdb[2], allocation: be::u32(cdb, 10) },
        Opcode::ReceiveCopyOperatingParameters => Command::ReceiveCopyOperatingParameters { allocation: be::u32(cdb, 10) },
        Opcode::ReceiveRodTokenInformation => {
            Command::ReceiveRodTokenInformation { list: be::u32(cdb, 2), allocation: be::u32(cdb, 10) }
        }
        Opcode::OrWrite16 => Command::OrWrite(access(cdb, be::u64(cdb, 2), u64::from(be::u32(cdb, 10)))?),
        Opcode::WriteAtomic16 => Command::WriteAtomic {
            access: access(cdb, be::u64(cdb, 2), u64::from(be::u16(cdb, 12)))?,
            boundary: Blocks(u64::from(be::u16(cdb, 10))),
        },
        Opcode::GetLbaStatus => {
            Command::GetLbaStatus { lba: Lba(be::u64(cdb, 2)), report: cdb[14], allocation: be::u32(cdb, 10) }
        }
        Opcode::SecurityProtocolIn => Command::SecurityProtocolIn {
            protocol: cdb[1],
            specific: be::u16(cdb, 2),
            allocation: if bit(4, 7) { be::u32(cdb, 6).saturating_mul(512) } else { be::u32(cdb, 6) },
        },
        Opcode::ReportTargetPortGroups => {
            // PARAMETER DATA FORMAT: 0 length only, 1 extended, others reserved (SPC-6 6.36)
            if cdb[1] >> 5 > 1 {
                return Err(Sense::invalid_cdb_field(1, Some(7)));
            }
            Command::ReportTargetPortGroups { extended: cdb[1] >> 5 == 1, allocation: be::u32(cdb, 6) }
        }
        Opcode::SetTargetPortGroups => Command::SetTargetPortGroups { length: be::u32(cdb, 6) },
        Opcode::ReportSupportedTaskManagement => {
            Command::ReportSupportedTaskManagement { long: bit(2, 7), allocation: be::u32(cdb, 6) }
        }
        Opcode::CompareAndWrite => Command::CompareAndWrite(access(cdb, be::u64(cdb, 2), u64::from(cdb[13]))?),
        Opcode::SynchronizeCache10 => Command::SynchronizeCache {
            immediate: bit(1, 1),
            lba: Lba(u64::from(be::u32(cdb, 2))),
            blocks: Blocks(u64::from(be::u16(cdb, 7))),
        },
        Opcode::SynchronizeCache16 => Command::SynchronizeCache {
            immediate: bit(1, 1),
            lba: Lba(be::u64(cdb, 2)),
            blocks: Blocks(u64::from(be::u32(cdb, 10))),
        },
        Opcode::WriteSame10 => write_same(cdb, u64::from(be::u32(cdb, 2)), u64::from(be::u16(cdb, 7)), None)?,
        Opcode::WriteSame16 => write_same(cdb, be::u64(cdb, 2), u64::from(be::u32(cdb, 10)), Some(bit(1, 0)))?,
        Opcode::Unmap => Command::Unmap { anchor: bit(1, 0), length: u32::from(be::u16(cdb, 7)) },
        Opcode::ReportLuns => Command::ReportLuns { select: cdb[2], allocation: be::u32(cdb, 6) },
        Opcode::ReportSupportedOperationCodes => Command::ReportSupportedOperationCodes(ReportOpcodes {
            options: cdb[2] & 0x07,
            rctd: bit(2, 7),
            opcode: cdb[3],
            service_action: be::u16(cdb, 4),
            allocation: be::u32(cdb, 6),
        }),
        // What the kernel does itself does not come here.
        _ => return Err(Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE)),
    })
}

fn verify(cdb: &[u8], lba: u64, blocks: u64, write: bool) -> Result<Command, Sense> {
    no_protection(cdb)?;
    let check = match cdb[1] >> 1 & 0x03 {
        0 => ByteCheck::Medium,
        1 => ByteCheck::EachBlock,
        3 if !write => ByteCheck::OneBlock,
        _ => return Err(Sense::invalid_cdb_field(1, Some(2))), // reserved
    };
    let dpo = cdb[1] & 0x10 != 0;
    let access = Access { lba: Lba(lba), blocks: Blocks(blocks), fua: false, dpo, length_at: length_at(cdb) };
    Ok(if write { Command::WriteAndVerify(access, check) } else { Command::Verify(access, check) })
}

fn defects(flags: u8, long: bool, allocation: u32) -> Command {
    let (primary, grown, format) = (flags & 0x10 != 0, flags & 0x08 != 0, flags & 0x07);
    Command::ReadDefects(ReadDefects { long, primary, grown, format, allocation })
}

fn buffer(cdb: &[u8]) -> BufferAccess {
    BufferAccess {
        mode: cdb[1] & 0x1f,
        mode_specific: cdb[1] >> 5,
        id: cdb[2],
        offset: be::u32(cdb, 2) & 0xff_ffff,
        length: be::u32(cdb, 5) & 0xff_ffff,
    }
}

fn sanitize(cdb: &[u8], action: SanitizeAction) -> Command {
    let (immediate, unrestricted_exit) = (cdb[1] & 0x80 != 0, cdb[1] & 0x20 != 0);
    Command::Sanitize(Sanitize { action, immediate, unrestricted_exit, length: u32::from(be::u16(cdb, 7)) })
}

/// READ(6) and WRITE(6): 21 bits of address, and a length of 0 means 256 blocks (SBC-4 5.16).
fn access6(cdb: &[u8]) -> Access {
    let lba = u64::from(be::u32(cdb, 0) & 0x1f_ffff);
    let blocks = if cdb[4] == 0 { 256 } else { u64::from(cdb[4]) };
    Access { lba: Lba(lba), blocks: Blocks(blocks), fua: false, dpo: false, length_at: 4 }
}

fn access(cdb: &[u8], lba: u64, blocks: u64) -> Result<Access, Sense> {
    no_protection(cdb)?;
    if cdb[1] & 0x02 != 0 {
        return Err(Sense::invalid_cdb_field(1, Some(1))); // FUA_NV is obsolete
    }
    let (fua, dpo) = (cdb[1] & 0x08 != 0, cdb[1] & 0x10 != 0);
    Ok(Access { lba: Lba(lba), blocks: Blocks(blocks), fua, dpo, length_at: length_at(cdb) })
}

/// Where the length of a CDB of 10, 12 or 16 bytes is.
fn length_at(cdb: &[u8]) -> u8 {
    match cdb[0] >> 5 {
        1 | 2 => 7,
        5 => 6,
        _ => 10,
    }
}

/// RDPROTECT, WRPROTECT: a unit without protection information refuses anything but zero (SBC-4 4.21.3).
fn no_protection(cdb: &[u8]) -> Result<(), Sense> {
    if cdb[1] & 0xe0 != 0 { Err(Sense::invalid_cdb_field(1, Some(7))) } else { Ok(()) }
}

fn write_same(cdb: &[u8], lba: u64, blocks: u64, ndob: Option<bool>) -> Result<Command, Sense> {
    no_protection(cdb)?;
    let (unmap, anchor) = (cdb[1] & 0x08 != 0, cdb[1] & 0x10 != 0);
    Ok(Command::WriteSame(WriteSame {
        lba: Lba(lba),
        blocks: Blocks(blocks),
        unmap,
        anchor,
        ndob: ndob == Some(true),
        short: ndob.is_none(),
    }))
}

fn mode_sense(cdb: &[u8], ten: bool, allocation: u32) -> Command {
    let page_control = match cdb[2] >> 6 {
        0 => PageControl::Current,
        1 => PageControl::Changeable,
        2 => PageControl::Default,
        _ => PageControl::Saved,
    };
    Command::ModeSense(ModeSense {
        ten,
        no_block_descriptor: cdb[1] & 0x08 != 0,
        long_block_address: ten && cdb[1] & 0x10 != 0,
        page_control,
        page: cdb[2] & 0x3f,
        subpage: cdb[3],
        allocation,
    })
}

fn mode_select(cdb: &[u8], ten: bool, length: u32) -> Command {
    Command::ModeSelect { ten, page_format: cdb[1] & 0x10 != 0, save: cdb[1] & 0x01 != 0, length }
}

#[cfg(test)]
mod tests;
