//! The userspace side of Linux's TCMU.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | `tcmu.toml` |
//! | [`legacy`] | what tcmu-runner's users bring along: options, `tcmu.conf` |
//! | [`logging`] | where log lines go, and which |
//! | [`output`] | what is printed |
//! | [`plugins`] | finding plugins |
//! | [`trust`] | whether a plugin's or the configuration's file could be somebody else's work |
//! | [`statistics`] | what was done for devices and by handlers |
//! | [`metrics`] | the same for Prometheus |
//! | [`trace`] | the format of traces |
//! | [`supervisor`] | the daemon: it knows all devices, talks with the kernel, and runs handler hosts |
//! | [`host`] | a handler host: the process that loads one plugin and serves its devices |
//! | [`protocol`] | what the two say to each other |
//! | [`dbus`] | the bus: `org.kernel.TCMUService1` for `targetcli`, and our own control interface |
//! | [`notify`] | what systemd is told |
//! | [`run_dir`] | the lock, and the sockets of hosts |
//! | [`policy`] | what happens to a device's commands while its handler is away or hangs |
//! | `crew` | threads for work that may block |
//! | [`process`] | what a process is allowed, and how it is treated under memory pressure |
pub mod config;
mod crew;
pub mod dbus;
pub mod host;
pub mod legacy;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod output;
pub mod plugins;
pub mod policy;
pub mod process;
pub mod protocol;
pub mod run_dir;
pub mod statistics;
pub mod supervisor;
pub mod trace;
pub mod trust;
