//! What the machine wants done is done.
use tcmu::BackstoreId;

use super::{
    Supervisor,
    machine::{Action, HostName},
};
use crate::protocol::{DeviceSpec, ToHost};

impl Supervisor {
    pub(super) fn act(&mut self, action: Action) {
        let Some(kernel) = &self.kernel else { return };
        match action {
            Action::AnswerKernel { token, status } => kernel.answer(token, status),
            Action::Disown { token } => kernel.disown(token),
            Action::Prepare { id, minor, take_over } => {
                kernel.prepare(&id, minor, take_over, self.prepared.get(&id).cloned());
            }
            Action::Compare { id, unsure } => {
                if let Some(prepared) = self.prepared.get_mut(&id).filter(|_| unsure) {
                    prepared.facts.size = 0;
                }
                kernel.compare(&id);
            }
            Action::Block { id } => kernel.block(&id),
            Action::Unblock { id } => kernel.unblock(&id),
            Action::Release { id } => {
                self.prepared.remove(&id);
                if !self.machine.devices().contains_key(&id) {
                    self.pages.retire(&id);
                }
            }
            Action::FailCommands { id } => kernel.fail_commands(&id),
            Action::KeepCachesOff { devices } => {
                if let Err(error) = self.run.keep_caches_off(&devices) {
                    tracing::error!(%error, "the next daemon will switch write caches on that were switched off");
                }
            }
            Action::StartHost { host } => self.start_device_host(host),
            Action::EndHost { host } => {
                if let Some(key) = self.key_of(&host)
                    && let Some(mut host) = self.hosts.remove(&key)
                {
                    host.end_later();
                }
            }
            Action::KillHost { host } => {
                if let Some(running) = self.host_of(&host).and_then(|host| host.running.as_ref()) {
                    running.kill();
                }
            }
            Action::SwapHost { host } => self.swap(&host),
            Action::Open { request, id, host, take_over } => self.send_open(request, &id, &host, take_over),
            Action::Close { request, id, host } => {
                let within_ms = self.config.drain_timeout().as_millis() as u64;
                self.send(&host, ToHost::Close { id: request, device: id.to_string(), within_ms });
            }
            Action::Reconfigure { request, id, host, change } => {
                self.send(&host, ToHost::Reconfigure { id: request, device: id.to_string(), change });
            }
        }
    }

    fn start_device_host(&mut self, name: HostName) {
        let (Some(device), Some(first)) = (name.device, self.host_of(&HostName::of_handler(&name.subtype))) else { return };
        let host = first.for_device(device);
        self.add_host(host);
    }

    fn send_open(&mut self, request: u64, id: &BackstoreId, host: &HostName, take_over: bool) {
        let (Some(prepared), Some(device)) = (self.prepared.get(id), self.machine.devices().get(id)) else { return };
        let page = self.pages.of(id, &device.name.subtype);
        let slow = self.config.policies().of(&device.name.subtype, id).slow_command;
        let device = DeviceSpec {
            name: id.to_string(),
            minor: device.minor,
            config: device.name.config.clone(),
            size: prepared.facts.size,
            block_size: prepared.facts.block_size,
            hw_max_sectors: prepared.facts.hw_max_sectors,
            map_size: prepared.map_size,
            take_over,
            write_cache: device.write_cache,
            copies_with: self.config.copies_with(&id.to_string()),
            slow_command_ms: slow.map_or(0, |time| time.as_millis() as u64),
        };
        let fds = [prepared.fd.clone()].into_iter().chain(page).collect();
        if let Some(host) = self.host_of(host) {
            host.send_with(ToHost::Open { id: request, device }, fds);
        }
    }
}
