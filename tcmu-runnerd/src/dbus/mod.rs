//! The bus. [`service`] is what `targetcli` and other tools know from tcmu-runner, [`control`] is our own; both only translate.
//!
//! The connection lives on a thread of its own. When the bus goes away, devices go on, and it is connected to again.
pub mod control;
pub mod service;
pub mod statistics;

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    thread,
    time::Duration,
};

use futures_channel::oneshot;
use zbus::{Connection, connection::Builder, fdo::RequestNameFlags};

use crate::{protocol::HandlerFacts, statistics::Statistics, supervisor::Happening};

/// The name that tools look for.
pub const BUS_NAME: &str = "org.kernel.TCMUService1";

/// A value in an answer.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Field {
    Text(String),
    Number(u64),
    Flag(bool),
}

/// A line of an answer: names and values in the order in which people like to see them.
pub type Row = Vec<(String, Field)>;

/// What the bus asks the supervisor. Each has a way to answer.
pub enum Question {
    /// Whether a config string is right.
    CheckConfig {
        /// Whose.
        subtype: String,
        /// Behind `<subtype>/`.
        config: String,
        /// Yes or no, and why.
        reply: oneshot::Sender<(bool, String)>,
    },
    /// What handlers there are.
    Handlers {
        /// A row each.
        reply: oneshot::Sender<Vec<Row>>,
    },
    /// What devices there are.
    Devices {
        /// A row each.
        reply: oneshot::Sender<Vec<Row>>,
    },
    /// Why the configuration's file is not in force.
    ConfigProblem {
        /// Nothing if it is.
        reply: oneshot::Sender<String>,
    },
    /// What was done.
    Statistics {
        /// All of it.
        reply: oneshot::Sender<Statistics>,
    },
    /// Write each command of a device to a file.
    StartTrace {
        /// `user_<hba>/<name>`
        device: String,
        /// Open to be written.
        file: Arc<OwnedFd>,
        /// Most bytes.
        limit: u64,
        /// Whether it has begun, else why not.
        reply: oneshot::Sender<(bool, String)>,
    },
    /// No more of that.
    StopTrace {
        /// `user_<hba>/<name>`
        device: String,
        /// Whether all is in the file, else why not.
        reply: oneshot::Sender<(bool, String)>,
    },
    /// Log more or less.
    SetLogLevel {
        /// A level or filter.
        level: String,
        /// Whether it is one, else what would be.
        reply: oneshot::Sender<(bool, String)>,
    },
    /// Exchange a handler's hosts for ones with the plugin that is on disk now.
    RestartHandler {
        /// Which.
        subtype: String,
        /// Whether it was done, else why not.
        reply: oneshot::Sender<(bool, String)>,
    },
    /// Read the configuration again.
    Reload {
        /// Become the program that is on disk now.
        exec: bool,
        /// Whether it is done (or about to be), else why not.
        reply: oneshot::Sender<(bool, String)>,
    },
}

impl Question {
    /// Answers a question that wants yes or no. One who does not wait any more is no error.
    pub fn answer_check(self, yes: bool, message: String) {
        if let Question::CheckConfig { reply, .. }
        | Question::SetLogLevel { reply, .. }
        | Question::RestartHandler { reply, .. }
        | Question::StartTrace { reply, .. }
        | Question::StopTrace { reply, .. }
        | Question::Reload { reply, .. } = self
        {
            let _ = reply.send((yes, message));
        }
    }

    /// Answers a question that wants words.
    pub fn answer_text(self, text: String) {
        if let Question::ConfigProblem { reply } = self {
            let _ = reply.send(text);
        }
    }

    /// Answers [`Question::Statistics`].
    pub fn answer_statistics(self, statistics: Statistics) {
        if let Question::Statistics { reply } = self {
            let _ = reply.send(statistics);
        }
    }

    /// Answers a question that wants rows.
    pub fn answer_rows(self, rows: Vec<Row>) {
        if let Question::Handlers { reply } | Question::Devices { reply } = self {
            let _ = reply.send(rows);
        }
    }
}

/// Asks the supervisor.
#[derive(Clone)]
pub(crate) struct Supervisor(pub(crate) Sender<Happening>);

impl Supervisor {
    /// Sends a question, and waits for its answer without keeping a thread.
    pub(crate) async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> zbus::fdo::Result<T> {
        let (reply, answer) = oneshot::channel();
        let gone = || zbus::fdo::Error::Failed("the daemon is stopping".into());
        self.0.send(Happening::Bus(question(reply))).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// The thread that is connected to the bus.
pub(crate) struct Bus {
    shared: Arc<Shared>,
}

struct Shared {
    supervisor: Supervisor,
    handlers: Mutex<Vec<HandlerFacts>>,
    connection: Mutex<Option<Connection>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    /// Connects and takes the name, so that tools find the handlers. Without a bus it is tried again and again; devices don't need it.
    pub(crate) fn start(happenings: Sender<Happening>, handlers: Vec<HandlerFacts>) -> Option<Bus> {
        let shared =
            Arc::new(Shared { supervisor: Supervisor(happenings), handlers: Mutex::new(handlers), connection: Mutex::default() });
        let (bus, (told, first)) = (shared.clone(), std::sync::mpsc::channel::<()>());
        let work = move || {
            let mut told = Some(told);
            let mut delay = Duration::from_secs(1);
            loop {
                match zbus::block_on(connect(&bus)) {
                    Ok(connection) => {
                        *lock(&bus.connection) = Some(connection.clone());
                        delay = Duration::from_secs(1);
                        told.take();
                        zbus::block_on(connection.closed());
                        *lock(&bus.connection) = None;
                        tracing::warn!("the bus is gone; connecting again");
                    }
                    Err(error) => {
                        tracing::warn!("D-Bus: {error}; trying again in {} s (devices are served all the same)", delay.as_secs());
                    }
                }
                told.take();
                thread::sleep(delay);
                delay = (delay * 2).min(Duration::from_secs(60));
            }
        };
        if let Err(error) = thread::Builder::new().name("dbus".into()).spawn(work) {
            tracing::error!(%error, "no thread for D-Bus");
            return None;
        }
        // The bus answers before any device is opened; but a bus that isn't there keeps nobody waiting.
        let _ = first.recv_timeout(Duration::from_secs(5));
        Some(Bus { shared })
    }

    /// A handler that is there from now on.
    pub(crate) fn add_handler(&self, facts: HandlerFacts) {
        let mut handlers = lock(&self.shared.handlers);
        if handlers.iter().any(|other| other.subtype == facts.subtype) {
            return;
        }
        handlers.push(facts.clone());
        drop(handlers);
        let (shared, connection) = (self.shared.clone(), lock(&self.shared.connection).clone());
        if let Some(connection) = connection {
            let add = move || {
                if let Err(error) = zbus::block_on(service::add_handler(&connection, &shared.supervisor, &facts)) {
                    tracing::warn!("D-Bus: {error}");
                }
            };
            let _ = thread::Builder::new().name("dbus-add".into()).spawn(add);
        }
    }
}

/// Connects: objects first, the name last.
async fn connect(shared: &Shared) -> zbus::Result<Connection> {
    let handlers = lock(&shared.handlers).clone();
    let builder = service::serve(Builder::system()?, &shared.supervisor, &handlers)?;
    let builder = statistics::serve(builder, &shared.supervisor)?;
    let connection = control::serve(builder, &shared.supervisor)?.build().await?;
    // Neither taken from another daemon nor given to one.
    connection.request_name_with_flags(BUS_NAME, RequestNameFlags::DoNotQueue.into()).await?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn facts(subtype: &str) -> HandlerFacts {
        HandlerFacts {
            subtype: subtype.into(),
            name: "n".into(),
            version: "1".into(),
            config_desc: format!("{subtype}/<path>"),
            abi: 1,
            io_flusher: true,
        }
    }

    /// Both ends of a connection without a bus, and a supervisor that knows one right config string.
    fn connected() -> (Connection, Connection) {
        let (happenings, happened) = std::sync::mpsc::channel();
        thread::spawn(move || {
            while let Ok(Happening::Bus(question)) = happened.recv() {
                match &question {
                    Question::CheckConfig { config, .. } if config == "/right" => question.answer_check(true, "success".into()),
                    Question::CheckConfig { .. }
                    | Question::SetLogLevel { .. }
                    | Question::RestartHandler { .. }
                    | Question::StartTrace { .. }
                    | Question::StopTrace { .. }
                    | Question::Reload { .. } => {
                        question.answer_check(false, "the path is wrong".into());
                    }
                    Question::ConfigProblem { .. } => question.answer_text("x:1: wrong".into()),
                    Question::Statistics { .. } => question.answer_statistics(crate::statistics::tests::sample()),
                    Question::Handlers { .. } | Question::Devices { .. } => {
                        question.answer_rows(vec![vec![
                            ("size".into(), Field::Number(5)),
                            ("device".into(), Field::Text("d".into())),
                        ]]);
                    }
                }
            }
        });
        let (ours, theirs) = UnixStream::pair().unwrap();
        let guid = zbus::Guid::generate();
        let server = thread::spawn(move || {
            zbus::block_on(async {
                let supervisor = Supervisor(happenings);
                let builder = Builder::async_io_unix_stream(ours).server(guid).unwrap().p2p();
                let builder = service::serve(builder, &supervisor, &[facts("file"), facts("alloc")]).unwrap();
                let builder = statistics::serve(builder, &supervisor).unwrap();
                control::serve(builder, &supervisor).unwrap().build().await.unwrap()
            })
        });
        let client = zbus::block_on(Builder::async_io_unix_stream(theirs).p2p().build()).unwrap();
        (server.join().unwrap(), client)
    }

    fn call<R>(
        client: &Connection,
        path: &str,
        interface: &str,
        method: &str,
        body: &(impl serde::Serialize + zbus::zvariant::DynamicType),
    ) -> zbus::Result<R>
    where
        R: for<'d> zbus::zvariant::DynamicDeserialize<'d>,
    {
        let reply = zbus::block_on(client.call_method(None::<&str>, path, Some(interface), method, body))?;
        reply.body().deserialize()
    }

    #[test]
    fn only_handlers_are_managed_objects() {
        let (_server, client) = connected();
        let objects: service::Objects =
            call(&client, "/org/kernel/TCMUService1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", &()).unwrap();
        let mut paths: Vec<_> = objects.keys().map(ToString::to_string).collect();
        paths.sort();
        assert_eq!(paths, ["/org/kernel/TCMUService1/alloc", "/org/kernel/TCMUService1/file"]);
        let file = objects.iter().find(|(path, _)| path.as_str().ends_with("file")).unwrap().1;
        assert_eq!(
            file["org.kernel.TCMUService1"]["ConfigDesc"],
            zbus::zvariant::Value::from("file/<path>").try_to_owned().unwrap()
        );
    }

    #[test]
    fn config_strings_are_checked_by_the_handler_they_name() {
        let (_server, client) = connected();
        let check = |config: &str| -> (bool, String) {
            call(&client, "/org/kernel/TCMUService1/file", "org.kernel.TCMUService1", "CheckConfig", &(config,)).unwrap()
        };
        assert_eq!(check("file//right"), (true, "success".into()));
        assert_eq!(check("file//wrong"), (false, "the path is wrong".into()));
        assert!(!check("alloc/x").0, "another handler's string");
        assert!(!check("").0);
        let long = format!("file/{}", "x".repeat(70_000));
        assert_eq!(check(&long), (false, "a config string has at most 4096 bytes, this one has 70000".into()));
    }

    #[test]
    fn statistics_arrive_as_they_were_sent() {
        let (_server, client) = connected();
        let of = |method: &str| -> Vec<std::collections::HashMap<String, zbus::zvariant::OwnedValue>> {
            call(&client, control::PATH, statistics::INTERFACE, method, &()).unwrap()
        };
        let sample = crate::statistics::tests::sample();
        let figures = |method| of(method).into_iter().map(statistics::figures).next().unwrap();
        assert_eq!(crate::statistics::DeviceStatistics::of(&figures("Devices")), sample.devices[0]);
        assert_eq!(crate::statistics::HandlerStatistics::of(&figures("Handlers")), sample.handlers[0]);
    }

    #[test]
    fn the_control_interface_tells_rows() {
        let (_server, client) = connected();
        let rows: Vec<std::collections::HashMap<String, zbus::zvariant::OwnedValue>> =
            call(&client, control::PATH, control::INTERFACE, "ListDevices", &()).unwrap();
        assert_eq!(rows[0]["size"], zbus::zvariant::OwnedValue::from(5u64));
        assert!(call::<()>(&client, control::PATH, control::INTERFACE, "SetLogLevel", &("x",)).is_err());
    }
}
