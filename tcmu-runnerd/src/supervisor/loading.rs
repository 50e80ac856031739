//! Plugins that become handlers, or don't.
use std::{
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use super::{
    Happening, Supervisor,
    hosts::{Host, HostKey, subtype_by_file},
    machine::{HostName, Input},
};
use crate::{
    plugins,
    protocol::{HandlerFacts, HostFacts},
};

/// How long hosts may take to load their plugins before the bus answers without those that didn't.
const LOAD: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Starts a host for each plugin that has none, and waits until each has said whether it could load it.
    pub(super) fn start_hosts(&mut self, happened: &Receiver<Happening>) {
        let found = plugins::find(&self.config.handler_path);
        if found.is_empty() {
            tracing::warn!(path = ?self.config.handler_path, "there are no plugins in the handler path");
        }
        for plugin in found {
            if self.hosts.values().any(|host| host.device.is_none() && host.plugin == plugin) {
                continue;
            }
            if let Err(distrust) = plugins::check(&plugin) {
                tracing::error!("plugin refused: {distrust}");
                continue;
            }
            let host = Host::new(plugin);
            self.add_host(host);
        }
        let end = Instant::now() + LOAD;
        while self.hosts.values().any(|host| host.facts.is_none() && host.unloadable.is_none()) {
            let left = end.saturating_duration_since(Instant::now());
            match happened.recv_timeout(left) {
                Ok(happening) => self.happened(happening),
                Err(_) => {
                    for host in self.hosts.values().filter(|host| host.facts.is_none() && host.unloadable.is_none()) {
                        tracing::error!(plugin = %host.plugin.display(), "did not load within {} s; going on without it", LOAD.as_secs());
                    }
                    break;
                }
            }
            self.restart_hosts();
        }
    }

    pub(super) fn add_host(&mut self, mut host: Host) {
        let key = self.next_host;
        self.next_host += 1;
        if let Err(error) = host.start(key, &self.config, &self.run, &self.happenings) {
            tracing::error!(plugin = %host.plugin.display(), %error, "its host cannot be started");
            if host.device.is_none() {
                return;
            }
            host.retry();
        }
        self.hosts.insert(key, host);
    }

    pub(super) fn handlers(&self) -> Vec<HandlerFacts> {
        self.hosts.values().filter_map(|host| host.handler().cloned()).collect()
    }

    pub(super) fn unloadable(&mut self, key: HostKey, reason: String) {
        tracing::error!("plugin refused: {reason}");
        if let Some(host) = self.hosts.get_mut(&key).filter(|host| host.device.is_none()) {
            host.unloadable = Some(reason);
        }
    }

    pub(super) fn host_ready(&mut self, key: HostKey, generation: u64, facts: HostFacts) {
        if let Err(reason) = self.accept(key, &facts.handler) {
            tracing::error!("plugin refused: {reason}");
            return;
        }
        let Some(host) = self.hosts.get_mut(&key) else { return };
        let first = host.device.is_none();
        let handler = facts.handler.clone();
        tracing::info!(handler = handler.subtype, version = handler.version, plugin = %host.plugin.display(), "loaded");
        host.set_ready(generation, facts);
        let name = HostName { subtype: handler.subtype.clone(), device: host.device.clone() };
        if first {
            self.machine.add_handler(&handler.subtype);
            if let Some(bus) = &self.bus {
                bus.add_handler(handler);
            }
        }
        self.send_settings(key);
        self.input(Input::HostUp { host: name });
        self.replaced(key);
    }

    /// Whether a plugin that was loaded is to stay; else why not.
    fn accept(&mut self, key: HostKey, facts: &HandlerFacts) -> Result<(), String> {
        let Some(host) = self.hosts.get(&key) else { return Err("its host is gone".into()) };
        let (plugin, subtype) = (host.plugin.clone(), &facts.subtype);
        if host.device.is_some() {
            return Ok(());
        }
        let path = plugin.display();
        if !self.config.of_handler(subtype).enabled {
            return Err(self.refuse(key, format!("{path}: disabled by the configuration")));
        }
        let file = subtype_by_file(&plugin);
        let of_file = self.config.of_handler(&file);
        let of_subtype = self.config.of_handler(subtype);
        if (of_file.user, of_file.confined) != (of_subtype.user, of_subtype.confined) {
            return Err(self.refuse(
                key,
                format!(
                    "{path}: its subtype is {subtype:?}, not {file:?} as its file name says: user and confined in [handler.NAME] need them to be the same"
                ),
            ));
        }
        if let Some(program) = self.programs.get(subtype) {
            let pid = program.pid;
            return Err(self.refuse(key, format!("{path}: its subtype {subtype:?} is taken by the program {pid} on the bus")));
        }
        let same = |host: &Host| host.name() == Some(HostName::of_handler(subtype));
        let Some(other) = self.hosts.iter().find(|(_, host)| same(host) && host.plugin != plugin).map(|(key, _)| *key) else {
            return Ok(());
        };
        // The first in the path counts, whichever was loaded first; but nothing is taken from a handler that is at work already.
        let works = self.kernel.is_some() || self.hosts[&other].is_adopted();
        let (loser, winner) = if key < other && !works { (other, key) } else { (key, other) };
        let (path, first) = (self.hosts[&loser].plugin.display(), self.hosts[&winner].plugin.display());
        let reason = self.refuse(loser, format!("{path}: has the same subtype {subtype:?} as {first}"));
        if loser == key {
            return Err(reason);
        }
        tracing::error!("plugin refused: {reason}");
        Ok(())
    }

    fn refuse(&mut self, key: HostKey, reason: String) -> String {
        if let Some(host) = self.hosts.get_mut(&key) {
            host.unloadable = Some(reason.clone());
            host.facts = None;
            host.end_later();
        }
        reason
    }
}
