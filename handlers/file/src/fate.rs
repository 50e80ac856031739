//! What became of the file while it is open: looked at with each flush, which costs so much more.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tcmu_handler_api::plugin::{Notifier, log};

use crate::image::Image;

#[derive(Debug)]
pub(crate) struct Fate {
    /// Of the device, in bytes.
    size: AtomicU64,
    /// The file is shorter than the device. What is written behind its end would make it longer again, and what is missing would read as
    /// zeros: so nothing is written.
    cut_off: AtomicBool,
    /// The file has no name any more.
    nameless: AtomicBool,
}

impl Fate {
    pub(crate) fn new(size: u64) -> Fate {
        Fate { size: AtomicU64::new(size), cut_off: AtomicBool::new(false), nameless: AtomicBool::new(false) }
    }

    pub(crate) fn set_size(&self, bytes: u64) {
        self.size.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Looks, and says what changed.
    pub(crate) fn look(&self, image: &Image, notifier: &Notifier) {
        let Some((links, found)) = image.links_and_size() else { return };
        let (path, size) = (image.path().display(), self.size.load(Ordering::Relaxed));
        let cut_off = found < size;
        if cut_off != self.cut_off.swap(cut_off, Ordering::Relaxed) {
            if cut_off {
                let missing = "what is missing cannot be read, and nothing is written until the file is as long as before";
                log::error(
                    Some(notifier),
                    format!("{path} has {found} bytes of {size}: it was cut off while it is served; {missing}"),
                );
            } else {
                log::warn(
                    Some(notifier),
                    format!("{path} has {found} bytes again; what was cut off is lost unless it was restored"),
                );
            }
        }
        let nameless = links == 0;
        if nameless != self.nameless.swap(nameless, Ordering::Relaxed) && nameless {
            let rescue = "to keep its data, copy the disk before that";
            log::warn(Some(notifier), format!("{path} was deleted: it is gone when the device is closed; {rescue}"));
        }
    }
}
