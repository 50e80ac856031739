//! Hosts that another supervisor left behind: found by their sockets in the run directory, asked what they have, and kept; or ended, where
//! they don't answer or can't be understood.
use std::{io, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tcmu::{BackstoreId, configfs::BackstoreFacts, identity::DeviceName};

use super::{
    Supervisor,
    hosts::{Host, HostKey, Running},
    kernel::Prepared,
    machine::{Found, HostName, Input},
    process::Process,
};
use crate::{
    protocol::{Channel, DeviceSpec, Doing, FromHost, HostFacts, PROTOCOL, ToHost},
    run_dir::RunDir,
};

/// How long a host may take to say what it is and has. It serves its devices meanwhile, if it can.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a host that was killed may take to die.
const DEATH: Duration = Duration::from_secs(5);

/// A host that was found, and its devices.
pub(super) struct Adopted {
    pub(super) facts: HostFacts,
    pub(super) running: Running,
    pub(super) devices: Vec<(Found, Prepared)>,
    /// The pages of their counters.
    pub(super) pages: Vec<(BackstoreId, OwnedFd)>,
}

/// A host of an earlier supervisor that is kept.
pub(super) struct Kept {
    key: HostKey,
    name: HostName,
    devices: Vec<(Found, Prepared)>,
    pages: Vec<(BackstoreId, OwnedFd)>,
}

impl Supervisor {
    /// Takes hosts of an earlier supervisor for its own, before it starts others. They are listened to later.
    pub(super) fn keep(&mut self, mut adopted: Vec<Adopted>) -> Vec<Kept> {
        // Those that serve come first: of two that could take each other's place they are the ones to stay.
        adopted.sort_by_key(|adopted| adopted.devices.is_empty());
        let mut kept = Vec::new();
        for Adopted { facts, running, devices, pages } in adopted {
            let host = Host::adopted(facts, running);
            let Some(name) = host.name() else { continue };
            let other = self.key_of(&name).is_some();
            let wanted = host.device.is_none() && self.config.of_handler(&name.subtype).enabled;
            // One of two that were about to change places, or one whose device is gone.
            if other || (devices.is_empty() && !wanted) {
                let Host { running: Some(running), .. } = host else { continue };
                if devices.is_empty() {
                    running.end_later();
                } else {
                    running.kill();
                }
                continue;
            }
            let key = self.next_host;
            self.next_host += 1;
            self.hosts.insert(key, host);
            kept.push(Kept { key, name, devices, pages });
        }
        kept
    }

    /// Goes on with the devices of hosts that are kept, and with those that a tool waits for since nobody was there.
    pub(super) fn go_on_with(&mut self, adopted: Vec<Kept>, mut pending: Vec<Input>) {
        for Kept { key, name, devices, pages } in adopted {
            pages.into_iter().for_each(|(id, page)| self.pages.keep(id, &name.subtype, page));
            self.machine.add_handler(&name.subtype);
            let (mut found, prepared): (Vec<_>, Vec<_>) = devices.into_iter().unzip();
            for (found, prepared) in found.iter().zip(prepared) {
                self.prepared.insert(found.name.id.clone(), prepared);
            }
            for found in &mut found {
                let its = pending.iter().position(|input| {
                    matches!(input, Input::Added { minor, name, .. } if *minor == found.minor && name.id == found.name.id)
                });
                if let Some(at) = its
                    && let Input::Added { token, .. } = pending.remove(at)
                {
                    found.added = Some(token);
                }
            }
            let Some(host) = self.hosts.get_mut(&key) else { continue };
            if let Err(error) = host.listen_to_adopted(key, &self.happenings) {
                tracing::error!(%error, "no thread to listen to a handler host");
            }
            self.send_settings(key);
            self.input(Input::Adopted { host: name, devices: found });
        }
        pending.into_iter().for_each(|input| self.input(input));
    }
}

/// All hosts that are there and can be used.
pub(super) fn adopt(run: &RunDir) -> Vec<Adopted> {
    // All are asked first, so that those that don't answer keep us waiting once.
    let asked: Vec<_> = run.sockets().into_iter().filter_map(|socket| ask(&socket).map(|channel| (socket, channel))).collect();
    let mut adopted = Vec::new();
    for (socket, (channel, process)) in asked {
        match answer(&channel) {
            Ok((facts, devices, pages)) => {
                let names: Vec<String> = devices.iter().map(|(found, _)| found.name.id.to_string()).collect();
                let (handler, pid) = (&facts.handler.subtype, process.pid());
                tracing::info!(handler, pid, devices = names.join(" "), "its host goes on");
                match Running::new(process, channel, socket) {
                    Ok(running) => adopted.push(Adopted { facts, running, devices, pages }),
                    Err(error) => tracing::error!(%error, "no thread for a handler host"),
                }
            }
            Err(error) => {
                tracing::warn!(
                    pid = process.pid(),
                    "a host of an earlier daemon is ended, its devices are taken over: {error:#}"
                );
                process.kill();
                // Its devices are free when it has let go of their descriptors, and of the connection with them.
                let _ = channel.wait_at_most(Some(DEATH));
                while let Ok(Some(_)) = channel.receive::<serde_json::Value>() {}
                let _ = process.ended(DEATH);
                let _ = std::fs::remove_file(&socket);
            }
        }
    }
    adopted
}

fn ask(socket: &Path) -> Option<(Channel, Process)> {
    let channel = match Channel::connect(socket) {
        Ok(channel) => channel,
        Err(error) => {
            // Nobody listens there any more.
            if error.kind() == io::ErrorKind::ConnectionRefused {
                let _ = std::fs::remove_file(socket);
            }
            return None;
        }
    };
    // Who listens, as the kernel knows it. Had that process ended since, its socket would not answer.
    let process = Process::new(channel.peer().ok()?.0);
    let asked = channel.wait_at_most(Some(ANSWER)).and_then(|()| channel.send_now(&ToHost::Hello { protocol: PROTOCOL }));
    asked.map_err(|error| tracing::warn!(%error, "a handler host cannot be asked")).ok()?;
    Some((channel, process))
}

#[expect(clippy::type_complexity)]
fn answer(channel: &Channel) -> anyhow::Result<(HostFacts, Vec<(Found, Prepared)>, Vec<(BackstoreId, OwnedFd)>)> {
    let next = || {
        let said = channel.receive_with::<FromHost>().context("it does not say what it is and has")?;
        said.context("it ended")
    };
    match next()?.0 {
        FromHost::Hello { protocol: PROTOCOL, .. } => {}
        FromHost::Hello { protocol, version } => {
            bail!("it is of version {version} and speaks protocol {protocol}, this is {PROTOCOL}");
        }
        other => bail!("it says {other:?} instead of hello"),
    }
    let facts = match next()?.0 {
        FromHost::Ready(facts) => facts,
        FromHost::Unloadable { reason } => bail!(reason),
        other => bail!("it says {other:?} and not what it is"),
    };
    let (mut devices, mut pages) = (Vec::new(), Vec::new());
    loop {
        match next()? {
            (FromHost::Has { device, doing }, fds) => {
                let mut fds = fds.into_iter();
                let (fd, page) = (fds.next().context("it has a device without its descriptor")?, fds.next());
                let (found, prepared) = found(&facts, device, doing, fd)?;
                pages.extend(page.map(|page| (found.name.id.clone(), page)));
                devices.push((found, prepared));
            }
            (FromHost::ThatIsAll, _) => break,
            (other, _) => bail!("it says {other:?} and not what it has"),
        }
    }
    channel.wait_at_most(None)?;
    Ok((facts, devices, pages))
}

fn found(facts: &HostFacts, device: DeviceSpec, doing: Doing, fd: OwnedFd) -> anyhow::Result<(Found, Prepared)> {
    let id: BackstoreId = device.name.parse()?;
    let name = DeviceName { id, subtype: facts.handler.subtype.clone(), config: device.config };
    let prepared = Prepared {
        fd: Arc::new(fd),
        map_size: device.map_size,
        facts: BackstoreFacts { size: device.size, block_size: device.block_size, hw_max_sectors: device.hw_max_sectors },
    };
    Ok((Found { minor: device.minor, name, doing, write_cache: device.write_cache, added: None }, prepared))
}
