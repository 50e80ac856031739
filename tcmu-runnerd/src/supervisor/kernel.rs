//! The supervisor's side of the kernel: the thread that reads netlink, and what is done to devices in configfs and sysfs. None of it
//! runs handler code, and none of it runs on the supervisor's own thread.
mod pending;

use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd, OwnedFd},
    process::Command,
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};
use tcmu::{
    BackstoreId, Roots,
    configfs::{Backstore, BackstoreFacts, NetlinkBlock, ResetRing},
    identity::{DeviceName, split_config},
    netlink::{Change, Event, EventKind, Netlink, NetlinkError, Received},
    uio::{self, UioDevice},
};

use super::{
    Happening,
    machine::{Input, Token},
};
use crate::{config::Config, crew::Crew, protocol::DeviceChange};

/// How long udev may take to make a device's node.
const NODE: Duration = Duration::from_secs(5);

/// What was prepared of a device.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) map_size: usize,
    pub(super) facts: BackstoreFacts,
}

/// A device that there is: its number and name.
pub(super) type Present = (u32, DeviceName);

/// Events that were not answered yet.
type Owed = Arc<Mutex<HashMap<Token, Event>>>;

/// The kernel, as the supervisor sees it.
pub(super) struct Kernel {
    netlink: Arc<Netlink>,
    roots: Roots,
    owed: Owed,
    held: pending::Held,
    happenings: Sender<Happening>,
    crew: Crew,
}

impl Kernel {
    /// Connects, and starts to read events; with what tools want that a dead daemon did not hear of or did not answer, and with all
    /// devices there are. Tools for which it is too late are freed (`EINTR`). Devices of `foreign` subtypes are other programs'.
    pub(super) fn connect(
        roots: Roots,
        config: &Config,
        foreign: &[String],
        happenings: Sender<Happening>,
    ) -> Result<(Kernel, Vec<Input>, Vec<Present>), NetlinkError> {
        load_module(&roots);
        // Nothing is sent while we subscribe, so nothing is missed.
        let block = NetlinkBlock::begin(&roots).map_err(|error| tracing::warn!(%error, "cannot hold events back"));
        let netlink = Arc::new(Netlink::connect(config.netlink_buffer_kib << 10)?);
        netlink.set_kernel_replies(true)?;
        let owed = Owed::default();
        let devices = list(&roots);
        let present = present(&devices);
        let (held, inputs) = match block {
            Ok(block) => pending::Hold::begin(block, pending::find(&roots, devices, foreign), &owed, happenings.clone()),
            Err(()) => (pending::Held::default(), Vec::new()),
        };
        let kernel = Kernel { netlink, roots, owed, held, happenings, crew: Crew::new("kernel") };
        kernel.start_reading(inputs.len() as Token);
        Ok((kernel, inputs, present))
    }

    /// Reads events, with tokens from the one behind `token`.
    fn start_reading(&self, mut token: Token) {
        let (netlink, owed, roots, happenings) =
            (self.netlink.clone(), self.owed.clone(), self.roots.clone(), self.happenings.clone());
        let read = move || {
            let mut lost = false;
            loop {
                let happening = match netlink.receive() {
                    Ok(Received::Event(event)) => {
                        token += 1;
                        tracing::debug!(?event, "from the kernel");
                        let Some(input) = input_of(token, &event) else {
                            tracing::error!(?event, "an event that makes no sense is refused");
                            if let Err(error) = netlink.answer(&event, -libc::EINVAL) {
                                tracing::debug!(%error);
                            }
                            continue;
                        };
                        owed.lock().unwrap_or_else(PoisonError::into_inner).insert(token, event);
                        Happening::Input(input)
                    }
                    // More may be lost, without a further word, until all that waits is read.
                    Ok(Received::Overrun) => {
                        lost = true;
                        continue;
                    }
                    Ok(Received::Nothing) if std::mem::take(&mut lost) => {
                        tracing::error!("events of the kernel were lost; looking at all devices anew");
                        if !netlink.losses_are_told() {
                            // Whoever waits for an answer that can't come any more gets EINTR.
                            drop(NetlinkBlock::reset(&roots));
                            owed.lock().unwrap_or_else(PoisonError::into_inner).clear();
                        }
                        Happening::Rescan
                    }
                    Ok(Received::Nothing) => {
                        let _ = poll(&mut [PollFd::new(&netlink.as_fd(), PollFlags::IN)], None);
                        continue;
                    }
                    Err(error) => {
                        tracing::error!(%error, "netlink");
                        thread::sleep(Duration::from_secs(1));
                        Happening::Rescan
                    }
                };
                if happenings.send(happening).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("netlink".into()).spawn(read) {
            tracing::error!(%error, "no thread for netlink");
        }
    }

    /// Answers an event.
    pub(super) fn answer(&self, token: Token, status: i32) {
        let Some(event) = self.owed.lock().unwrap_or_else(PoisonError::into_inner).remove(&token) else { return };
        // Devices that don't wait (nl_reply_supported=-1) have nothing to be answered.
        if let Err(error) = self.netlink.answer(&event, status) {
            tracing::debug!(device = event.device, %error);
        }
        pending::answered(&self.held, &self.owed, token);
    }

    /// Another program answers an event.
    pub(super) fn disown(&self, token: Token) {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
        pending::answered(&self.held, &self.owed, token);
    }

    /// All devices there are.
    pub(super) fn present(&self) -> Vec<Present> {
        present(&list(&self.roots))
    }

    /// Prepares a device on another thread; [`Happening::Prepared`] tells when.
    pub(super) fn prepare(&self, id: &BackstoreId, minor: u32, take_over: bool, open: Option<Prepared>) {
        let (id, roots, happenings) = (id.clone(), self.roots.clone(), self.happenings.clone());
        self.crew.spawn(move || {
            let mut prepared = prepare(&roots, &id, minor, take_over, open);
            if let Err((errno, _)) = &mut prepared
                && !is_there(&roots, &id, minor)
            {
                *errno = libc::ENODEV;
            }
            let _ = happenings.send(Happening::Prepared(id, prepared));
        });
    }

    /// Reads what a device is for the kernel, on another thread; [`Happening::Facts`] tells.
    pub(super) fn compare(&self, id: &BackstoreId) {
        let (id, roots, happenings) = (id.clone(), self.roots.clone(), self.happenings.clone());
        self.crew.spawn(move || match Backstore::at(&roots, &id).facts() {
            Ok(facts) => {
                let _ = happenings.send(Happening::Facts(id, facts));
            }
            Err(error) => tracing::debug!(device = %id, %error, "cannot be compared"),
        });
    }

    /// Whether a tool waits for an answer. So many of them are left to others.
    pub(super) fn owes(&self, left: usize) -> bool {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).len() > left
    }

    /// Makes the kernel know a device's new medium, on another thread; it asks us whether that is right. `done` is told.
    pub(super) fn keep_medium(
        &self,
        id: &BackstoreId,
        dev_config: String,
        size: u64,
        done: impl FnOnce(Result<(), (i32, String)>) + Send + 'static,
    ) {
        let (id, roots, happenings) = (id.clone(), self.roots.clone(), self.happenings.clone());
        self.crew.spawn(move || {
            let backstore = Backstore::at(&roots, &id);
            let kept = backstore.set_attribute("dev_config", dev_config).and_then(|()| backstore.set_attribute("dev_size", size));
            // First, so that who is told and asks for the next one at once does not find this one on its way.
            let _ = happenings.send(Happening::MediumKept(id));
            done(kept.map_err(|error| (error.errno().unwrap_or(libc::EIO), error.to_string())));
        });
    }

    /// Keeps the kernel from sending events, as long as the value lives: tools are told to try again.
    pub(super) fn hold_events(&self) -> Option<NetlinkBlock> {
        NetlinkBlock::reset(&self.roots).map_err(|error| tracing::warn!(%error, "cannot hold events back")).ok()
    }

    /// Blocks a device on another thread; [`Input::Blocked`] tells when.
    pub(super) fn block(&self, id: &BackstoreId) {
        let (id, roots, happenings) = (id.clone(), self.roots.clone(), self.happenings.clone());
        self.crew.spawn(move || {
            if let Err(error) = Backstore::at(&roots, &id).block(true) {
                tracing::warn!(device = %id, %error, "cannot be blocked");
            }
            let _ = happenings.send(Happening::Input(Input::Blocked { id }));
        });
    }

    /// Lets a device go on, on another thread.
    pub(super) fn unblock(&self, id: &BackstoreId) {
        let (id, roots) = (id.clone(), self.roots.clone());
        self.crew.spawn(move || match Backstore::at(&roots, &id).block(false) {
            Err(error) if error.errno() == Some(libc::ENOENT) => tracing::debug!(device = %id, "is gone"),
            Err(error) => tracing::error!(device = %id, %error, "stays blocked"),
            Ok(()) => {}
        });
    }

    /// Lets a device's commands come and fail, on another thread.
    pub(super) fn fail_commands(&self, id: &BackstoreId) {
        let (id, roots) = (id.clone(), self.roots.clone());
        self.crew.spawn(move || {
            let backstore = Backstore::at(&roots, &id);
            if let Err(error) = backstore.block(false).and_then(|()| backstore.reset_ring(ResetRing::Fail)) {
                tracing::error!(device = %id, %error, "its commands cannot be failed");
            }
        });
    }

    /// Tells the kernel to wait for nobody any more: other programs and `rmdir` must not hang on a daemon that isn't there.
    pub(super) fn stop_replies(&self) {
        pending::end(&self.held, &self.owed);
        if let Err(error) = self.netlink.set_kernel_replies(false) {
            tracing::warn!(%error, "the kernel may wait for answers that nobody gives");
        }
    }
}

fn list(roots: &Roots) -> Vec<UioDevice> {
    uio::list(roots).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot list devices");
        Vec::new()
    })
}

fn present(devices: &[UioDevice]) -> Vec<Present> {
    devices.iter().map(|device| (device.minor, device.name.clone())).collect()
}

fn prepare(
    roots: &Roots,
    id: &BackstoreId,
    minor: u32,
    take_over: bool,
    open: Option<Prepared>,
) -> Result<Prepared, (i32, String)> {
    let backstore = Backstore::at(roots, id);
    let failed = |error: &dyn std::fmt::Display, errno: Option<i32>| (errno.unwrap_or(libc::EIO), error.to_string());
    if take_over {
        if !backstore.is_enabled().map_err(|error| failed(&error, error.errno()))? {
            return Err((libc::EAGAIN, "it is only being enabled".into()));
        }
        // What an earlier process had taken from the ring is given back to the initiators.
        backstore.block(true).map_err(|error| failed(&error, error.errno()))?;
        backstore.reset_ring(ResetRing::Requeue).map_err(|error| failed(&error, error.errno()))?;
    }
    // Aborts and resets come through the ring where the kernel can do that (5.9 and later).
    if let Err(error) = backstore.set_attribute("tmr_notification", 1) {
        tracing::debug!(device = %id, %error, "the kernel does not tell of aborted commands");
    }
    let facts = backstore.facts().map_err(|error| failed(&error, error.errno()))?;
    if let Some(open) = open {
        return Ok(Prepared { facts, ..open });
    }
    let device = uio::read(roots, minor).map_err(|error| failed(&error, None))?;
    let device = device.ok_or_else(|| (libc::ENODEV, format!("uio{minor} is not a TCMU device")))?;
    if device.name.id != *id {
        return Err((libc::ENODEV, format!("uio{minor} belongs to {} by now", device.name.id)));
    }
    let fd = uio::open(roots, minor, NODE).map_err(|error| failed(&error, None))?;
    Ok(Prepared { fd: Arc::new(fd), map_size: device.map_size, facts })
}

/// Whether the kernel still has a device.
fn is_there(roots: &Roots, id: &BackstoreId, minor: u32) -> bool {
    matches!(uio::read(roots, minor), Ok(Some(device)) if device.name.id == *id)
}

fn input_of(token: Token, event: &Event) -> Option<Input> {
    let name = DeviceName::parse(&event.device)?;
    Some(match &event.kind {
        EventKind::Added => Input::Added { token, minor: event.minor, name },
        EventKind::Removed => Input::Removed { token, id: name.id, of: name.subtype },
        EventKind::Reconfigured(change) => {
            let (change, subtype) = match change {
                Change::Config(config) => {
                    let (subtype, config) = split_config(config);
                    (DeviceChange::Config(config.to_owned()), Some(subtype.to_owned()))
                }
                Change::Size(bytes) => (DeviceChange::Size(*bytes), None),
                Change::WriteCache(on) => (DeviceChange::WriteCache(*on), None),
            };
            Input::Reconfigured { token, id: name.id, of: name.subtype, change, subtype }
        }
        EventKind::Malformed => return None,
    })
}

/// Loads the kernel module if it isn't there.
fn load_module(roots: &Roots) {
    if !roots.sys.join("module/target_core_user").exists() {
        tracing::info!("loading the kernel module target_core_user");
        let _ = Command::new("modprobe").arg("target_core_user").status();
    }
    if !roots.target.exists() {
        let config = roots.target.parent().unwrap_or(&roots.target);
        if config.is_dir() && fs::read_dir(config).is_ok_and(|mut entries| entries.next().is_none()) {
            let _ = Command::new("mount").args(["-t", "configfs", "none"]).arg(config).status();
        }
        let _ = fs::create_dir(&roots.target);
    }
}
