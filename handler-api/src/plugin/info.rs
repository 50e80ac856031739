//! What `open` and `reconfigure` are told, and what a device says of itself.
use std::{
    ffi::{CStr, c_void},
    fmt,
};

use crate::{abi, plugin::Operations};

bitflags::bitflags! {
    /// What a device is like.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DeviceFlags: u32 {
        /// It can't be written.
        const READ_ONLY = abi::TCMU_DEV_READ_ONLY;
        /// A completed write may be lost in a crash until a flush.
        const WRITE_CACHE = abi::TCMU_DEV_WRITE_CACHE;
        /// The handler honours FUA itself.
        const FUA = abi::TCMU_DEV_FUA;
        /// Deallocated bytes read as zeros.
        const UNMAP_ZEROES = abi::TCMU_DEV_UNMAP_ZEROES;
        /// Thinly provisioned.
        const THIN = abi::TCMU_DEV_THIN;
        /// The medium can be removed or changed.
        const REMOVABLE = abi::TCMU_DEV_REMOVABLE;
        /// The medium is absent.
        const NO_MEDIUM = abi::TCMU_DEV_NO_MEDIUM;
        /// Access needs the exclusive lock.
        const LOCKED_ACCESS = abi::TCMU_DEV_LOCKED_ACCESS;
        /// Every CDB goes to the handler first.
        const SCSI = abi::TCMU_DEV_SCSI;
        const _ = !0;
    }
}

/// What a device is and can do; see [`abi::tcmu_device_info`] for each field. Preset by the host with what the kernel was told.
#[derive(Clone, Copy, Debug)]
pub struct DeviceInfo(pub abi::tcmu_device_info);

impl DeviceInfo {
    /// A disk of `size` bytes in blocks of `block_size` bytes that can be read and written.
    pub fn new(size: u64, block_size: u32) -> DeviceInfo {
        DeviceInfo(abi::tcmu_device_info {
            struct_size: size_of::<abi::tcmu_device_info>() as u32,
            block_size,
            size,
            ops: (Operations::READ | Operations::WRITE).bits(),
            flags: 0,
            device_type: 0,
            physical_block_size: 0,
            rotation_rate: 1,
            max_transfer: 0,
            optimal_transfer: 0,
            unmap_granularity: 0,
            unmap_alignment: 0,
            max_unmap: 0,
            max_atomic: 0,
            buffer_alignment: 0,
            vendor: [0; 8],
            product: [0; 16],
            revision: [0; 4],
            reserved: 0,
        })
    }

    /// Capacity in bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Logical block size in bytes.
    pub fn block_size(&self) -> u32 {
        self.0.block_size
    }

    /// What `submit` takes.
    pub fn operations(&self) -> Operations {
        Operations::from_bits_retain(self.0.ops)
    }

    /// Announces operations beside READ and WRITE.
    pub fn supports(&mut self, operations: Operations) -> &mut DeviceInfo {
        self.0.ops |= operations.bits();
        self
    }

    /// What the device is like.
    pub fn flags(&self) -> DeviceFlags {
        DeviceFlags::from_bits_retain(self.0.flags)
    }

    /// Sets flags on or off.
    pub fn set_flags(&mut self, flags: DeviceFlags, on: bool) -> &mut DeviceInfo {
        let mut all = self.flags();
        all.set(flags, on);
        self.0.flags = all.bits();
        self
    }
}

/// A device is being opened: by what config string, under what name.
pub struct Open<'a> {
    config: &'a str,
    name: &'a str,
    take_over: bool,
    notifier: Notifier,
}

impl<'a> Open<'a> {
    /// Reads the C struct; strings that aren't UTF-8 are an `EINVAL`.
    ///
    /// # Safety
    /// `open` is valid for `'a`.
    pub(crate) unsafe fn from_raw(open: *const abi::tcmu_open) -> Option<Open<'a>> {
        // SAFETY: valid by contract, and so are the strings in it (ABI rules).
        unsafe {
            Some(Open {
                config: CStr::from_ptr((*open).config).to_str().ok()?,
                name: CStr::from_ptr((*open).name).to_str().ok()?,
                take_over: (*open).flags & abi::TCMU_OPEN_TAKE_OVER != 0,
                notifier: Notifier { notify: (*open).notify, host_device: (*open).host_device },
            })
        }
    }

    /// The config string behind `<subtype>/`.
    pub fn config(&self) -> &'a str {
        self.config
    }

    /// The kernel's name of the device, `user_<hba>/<name>`.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Whether the device existed before and an earlier process served it.
    pub fn is_take_over(&self) -> bool {
        self.take_over
    }

    /// The way to tell the host of events and to log with the device's name; may be kept until the device is dropped.
    pub fn notifier(&self) -> Notifier {
        self.notifier
    }
}

impl fmt::Debug for Open<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("config", &self.config).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Tells the host of events of a device, from any thread, as long as the device is open.
#[derive(Clone, Copy)]
pub struct Notifier {
    notify: unsafe extern "C" fn(*mut c_void, u32, u64),
    pub(crate) host_device: *mut c_void,
}

// SAFETY: the ABI allows `notify` on any thread.
unsafe impl Send for Notifier {}
// SAFETY: as above.
unsafe impl Sync for Notifier {}

impl Notifier {
    /// The capacity became `bytes`.
    pub fn size_changed(&self, bytes: u64) {
        self.send(abi::TCMU_EVENT_SIZE, bytes);
    }

    /// The exclusive lock was lost to another node.
    pub fn lock_lost(&self) {
        self.send(abi::TCMU_EVENT_LOCK_LOST, 0);
    }

    /// The backing store can or can't be reached.
    pub fn connected(&self, reachable: bool) {
        self.send(abi::TCMU_EVENT_CONNECTION, u64::from(reachable));
    }

    /// The medium was changed or removed.
    pub fn medium_changed(&self) {
        self.send(abi::TCMU_EVENT_MEDIUM, 0);
    }

    fn send(&self, event: u32, value: u64) {
        // SAFETY: any thread may call `notify` while the device is open; a handler keeps a notifier inside its device.
        unsafe { (self.notify)(self.host_device, event, value) }
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier")
    }
}

/// What changes about a device while I/O runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change<'a> {
    /// A new config string (the part behind `<subtype>/`).
    Config(&'a str),
    /// A new capacity in bytes.
    Size(u64),
    /// The volatile write cache, on or off.
    WriteCache(bool),
    /// Another medium, of `size` bytes, or none. No request is outstanding, and none comes before the call returns.
    Medium {
        /// Describes the medium; empty means none.
        config: &'a str,
        /// Bytes.
        size: u64,
    },
    /// Something that a newer host knows.
    Unknown(u32),
}

impl<'a> Change<'a> {
    /// # Safety
    /// `change` is valid for `'a`.
    pub(crate) unsafe fn from_raw(change: *const abi::tcmu_change) -> Option<Change<'a>> {
        // SAFETY: valid by contract.
        let (what, value, config) = unsafe { ((*change).what, (*change).value, CStr::from_ptr((*change).config)) };
        let config = config.to_str().ok()?;
        Some(match what {
            abi::TCMU_CHANGE_CONFIG => Change::Config(config),
            abi::TCMU_CHANGE_SIZE => Change::Size(value),
            abi::TCMU_CHANGE_WRITE_CACHE => Change::WriteCache(value != 0),
            abi::TCMU_CHANGE_MEDIUM => Change::Medium { config, size: value },
            other => Change::Unknown(other),
        })
    }
}
