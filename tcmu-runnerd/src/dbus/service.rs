//! `org.kernel.TCMUService1`, as tcmu-runner's users know it: an object for each handler, and an object manager that lists them and
//! nothing else, since `targetcli` makes a backstore of everything that is listed.
#![allow(missing_docs)] // of what zbus makes of signals

use std::collections::HashMap;

use zbus::{
    Connection,
    connection::Builder,
    interface,
    object_server::SignalEmitter,
    zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value},
};

use super::{Question, Supervisor};
use crate::protocol::HandlerFacts;

/// Where the handlers are.
const ROOT: &str = "/org/kernel/TCMUService1";
/// The handlers' interface.
const INTERFACE: &str = "org.kernel.TCMUService1";

/// Most bytes of a config string: the kernel takes less (`TCMU_CONFIG_LEN`).
const LONGEST_CONFIG: usize = 4096;

/// Interfaces and properties of an object.
type Interfaces = HashMap<String, HashMap<String, OwnedValue>>;
/// What `GetManagedObjects` returns.
pub type Objects = HashMap<OwnedObjectPath, Interfaces>;

/// Makes the objects. They are there before the first message is read: what came earlier would be lost.
pub(super) fn serve<'a>(
    mut builder: Builder<'a>,
    supervisor: &Supervisor,
    handlers: &[HandlerFacts],
) -> zbus::Result<Builder<'a>> {
    let mut paths = Vec::new();
    for facts in handlers {
        let path = path_of(facts)?;
        builder = builder.serve_at(ObjectPath::from(path.clone()), Handler::new(supervisor, facts))?;
        paths.push((path, facts.config_desc.clone()));
    }
    builder.serve_at(ROOT, Manager { handlers: paths })
}

/// Adds an object for a handler that came later, and tells those who listen.
pub(super) async fn add_handler(connection: &Connection, supervisor: &Supervisor, facts: &HandlerFacts) -> zbus::Result<()> {
    let path = path_of(facts)?;
    connection.object_server().at(&path, Handler::new(supervisor, facts)).await?;
    let manager = connection.object_server().interface::<_, Manager>(ROOT).await?;
    manager.get_mut().await.handlers.push((path.clone(), facts.config_desc.clone()));
    Manager::interfaces_added(manager.signal_emitter(), path.into(), properties(&facts.config_desc)).await
}

fn path_of(facts: &HandlerFacts) -> zbus::Result<OwnedObjectPath> {
    Ok(OwnedObjectPath::try_from(format!("{ROOT}/{}", facts.subtype))?)
}

fn properties(config_desc: &str) -> Interfaces {
    let value = Value::from(config_desc.to_owned()).try_to_owned();
    let properties = value.map(|value| HashMap::from([("ConfigDesc".to_owned(), value)])).unwrap_or_default();
    HashMap::from([(INTERFACE.to_owned(), properties)])
}

struct Manager {
    handlers: Vec<(OwnedObjectPath, String)>,
}

#[interface(name = "org.freedesktop.DBus.ObjectManager")]
impl Manager {
    /// All handlers.
    fn get_managed_objects(&self) -> Objects {
        self.handlers.iter().map(|(path, config_desc)| (path.clone(), properties(config_desc))).collect()
    }

    /// A handler appeared.
    #[zbus(signal)]
    async fn interfaces_added(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces_and_properties: Interfaces,
    ) -> zbus::Result<()>;

    /// A handler went away.
    #[zbus(signal)]
    async fn interfaces_removed(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces: Vec<String>,
    ) -> zbus::Result<()>;
}

/// What is behind `<subtype>/` in a string from the bus; else why it can't be asked about.
pub fn config_of<'a>(subtype: &str, cfgstring: &'a str) -> Result<&'a str, String> {
    let behind = cfgstring.strip_prefix(subtype).and_then(|rest| rest.strip_prefix('/'));
    let config = behind.ok_or_else(|| format!("{cfgstring:?} does not begin with {subtype}/"))?;
    if config.len() > LONGEST_CONFIG {
        return Err(format!("a config string has at most {LONGEST_CONFIG} bytes, this one has {}", config.len()));
    }
    Ok(config)
}

struct Handler {
    subtype: String,
    config_desc: String,
    supervisor: Supervisor,
}

impl Handler {
    fn new(supervisor: &Supervisor, facts: &HandlerFacts) -> Handler {
        Handler { subtype: facts.subtype.clone(), config_desc: facts.config_desc.clone(), supervisor: supervisor.clone() }
    }
}

#[interface(name = "org.kernel.TCMUService1")]
impl Handler {
    /// What config strings look like.
    #[zbus(property(emits_changed_signal = "const"))]
    fn config_desc(&self) -> &str {
        &self.config_desc
    }

    /// Judges a config string, `<subtype>/` included.
    #[zbus(out_args("check", "reason"))]
    async fn check_config(&self, cfgstring: &str) -> zbus::fdo::Result<(bool, String)> {
        let config = match config_of(&self.subtype, cfgstring) {
            Ok(config) => config,
            Err(reason) => return Ok((false, reason)),
        };
        let (subtype, config) = (self.subtype.clone(), config.to_owned());
        self.supervisor.ask(|reply| Question::CheckConfig { subtype, config, reply }).await
    }
}
