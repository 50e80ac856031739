//! The safe side of the ABI for those who call handlers: the daemon's hosts, the device server, the bench.
mod device;
mod io;
mod plugin;
mod ranges;
mod services;

pub use device::{Events, Lock, OpenDevice, OpenSpec};
pub use io::{finish, perform};
pub use plugin::{LoadError, Loaded, Plugin, is_subtype};
pub use services::{Level, blocking_services, log_to, new_services, no_filters};
