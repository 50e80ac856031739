//! From a handler's status to SCSI status and sense data.
use tcmu_handler_api::{
    abi,
    scsi::{AdditionalSense, Sense, SenseKey, Status},
};

use super::Outcome;

/// The outcome of a request that did not end with [`abi::TCMU_STATUS_OK`]. `sense` is what the handler wrote.
pub(crate) fn outcome_of(op: u32, status: i32, result: u64, sense: &[u8]) -> Outcome {
    match status {
        abi::TCMU_STATUS_OK => Outcome::GOOD,
        abi::TCMU_STATUS_BUSY => Outcome::status(Status::Busy),
        abi::TCMU_STATUS_TASK_SET_FULL => Outcome::status(Status::TaskSetFull),
        abi::TCMU_STATUS_ABORTED => Outcome::status(Status::TaskAborted),
        abi::TCMU_STATUS_MISCOMPARE => {
            Sense::new(SenseKey::Miscompare, AdditionalSense::MISCOMPARE_DURING_VERIFY).with_information(result).into()
        }
        abi::TCMU_STATUS_SENSE => match Sense::parse(sense) {
            Some(sense) => sense.into(),
            None => internal(),
        },
        abi::TCMU_STATUS_FENCED => Sense::new(SenseKey::NotReady, AdditionalSense::TARGET_PORT_IN_STANDBY_STATE).into(),
        abi::TCMU_STATUS_TRANSITION => Sense::new(SenseKey::NotReady, AdditionalSense::ASYMMETRIC_ACCESS_STATE_TRANSITION).into(),
        scsi if (abi::TCMU_STATUS_SCSI..=abi::TCMU_STATUS_SCSI + 0xff).contains(&scsi) => {
            Outcome { status: (scsi - abi::TCMU_STATUS_SCSI) as u8, sense: None, data: None }
        }
        errno if errno < 0 => of_errno(op, errno.checked_neg().unwrap_or(0)),
        _ => internal(),
    }
}

fn internal() -> Outcome {
    Sense::new(SenseKey::HardwareError, AdditionalSense::INTERNAL_TARGET_FAILURE).into()
}

fn write_protected() -> Outcome {
    Sense::new(SenseKey::DataProtect, AdditionalSense::WRITE_PROTECTED).into()
}

fn of_errno(op: u32, errno: i32) -> Outcome {
    let reads = matches!(op, abi::TCMU_OP_READ | abi::TCMU_OP_EXTENTS | abi::TCMU_OP_PREFETCH);
    match errno {
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => {
            Sense::new(SenseKey::DataProtect, AdditionalSense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT).into()
        }
        libc::EROFS => write_protected(),
        // A block device that was set read-only, an immutable or sealed file.
        libc::EPERM | libc::EACCES if !reads => write_protected(),
        // All but the first: what the block layer makes of a disk's MEDIUM ERROR and of a wrong checksum, what file systems make of damage.
        libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EUCLEAN | libc::EBADMSG => {
            let code = if reads { AdditionalSense::UNRECOVERED_READ_ERROR } else { AdditionalSense::WRITE_ERROR };
            Sense::new(SenseKey::MediumError, code).into()
        }
        libc::ENOMEDIUM => Sense::not_ready(AdditionalSense::MEDIUM_NOT_PRESENT).into(),
        // What the block layer makes of it.
        libc::EBADE => Outcome::status(Status::ReservationConflict),
        libc::EINVAL => Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB).into(),
        libc::EOPNOTSUPP => Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE).into(),
        libc::ENOMEM | libc::EAGAIN | libc::EBUSY | libc::ETIMEDOUT => Outcome::status(Status::Busy),
        _ => internal(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(op: u32, status: i32) -> Option<(SenseKey, u8, u8)> {
        outcome_of(op, status, 0, &[]).sense.map(|s| (s.key, s.code.asc, s.code.ascq))
    }

    #[test]
    fn errors_become_the_sense_data_that_fits_the_operation() {
        assert_eq!(code(abi::TCMU_OP_READ, -libc::EIO), Some((SenseKey::MediumError, 0x11, 0)));
        assert_eq!(code(abi::TCMU_OP_WRITE, -libc::EIO), Some((SenseKey::MediumError, 0x0c, 0)));
        assert_eq!(code(abi::TCMU_OP_WRITE, -libc::ENOSPC), Some((SenseKey::DataProtect, 0x27, 7)));
        assert_eq!(code(abi::TCMU_OP_READ, -libc::ENODATA), Some((SenseKey::MediumError, 0x11, 0)));
        assert_eq!(code(abi::TCMU_OP_FLUSH, -libc::EIO), Some((SenseKey::MediumError, 0x0c, 0)));
        assert_eq!(code(abi::TCMU_OP_WRITE, -libc::EPERM), Some((SenseKey::DataProtect, 0x27, 0)));
        assert_eq!(code(abi::TCMU_OP_READ, -libc::EPERM), Some((SenseKey::HardwareError, 0x44, 0)));
        assert_eq!(code(abi::TCMU_OP_WRITE, -12345), Some((SenseKey::HardwareError, 0x44, 0)));
        assert_eq!(code(abi::TCMU_OP_WRITE, i32::MIN), Some((SenseKey::HardwareError, 0x44, 0)));
        assert_eq!(outcome_of(abi::TCMU_OP_READ, -libc::ENOMEM, 0, &[]).status, Status::Busy as u8);
        assert_eq!(outcome_of(abi::TCMU_OP_SCSI, abi::TCMU_STATUS_SCSI + 0x18, 0, &[]).status, 0x18);
    }
}
