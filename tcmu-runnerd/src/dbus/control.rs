//! Our own interface, for `tcmuctl` and other programs that look after the daemon. It is not below the object manager.
use std::collections::HashMap;

use zbus::{
    connection::Builder,
    interface, proxy,
    zvariant::{OwnedValue, Value},
};

use super::{Field, Question, Row, Supervisor};

/// Where it is.
pub const PATH: &str = "/org/tcmu_runnerd/Control1";
/// Its name; a change that old clients could not live with gets a new one.
pub const INTERFACE: &str = "org.tcmu_runnerd.Control1";

pub(super) fn serve<'a>(builder: Builder<'a>, supervisor: &Supervisor) -> zbus::Result<Builder<'a>> {
    builder.serve_at(PATH, Control(supervisor.clone()))
}

struct Control(Supervisor);

fn dictionaries(rows: Vec<Row>) -> Vec<HashMap<String, OwnedValue>> {
    let value = |field| match field {
        Field::Text(text) => Value::from(text).try_to_owned().ok(),
        Field::Number(number) => Some(OwnedValue::from(number)),
        Field::Flag(flag) => Some(OwnedValue::from(flag)),
    };
    let dictionary = |row: Row| row.into_iter().filter_map(|(name, field)| Some((name, value(field)?))).collect();
    rows.into_iter().map(dictionary).collect()
}

#[interface(name = "org.tcmu_runnerd.Control1")]
impl Control {
    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    /// The supervisor's process id.
    #[zbus(property(emits_changed_signal = "const"))]
    fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Why the configuration's file, as it was read last, is not in force; empty if it is.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn config_problem(&self) -> zbus::fdo::Result<String> {
        self.0.ask(|reply| Question::ConfigProblem { reply }).await
    }

    /// A dictionary for each plugin.
    async fn list_handlers(&self) -> zbus::fdo::Result<Vec<HashMap<String, OwnedValue>>> {
        self.0.ask(|reply| Question::Handlers { reply }).await.map(dictionaries)
    }

    /// A dictionary for each device.
    async fn list_devices(&self) -> zbus::fdo::Result<Vec<HashMap<String, OwnedValue>>> {
        self.0.ask(|reply| Question::Devices { reply }).await.map(dictionaries)
    }

    /// Logs more or less, until the configuration is read again.
    async fn set_log_level(&self, level: String) -> zbus::fdo::Result<()> {
        match self.0.ask(|reply| Question::SetLogLevel { level, reply }).await? {
            (true, _) => Ok(()),
            (false, reason) => Err(zbus::fdo::Error::InvalidArgs(reason)),
        }
    }

    /// Restarts a handler's hosts with the plugin that is on disk now, without an I/O error. Returns when that is done.
    async fn restart_handler(&self, subtype: String) -> zbus::fdo::Result<()> {
        done(self.0.ask(|reply| Question::RestartHandler { subtype, reply }).await?)
    }

    /// Reads the configuration again. With `exec` the daemon becomes the program that is on disk now, without a pause in I/O; this
    /// returns before that happens.
    async fn reload(&self, exec: bool) -> zbus::fdo::Result<()> {
        done(self.0.ask(|reply| Question::Reload { exec, reply }).await?)
    }
}

fn done((yes, reason): (bool, String)) -> zbus::fdo::Result<()> {
    if yes { Ok(()) } else { Err(zbus::fdo::Error::Failed(reason)) }
}

/// The client's side.
#[proxy(
    interface = "org.tcmu_runnerd.Control1",
    default_service = "org.kernel.TCMUService1",
    default_path = "/org/tcmu_runnerd/Control1"
)]
pub trait Control {
    /// The daemon's version.
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;
    /// The supervisor's process id.
    #[zbus(property)]
    fn pid(&self) -> zbus::Result<u32>;
    /// Why the configuration's file is not in force; empty if it is.
    #[zbus(property(emits_changed_signal = "false"))]
    fn config_problem(&self) -> zbus::Result<String>;
    /// A dictionary for each plugin.
    fn list_handlers(&self) -> zbus::Result<Vec<HashMap<String, OwnedValue>>>;
    /// A dictionary for each device.
    fn list_devices(&self) -> zbus::Result<Vec<HashMap<String, OwnedValue>>>;
    /// Logs more or less.
    fn set_log_level(&self, level: &str) -> zbus::Result<()>;
    /// Restarts a handler's hosts with the plugin that is on disk now.
    fn restart_handler(&self, subtype: &str) -> zbus::Result<()>;
    /// Reads the configuration again; with `exec`, becomes the program that is on disk now.
    fn reload(&self, exec: bool) -> zbus::Result<()>;
}
