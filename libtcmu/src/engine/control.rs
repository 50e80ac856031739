//! Commands that are answered at once, from what is known of the unit.
use tcmu_handler_api::{
    plugin::{Buffer, DeviceFlags, Operations},
    scsi::{
        AdditionalSense, Command, Sense, SenseKey, capacity,
        command::{BufferAccess, SendDiagnostic},
        copy, inquiry, log, mode,
        opcode::{Entry, Opcode},
        report,
        sense::SENSE_BUFFER,
        token, vpd,
    },
};

use super::{Outcome, Unit, erase};

/// Bytes of the buffer behind READ BUFFER and WRITE BUFFER.
const ECHO: usize = 4096;

/// Answers a command that needs no handler.
pub(super) fn answer(unit: &mut Unit, command: Command, buffer: &Buffer<'_>) -> Result<Outcome, Sense> {
    match command {
        Command::TestUnitReady => Ok(reply(buffer, &[], 0)),
        Command::RequestSense { descriptor, allocation } => {
            let sense = unit.pending().unwrap_or(Sense::new(SenseKey::NoSense, AdditionalSense::NONE));
            let mut data = [0; SENSE_BUFFER];
            let length = if descriptor { sense.write_descriptor(&mut data) } else { sense.write_fixed(&mut data) };
            Ok(reply(buffer, &data[..length], allocation))
        }
        Command::Inquiry { page: None, allocation } => Ok(reply(buffer, &inquiry::standard(&unit.identity()), allocation)),
        Command::Inquiry { page: Some(page), allocation } => {
            let data = vpd::page(page, &unit.identity()).ok_or(Sense::invalid_cdb_field(2, None))?;
            Ok(reply(buffer, &data, allocation))
        }
        Command::ModeSense(request) => Ok(reply(buffer, &mode::sense(&request, &unit.facts())?, request.allocation)),
        Command::StartStopUnit { power_condition, load_eject, start, .. } => {
            start_stop(unit, power_condition, load_eject, start)?;
            Ok(reply(buffer, &[], 0))
        }
        Command::PreventAllowMediumRemoval { prevent } if is_removable(unit) => {
            unit.prevented = prevent;
            Ok(reply(buffer, &[], 0))
        }
        Command::ReadCapacity10 => Ok(reply(buffer, &capacity::read_capacity_10(&unit.facts()), 8)),
        Command::ReadCapacity16 { allocation } => Ok(reply(buffer, &capacity::read_capacity_16(&unit.facts()), allocation)),
        Command::ReportLuns { select: 0x00 | 0x02, allocation } => Ok(reply(buffer, &capacity::report_luns(), allocation)),
        Command::ReportLuns { select: 0x01, allocation } => Ok(reply(buffer, &[0; 8], allocation)),
        Command::ReportLuns { .. } => Err(Sense::invalid_cdb_field(2, None)),
        Command::ReportSupportedOperationCodes(request) => {
            let data = report::data(&request, |entry| supports(unit, entry))?;
            Ok(reply(buffer, &data, request.allocation))
        }
        Command::ReportSupportedTaskManagement { long, allocation } => {
            if allocation < 4 {
                return Err(Sense::invalid_cdb_field(6, None)); // SPC-6 6.37: four or more
            }
            Ok(reply(buffer, &report::task_management(long), allocation))
        }
        Command::LogSense(request) => Ok(reply(buffer, &log::sense(&request, &unit.statistics)?, request.allocation)),
        Command::ReadDefects(request) => Ok(reply(buffer, &capacity::defects(&request)?, request.allocation)),
        Command::ReceiveCopyStatus { list, allocation } => {
            let status = super::copy::status(unit, list).ok_or(Sense::invalid_cdb_field(2, None))?;
            Ok(reply(buffer, &copy::status(status), allocation))
        }
        Command::ReceiveCopyOperatingParameters { allocation } => {
            let shift = unit.block_size().bytes().trailing_zeros() as u8;
            Ok(reply(buffer, &copy::operating_parameters(shift), allocation))
        }
        Command::ReceiveRodTokenInformation { list, allocation } => {
            let status = unit.tokens.status(list).ok_or(Sense::invalid_cdb_field(2, None))?;
            Ok(reply(buffer, &token::information(status), allocation))
        }
        Command::ReadBuffer(access) => read_buffer(unit, &access, buffer),
        Command::WriteBuffer(access) => write_buffer(unit, &access, buffer),
        Command::SecurityProtocolIn { protocol: 0, specific, allocation } => {
            // SPC-6 7.6.2: security protocol information
            let data: &[u8] = match specific {
                0x0000 => &[0, 0, 0, 0, 0, 0, 0, 1, 0x00], // one protocol, this one
                0x0001 => &[0, 0, 0, 0],                   // no certificate
                _ => return Err(Sense::invalid_cdb_field(2, None)),
            };
            Ok(reply(buffer, data, allocation))
        }
        Command::SecurityProtocolIn { .. } => Err(Sense::invalid_cdb_field(1, None)),
        Command::SendDiagnostic(request) => send_diagnostic(&request, buffer),
        Command::ReceiveDiagnosticResults { page, allocation } => match page {
            Some(0x00) | None => Ok(reply(buffer, &[0x00, 0, 0, 1, 0x00], allocation)),
            Some(_) => Err(Sense::invalid_cdb_field(2, None)),
        },
        _ => Err(Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE)),
    }
}

fn is_removable(unit: &Unit) -> bool {
    unit.info().flags().contains(DeviceFlags::REMOVABLE)
}

/// START STOP UNIT (SBC-4 5.31). There are no power conditions, and a disk that several initiators use is not stopped because one of them
/// says so; a medium that can be removed can be taken out and put back.
fn start_stop(unit: &mut Unit, power_condition: u8, load_eject: bool, start: bool) -> Result<(), Sense> {
    if power_condition != 0 {
        return Err(Sense::invalid_cdb_field(4, Some(7)));
    }
    if load_eject {
        if !is_removable(unit) {
            return Err(Sense::invalid_cdb_field(4, Some(1)));
        }
        if unit.prevented {
            return Err(Sense::illegal(AdditionalSense::MEDIUM_REMOVAL_PREVENTED));
        }
        unit.ejected = !start; // the same medium comes back: nothing has changed
    } else if !start && !is_removable(unit) {
        return Err(Sense::invalid_cdb_field(4, Some(0)));
    }
    Ok(())
}

/// READ BUFFER (SPC-6 6.18): modes data, descriptor, echo buffer, echo buffer descriptor.
fn read_buffer(unit: &Unit, access: &BufferAccess, buffer: &Buffer<'_>) -> Result<Outcome, Sense> {
    let descriptor = [0x00, 0, (ECHO >> 8) as u8, ECHO as u8]; // of any boundary
    match access.mode {
        0x02 | 0x03 | 0x0a | 0x0b if access.mode_specific != 0 => Err(Sense::invalid_cdb_field(1, Some(7))),
        0x03 if access.id != 0 => Ok(reply(buffer, &[0; 4], access.length)), // there is no such buffer
        0x03 => Ok(reply(buffer, &descriptor, access.length)),
        0x0b => Ok(reply(buffer, &[0x00, 0, (ECHO >> 8) as u8, ECHO as u8], access.length)), // EBOS 0: it is shared
        0x02 if access.id != 0 => Err(Sense::invalid_cdb_field(2, None)),
        0x02 | 0x0a => {
            let start = access.offset as usize;
            if start > ECHO || (access.mode == 0x0a && start != 0) {
                return Err(Sense::invalid_cdb_field(3, None));
            }
            if access.mode == 0x0a && unit.echo.is_empty() {
                // SPC-6 6.18.6: nothing was written to it
                return Err(Sense::illegal(AdditionalSense::COMMAND_SEQUENCE_ERROR));
            }
            let mut data = unit.echo.clone();
            if access.mode == 0x02 {
                data.resize(ECHO, 0);
            }
            Ok(reply(buffer, data.get(start..).unwrap_or_default(), access.length))
        }
        _ => Err(Sense::invalid_cdb_field(1, Some(4))),
    }
}

/// WRITE BUFFER (SPC-6 6.49): modes data and echo buffer. There is no microcode to download.
fn write_buffer(unit: &mut Unit, access: &BufferAccess, buffer: &Buffer<'_>) -> Result<Outcome, Sense> {
    let (start, length) = (access.offset as usize, access.length as usize);
    match access.mode {
        0x02 | 0x0a if access.mode_specific != 0 => return Err(Sense::invalid_cdb_field(1, Some(7))),
        0x02 if access.id != 0 => return Err(Sense::invalid_cdb_field(2, None)),
        0x0a if start != 0 => return Err(Sense::invalid_cdb_field(3, None)),
        0x02 | 0x0a => {}
        _ => return Err(Sense::invalid_cdb_field(1, Some(4))),
    }
    if start > ECHO || length > ECHO - start {
        return Err(Sense::invalid_cdb_field(6, None));
    }
    let data = super::parameters(buffer, access.length)?;
    if access.mode == 0x0a {
        unit.echo = data;
    } else {
        unit.echo.resize(ECHO, 0);
        unit.echo[start..start + length].copy_from_slice(&data);
    }
    Ok(reply(buffer, &[], 0))
}

/// SEND DIAGNOSTIC (SPC-6 6.42): the default self-test, which a unit that answers has passed; and the one diagnostic page.
fn send_diagnostic(request: &SendDiagnostic, buffer: &Buffer<'_>) -> Result<Outcome, Sense> {
    if request.self_test_code != 0 {
        return Err(Sense::invalid_cdb_field(1, Some(7)));
    }
    if request.self_test && (request.length != 0 || request.page_format) {
        return Err(Sense::invalid_cdb_field(if request.length != 0 { 3 } else { 1 }, None));
    }
    let list = super::parameters(buffer, request.length)?;
    if !list.is_empty() {
        if !request.page_format {
            return Err(Sense::invalid_cdb_field(1, Some(4)));
        }
        if list.len() < 4 {
            return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
        }
        if list[0] != 0 || list[2..4] != [0, 0] {
            return Err(Sense::invalid_parameter(if list[0] != 0 { 0 } else { 2 }, None));
        }
    }
    Ok(reply(buffer, &[], 0))
}

/// Whether this unit has a command of the table.
pub(super) fn supports(unit: &Unit, entry: &Entry) -> bool {
    match entry.opcode {
        Opcode::Unmap => unit.takes(Operations::UNMAP),
        Opcode::PreventAllowMediumRemoval => is_removable(unit),
        Opcode::SanitizeBlockErase => erase::has_block_erase(unit),
        Opcode::WriteAtomic16 => unit.max_atomic().is_some(),
        // TPGS says which of these there are.
        Opcode::ReportTargetPortGroups => unit.target().asymmetric_access() != 0,
        Opcode::SetTargetPortGroups => unit.target().asymmetric_access() & 0x02 != 0,
        _ => true,
    }
}

/// Data-In, cut to the allocation length; the rest of the buffer is cleared, since what is in it may be another command's.
pub(super) fn reply(buffer: &Buffer<'_>, data: &[u8], allocation: u32) -> Outcome {
    let data = &data[..data.len().min(allocation as usize)];
    let copied = buffer.copy_from(data);
    buffer.fill_at(copied, usize::MAX, 0);
    Outcome { data: Some(copied), ..Outcome::GOOD }
}
