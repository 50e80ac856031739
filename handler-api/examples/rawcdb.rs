//! A device that takes whole SCSI commands: a processor (type 3) that keeps the last line it was sent. What it doesn't know goes to
//! the host's own SCSI engine (INQUIRY, REQUEST SENSE, ...) or is refused.
use std::sync::Mutex;

use tcmu_handler_api::prelude::*;

/// SPC-2: the commands of a processor device.
const RECEIVE: u8 = 0x08;
const SEND: u8 = 0x0a;
const TEST_UNIT_READY: u8 = 0x00;
/// What every device must know (SPC-6) and the host's engine answers well.
const LEFT_TO_THE_HOST: [u8; 4] = [0x03, 0x12, 0xa0, 0xa3];

/// Fixed-format sense data: ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE (SPC-6 4.4.3).
const INVALID_OPCODE: [u8; 18] = [0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0];

struct Mailbox(Mutex<Vec<u8>>);

impl Handler for Mailbox {
    const INFO: HandlerInfo = HandlerInfo {
        subtype: c"rawcdb",
        name: c"Mailbox",
        version: c"1.0",
        config_desc: c"rawcdb/<anything>: a processor device that returns what it was sent",
    };

    fn open(_open: &Open<'_>, info: &mut DeviceInfo) -> Result<Mailbox, Refusal> {
        info.set_flags(DeviceFlags::SCSI, true).0.device_type = 3;
        info.0.ops = 0; // no block commands at all
        Ok(Mailbox(Mutex::new(Vec::new())))
    }
}

impl Device for Mailbox {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        for mut request in batch {
            let outcome = match (request.operation(), request.cdb().first().copied()) {
                (Operation::Scsi, Some(TEST_UNIT_READY)) => {
                    request.set_result(0);
                    Ok(())
                }
                (Operation::Scsi, Some(SEND)) => {
                    *self.0.lock().unwrap() = request.buffer().to_vec();
                    request.set_result(0);
                    Ok(())
                }
                (Operation::Scsi, Some(RECEIVE)) => {
                    let valid = request.buffer().copy_from(&self.0.lock().unwrap());
                    request.set_result(valid as u64);
                    Ok(())
                }
                (Operation::Scsi, Some(opcode)) if LEFT_TO_THE_HOST.contains(&opcode) => Err(Error::NotHandled),
                (Operation::Scsi, _) => {
                    request.set_sense(&INVALID_OPCODE);
                    Err(Error::Sense)
                }
                _ => Err(Error::UNSUPPORTED),
            };
            request.complete(outcome);
        }
    }
}

export_handler!(Mailbox);
