//! `tcmu-runnerd` on D-Bus, for programs that talk with it.
//!
//! | module | interfaces | for |
//! |---|---|---|
//! | [`service`] | `org.kernel.TCMUService1`, `org.kernel.TCMUService1.HandlerManager1` | what tcmu-runner's clients know: handlers, config strings, programs that serve a subtype themselves |
//! | [`control`] | `org.tcmu_runnerd.Control1` | looking after the daemon: handlers, devices, signals of every change |
//!
//! All of it is on the system bus, where root alone may talk to the daemon unless a policy says otherwise. The interfaces' descriptions
//! for other languages are in `dist/dbus/*.xml`; what is in them stays.
//!
//! ```no_run
//! use tcmu_dbus::control::ControlProxy;
//!
//! # fn main() -> zbus::Result<()> {
//! zbus::block_on(async {
//!     let daemon = ControlProxy::new(&zbus::Connection::system().await?).await?;
//!     for device in daemon.list_devices().await? {
//!         println!("{:?} is {:?}", device["device"], device["state"]);
//!     }
//!     Ok(())
//! })
//! # }
//! ```
pub mod control;
pub mod service;

/// The daemon's name on the bus.
pub const BUS_NAME: &str = "org.kernel.TCMUService1";
