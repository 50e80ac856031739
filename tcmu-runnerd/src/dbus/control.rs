//! Our own interface, for `tcmuctl` and other programs that look after the daemon. It is not below the object manager.
#![allow(missing_docs)] // of what zbus makes of signals
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

pub use tcmu_dbus::control::{ControlProxy, INTERFACE, PATH, Properties};
use zbus::{
    Connection,
    connection::Builder,
    fdo, interface,
    object_server::SignalEmitter,
    zvariant::{OwnedValue, Value},
};

use super::{
    Field, Medium, Question, Row, Supervisor,
    announce::{Change, Due, Thing},
    lock,
};

pub(super) fn serve<'a>(
    builder: Builder<'a>,
    supervisor: &Supervisor,
    log_level: &Arc<Mutex<String>>,
) -> zbus::Result<Builder<'a>> {
    builder.serve_at(PATH, Control { supervisor: supervisor.clone(), log_level: log_level.clone() })
}

struct Control {
    supervisor: Supervisor,
    log_level: Arc<Mutex<String>>,
}

fn dictionary(row: Row) -> Properties {
    let value = |field| match field {
        Field::Text(text) => Value::from(text).try_to_owned().ok(),
        Field::Number(number) => Some(OwnedValue::from(number)),
        Field::Flag(flag) => Some(OwnedValue::from(flag)),
    };
    row.into_iter().filter_map(|(name, field)| Some((name, value(field)?))).collect::<HashMap<_, _>>()
}

fn dictionaries(rows: Vec<Row>) -> Vec<Properties> {
    rows.into_iter().map(dictionary).collect()
}

/// A row's field, if it is text.
fn text<'a>(row: &'a Row, wanted: &str) -> &'a str {
    let field = row.iter().find_map(|(name, field)| match field {
        Field::Text(text) if name == wanted => Some(text.as_str()),
        _ => None,
    });
    field.unwrap_or_default()
}

/// The one row that is meant.
fn the_one(rows: Vec<Row>, is: impl Fn(&Row) -> bool, kind: &str, name: &str) -> fdo::Result<Properties> {
    let mut found: Vec<Row> = rows.into_iter().filter(is).collect();
    match (found.pop(), found.is_empty()) {
        (Some(row), true) => Ok(dictionary(row)),
        (Some(_), false) => Err(fdo::Error::InvalidArgs(format!("{name:?} are several: user_<number>/{name} is needed"))),
        (None, _) => Err(fdo::Error::InvalidArgs(format!("there is no {kind} {name:?}"))),
    }
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

    /// What is logged.
    #[zbus(property)]
    fn log_level(&self) -> String {
        lock(&self.log_level).clone()
    }

    /// Why the configuration's file, as it was read last, is not in force; empty if it is.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn config_problem(&self) -> fdo::Result<String> {
        self.supervisor.ask(|reply| Question::ConfigProblem { reply }).await
    }

    /// A dictionary for each plugin, and each program that registered itself.
    #[zbus(out_args("handlers"))]
    async fn list_handlers(&self) -> fdo::Result<Vec<Properties>> {
        self.supervisor.ask(|reply| Question::Handlers { reply }).await.map(dictionaries)
    }

    /// A dictionary for each device.
    #[zbus(out_args("devices"))]
    async fn list_devices(&self) -> fdo::Result<Vec<Properties>> {
        self.supervisor.ask(|reply| Question::Devices { reply }).await.map(dictionaries)
    }

    /// One handler.
    #[zbus(out_args("properties"))]
    async fn get_handler(&self, subtype: String) -> fdo::Result<Properties> {
        let rows = self.supervisor.ask(|reply| Question::Handlers { reply }).await?;
        // Of two plugins with the same subtype the one that is used.
        let mut rows: Vec<Row> = rows.into_iter().filter(|row| text(row, "subtype") == subtype).collect();
        rows.sort_by_key(|row| !row.contains(&("running".into(), Field::Flag(true))));
        rows.truncate(1);
        the_one(rows, |_| true, "handler", &subtype)
    }

    /// One device.
    #[zbus(out_args("properties"))]
    async fn get_device(&self, device: String) -> fdo::Result<Properties> {
        let rows = self.supervisor.ask(|reply| Question::Devices { reply }).await?;
        let is = |row: &Row| {
            let name = text(row, "device");
            name == device || name.split_once('/').is_some_and(|(_, name)| name == device)
        };
        the_one(rows, is, "device", &device)
    }

    /// Why a device, or a change of it, was refused when a tool wanted it last; empty if it was not. The kernel tells tools an errno.
    #[zbus(out_args("reason"))]
    async fn get_refusal(&self, device: String) -> fdo::Result<String> {
        self.supervisor.ask(|reply| Question::Refusal { device, reply }).await
    }

    /// Logs more or less, until the configuration is read again.
    async fn set_log_level(&self, level: String) -> fdo::Result<()> {
        match self.supervisor.ask(|reply| Question::SetLogLevel { level, reply }).await? {
            (true, _) => Ok(()),
            (false, reason) => Err(fdo::Error::InvalidArgs(reason)),
        }
    }

    /// Restarts a handler's hosts with the plugin that is on disk now, without an I/O error. Returns when that is done.
    async fn restart_handler(&self, subtype: String) -> fdo::Result<()> {
        done(self.supervisor.ask(|reply| Question::RestartHandler { subtype, reply }).await?)
    }

    /// Reads the configuration again. With `exec` the daemon becomes the program that is on disk now, without a pause in I/O; this
    /// returns before that happens.
    async fn reload(&self, exec: bool) -> fdo::Result<()> {
        done(self.supervisor.ask(|reply| Question::Reload { exec, reply }).await?)
    }

    /// Exchanges the medium of a removable disk; an empty config string takes it out.
    async fn change_medium(&self, device: String, size: u64, config: String) -> fdo::Result<()> {
        let medium = Medium { subtype: None, device, size, config };
        let (code, reason) = self.supervisor.ask(|reply| Question::ChangeMedium { medium, reply }).await?;
        done((code == 0, reason))
    }

    /// There is a handler from now on.
    #[zbus(signal)]
    async fn handler_added(emitter: &SignalEmitter<'_>, subtype: &str, properties: Properties) -> zbus::Result<()>;

    /// A handler is another by now.
    #[zbus(signal)]
    async fn handler_changed(emitter: &SignalEmitter<'_>, subtype: &str, properties: Properties) -> zbus::Result<()>;

    /// A handler is gone.
    #[zbus(signal)]
    async fn handler_removed(emitter: &SignalEmitter<'_>, subtype: &str) -> zbus::Result<()>;

    /// There is a device from now on: it is served, or could not be opened, or has been neither for ten seconds.
    #[zbus(signal)]
    async fn device_added(emitter: &SignalEmitter<'_>, device: &str, properties: Properties) -> zbus::Result<()>;

    /// A device is another by now.
    #[zbus(signal)]
    async fn device_changed(emitter: &SignalEmitter<'_>, device: &str, properties: Properties) -> zbus::Result<()>;

    /// A device is gone.
    #[zbus(signal)]
    async fn device_removed(emitter: &SignalEmitter<'_>, device: &str) -> zbus::Result<()>;
}

fn done((yes, reason): (bool, String)) -> fdo::Result<()> {
    if yes { Ok(()) } else { Err(fdo::Error::Failed(reason)) }
}

/// Tells those who listen what changed.
pub(super) async fn announce(connection: &Connection, due: Due) -> zbus::Result<()> {
    let control = connection.object_server().interface::<_, Control>(PATH).await?;
    let emitter = control.signal_emitter();
    if due.log_level {
        control.get().await.log_level_changed(emitter).await?;
    }
    for (thing, name, change) in due.changes() {
        match (thing, change) {
            (Thing::Handler, Change::Added(row)) => Control::handler_added(emitter, &name, dictionary(row)).await?,
            (Thing::Handler, Change::Changed(row)) => Control::handler_changed(emitter, &name, dictionary(row)).await?,
            (Thing::Handler, Change::Removed) => Control::handler_removed(emitter, &name).await?,
            (Thing::Device, Change::Added(row)) => Control::device_added(emitter, &name, dictionary(row)).await?,
            (Thing::Device, Change::Changed(row)) => Control::device_changed(emitter, &name, dictionary(row)).await?,
            (Thing::Device, Change::Removed) => Control::device_removed(emitter, &name).await?,
        }
    }
    Ok(())
}
