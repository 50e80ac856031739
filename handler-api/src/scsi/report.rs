//! REPORT SUPPORTED OPERATION CODES data and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS data (SPC-6 6.35, 6.36).
use super::{
    Sense,
    command::ReportOpcodes,
    opcode::{self, Entry, TABLE},
};

/// Bytes of a command timeouts descriptor (SPC-6 6.35.4).
const TIMEOUTS: usize = 12;

/// The data for one request. `supports` says which commands this unit has.
pub fn data(request: &ReportOpcodes, supports: impl Fn(&Entry) -> bool) -> Result<Vec<u8>, Sense> {
    let has_actions = opcode::has_service_actions(request.opcode);
    let found = |action: u16| {
        let action = u8::try_from(action).unwrap_or(u8::MAX);
        opcode::find(request.opcode, action).ok().filter(|entry| supports(entry))
    };
    match request.options {
        0 => Ok(all(request.rctd, supports)),
        // 1: an operation code without service actions; 2: one with; 3: either.
        1 if has_actions => Err(Sense::invalid_cdb_field(2, Some(2))),
        1 => Ok(one(request.rctd, found(0))),
        2 if !has_actions => Err(Sense::invalid_cdb_field(2, Some(2))),
        2 => Ok(one(request.rctd, found(request.service_action))),
        3 if !has_actions && request.service_action != 0 => Ok(one(request.rctd, None)),
        3 => Ok(one(request.rctd, found(request.service_action))),
        _ => Err(Sense::invalid_cdb_field(2, Some(2))),
    }
}

fn all(timeouts: bool, supports: impl Fn(&Entry) -> bool) -> Vec<u8> {
    let mut data = vec![0; 4];
    for entry in TABLE.iter().filter(|entry| supports(entry)) {
        let mut descriptor = [0; 8];
        descriptor[0] = entry.code;
        if let Some(action) = entry.service_action {
            descriptor[3] = action;
            descriptor[5] |= 0x01; // SERVACTV
        }
        descriptor[5] |= u8::from(timeouts) << 1; // CTDP
        descriptor[6..8].copy_from_slice(&(entry.usage.len() as u16).to_be_bytes());
        data.extend(descriptor);
        if timeouts {
            data.extend(timeouts_descriptor(entry));
        }
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

fn one(timeouts: bool, entry: Option<&Entry>) -> Vec<u8> {
    let Some(entry) = entry else { return vec![0, 0x01, 0, 0] }; // SUPPORT 001b: not supported
    let mut data = vec![0, 0x03, 0, 0]; // SUPPORT 011b: as the standard has it
    data[1] |= u8::from(timeouts) << 7; // CTDP
    data[2..4].copy_from_slice(&(entry.usage.len() as u16).to_be_bytes());
    data.extend(entry.usage);
    if let Some(action) = entry.service_action {
        data[5] = data[5] & !0x1f | action; // the usage map holds the service action itself
    }
    if timeouts {
        data.extend(timeouts_descriptor(entry));
    }
    data
}

/// No nominal time: this software can't know it.
fn timeouts_descriptor(entry: &Entry) -> [u8; TIMEOUTS] {
    let mut descriptor = [0; TIMEOUTS];
    descriptor[1] = (TIMEOUTS - 2) as u8;
    descriptor[8..].copy_from_slice(&entry.opcode.recommended_timeout().to_be_bytes());
    descriptor
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS data: what the kernel's target does, ABORT TASK, ABORT TASK SET, CLEAR TASK SET and LOGICAL
/// UNIT RESET (drivers/target/target_core_tmr.c).
pub fn task_management(long: bool) -> Vec<u8> {
    let functions = 0x80 | 0x40 | 0x10 | 0x08;
    if long {
        // No time-outs to report: all zero.
        let mut data = vec![0; 16];
        (data[0], data[3]) = (functions, 12);
        return data;
    }
    vec![functions, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(options: u8, opcode: u8, service_action: u16) -> ReportOpcodes {
        ReportOpcodes { options, rctd: false, opcode, service_action, allocation: 512 }
    }

    #[test]
    fn the_list_of_all_has_every_supported_command() {
        let data = data(&request(0, 0, 0), |entry| entry.code != 0x42).unwrap();
        assert_eq!(data.len(), 4 + 8 * (TABLE.len() - 1));
        assert_eq!(u32::from_be_bytes(data[..4].try_into().unwrap()) as usize, data.len() - 4);
        assert!(data[4..].chunks(8).all(|d| d[0] != 0x42));
    }

    #[test]
    fn one_command_is_reported_with_its_usage_map() {
        let data = data(&request(3, 0x9e, 0x10), |_| true).unwrap();
        assert_eq!(data[..6], [0, 3, 0, 16, 0x9e, 0x10]);
        assert_eq!(super::data(&request(1, 0x28, 0), |_| true).unwrap()[..6], [0, 3, 0, 10, 0x28, 0xfa]);
    }

    #[test]
    fn timeouts_come_when_they_are_asked_for() {
        let request = ReportOpcodes { rctd: true, ..request(1, 0x04, 0) };
        let one = data(&request, |_| true).unwrap();
        assert_eq!(one, [0, 0x83, 0, 6, 0x04, 0x3f, 0, 0, 3, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0x0e, 0x10]);
        let all = data(&ReportOpcodes { options: 0, ..request }, |entry| entry.code == 0x00).unwrap();
        assert_eq!(all, [0, 0, 0, 20, 0, 0, 0, 0, 0, 2, 0, 6, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn task_management_functions_are_the_kernels() {
        assert_eq!(task_management(false), [0xd8, 0, 0, 0]);
        assert_eq!(task_management(true)[..4], [0xd8, 0, 0, 12]);
    }

    #[test]
    fn options_must_fit_the_command() {
        assert!(data(&request(1, 0x9e, 0), |_| true).is_err());
        assert!(data(&request(2, 0x28, 0), |_| true).is_err());
        assert!(data(&request(5, 0x28, 0), |_| true).is_err());
        assert_eq!(data(&request(1, 0xee, 0), |_| true).unwrap(), [0, 1, 0, 0]);
    }
}
