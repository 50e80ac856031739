//! What is in a device: a file and what became of it. A device that is not removable has the same one all its life.
use std::sync::{Mutex, MutexGuard, PoisonError};

use tcmu_handler_api::plugin::{DeviceInfo, Notifier, Refusal, log};

use crate::{config::Config, fate::Fate, image::Image};

#[derive(Debug)]
pub(crate) struct Medium {
    pub(crate) image: Image,
    pub(crate) fate: Fate,
    config: Mutex<Config>,
}

impl Medium {
    /// What a device is opened with. One that is not as long as it should be, and can't be made so, is served as far as it goes.
    pub(crate) fn open(config: Config, info: &mut DeviceInfo, take_over: bool, notifier: &Notifier) -> Result<Medium, Refusal> {
        let image = Image::open(&config, info.size(), take_over)?;
        let room = image.size()?;
        // A disk that is taken over may have had data there: zeros in their place would be silent loss, and so would be an empty disk.
        if room < info.size() && (take_over || !image.is_extensible()) {
            let usable = room - room % u64::from(info.block_size());
            if usable == 0 {
                return Err(Refusal::new(
                    rustix::io::Errno::IO.raw_os_error(),
                    format!("{} has {room} bytes instead of {}: was it truncated?", config.path, info.size()),
                ));
            }
            log::warn(
                Some(notifier),
                format!(
                    "{} has {room} bytes, its disk {}: a resize was left half done, or the file was truncated; serving {usable}",
                    config.path,
                    info.size()
                ),
            );
            info.0.size = usable;
        }
        Medium::of(image, config, info, notifier)
    }

    /// Another one for a device that is there. It has what it is said to have, or is refused.
    pub(crate) fn insert(config: Config, info: &mut DeviceInfo, notifier: &Notifier) -> Result<Medium, Refusal> {
        let image = Image::open(&config, info.size(), false)?;
        let room = image.size()?;
        if room < info.size() && !image.is_extensible() {
            return Err(Refusal::invalid(format!("{} has only {room} bytes", config.path)));
        }
        Medium::of(image, config, info, notifier)
    }

    fn of(image: Image, config: Config, info: &mut DeviceInfo, notifier: &Notifier) -> Result<Medium, Refusal> {
        let medium = Medium { fate: Fate::new(info.size()), image, config: Mutex::new(config) };
        medium.make_room(info.size(), notifier)?;
        medium.image.describe(&medium.config(), info);
        Ok(medium)
    }

    pub(crate) fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same file by another name. `create` does not matter by now.
    pub(crate) fn rename(&self, new: Config) -> Result<(), Refusal> {
        let mut config = self.config();
        if (new.read_only, new.direct, new.removable) != (config.read_only, config.direct, config.removable) {
            return Err(Refusal::unsupported("`ro`, `direct` and `removable` cannot be changed while the disk is in use"));
        }
        if new.path != config.path && !self.image.is_at(&new.path)? {
            return Err(Refusal::unsupported(format!(
                "{} is another file than the disk's, which is {}: another file needs a new device",
                new.path, config.path
            )));
        }
        *config = new;
        Ok(())
    }

    /// Grows the file with the device; a device that shrinks leaves the file as it is.
    pub(crate) fn resize(&self, bytes: u64, notifier: &Notifier) -> Result<(), Refusal> {
        self.make_room(bytes, notifier)?;
        self.fate.set_size(bytes);
        Ok(())
    }

    fn make_room(&self, bytes: u64, notifier: &Notifier) -> Result<(), Refusal> {
        let room = self.image.size()?;
        if room < bytes {
            let config = self.config();
            if !self.image.is_extensible() {
                return Err(Refusal::invalid(format!("{} has only {room} bytes", config.path)));
            }
            self.image.extend(bytes)?;
            log::info(Some(notifier), format!("{} was extended from {room} to {bytes} bytes", config.path));
        }
        Ok(())
    }
}
