//! What a server needs to know of a device.
use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use tcmu_handler_api::host::OpenDevice;

use super::counters::Page;
use crate::engine::Target;

/// A device to serve.
pub struct Attach {
    /// `user_<hba>/<name>`, for logs.
    pub name: String,
    /// The open UIO descriptor, nonblocking.
    pub uio: OwnedFd,
    /// Size of map0 in bytes.
    pub map_size: usize,
    /// The handler's device.
    pub device: OpenDevice,
    /// What is known of the unit outside of its handler: its serial number, its ports. A closure that returns the serial number will do.
    pub target: Arc<dyn Target>,
    /// `hw_max_sectors`, in units of 512 bytes; 0: not known.
    pub hw_max_sectors: u32,
    /// The size that initiators know, if an earlier process served it: where it is another now, they are told.
    pub known_size: Option<u64>,
    /// Whether the operator switched the write cache on or off before.
    pub write_cache: Option<bool>,
    /// Names of devices of the same server that initiators may copy to and from this one, whatever their ACLs say of those.
    pub copies_with: Vec<String>,
    /// Where its counters are.
    pub counters: Page,
    /// Commands that take longer are said to be slow; `None`: none is.
    pub slow: Option<Duration>,
}

impl Attach {
    /// A device of which nothing is known but its handler: no serial number, no limit of the transfer length, no copies. Its counters are
    /// in memory of this process.
    pub fn new(name: impl Into<String>, uio: OwnedFd, map_size: usize, device: OpenDevice) -> Attach {
        let target = Arc::new(|| None);
        Attach {
            name: name.into(),
            uio,
            map_size,
            device,
            target,
            hw_max_sectors: 0,
            known_size: None,
            write_cache: None,
            copies_with: Vec::new(),
            counters: Page::private(),
            slow: None,
        }
    }
}

impl std::fmt::Debug for Attach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attach").field("name", &self.name).field("map_size", &self.map_size).finish_non_exhaustive()
    }
}
