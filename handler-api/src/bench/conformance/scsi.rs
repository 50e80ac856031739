//! Whole SCSI commands, for devices that take them.
use super::{Checked, Run, Subject, fail, not_applicable};
use crate::{
    abi,
    bench::command::{Answer, Command},
    plugin::{DeviceFlags, Error, Operations},
};

const TEST_UNIT_READY: [u8; 6] = [0; 6];
const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 96, 0];
const READ_CAPACITY_10: [u8; 10] = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// SERVICE ACTION IN (16) / READ CAPACITY (16), allocation length 32.
const READ_CAPACITY_16: [u8; 16] = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
/// In a range that SPC leaves reserved for all device types.
const RESERVED_OPCODE: [u8; 6] = [0x7d, 0, 0, 0, 0, 0];
/// MODE SELECT, START STOP UNIT, FORMAT UNIT, SANITIZE and their like do what they say: random ones are not sent.
const HARMFUL: [u8; 17] = [0x01, 0x04, 0x05, 0x07, 0x15, 0x19, 0x1b, 0x1d, 0x35, 0x3b, 0x48, 0x4c, 0x55, 0x5f, 0xa1, 0xa4, 0xb5];

pub(super) fn checks(run: &mut Run) {
    run.on_device("scsi", "TEST UNIT READY, INQUIRY and READ CAPACITY are answered or left to the host", |s| {
        needs(s)?;
        for (cdb, room) in [(&TEST_UNIT_READY[..], 0), (&INQUIRY, 96), (&READ_CAPACITY_10, 8), (&READ_CAPACITY_16, 32)] {
            let answer = s.device.answer(Command::scsi(cdb).data_in(room))?;
            judge(&answer, room)?;
            if cdb[0] == 0x12 && answer.error().is_none() {
                inquiry(s, &answer)?;
            }
        }
        Ok(())
    });
    run.on_device("scsi", "an unknown operation code is refused or left to the host", |s| {
        needs(s)?;
        let answer = s.device.answer(Command::scsi(&RESERVED_OPCODE))?;
        judge(&answer, 0)?;
        if answer.error().is_none() {
            Err(fail("INVALID COMMAND OPERATION CODE, or TCMU_STATUS_NOT_HANDLED", "success"))
        } else {
            Ok(())
        }
    });
    run.on_device("scsi", "random CDBs of all lengths, with and without data, are completed", |s| {
        needs(s)?;
        for _ in 0..s.rounds {
            let len = [6, 10, 12, 16, 32][s.rng.below(5) as usize];
            let mut cdb = s.rng.bytes(len);
            if HARMFUL.contains(&cdb[0]) {
                cdb[0] = 0x12;
            }
            if s.rng.one_in(4) {
                cdb[1..].fill(0xff);
            }
            let room = [0, 1, 8, 96, 512, 4096][s.rng.below(6) as usize];
            let command = Command::scsi(&cdb);
            let data = s.rng.bytes(room);
            let command = if s.rng.one_in(2) { command.data_in(room as usize) } else { command.data_out(&data) };
            let command = s.cut(command, room);
            judge(&s.device.answer(command)?, room as usize)?;
        }
        // Writes were among them.
        s.reload()
    });
    run.on_device("scsi", "without a whole command the device still refuses what it did not announce", |s| {
        needs(s)?;
        if s.info.operations().contains(Operations::READ) {
            return Err(not_applicable("the device takes reads"));
        }
        let answer = s.device.answer(Command::read(0, s.block))?;
        if answer.error().is_none() { Err(fail("an error, EOPNOTSUPP for one", "success")) } else { Ok(()) }
    });
}

fn needs(s: &Subject) -> Checked {
    if s.info.flags().contains(DeviceFlags::SCSI) {
        Ok(())
    } else {
        Err(not_applicable("the device takes no whole SCSI commands"))
    }
}

/// A completion of a SCSI command that makes sense.
fn judge(answer: &Answer, room: usize) -> Checked {
    if answer.error().is_none() && answer.result > room as u64 {
        return Err(fail(
            format!("`result`, the number of valid Data-In bytes, of at most {room}"),
            format!("{} for {}", answer.result, answer.command),
        ));
    }
    if answer.error() == Some(Error::Sense) {
        // SPC-6 4.4.1: 70h to 73h; 8 bytes are the shortest that tell a sense key.
        let code = answer.sense.first().map(|b| b & 0x7f);
        if !matches!(code, Some(0x70..=0x73)) || answer.sense.len() < 8 {
            return Err(fail(
                "sense data of at least 8 bytes with response code 70h to 73h",
                format!("{} bytes, response code {code:02x?}, for {}", answer.sense.len(), answer.command),
            ));
        }
    }
    if matches!(answer.status, abi::TCMU_STATUS_MISCOMPARE) && !matches!(answer.command.get(..15), Some("SCSI command 89")) {
        return Err(fail("a miscompare for COMPARE AND WRITE only", answer.command.clone()));
    }
    Ok(())
}

/// SPC-6 6.7.2.
fn inquiry(s: &Subject, answer: &Answer) -> Checked {
    let told = answer.data.first().map(|b| u32::from(b & 0x1f));
    if told != Some(s.info.0.device_type & 0x1f) {
        return Err(fail(format!("peripheral device type {}, as announced", s.info.0.device_type), format!("{told:?}")));
    }
    if answer.result < 5 { Err(fail("at least 5 bytes of INQUIRY data", answer.result.to_string())) } else { Ok(()) }
}
