//! Logging through the host.
use std::{
    ffi::CString,
    fmt::Display,
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

use crate::{abi, plugin::Notifier};

static HOST: AtomicPtr<abi::tcmu_host> = AtomicPtr::new(ptr::null_mut());

/// Remembers the host's services; each plugin has its own copy of this module and so of the pointer.
pub(crate) fn set_host(host: *const abi::tcmu_host) {
    HOST.store(host.cast_mut(), Ordering::Release);
}

pub(crate) fn host() -> Option<&'static abi::tcmu_host> {
    // SAFETY: null or what `init` was given, which lives for ever (ABI).
    unsafe { HOST.load(Ordering::Acquire).as_ref() }
}

/// Something failed that should not have.
pub fn error(device: Option<&Notifier>, message: impl Display) {
    write(device, abi::TCMU_LOG_ERROR, &message);
}

/// Something is odd, the work goes on.
pub fn warn(device: Option<&Notifier>, message: impl Display) {
    write(device, abi::TCMU_LOG_WARN, &message);
}

/// Something that an operator likes to know.
pub fn info(device: Option<&Notifier>, message: impl Display) {
    write(device, abi::TCMU_LOG_INFO, &message);
}

/// Something for people who look for a fault.
pub fn debug(device: Option<&Notifier>, message: impl Display) {
    write(device, abi::TCMU_LOG_DEBUG, &message);
}

fn write(device: Option<&Notifier>, level: u32, message: &dyn Display) {
    let text = CString::new(message.to_string().replace('\0', " ")).unwrap_or_default();
    let device = device.map_or(ptr::null_mut(), |d| d.host_device);
    match host() {
        // SAFETY: `log` may be called from any thread; the text lives during the call.
        Some(host) => unsafe { (host.log)(device, level, text.as_ptr()) },
        None => eprintln!("{}", text.to_string_lossy()),
    }
}
