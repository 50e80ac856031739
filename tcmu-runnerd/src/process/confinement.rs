//! The order in which a handler host gives its rights up.
//!
//! 1. What asks for rights of root is done: `PR_SET_IO_FLUSHER`, locked memory, the right to come back to its priority.
//! 2. No program that it starts gets more rights than it has (`no_new_privs`); it becomes a user, if it shall; and it keeps only those
//!    capabilities that a plugin can declare.
//! 3. The plugin is loaded and asked for its table, on a thread that gave up all but [`KEPT`](super::capabilities::KEPT) before, so that
//!    threads which a plugin starts as it is loaded have no more than that. Nothing hostile is at work yet: whoever may write the
//!    plugin is root.
//! 4. Now that it is known what the plugin needs, all else is given up, and system calls are filtered, for all threads.
//! 5. The plugin's `init` is called. From now on it sees what strangers send.
use std::{path::Path, thread};

use rustix::thread::CapabilitySet;
use tcmu_handler_api::{
    abi,
    host::{LoadError, Loaded, Plugin},
};

use super::{become_user, capabilities, memory, needs, needs::Needs, priority, seccomp};

/// A host that gave up what no handler can have.
#[derive(Debug)]
pub struct Confinement {
    confined: bool,
    user: bool,
}

impl Confinement {
    /// Steps 1 and 2. With `confined` off, only the user is changed. To be called before any thread is started.
    pub fn begin(user: Option<&str>, confined: bool) -> anyhow::Result<Confinement> {
        memory::lift_limit();
        priority::let_it_come_back();
        rustix::thread::set_no_new_privs(true)?;
        // The right to bound them further is kept until it is known what the plugin needs.
        let keep = if user.is_some() { CapabilitySet::empty() } else { needs::declarable() | CapabilitySet::SETPCAP };
        if confined {
            capabilities::bound_to(keep);
        }
        if let Some(user) = user {
            become_user(user)?;
        }
        if confined {
            capabilities::limit_to(keep)?;
        }
        Ok(Confinement { confined, user: user.is_some() })
    }

    /// Steps 3 to 5. `loaded` is told the subtype as soon as it is known.
    pub fn load(&self, plugin: &Path, host: &'static abi::tcmu_host, loaded: impl FnOnce(&str)) -> Result<Plugin, LoadError> {
        let table = if self.confined { load_with_least(plugin) } else { Loaded::load(plugin) }?;
        loaded(table.subtype());
        if self.confined {
            self.confine(&Needs::declared(table.needs()));
        } else {
            tracing::info!("not confined, as configured");
        }
        table.start(host)
    }

    fn confine(&self, needs: &Needs) {
        if !needs.unknown.is_empty() {
            tracing::warn!("the plugin needs {:?}, which this version does not know", needs.unknown.join(" "));
        }
        if self.user && needs.capabilities != capabilities::KEPT {
            tracing::info!("the plugin needs rights of root that it does not get, since it runs as a user");
        }
        capabilities::bound_to(needs.capabilities);
        if let Err(error) = capabilities::limit_to(needs.capabilities) {
            tracing::error!(%error, "capabilities cannot be given up");
        }
        if let Err(error) = seccomp::confine(needs) {
            tracing::warn!(%error, "system calls are not filtered: this kernel cannot");
        }
    }
}

fn load_with_least(plugin: &Path) -> Result<Loaded, LoadError> {
    let load = || capabilities::limit_to(capabilities::KEPT).map_err(|error| error.to_string()).map(|()| Loaded::load(plugin));
    let done = thread::scope(|scope| scope.spawn(load).join());
    match done {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(reason)) => Err(link_error(plugin, reason)),
        Err(_) => Err(link_error(plugin, "it panicked".into())),
    }
}

fn link_error(plugin: &Path, reason: String) -> LoadError {
    LoadError::Link { path: plugin.to_owned(), reason }
}
