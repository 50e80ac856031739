//! `org.tcmu_runnerd.Control1`, for programs that look after the daemon.
//!
//! Handlers and devices are told as [`Properties`]. Names that are not in these tables come with later versions; what is unknown is left
//! out.
//!
//! | of a handler | | |
//! |---|---|---|
//! | `subtype`, `name`, `version`, `config_desc` | s | what it says of itself |
//! | `abi` | t | the version of the plugin interface that it was built for |
//! | `state` | s | `running`, `starting`, or why it isn't, for people |
//! | `running` | b | whether it opens devices |
//! | `external` | b | a program that registered itself; it has no plugin, and its devices are not ours |
//! | `plugin` | s | the plugin's file |
//! | `outdated` | b | another file is there than was loaded |
//! | `user` | s | whom it runs as, if not as root |
//! | `pid`, `restarts` | t | its host's process, and how many came before |
//! | `io_flusher` | b | whether `PR_SET_IO_FLUSHER` is in force |
//!
//! | of a device | | |
//! |---|---|---|
//! | `device` | s | `user_<number>/<name>`, as in configfs |
//! | `handler`, `config` | s | the two halves of the config string |
//! | `uio` | s | `uio<number>` |
//! | `stage` | s | one word, as in `docs/reliability.md` |
//! | `state` | s | the same for people, with the reason of a failure |
//! | `hangs` | b | a command takes too long |
//! | `size`, `block_size` | t | bytes |
//! | `pid` | t | the process that serves it |
//! | `commands`, `reads`, `writes`, `bytes_read`, `bytes_written`, `errors`, `in_flight` | t | counters; only in answers, not in signals |
#![allow(missing_docs)] // of what zbus makes of signals
use std::collections::HashMap;

use zbus::{proxy, zvariant::OwnedValue};

/// Where it is: not below the handlers, where `targetcli` would take it for one.
pub const PATH: &str = "/org/tcmu_runnerd/Control1";
/// Its name. A change that clients could not live with gets another one, and both are served.
pub const INTERFACE: &str = "org.tcmu_runnerd.Control1";

/// What a handler or a device is.
pub type Properties = HashMap<String, OwnedValue>;

/// The daemon.
#[proxy(
    interface = "org.tcmu_runnerd.Control1",
    default_service = "org.kernel.TCMUService1",
    default_path = "/org/tcmu_runnerd/Control1"
)]
pub trait Control {
    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;

    /// The supervisor's process id.
    #[zbus(property(emits_changed_signal = "const"))]
    fn pid(&self) -> zbus::Result<u32>;

    /// What is logged.
    #[zbus(property)]
    fn log_level(&self) -> zbus::Result<String>;

    /// Why the configuration's file, as it was read last, is not in force; empty if it is.
    #[zbus(property(emits_changed_signal = "false"))]
    fn config_problem(&self) -> zbus::Result<String>;

    /// All handlers.
    fn list_handlers(&self) -> zbus::Result<Vec<Properties>>;

    /// All devices.
    fn list_devices(&self) -> zbus::Result<Vec<Properties>>;

    /// A handler, by its subtype.
    fn get_handler(&self, subtype: &str) -> zbus::Result<Properties>;

    /// A device, as `user_<number>/<name>` or by its name alone where that is one device's.
    fn get_device(&self, device: &str) -> zbus::Result<Properties>;

    /// Why a device (`user_<number>/<name>`), or a change of it, was refused when a tool wanted it last; empty if it was not. The kernel
    /// tells tools an errno and nothing else.
    fn get_refusal(&self, device: &str) -> zbus::Result<String>;

    /// Logs more or less, until the configuration is read again: error, warn, info, debug, trace, or a filter.
    fn set_log_level(&self, level: &str) -> zbus::Result<()>;

    /// Restarts a handler's hosts with the plugin that is on disk now, without an I/O error. Returns when that is done.
    fn restart_handler(&self, subtype: &str) -> zbus::Result<()>;

    /// Reads the configuration again; with `exec`, becomes the program that is on disk now (after this returned).
    fn reload(&self, exec: bool) -> zbus::Result<()>;

    /// Exchanges the medium of a removable disk. `config` is what stands behind `<subtype>/`; an empty one takes the medium out.
    fn change_medium(&self, device: &str, size: u64, config: &str) -> zbus::Result<()>;

    /// There is a handler from now on.
    #[zbus(signal)]
    fn handler_added(&self, subtype: &str, properties: Properties) -> zbus::Result<()>;

    /// A handler is another by now: its process, its state, its plugin. Of many changes in a short time only the last is told.
    #[zbus(signal)]
    fn handler_changed(&self, subtype: &str, properties: Properties) -> zbus::Result<()>;

    /// A handler is gone.
    #[zbus(signal)]
    fn handler_removed(&self, subtype: &str) -> zbus::Result<()>;

    /// There is a device from now on: it is served, or could not be opened, or has been neither for ten seconds. Its stage tells which.
    #[zbus(signal)]
    fn device_added(&self, device: &str, properties: Properties) -> zbus::Result<()>;

    /// A device is another by now: its state, its size, its config string, its process. Of many changes in a short time only the last is
    /// told.
    #[zbus(signal)]
    fn device_changed(&self, device: &str, properties: Properties) -> zbus::Result<()>;

    /// A device is gone.
    #[zbus(signal)]
    fn device_removed(&self, device: &str) -> zbus::Result<()>;
}
