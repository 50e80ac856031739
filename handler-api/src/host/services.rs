//! The table of services that a host gives to its plugins.
use std::{
    ffi::{c_char, c_void},
    ptr,
    sync::RwLock,
};

use crate::{
    abi,
    host::{
        device::{events_of, lossy},
        io,
    },
};

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<u32> for Level {
    fn from(level: u32) -> Level {
        match level {
            0 | abi::TCMU_LOG_ERROR => Level::Error,
            abi::TCMU_LOG_WARN => Level::Warn,
            abi::TCMU_LOG_INFO => Level::Info,
            abi::TCMU_LOG_DEBUG => Level::Debug,
            _ => Level::Trace,
        }
    }
}

/// Where log lines go that belong to no device.
static LOG: RwLock<fn(Level, &str)> = RwLock::new(|level, message| eprintln!("{level:?}: {message}"));

/// Sends log lines that belong to no device to `sink`; stderr before the first call.
pub fn log_to(sink: fn(Level, &str)) {
    *LOG.write().unwrap_or_else(std::sync::PoisonError::into_inner) = sink;
}

/// Makes a table of services with this way to do I/O and to find other handlers.
pub const fn new_services(
    io: unsafe extern "C" fn(*mut abi::tcmu_request, *mut abi::tcmu_io),
    find_handler: unsafe extern "C" fn(*const c_char) -> *const abi::tcmu_handler,
) -> abi::tcmu_host {
    abi::tcmu_host {
        struct_size: size_of::<abi::tcmu_host>() as u32,
        abi: abi::TCMU_HANDLER_ABI,
        request_size: size_of::<abi::tcmu_request>() as u32,
        io_size: size_of::<abi::tcmu_io>() as u32,
        version: concat!("tcmu-runnerd ", env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast(),
        log,
        io,
        find_handler,
    }
}

/// A `find_handler` that finds none.
///
/// # Safety
/// None; unsafe by its type only.
pub unsafe extern "C" fn no_filters(_subtype: *const c_char) -> *const abi::tcmu_handler {
    ptr::null()
}

/// Services that do each I/O at once on the calling thread: for tests, benches and the simplest programs.
pub fn blocking_services() -> &'static abi::tcmu_host {
    static SERVICES: abi::tcmu_host = new_services(blocking_io, no_filters);
    &SERVICES
}

unsafe extern "C" fn blocking_io(request: *mut abi::tcmu_request, file_io: *mut abi::tcmu_io) {
    // SAFETY: a valid request and I/O by the ABI.
    unsafe { io::finish(request, file_io, io::perform(request, file_io)) }
}

unsafe extern "C" fn log(host_device: *mut c_void, level: u32, message: *const c_char) {
    // SAFETY: the ABI's arguments.
    let (events, message) = unsafe { (events_of(host_device), lossy(message)) };
    match events {
        Some(events) => events.log(level.into(), &message),
        None => LOG.read().unwrap_or_else(std::sync::PoisonError::into_inner)(level.into(), &message),
    }
}
