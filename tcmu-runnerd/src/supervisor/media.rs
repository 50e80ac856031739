//! Media of removable disks are exchanged: the handler first, which may refuse, then the kernel, which keeps what the device is opened with
//! the next time.
use std::time::Duration;

use futures_channel::oneshot;
use tcmu::BackstoreId;

use super::{
    Supervisor,
    machine::{HostName, State},
    questions::Waiting,
};
use crate::{
    dbus::Medium,
    protocol::{DeviceChange, Outcome, ToHost},
};

/// How long a handler may take.
const CHANGE: Duration = Duration::from_secs(20);
/// The longest `dev_config` that the kernel takes.
const MAX_CONFIG: usize = 255;

/// 0 or a negative `errno`, and a line for people.
type Reply = oneshot::Sender<(i32, String)>;

/// A change that its handler is asked for.
pub(super) struct MediumChange {
    id: BackstoreId,
    pub(super) host: HostName,
    config: String,
    size: u64,
    reply: Reply,
}

impl MediumChange {
    fn refuse(self, errno: i32, reason: &str) {
        let _ = self.reply.send((-errno, reason.to_owned()));
    }
}

impl Supervisor {
    pub(super) fn change_medium(&mut self, medium: Medium, reply: Reply) {
        match self.find_for(&medium) {
            Ok((id, host)) => {
                let Medium { size, config, .. } = medium;
                self.media.insert(id.clone());
                let change = DeviceChange::Medium { config: config.clone(), size };
                let device = id.to_string();
                let waiting = Waiting::Medium(MediumChange { id, host: host.clone(), config, size, reply });
                let id = self.request(waiting, CHANGE);
                self.send(&host, ToHost::Reconfigure { id, device, change });
            }
            Err((errno, reason)) => {
                let _ = reply.send((-errno, reason));
            }
        }
    }

    /// The device that is meant, if its medium can be exchanged as far as we know.
    fn find_for(
        &self,
        Medium { subtype, device: name, size, config }: &Medium,
    ) -> Result<(BackstoreId, HostName), (i32, String)> {
        let devices = self.machine.devices().iter().filter(|(id, device)| {
            (id.name == *name || id.to_string() == *name) && subtype.as_ref().is_none_or(|of| *of == device.name.subtype)
        });
        let devices: Vec<_> = devices.collect();
        let (id, device) = match devices[..] {
            [one] => one,
            [] => {
                let of = subtype.as_ref().map_or_else(String::new, |of| format!(" of the handler {of}"));
                return Err((libc::ENODEV, format!("there is no device {name:?}{of}; `tcmuctl devices` lists them")));
            }
            _ => return Err((libc::EINVAL, format!("{name:?} are several devices: user_<number>/{name} is needed"))),
        };
        if device.state != State::Serving {
            return Err((libc::EAGAIN, format!("{id} is not served at the moment: {}", device.state)));
        }
        if self.media.contains(id) {
            return Err((libc::EBUSY, format!("another medium is on its way into {id}")));
        }
        let block = self.prepared.get(id).map_or(512, |prepared| u64::from(prepared.facts.block_size));
        if !config.is_empty() && (*size == 0 || size % block != 0) {
            return Err((libc::EINVAL, format!("size {size}: a multiple of the block size {block} is needed")));
        }
        if config.len() + device.name.subtype.len() + 1 > MAX_CONFIG || config.contains([',', '\n', '\0']) {
            return Err((
                libc::EINVAL,
                format!("the kernel takes at most {MAX_CONFIG} bytes as config string, and neither commas nor line breaks"),
            ));
        }
        Ok((id.clone(), device.host.clone()))
    }

    /// The handler answered.
    pub(super) fn medium_answered(&mut self, change: MediumChange, outcome: Outcome) {
        let MediumChange { id, config, size, reply, .. } = change;
        if let Outcome::Refused { errno, message } = outcome {
            self.media.remove(&id);
            let _ = reply.send((-errno, message));
            return;
        }
        tracing::info!(device = %id, config, size, "its medium was changed");
        let device = self.machine.devices().get(&id).filter(|_| !config.is_empty());
        let (Some(device), Some(kernel)) = (device, &self.kernel) else {
            // Taken out: for the kernel it stays the device that it was, with the medium that it had.
            self.media.remove(&id);
            let _ = reply.send((0, "done".into()));
            return;
        };
        let dev_config = format!("{}/{config}", device.name.subtype);
        // Before the kernel asks us whether that is right.
        self.machine.medium_changed(&id, config, size);
        kernel.keep_medium(&id, dev_config, size, move |kept| {
            let _ = reply.send(match kept {
                Ok(()) => (0, "done".into()),
                Err((errno, error)) => (
                    -errno,
                    format!("the medium was changed, but not for the kernel, which opens the old one next time: {error}"),
                ),
            });
        });
    }

    pub(super) fn medium_lost(&mut self, change: MediumChange) {
        self.media.remove(&change.id);
        change.refuse(libc::EIO, "the handler ended; the device has its old medium");
    }

    pub(super) fn medium_late(&mut self, change: MediumChange) {
        self.media.remove(&change.id);
        change.refuse(libc::ETIMEDOUT, &format!("the handler did not answer within {} s; it may still do it", CHANGE.as_secs()));
    }
}
