//! Commands that are answered at once, from what is known of the unit.
use tcmu_handler_api::{
    plugin::{Buffer, DeviceFlags, Operations},
    scsi::{
        AdditionalSense, Command, Sense, SenseKey, capacity, inquiry, mode,
        opcode::{Entry, Opcode},
        report,
        sense::SENSE_BUFFER,
        vpd,
    },
};

use super::{Outcome, Unit};

/// Answers a command that needs no handler.
pub(super) fn answer(unit: &mut Unit, command: Command, buffer: &Buffer<'_>) -> Result<Outcome, Sense> {
    match command {
        Command::TestUnitReady => Ok(reply(buffer, &[], 0)),
        Command::RequestSense { descriptor, allocation } => {
            let sense = unit.pop_attention().unwrap_or(Sense::new(SenseKey::NoSense, AdditionalSense::NONE));
            let mut data = [0; SENSE_BUFFER];
            let length = if descriptor { sense.write_descriptor(&mut data) } else { sense.write_fixed(&mut data) };
            Ok(reply(buffer, &data[..length], allocation))
        }
        Command::Inquiry { page: None, allocation } => Ok(reply(buffer, &inquiry::standard(&unit.facts()), allocation)),
        Command::Inquiry { page: Some(page), allocation } => {
            let data = vpd::page(page, &unit.facts()).ok_or(Sense::invalid_cdb_field(2, None))?;
            Ok(reply(buffer, &data, allocation))
        }
        Command::ModeSense(request) => Ok(reply(buffer, &mode::sense(&request, &unit.facts())?, request.allocation)),
        Command::StartStopUnit { power_condition, load_eject, start, .. } => {
            // There are no power conditions, and a fixed disk can be neither stopped nor ejected.
            if power_condition != 0 {
                return Err(Sense::invalid_cdb_field(4, Some(7)));
            }
            if load_eject || !start {
                return Err(Sense::invalid_cdb_field(4, Some(u8::from(load_eject))));
            }
            Ok(reply(buffer, &[], 0))
        }
        Command::PreventAllowMediumRemoval { .. } if unit.info().flags().contains(DeviceFlags::REMOVABLE) => {
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
        _ => Err(Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE)),
    }
}

/// Whether this unit has a command of the table.
fn supports(unit: &Unit, entry: &Entry) -> bool {
    match entry.opcode {
        Opcode::Unmap => unit.takes(Operations::UNMAP),
        Opcode::PreventAllowMediumRemoval => unit.info().flags().contains(DeviceFlags::REMOVABLE),
        _ => true,
    }
}

/// Data-In, cut to the allocation length; the rest of the buffer is cleared, since what is in it may be another command's.
fn reply(buffer: &Buffer<'_>, data: &[u8], allocation: u32) -> Outcome {
    let data = &data[..data.len().min(allocation as usize)];
    let copied = buffer.copy_from(data);
    buffer.fill_at(copied, usize::MAX, 0);
    Outcome { data: Some(copied), ..Outcome::GOOD }
}
