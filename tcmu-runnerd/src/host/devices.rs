//! The devices of a host: opened, closed and changed as the supervisor asks. Requests run on threads of a crew: none
//! can keep another device's waiting.
use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tcmu::{
    BackstoreId, Roots,
    configfs::Backstore,
    server::{Attach, Attached, counters::Page},
};
use tcmu_handler_api::{
    host::{Events, Level, OpenSpec},
    plugin::{Change, DeviceFlags, DeviceInfo, Refusal},
};

use super::{Host, to_tracing};
use crate::protocol::{DeviceChange, DeviceSpec, Doing, FromHost, Outcome};

/// A device that is being opened, served, or closed: locked meanwhile.
type Place = Arc<Mutex<Option<Box<Attached>>>>;

/// A device of this host.
pub(super) struct Held {
    pub(super) spec: DeviceSpec,
    /// The UIO descriptor, for the next supervisor.
    pub(super) fd: Arc<OwnedFd>,
    /// Where its counters are, likewise.
    pub(super) page: Option<Arc<OwnedFd>>,
    pub(super) doing: Doing,
    place: Place,
}

impl Host {
    /// Runs a request on another thread. `wanted` is what the device does meanwhile.
    fn with(
        self: &Arc<Host>,
        id: u64,
        name: &str,
        wanted: Doing,
        work: impl FnOnce(&Arc<Host>, &Place) -> Result<Ended, Refusal> + Send + 'static,
    ) {
        let place = match self.devices().get_mut(name) {
            Some(held) if matches!(held.doing, Doing::Opening { .. } | Doing::Closing { .. }) => {
                Err(Refusal::new(libc::EBUSY, "the device is being opened or closed"))
            }
            Some(held) => {
                held.doing = wanted;
                Ok(held.place.clone())
            }
            None => Err(Refusal::new(libc::ENODEV, "the device is not open")),
        };
        match place {
            Ok(place) => self.work(id, name, place, work),
            Err(refusal) => self.answer(id, &Err(refusal)),
        }
    }

    fn work(
        self: &Arc<Host>,
        id: u64,
        name: &str,
        place: Place,
        work: impl FnOnce(&Arc<Host>, &Place) -> Result<Ended, Refusal> + Send + 'static,
    ) {
        let (host, name) = (self.clone(), name.to_owned());
        self.crew.spawn(move || {
            let ended = work(&host, &place);
            host.ended(id, &name, &place, ended);
        });
    }

    /// A request ended: the device's state and the answer change together, for a supervisor that comes at this moment.
    fn ended(&self, id: u64, name: &str, place: &Place, ended: Result<Ended, Refusal>) {
        let mut line = self.line();
        let mut devices = self.devices();
        let outcome = ended.as_ref().map_or_else(refused, |_| Outcome::Done);
        if let Some(held) = devices.get_mut(name).filter(|held| Arc::ptr_eq(&held.place, place)) {
            let mine =
                matches!(held.doing, Doing::Opening { id: i } | Doing::Closing { id: i } | Doing::Changing { id: i } if i == id);
            let opening = matches!(held.doing, Doing::Opening { .. });
            match &ended {
                Ok(Ended::Changed(DeviceChange::Size(bytes))) => held.spec.size = *bytes,
                Ok(Ended::Changed(DeviceChange::Config(config))) => held.spec.config.clone_from(config),
                Ok(Ended::Changed(DeviceChange::WriteCache(on))) => held.spec.write_cache = Some(*on),
                // Without a medium it stays the device that it was.
                Ok(Ended::Changed(DeviceChange::Medium { config, size })) if !config.is_empty() => {
                    held.spec.config.clone_from(config);
                    held.spec.size = *size;
                }
                _ => {}
            }
            if mine {
                held.doing = Doing::Serving;
            }
            if matches!(ended, Ok(Ended::Closed)) || (opening && ended.is_err()) {
                devices.remove(name);
            }
        }
        drop(devices);
        line.say(&FromHost::Answer { id, outcome });
    }

    pub(super) fn open(self: &Arc<Host>, id: u64, spec: DeviceSpec, fd: Option<OwnedFd>, page: Option<OwnedFd>) {
        let Some(fd) = fd.map(Arc::new) else {
            return self.answer(id, &Err(Refusal::invalid("the UIO descriptor is missing")));
        };
        let (page, place) = (page.map(Arc::new), Place::default());
        let held =
            Held { spec: spec.clone(), fd: fd.clone(), page: page.clone(), doing: Doing::Opening { id }, place: place.clone() };
        let name = spec.name.clone();
        {
            let mut devices = self.devices();
            if devices.contains_key(&name) {
                drop(devices);
                return self.answer(id, &Err(Refusal::new(libc::EEXIST, "the device is open already")));
            }
            devices.insert(name.clone(), held);
        }
        self.work(id, &name, place, move |host, place| {
            let mut slot = place.lock().unwrap_or_else(PoisonError::into_inner);
            let backstore: BackstoreId = spec.name.parse().map_err(|error| Refusal::invalid(format!("{error}")))?;
            let fd = fd.as_fd().try_clone_to_owned().map_err(|error| Refusal::new(libc::EMFILE, error.to_string()))?;
            let counters = match &page {
                Some(page) => Page::shared(page).map_err(|error| Refusal::new(libc::EIO, format!("its counters: {error}")))?,
                None => Page::private(),
            };
            *slot = Some(host.attach(&spec, &backstore, fd, counters)?);
            Ok(Ended::Opened)
        });
    }

    fn attach(
        self: &Arc<Host>,
        spec: &DeviceSpec,
        id: &BackstoreId,
        fd: OwnedFd,
        counters: Page,
    ) -> Result<Box<Attached>, Refusal> {
        let mut info = DeviceInfo::new(spec.size, spec.block_size);
        info.set_flags(DeviceFlags::WRITE_CACHE, true);
        let events = Arc::new(DeviceEvents { name: spec.name.clone(), host: Arc::downgrade(self) });
        let open = OpenSpec { config: &spec.config, name: &spec.name, take_over: spec.take_over, info };
        let device = self.plugin.open(open, events)?;
        if device.info().block_size() != spec.block_size {
            return Err(Refusal::invalid(format!(
                "the handler wants blocks of {} bytes, the backstore has {}: create it with hw_block_size={0}",
                device.info().block_size(),
                spec.block_size
            )));
        }
        let attach = Attach {
            name: spec.name.clone(),
            uio: fd,
            map_size: spec.map_size,
            device,
            target: Arc::new(Backstore::at(&Roots::default(), id)),
            hw_max_sectors: spec.hw_max_sectors,
            known_size: spec.take_over.then_some(spec.size),
            write_cache: spec.write_cache,
            copies_with: spec.copies_with.clone(),
            counters,
            slow: slow(spec.slow_command_ms),
        };
        let (failures, name) = (self.failures.clone(), spec.name.clone());
        // On a thread that serves others too, so it only passes it on.
        let on_failure = move |reason: &str| {
            let _ = failures.send((name, reason.to_owned()));
        };
        let attached = self.server.attach(attach, on_failure).map_err(|error| Refusal::new(libc::EIO, error.to_string()))?;
        if !spec.take_over {
            // Tools keep what they read there, and write it again when they restore a configuration. The kernel's default is no.
            let cached = attached.info().flags().contains(DeviceFlags::WRITE_CACHE);
            if let Err(error) = Backstore::at(&Roots::default(), id).set_attribute("emulate_write_cache", u8::from(cached)) {
                tracing::debug!(device = spec.name, %error, "tools cannot see its write cache");
            }
        }
        Ok(attached)
    }

    /// A device can't be served any more.
    pub(super) fn failed(&self, device: String, reason: String) {
        let mut line = self.line();
        if let Some(held) = self.devices().get_mut(&device).filter(|held| held.doing == Doing::Serving) {
            held.doing = Doing::Failed { reason: reason.clone() };
        }
        line.say(&FromHost::DeviceFailed { device, reason });
    }

    pub(super) fn close(self: &Arc<Host>, id: u64, name: &str, within: Duration) {
        self.with(id, name, Doing::Closing { id }, move |_, place| {
            let mut slot = place.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(attached) = slot.take()
                && let Err(attached) = attached.stop(within)
            {
                *slot = Some(attached);
                return Err(Refusal::new(libc::ETIMEDOUT, format!("commands are still in flight after {} s", within.as_secs())));
            }
            Ok(Ended::Closed)
        });
    }

    pub(super) fn reconfigure(self: &Arc<Host>, id: u64, name: &str, change: DeviceChange) {
        self.with(id, name, Doing::Changing { id }, move |_, place| {
            let slot = place.lock().unwrap_or_else(PoisonError::into_inner);
            let attached = slot.as_ref().ok_or_else(|| Refusal::new(libc::ENODEV, "the device is not open"))?;
            attached.reconfigure(&match &change {
                DeviceChange::Config(config) => Change::Config(config),
                DeviceChange::Size(bytes) => Change::Size(*bytes),
                DeviceChange::WriteCache(on) => Change::WriteCache(*on),
                DeviceChange::Medium { config, size } => Change::Medium { config, size: *size },
            })?;
            Ok(Ended::Changed(change))
        });
    }

    /// Commands of a device that take longer are logged from now on.
    pub(super) fn set_slow(&self, name: &str, ms: u64) {
        if let Some(held) = self.devices().get_mut(name) {
            held.spec.slow_command_ms = ms;
        }
        self.with_attached(name, |attached| attached.set_slow(slow(ms)));
    }

    /// Something of each device that is not being opened, closed or changed at the moment.
    pub(super) fn each<T>(&self, mut of: impl FnMut(&str, &Attached) -> Option<T>) -> Vec<T> {
        let places: Vec<(String, Place)> = self.devices().iter().map(|(name, held)| (name.clone(), held.place.clone())).collect();
        let one = |(name, place): &(String, Place)| {
            let slot = place.try_lock().ok()?;
            of(name, slot.as_ref()?)
        };
        places.iter().filter_map(one).collect()
    }

    /// Something of a device, unless it is being opened, closed or changed at the moment.
    pub(super) fn with_attached<T>(&self, name: &str, run: impl FnOnce(&Attached) -> T) -> Option<T> {
        let place = self.devices().get(name).map(|held| held.place.clone())?;
        let slot = place.try_lock().ok()?;
        slot.as_ref().map(|attached| run(attached))
    }
}

/// The limit of a command's time.
fn slow(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

/// How a request ended well.
enum Ended {
    Opened,
    Closed,
    Changed(DeviceChange),
}

pub(super) fn refused(refusal: &Refusal) -> Outcome {
    Outcome::Refused { errno: refusal.errno(), message: refusal.message().to_owned() }
}

struct DeviceEvents {
    name: String,
    host: std::sync::Weak<Host>,
}

impl Events for DeviceEvents {
    fn size_changed(&self, bytes: u64) {
        if let Some(host) = self.host.upgrade() {
            host.with_attached(&self.name, |attached| attached.size_changed(bytes));
        }
    }

    fn medium_changed(&self) {
        if let Some(host) = self.host.upgrade() {
            host.with_attached(&self.name, Attached::medium_changed);
        }
    }

    fn lock_lost(&self) {
        if let Some(host) = self.host.upgrade() {
            host.with_attached(&self.name, Attached::lock_lost);
        }
    }

    fn log(&self, level: Level, message: &str) {
        to_tracing(level, Some(&self.name), message);
    }
}
