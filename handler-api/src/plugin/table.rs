//! From the traits to the C tables. Panics stop here.
use std::{
    ffi::{CStr, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use crate::{
    abi,
    plugin::{
        Batch, Change, Device, DeviceInfo, Handler, HandlerInfo, Open, Refusal, RequestId, Threads, device::LockState, log,
    },
};

/// Exports a [`Handler`] as the plugin of this `cdylib`.
#[macro_export]
macro_rules! export_handler {
    ($handler:ty) => {
        /// The plugin's one exported symbol.
        #[unsafe(no_mangle)]
        pub extern "C" fn tcmu_handler_entry() -> *const $crate::abi::tcmu_handler {
            $crate::plugin::handler_table::<$handler>()
        }
    };
}

/// The C table of a handler.
pub fn handler_table<H: Handler>() -> &'static abi::tcmu_handler {
    struct Table<H>(H);
    impl<H: Handler> Table<H> {
        const TABLE: abi::tcmu_handler = abi::tcmu_handler {
            check_config: Some(check_config::<H>),
            open: Some(open::<H>),
            needs: H::NEEDS.as_ptr(),
            ..device_table::<H>(H::INFO)
        };
    }
    &Table::<H>::TABLE
}

/// The C table for devices that a program makes itself, without config strings: `open` is absent.
pub fn embedded_table<D: Device>() -> &'static abi::tcmu_handler {
    struct Table<D>(D);
    impl<D: Device> Table<D> {
        const TABLE: abi::tcmu_handler =
            device_table::<D>(HandlerInfo { subtype: c"embedded", name: c"embedded", version: c"", config_desc: c"" });
    }
    &Table::<D>::TABLE
}

const fn device_table<D: Device>(info: HandlerInfo) -> abi::tcmu_handler {
    abi::tcmu_handler {
        abi: abi::TCMU_HANDLER_ABI,
        struct_size: size_of::<abi::tcmu_handler>() as u32,
        subtype: info.subtype.as_ptr(),
        name: info.name.as_ptr(),
        version: info.version.as_ptr(),
        config_desc: info.config_desc.as_ptr(),
        threads: match D::THREADS {
            Threads::Inline => abi::TCMU_THREADS_INLINE,
            Threads::Pool => abi::TCMU_THREADS_POOL,
            Threads::Serial => abi::TCMU_THREADS_SERIAL,
        },
        concurrency: D::CONCURRENCY,
        init: Some(init),
        check_config: None,
        open: None,
        close: Some(close::<D>),
        submit: Some(submit::<D>),
        cancel: Some(cancel::<D>),
        reconfigure: Some(reconfigure::<D>),
        lock: Some(lock::<D>),
        unlock: Some(unlock::<D>),
        lock_state: Some(lock_state::<D>),
        describe: Some(describe::<D>),
        needs: ptr::null(),
    }
}

unsafe extern "C" fn init(host: *const abi::tcmu_host, error: *mut abi::tcmu_text) -> i32 {
    // SAFETY: the host passes a valid table.
    let (size, version) = unsafe { ((*host).struct_size as usize, (*host).version) };
    if size < size_of::<abi::tcmu_host>() {
        // SAFETY: the host's version is a string.
        let version = unsafe { CStr::from_ptr(version) }.to_string_lossy();
        let refusal = Refusal::unsupported(format!(
            "this plugin needs a newer host than {version}: its service table has {size} bytes, {} are needed",
            size_of::<abi::tcmu_host>()
        ));
        // SAFETY: the host passes a valid text buffer.
        return unsafe { refuse(&refusal, error) };
    }
    log::set_host(host);
    0
}

unsafe extern "C" fn check_config<H: Handler>(config: *const c_char, error: *mut abi::tcmu_text) -> i32 {
    guard(error, || {
        // SAFETY: the host passes a string.
        let config = unsafe { CStr::from_ptr(config) }.to_str().map_err(|_| not_utf8())?;
        H::check_config(config)
    })
}

unsafe extern "C" fn open<H: Handler>(
    open: *const abi::tcmu_open,
    info: *mut abi::tcmu_device_info,
    device: *mut *mut c_void,
    error: *mut abi::tcmu_text,
) -> i32 {
    guard(error, || {
        // SAFETY: the host passes valid structs.
        let open = unsafe { Open::from_raw(open) }.ok_or_else(not_utf8)?;
        with_info(info, |info| {
            let opened = Box::new(H::open(&open, info)?);
            // SAFETY: the host passes a place for the pointer.
            unsafe { device.write(Box::into_raw(opened).cast()) };
            Ok(())
        })
    })
}

unsafe extern "C" fn close<D: Device>(device: *mut c_void) {
    // SAFETY: `open` made it from a box, and it is closed once.
    let device = unsafe { Box::from_raw(device.cast::<D>()) };
    if catch_unwind(AssertUnwindSafe(|| drop(device))).is_err() {
        log::error(None, "a handler panicked while it closed a device");
    }
}

unsafe extern "C" fn submit<D: Device>(device: *mut c_void, requests: *const *mut abi::tcmu_request, count: u32) {
    // SAFETY: the host passes an open device.
    let device = unsafe { &*device.cast::<D>() };
    // SAFETY: the host passes `count` requests, which are now ours.
    let batch = unsafe { Batch::from_raw(requests, count) };
    // What the batch still holds is completed as a failure while the panic unwinds.
    if catch_unwind(AssertUnwindSafe(|| device.submit(batch))).is_err() {
        log::error(None, "a handler panicked in submit; the requests it held were failed");
    }
}

unsafe extern "C" fn cancel<D: Device>(device: *mut c_void, request: *mut abi::tcmu_request) {
    // SAFETY: the host passes an open device.
    let device = unsafe { &*device.cast::<D>() };
    if catch_unwind(AssertUnwindSafe(|| device.cancel(RequestId::of(request)))).is_err() {
        log::error(None, "a handler panicked while it cancelled a request");
    }
}

unsafe extern "C" fn reconfigure<D: Device>(
    device: *mut c_void,
    change: *const abi::tcmu_change,
    info: *mut abi::tcmu_device_info,
    error: *mut abi::tcmu_text,
) -> i32 {
    // SAFETY: the host passes an open device.
    let device = unsafe { &*device.cast::<D>() };
    guard(error, || {
        // SAFETY: the host passes a valid struct.
        let change = unsafe { Change::from_raw(change) }.ok_or_else(not_utf8)?;
        with_info(info, |info| device.reconfigure(change, info))
    })
}

unsafe extern "C" fn lock<D: Device>(device: *mut c_void, tag: u32, error: *mut abi::tcmu_text) -> i32 {
    // SAFETY: the host passes an open device.
    let device = unsafe { &*device.cast::<D>() };
    guard(error, || device.lock(tag))
}

unsafe extern "C" fn unlock<D: Device>(device: *mut c_void) -> i32 {
    // SAFETY: the host passes an open device.
    let device = unsafe { &*device.cast::<D>() };
    guard(ptr::null_mut(), || device.unlock())
}

unsafe extern "C" fn lock_state<D: Device>(device: *mut c_void, tag: *mut u32) -> i32 {
    // SAFETY: the host passes an open device.
    let device = unsafe { &*device.cast::<D>() };
    let mut state = LockState::Free;
    let status = guard(ptr::null_mut(), || device.lock_state().map(|s| state = s));
    let (value, holder) = match state {
        _ if status < 0 => return status,
        LockState::Free => (abi::TCMU_LOCK_FREE, 0),
        LockState::Own(tag) => (abi::TCMU_LOCK_OWN, tag),
        LockState::Other(tag) => (abi::TCMU_LOCK_OTHER, tag),
    };
    // SAFETY: the host passes a place for the tag.
    unsafe { tag.write(holder) };
    value
}

unsafe extern "C" fn describe<D: Device>(device: *mut c_void, text: *mut abi::tcmu_text) -> i32 {
    // SAFETY: the host passes an open device.
    let device = unsafe { &*device.cast::<D>() };
    guard(ptr::null_mut(), || {
        let description = device.describe();
        // SAFETY: the host passes a valid text buffer.
        unsafe { put_text(&description, text) };
        Ok(())
    })
}

fn with_info(raw: *mut abi::tcmu_device_info, with: impl FnOnce(&mut DeviceInfo) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let mut info = DeviceInfo::new(0, 512);
    // SAFETY: the host passes a struct of at least `struct_size` bytes; no more than that is read.
    let known = unsafe { ((*raw).struct_size as usize).min(size_of::<abi::tcmu_device_info>()) };
    // SAFETY: `known` bytes are within both structs, whose fields are all plain integers.
    unsafe { (&raw mut info.0).cast::<u8>().copy_from_nonoverlapping(raw.cast(), known) };
    let host_size = info.0.struct_size;
    with(&mut info)?;
    info.0.struct_size = host_size;
    // SAFETY: as above, the other way.
    unsafe { raw.cast::<u8>().copy_from_nonoverlapping((&raw const info.0).cast(), known) };
    Ok(())
}

/// Runs handler code: a refusal becomes its errno and text, a panic `ENOTRECOVERABLE`.
fn guard(error: *mut abi::tcmu_text, run: impl FnOnce() -> Result<(), Refusal>) -> i32 {
    let refusal = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return 0,
        Ok(Err(refusal)) => refusal,
        Err(panic) => {
            let what = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            Refusal::new(libc::ENOTRECOVERABLE, format!("the handler panicked: {what}"))
        }
    };
    // SAFETY: null or a valid text buffer of the host.
    unsafe { refuse(&refusal, error) }
}

fn not_utf8() -> Refusal {
    Refusal::invalid("the config string is not UTF-8")
}

/// # Safety
/// `text` is null or valid.
unsafe fn refuse(refusal: &Refusal, text: *mut abi::tcmu_text) -> i32 {
    // SAFETY: by contract.
    unsafe { put_text(refusal.message(), text) };
    -refusal.errno()
}

/// # Safety
/// `text` is null or valid.
unsafe fn put_text(message: &str, text: *mut abi::tcmu_text) {
    // SAFETY: null or valid by contract.
    let Some(text) = (unsafe { text.as_mut() }) else { return };
    if text.data.is_null() || text.capacity == 0 {
        return;
    }
    let mut len = message.len().min(text.capacity - 1);
    while !message.is_char_boundary(len) {
        len -= 1;
    }
    // SAFETY: `len + 1` bytes fit; a message never overlaps the host's buffer.
    unsafe {
        text.data.cast::<u8>().copy_from_nonoverlapping(message.as_ptr(), len);
        text.data.add(len).write(0);
    }
}
