//! The configuration while the daemon runs: it is read again when somebody asks for it or its file changes. What is wrong changes nothing.
use tcmu_handler_api::host::is_subtype;

use super::{Happening, Supervisor};
use crate::{
    config::{
        Config, DEFAULT_PATH,
        effect::{self, Effect},
        watch,
    },
    protocol::ToHost,
};

impl Supervisor {
    /// Begins to look whether the file changes.
    pub(super) fn watch_config(&self) {
        let file = self.start.config_path.as_deref().unwrap_or(DEFAULT_PATH.as_ref());
        let happenings = self.happenings.clone();
        if let Err(error) = watch::watch(file, move || happenings.send(Happening::ConfigChanged).is_ok()) {
            tracing::warn!(%error, "no thread to watch the configuration");
        }
    }

    /// The file was touched: it is read again, unless it says what it said before.
    pub(super) fn config_changed(&mut self) {
        match self.read_config() {
            Ok(new) if new == self.read && self.config_problem.is_none() => {}
            Err(problem) if self.config_problem.as_ref() == Some(&problem) => {}
            outcome => {
                if let Err(error) = self.reloaded(outcome) {
                    tracing::error!("{error}");
                }
            }
        }
    }

    /// Reads the configuration again.
    pub(super) fn reload(&mut self) -> Result<String, String> {
        let outcome = self.read_config();
        self.reloaded(outcome)
    }

    fn read_config(&self) -> Result<Config, String> {
        let mut new = Config::load(self.start.config_path.as_deref()).map_err(|error| error.to_string())?;
        // What the command line says counts more.
        if let Some(level) = &self.start.log_level {
            new.log_level.clone_from(level);
        }
        if let Some(path) = &self.start.handler_path {
            new.handler_path.clone_from(path);
        }
        Ok(new)
    }

    fn reloaded(&mut self, outcome: Result<Config, String>) -> Result<String, String> {
        let new = outcome.map_err(|problem| {
            self.config_problem = Some(problem.clone());
            format!("the configuration stays as it was: {problem}")
        })?;
        self.config_problem = None;
        let changes = effect::changes(&self.config, &new);
        let mut said = vec!["configuration read again".to_owned()];
        if changes.is_empty() {
            said.push("nothing changes".into());
        }
        for (effect, options) in &changes {
            let options = options.join(", ");
            said.push(match effect {
                Effect::AtOnce => format!("in force: {options}"),
                Effect::HandlerRestart => format!("with `tcmuctl handler restart NAME`: {options}"),
                Effect::DaemonRestart => format!("with `tcmuctl reload --exec`: {options}"),
            });
        }
        self.config = self.config.changed_to(new.clone());
        self.read = new;
        self.machine.set_limits(self.config.open_timeout(), self.config.policies());
        self.send_slow_commands();
        self.end_standbys();
        let level = self.config.log_level.clone();
        self.set_log_level(&level);
        let said = said.join("; ");
        tracing::info!("{said}");
        Ok(said)
    }

    /// Another level, until the configuration is read again.
    pub(super) fn set_log_level(&mut self, level: &str) {
        crate::logging::set_level(level);
        level.clone_into(&mut self.config.log_level);
        if let Some(bus) = &self.bus {
            bus.set_log_level(level);
        }
        self.settings_changed();
    }

    /// Tells a host how we want it.
    pub(super) fn send_settings(&self, key: super::HostKey) {
        if let Some(host) = self.hosts.get(&key) {
            let alive_ms = self.look_period().as_millis() as u64;
            host.send(ToHost::Settings { log_level: self.config.log_level.clone(), alive_ms }, None);
        }
    }

    fn settings_changed(&self) {
        self.hosts.keys().for_each(|key| self.send_settings(*key));
    }

    /// Handlers that the configuration speaks of and nobody has: a spelling mistake, or a package that is missing.
    pub(super) fn name_unknown_handlers(&self) {
        let known = self.handlers();
        let unknown = self.config.handler.iter().filter(|(name, section)| {
            section.enabled != Some(false) && is_subtype(name) && !known.iter().any(|facts| facts.subtype == **name)
        });
        for (name, _) in unknown {
            tracing::warn!("the configuration has a section [handler.{name}], and there is no such handler");
        }
    }
}
