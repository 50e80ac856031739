//! `org.kernel.TCMUService1`, as tcmu-runner's users know it: an object for each handler, and an object manager that lists them and
//! nothing else, since `targetcli` makes a backstore of everything that is listed.
#![allow(missing_docs)] // of what zbus makes of signals

use std::collections::HashMap;

use tcmu_dbus::service::{INTERFACE, PATH, program_path};
use zbus::{
    Connection,
    connection::Builder,
    interface,
    object_server::SignalEmitter,
    zvariant::{DynamicDeserialize, DynamicType, ObjectPath, OwnedObjectPath, OwnedValue, Value},
};

use super::{Medium, Question, Supervisor};
use crate::protocol::HandlerFacts;

/// Most bytes of a config string: the kernel takes less (`TCMU_CONFIG_LEN`).
const LONGEST_CONFIG: usize = 4096;

/// Interfaces and properties of an object.
type Interfaces = HashMap<String, HashMap<String, OwnedValue>>;
/// What `GetManagedObjects` returns.
pub type Objects = HashMap<OwnedObjectPath, Interfaces>;

/// Makes the objects. They are there before the first message is read: what came earlier would be lost.
pub(super) fn serve(mut builder: Builder<'_>, handlers: Vec<Handler>) -> zbus::Result<Builder<'_>> {
    let mut paths = Vec::new();
    for handler in handlers {
        let path = path_of(&handler.subtype)?;
        paths.push((path.clone(), handler.config_desc.clone()));
        builder = builder.serve_at(ObjectPath::from(path), handler)?;
    }
    builder.serve_at(PATH, Manager { handlers: paths })
}

/// Adds an object for a handler that came later, and tells those who listen.
pub(super) async fn add(connection: &Connection, handler: Handler) -> zbus::Result<()> {
    let (path, description) = (path_of(&handler.subtype)?, handler.config_desc.clone());
    connection.object_server().at(&path, handler).await?;
    let manager = connection.object_server().interface::<_, Manager>(PATH).await?;
    manager.get_mut().await.handlers.push((path.clone(), description.clone()));
    Manager::interfaces_added(manager.signal_emitter(), path.into(), properties(&description)).await
}

/// Takes a handler's object away, if there is one.
pub(super) async fn remove(connection: &Connection, subtype: &str) -> zbus::Result<()> {
    let path = path_of(subtype)?;
    if !connection.object_server().remove::<Handler, _>(&path).await.unwrap_or(false) {
        return Ok(());
    }
    let manager = connection.object_server().interface::<_, Manager>(PATH).await?;
    manager.get_mut().await.handlers.retain(|(other, _)| *other != path);
    Manager::interfaces_removed(manager.signal_emitter(), path.into(), vec![INTERFACE.to_owned()]).await
}

fn path_of(subtype: &str) -> zbus::Result<OwnedObjectPath> {
    Ok(OwnedObjectPath::try_from(format!("{PATH}/{subtype}"))?)
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

/// A handler: a plugin's, or a program's that is asked in its turn.
pub(super) struct Handler {
    subtype: String,
    config_desc: String,
    supervisor: Supervisor,
    /// The program's connection.
    program: Option<String>,
}

impl Handler {
    pub(super) fn of_plugin(supervisor: &Supervisor, facts: &HandlerFacts) -> Handler {
        let (subtype, config_desc) = (facts.subtype.clone(), facts.config_desc.clone());
        Handler { subtype, config_desc, supervisor: supervisor.clone(), program: None }
    }

    pub(super) fn of_program(supervisor: &Supervisor, subtype: &str, config_desc: &str, owner: &str) -> Handler {
        let (subtype, config_desc) = (subtype.to_owned(), config_desc.to_owned());
        Handler { subtype, config_desc, supervisor: supervisor.clone(), program: Some(owner.to_owned()) }
    }

    /// Asks the program. It is not waited for longer than the connection's limit.
    async fn ask_program<A, R>(&self, connection: &Connection, owner: &str, method: &str, arguments: &A) -> Result<R, String>
    where
        A: serde::Serialize + DynamicType + Sync,
        R: for<'d> DynamicDeserialize<'d>,
    {
        let path = program_path(&self.subtype);
        let reply = connection.call_method(Some(owner), path.as_str(), Some(INTERFACE), method, arguments).await;
        let answer = reply.and_then(|reply| reply.body().deserialize());
        answer.map_err(|error| match error {
            zbus::Error::InputOutput(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                let seconds = connection.method_timeout().unwrap_or_default().as_secs();
                format!("the program that serves {:?} did not answer within {seconds} s", self.subtype)
            }
            zbus::Error::MethodError(_, Some(text), _) => text,
            error => error.to_string(),
        })
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
    async fn check_config(
        &self,
        cfgstring: &str,
        #[zbus(connection)] connection: &Connection,
    ) -> zbus::fdo::Result<(bool, String)> {
        let config = match config_of(&self.subtype, cfgstring) {
            Ok(config) => config,
            Err(reason) => return Ok((false, reason)),
        };
        if let Some(owner) = &self.program {
            let answer = self.ask_program(connection, owner, "CheckConfig", &(cfgstring,)).await;
            return Ok(answer.unwrap_or_else(|reason| (false, reason)));
        }
        let (subtype, config) = (self.subtype.clone(), config.to_owned());
        self.supervisor.ask(|reply| Question::CheckConfig { subtype, config, reply }).await
    }

    /// Exchanges the medium of a removable disk; nothing behind `<subtype>/` takes it out. 0, or a negative `errno` and why.
    #[zbus(out_args("rc", "message"))]
    async fn change_medium(
        &self,
        name: &str,
        size: u64,
        config: &str,
        #[zbus(connection)] connection: &Connection,
    ) -> zbus::fdo::Result<(i32, String)> {
        let behind = match config_of(&self.subtype, config) {
            Ok(behind) => behind,
            Err(reason) => return Ok((-libc::EINVAL, reason)),
        };
        if let Some(owner) = &self.program {
            let answer = self.ask_program(connection, owner, "ChangeMedium", &(name, size, config)).await;
            return Ok(answer.unwrap_or_else(|reason| (-libc::EIO, reason)));
        }
        let (subtype, device, config) = (Some(self.subtype.clone()), name.to_owned(), behind.to_owned());
        self.supervisor.ask(|reply| Question::ChangeMedium { medium: Medium { subtype, device, size, config }, reply }).await
    }
}
