//! An open device of a handler.
use std::{
    ffi::{CStr, c_char, c_void},
    fmt, ptr,
    sync::Arc,
};

use crate::{
    abi,
    host::{
        plugin::{c_string, threads_of},
        services::Level,
    },
    plugin::{Change, Device, DeviceInfo, LockState, Refusal, Threads, embedded_table},
};

/// What a device tells its host, from any thread.
pub trait Events: Send + Sync + 'static {
    /// The capacity became `bytes`.
    fn size_changed(&self, bytes: u64) {
        let _ = bytes;
    }

    /// The exclusive lock went to another node.
    fn lock_lost(&self) {}

    /// The backing store can or can't be reached.
    fn connected(&self, reachable: bool) {
        let _ = reachable;
    }

    /// The medium was changed or removed.
    fn medium_changed(&self) {}

    /// A log line about this device.
    fn log(&self, level: Level, message: &str);
}

/// How a device is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenSpec<'a> {
    /// The config string behind `<subtype>/`.
    pub config: &'a str,
    /// The kernel's name, `user_<hba>/<name>`.
    pub name: &'a str,
    /// An earlier process served it.
    pub take_over: bool,
    /// What the kernel was told about it.
    pub info: DeviceInfo,
}

/// An open device. Closed on drop; every request must be completed by then.
pub struct OpenDevice {
    table: &'static abi::tcmu_handler,
    device: *mut c_void,
    info: DeviceInfo,
    /// Behind the `host_device` pointer that the handler has; freed after `close`.
    events: *mut Arc<dyn Events>,
}

// SAFETY: the ABI allows calls from any thread (control calls one at a time, which `&mut` or the device's owner guarantees).
unsafe impl Send for OpenDevice {}
// SAFETY: through `&self` there are only calls that the ABI allows from several threads.
unsafe impl Sync for OpenDevice {}

impl OpenDevice {
    pub(super) fn open(
        table: &'static abi::tcmu_handler,
        spec: OpenSpec<'_>,
        events: Arc<dyn Events>,
    ) -> Result<OpenDevice, Refusal> {
        let Some(open) = table.open else { return Err(Refusal::unsupported("this handler opens no devices by config string")) };
        let (config, name) = (c_string(spec.config)?, c_string(spec.name)?);
        let mut opened = OpenDevice { table, device: ptr::null_mut(), info: spec.info, events: ptr::null_mut() };
        let events = Box::into_raw(Box::new(events));
        let args = abi::tcmu_open {
            struct_size: size_of::<abi::tcmu_open>() as u32,
            flags: if spec.take_over { abi::TCMU_OPEN_TAKE_OVER } else { 0 },
            config: config.as_ptr(),
            name: name.as_ptr(),
            notify,
            host_device: events.cast(),
        };
        let mut error = Text::new();
        let mut device = ptr::null_mut();
        // SAFETY: all structs are valid during the call, `events` until the device is closed.
        let status = unsafe { open(&raw const args, &raw mut opened.info.0, &raw mut device, error.raw()) };
        let outcome = error.check(status).and_then(|()| check_info(&opened.info));
        if status != 0 {
            // SAFETY: a handler that refused keeps nothing.
            drop(unsafe { Box::from_raw(events) });
            return Err(outcome.err().unwrap_or_else(|| Refusal::new(-status, "refused")));
        }
        opened.device = device;
        opened.events = events;
        outcome.map(|()| opened)
    }

    /// A device that this program made itself, without a plugin or a config string.
    pub fn embed<D: Device>(
        device: D,
        info: DeviceInfo,
        events: Arc<dyn Events>,
        host: &'static abi::tcmu_host,
    ) -> Result<OpenDevice, Refusal> {
        check_info(&info)?;
        let table = embedded_table::<D>();
        if let Some(init) = table.init {
            let mut error = Text::new();
            // SAFETY: a valid host table and text buffer.
            let status = unsafe { init(host, error.raw()) };
            error.check(status)?;
        }
        Ok(OpenDevice { table, device: Box::into_raw(Box::new(device)).cast(), info, events: Box::into_raw(Box::new(events)) })
    }

    /// What the device is and can do.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// On which threads `submit` is to be called.
    pub fn threads(&self) -> Threads {
        threads_of(self.table)
    }

    /// How many calls at a time are of use; 0: the host decides.
    pub fn concurrency(&self) -> u32 {
        self.table.concurrency
    }

    /// Submits requests.
    ///
    /// # Safety
    /// Each is a valid request that stays so until it is completed, which its maker sees to; the thread is one that
    /// [`OpenDevice::threads`] allows.
    pub unsafe fn submit(&self, requests: &[*mut abi::tcmu_request]) {
        if requests.is_empty() {
            return;
        }
        if let Some(submit) = self.table.submit {
            // SAFETY: the requests by contract; the device is open.
            unsafe { submit(self.device, requests.as_ptr(), requests.len() as u32) }
        }
    }

    /// Tells the handler that the initiator gave up on a request.
    ///
    /// # Safety
    /// `request` was submitted to this device and its memory is still there.
    pub unsafe fn cancel(&self, request: *mut abi::tcmu_request) {
        if let Some(cancel) = self.table.cancel {
            // SAFETY: by contract.
            unsafe { cancel(self.device, request) }
        }
    }

    /// Changes the device while I/O runs; returns what it is like then. The handler's answer becomes true for [`OpenDevice::info`] by
    /// [`OpenDevice::set_info`]. A control call: one at a time.
    pub fn reconfigure(&self, change: &Change<'_>, preset: DeviceInfo) -> Result<DeviceInfo, Refusal> {
        let Some(reconfigure) = self.table.reconfigure else {
            return Err(Refusal::unsupported("this handler cannot change a device while it is in use"));
        };
        let (what, value, config) = match *change {
            Change::Config(config) => (abi::TCMU_CHANGE_CONFIG, 0, config),
            Change::Size(bytes) => (abi::TCMU_CHANGE_SIZE, bytes, ""),
            Change::WriteCache(on) => (abi::TCMU_CHANGE_WRITE_CACHE, u64::from(on), ""),
            Change::Medium { config, size } => (abi::TCMU_CHANGE_MEDIUM, size, config),
            Change::Unknown(what) => (what, 0, ""),
        };
        let config = c_string(config)?;
        let change = abi::tcmu_change { struct_size: size_of::<abi::tcmu_change>() as u32, what, value, config: config.as_ptr() };
        let mut info = preset;
        let mut error = Text::new();
        // SAFETY: the device is open, the structs are valid during the call.
        let status = unsafe { reconfigure(self.device, &raw const change, &raw mut info.0, error.raw()) };
        error.check(status)?;
        check_info(&info)?;
        Ok(info)
    }

    /// Replaces what [`OpenDevice::info`] says, after a change.
    pub fn set_info(&mut self, info: DeviceInfo) {
        self.info = info;
    }

    /// The calls of the exclusive lock.
    pub fn lock(&self) -> Lock<'_> {
        Lock(self)
    }

    /// Lines of `key=value` about the device's state.
    pub fn describe(&self) -> String {
        let mut text = Text::new();
        if let Some(describe) = self.table.describe {
            // SAFETY: the device is open, the text buffer valid.
            unsafe { describe(self.device, text.raw()) };
        }
        text.to_string()
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        if self.events.is_null() {
            return; // never opened
        }
        if let Some(close) = self.table.close {
            // SAFETY: opened and not closed; no request is outstanding (the owner's duty).
            unsafe { close(self.device) }
        }
        // SAFETY: made by `Box::into_raw`; after `close` nobody notifies any more.
        drop(unsafe { Box::from_raw(self.events) });
    }
}

impl fmt::Debug for OpenDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDevice").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The exclusive lock of a device. Control calls.
#[derive(Debug)]
pub struct Lock<'a>(&'a OpenDevice);

impl Lock<'_> {
    /// Takes it, fencing off whoever has it.
    pub fn acquire(&self, tag: u32) -> Result<(), Refusal> {
        let Some(lock) = self.0.table.lock else { return Err(no_lock()) };
        let mut error = Text::new();
        // SAFETY: the device is open, the text buffer valid.
        let status = unsafe { lock(self.0.device, tag, error.raw()) };
        error.check(status)
    }

    /// Gives it back.
    pub fn release(&self) -> Result<(), Refusal> {
        let Some(unlock) = self.0.table.unlock else { return Err(no_lock()) };
        // SAFETY: the device is open.
        let status = unsafe { unlock(self.0.device) };
        Text::new().check(status)
    }

    /// Who has it.
    pub fn state(&self) -> Result<LockState, Refusal> {
        let Some(lock_state) = self.0.table.lock_state else { return Err(no_lock()) };
        let mut tag = 0;
        // SAFETY: the device is open, `tag` a valid place.
        match unsafe { lock_state(self.0.device, &raw mut tag) } {
            abi::TCMU_LOCK_FREE => Ok(LockState::Free),
            abi::TCMU_LOCK_OWN => Ok(LockState::Own(tag)),
            abi::TCMU_LOCK_OTHER => Ok(LockState::Other(tag)),
            status => Err(Refusal::new(-status.min(-1), "the state of the lock is unknown")),
        }
    }
}

fn no_lock() -> Refusal {
    Refusal::unsupported("this handler has no exclusive lock")
}

/// A device must make sense before anything is served from it.
fn check_info(info: &DeviceInfo) -> Result<(), Refusal> {
    let block_size = info.block_size();
    if !block_size.is_power_of_two() || !(512..=1 << 20).contains(&block_size) {
        return Err(Refusal::invalid(format!("block size {block_size}: a power of two from 512 to 1048576 is needed")));
    }
    if info.0.buffer_alignment > 1 {
        return Err(Refusal::unsupported(format!(
            "data aligned to {} bytes: this host cannot align data",
            info.0.buffer_alignment
        )));
    }
    let physical = info.0.physical_block_size;
    if physical != 0 && (!physical.is_power_of_two() || physical < block_size) {
        return Err(Refusal::invalid(format!(
            "physical block size {physical}: a power of two of at least {block_size} is needed"
        )));
    }
    Ok(())
}

unsafe extern "C" fn notify(host_device: *mut c_void, event: u32, value: u64) {
    // SAFETY: the `host_device` of an open device.
    let Some(events) = (unsafe { events_of(host_device) }) else { return };
    match event {
        abi::TCMU_EVENT_SIZE => events.size_changed(value),
        abi::TCMU_EVENT_LOCK_LOST => events.lock_lost(),
        abi::TCMU_EVENT_CONNECTION => events.connected(value != 0),
        abi::TCMU_EVENT_MEDIUM => events.medium_changed(),
        unknown => events.log(Level::Warn, &format!("the handler told of event {unknown}, which this host does not know")),
    }
}

/// # Safety
/// `host_device` is null or what `open` passed, and the device is open.
pub(super) unsafe fn events_of<'a>(host_device: *mut c_void) -> Option<&'a Arc<dyn Events>> {
    // SAFETY: by contract.
    unsafe { host_device.cast::<Arc<dyn Events>>().as_ref() }
}

/// A `tcmu_text` with its memory.
pub(super) struct Text {
    raw: abi::tcmu_text,
    memory: Box<[c_char; 1024]>,
}

impl Text {
    pub(super) fn new() -> Text {
        let mut memory = Box::new([0; 1024]);
        Text { raw: abi::tcmu_text { data: memory.as_mut_ptr(), capacity: memory.len() }, memory }
    }

    pub(super) fn raw(&mut self) -> *mut abi::tcmu_text {
        self.raw.data = self.memory.as_mut_ptr();
        &raw mut self.raw
    }

    /// A status and this text as a result.
    pub(super) fn check(&mut self, status: i32) -> Result<(), Refusal> {
        if status == 0 {
            return Ok(());
        }
        // A positive value is a plugin's mistake about the sign.
        let status = -status.saturating_abs();
        let said = self.to_string();
        let errno = status.checked_neg().unwrap_or(libc::EIO);
        Err(if said.is_empty() {
            Refusal::io("the handler refused", &std::io::Error::from_raw_os_error(errno))
        } else {
            Refusal::new(errno, said)
        })
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A plugin in C may forget the NUL.
        let len = self.memory.iter().position(|c| *c == 0).unwrap_or(self.memory.len());
        // SAFETY: `len` bytes of this buffer, read as bytes.
        let bytes = unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast::<u8>(), len) };
        f.write_str(String::from_utf8_lossy(bytes).trim_end())
    }
}

/// The text of a C string, for messages.
///
/// # Safety
/// `text` is null or a string.
pub(super) unsafe fn lossy(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
