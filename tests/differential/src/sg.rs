//! Sends CDBs to a SCSI device of Linux by SG_IO (include/scsi/sg.h). The only file with `unsafe`.
use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
    ptr,
};

use crate::answer::Answer;

const SG_IO: libc::Ioctl = 0x2285;
const SG_DXFER_NONE: i32 = -1;
const SG_DXFER_TO_DEV: i32 = -2;
const SG_DXFER_FROM_DEV: i32 = -3;
/// Milliseconds that a command may take.
const TIMEOUT: u32 = 60_000;

/// `struct sg_io_hdr`
#[repr(C)]
struct Header {
    interface_id: i32,
    dxfer_direction: i32,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut libc::c_void,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: i32,
    usr_ptr: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: i32,
    duration: u32,
    info: u32,
}

/// A device, or what stands for one in tests.
pub trait Target {
    /// Sends a command with Data-Out, or with so many bytes of room for Data-In.
    fn send(&mut self, cdb: &[u8], out: &[u8], room: usize) -> io::Result<Answer>;
}

/// A SCSI device of this machine.
#[derive(Debug)]
pub struct Device(File);

impl Device {
    /// Opens `/dev/sgN` or `/dev/sdX`.
    pub fn open(path: &Path) -> io::Result<Device> {
        Ok(Device(OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?))
    }
}

impl Target for Device {
    fn send(&mut self, cdb: &[u8], out: &[u8], room: usize) -> io::Result<Answer> {
        let mut data = if out.is_empty() { vec![0; room] } else { out.to_vec() };
        let mut sense = [0u8; 96];
        let direction = match (out.is_empty(), room) {
            (false, _) => SG_DXFER_TO_DEV,
            (true, 0) => SG_DXFER_NONE,
            (true, _) => SG_DXFER_FROM_DEV,
        };
        let mut header = Header {
            interface_id: i32::from(b'S'),
            dxfer_direction: direction,
            cmd_len: u8::try_from(cdb.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            mx_sb_len: sense.len() as u8,
            iovec_count: 0,
            dxfer_len: data.len() as u32,
            dxferp: data.as_mut_ptr().cast(),
            cmdp: cdb.as_ptr(),
            sbp: sense.as_mut_ptr(),
            timeout: TIMEOUT,
            flags: 0,
            pack_id: 0,
            usr_ptr: ptr::null_mut(),
            status: 0,
            masked_status: 0,
            msg_status: 0,
            sb_len_wr: 0,
            host_status: 0,
            driver_status: 0,
            resid: 0,
            duration: 0,
            info: 0,
        };
        // SAFETY: `header` has the layout of `struct sg_io_hdr` and outlives the call. Its pointers are to the CDB, to the data and to
        // the sense buffer, each alive for the whole call and as long as the length beside it says; the data and the sense buffer, which
        // the kernel may write to, are this function's own. SG_IO is over when it returns.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), SG_IO, &raw mut header) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let residual = header.resid;
        let valid = data.len().saturating_sub(usize::try_from(residual).unwrap_or(0));
        data.truncate(if out.is_empty() { valid } else { 0 });
        Ok(Answer {
            status: header.status,
            host: header.host_status,
            sense: sense[..usize::from(header.sb_len_wr).min(sense.len())].to_vec(),
            data,
            residual,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_laid_out_as_the_kernel_has_it() {
        // The offsets that a C compiler gives for struct sg_io_hdr on a 64-bit machine.
        if size_of::<usize>() == 8 {
            assert_eq!(size_of::<Header>(), 88);
            assert_eq!(std::mem::offset_of!(Header, dxferp), 16);
            assert_eq!(std::mem::offset_of!(Header, status), 64);
            assert_eq!(std::mem::offset_of!(Header, resid), 72);
        }
    }

    #[test]
    fn what_is_no_scsi_device_says_so() {
        let mut device = Device(File::open("/dev/null").unwrap());
        assert!(device.send(&[0; 6], &[], 0).is_err());
        assert!(Device::open(Path::new("/nowhere/sg0")).is_err());
    }
}
