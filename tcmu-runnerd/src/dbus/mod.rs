//! The bus. [`service`] and `manager` are what `targetcli` and other tools know from tcmu-runner, [`control`] is our own; they only translate.
//! The clients' side of all of them is the crate `tcmu_dbus`.
//!
//! | module | subject |
//! |---|---|
//! | [`service`] | handlers, and their list |
//! | `manager` | programs that serve a subtype themselves |
//! | [`control`] | looking after the daemon |
//! | `announce` | its signals |
//! | [`statistics`] | counters and traces |
//!
//! The connection lives on a thread of its own. When the bus goes away, devices go on, and it is connected to again.
mod announce;
pub mod control;
mod manager;
pub mod service;
pub mod statistics;

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    thread,
    time::Duration,
};

use announce::Announcer;
pub use announce::{Change, Thing};
use futures_channel::oneshot;
use futures_lite::future;
use service::Handler;
pub use tcmu_dbus::BUS_NAME;
use zbus::{Connection, MessageStream, connection::Builder, fdo::RequestNameFlags};

use crate::{protocol::HandlerFacts, statistics::Statistics, supervisor::Happening};

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
    /// Why a device was refused.
    Refusal {
        /// `user_<hba>/<name>`
        device: String,
        /// In words; empty: it was not.
        reply: oneshot::Sender<String>,
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
    /// Exchange the medium of a removable disk.
    ChangeMedium {
        /// Which.
        medium: Medium,
        /// 0 or a negative `errno`, and why.
        reply: oneshot::Sender<(i32, String)>,
    },
    /// Leave a subtype to a program.
    Register {
        /// Which.
        program: Registration,
        /// Why not.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// A program is gone.
    Unregister {
        /// Its subtype.
        subtype: String,
        /// Its connection's name.
        owner: String,
        /// Whether it was registered.
        reply: oneshot::Sender<bool>,
    },
    /// The bus is gone, and all programs with it.
    BusGone,
}

/// A medium for a removable disk.
#[derive(Clone, Debug)]
pub struct Medium {
    /// Of the device's handler, if it must be that one.
    pub subtype: Option<String>,
    /// `user_<number>/<name>`, or the name alone.
    pub device: String,
    /// Bytes.
    pub size: u64,
    /// Behind `<subtype>/`; empty: none.
    pub config: String,
}

/// A program that serves a subtype itself.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The subtype.
    pub subtype: String,
    /// What its config strings look like; `None`: it owns the name, but has not registered (yet).
    pub config_desc: Option<String>,
    /// Its connection's name.
    pub owner: String,
    /// Its process, 0 if that is not known.
    pub pid: u32,
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
        if let Question::ConfigProblem { reply } | Question::Refusal { reply, .. } = self {
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
    announcer: Announcer,
    log_level: Arc<Mutex<String>>,
    /// How long others may take to answer us.
    patience: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    /// Connects and takes the name, so that tools find the handlers. Without a bus it is tried again and again; devices don't need it.
    pub(crate) fn start(
        happenings: Sender<Happening>,
        handlers: Vec<HandlerFacts>,
        log_level: String,
        patience: Duration,
    ) -> Option<Bus> {
        let shared = Arc::new(Shared {
            supervisor: Supervisor(happenings),
            handlers: Mutex::new(handlers),
            connection: Mutex::default(),
            announcer: Announcer::default(),
            log_level: Arc::new(Mutex::new(log_level)),
            patience,
        });
        let (bus, (told, first)) = (shared.clone(), std::sync::mpsc::channel::<()>());
        let work = move || {
            let mut told = Some(told);
            let mut delay = Duration::from_secs(1);
            loop {
                match zbus::block_on(connect(&bus)) {
                    Ok((connection, names)) => {
                        *lock(&bus.connection) = Some(connection.clone());
                        delay = Duration::from_secs(1);
                        told.take();
                        let follow = manager::follow(&connection, &bus.supervisor, names);
                        zbus::block_on(future::or(connection.closed(), follow));
                        *lock(&bus.connection) = None;
                        let _ = bus.supervisor.0.send(Happening::Bus(Question::BusGone));
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
        let teller = shared.clone();
        if let Err(error) = thread::Builder::new().name("dbus-signals".into()).spawn(move || teller.announce()) {
            tracing::error!(%error, "no thread for D-Bus signals");
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
                let handler = Handler::of_plugin(&shared.supervisor, &facts);
                if let Err(error) = zbus::block_on(service::add(&connection, handler)) {
                    tracing::warn!("D-Bus: {error}");
                }
            };
            let _ = thread::Builder::new().name("dbus-add".into()).spawn(add);
        }
    }

    /// What changed, for who listens. Never waits.
    pub(crate) fn announce(&self, changes: Vec<(Thing, String, Change)>) {
        self.shared.announcer.add(changes);
    }

    /// What is logged from now on.
    pub(crate) fn set_log_level(&self, level: &str) {
        level.clone_into(&mut lock(&self.shared.log_level));
        self.shared.announcer.log_level();
    }
}

impl Shared {
    /// Tells what changed, for ever. Without a bus nobody is told: who connects to the next one asks.
    fn announce(&self) {
        loop {
            let due = self.announcer.wait();
            let Some(connection) = lock(&self.connection).clone() else { continue };
            if let Err(error) = zbus::block_on(control::announce(&connection, due)) {
                tracing::debug!(%error, "signals cannot be sent");
            }
        }
    }
}

/// Connects: objects first, the name last. With the changes of programs' names from then on.
async fn connect(shared: &Shared) -> zbus::Result<(Connection, MessageStream)> {
    let handlers = lock(&shared.handlers).clone();
    let builder = Builder::system()?.method_timeout(shared.patience);
    let connection = serve(builder, &shared.supervisor, &handlers, &shared.log_level)?.build().await?;
    let names = manager::watch(&connection).await?;
    manager::find(&connection, &shared.supervisor).await?;
    // Neither taken from another daemon nor given to one.
    connection.request_name_with_flags(BUS_NAME, RequestNameFlags::DoNotQueue.into()).await?;
    Ok((connection, names))
}

/// All objects.
fn serve<'a>(
    builder: Builder<'a>,
    supervisor: &Supervisor,
    handlers: &[HandlerFacts],
    log_level: &Arc<Mutex<String>>,
) -> zbus::Result<Builder<'a>> {
    let handlers = handlers.iter().map(|facts| Handler::of_plugin(supervisor, facts)).collect();
    let builder = service::serve(builder, handlers)?;
    let builder = manager::serve(builder, supervisor)?;
    let builder = statistics::serve(builder, supervisor)?;
    control::serve(builder, supervisor, log_level)
}

#[cfg(test)]
mod tests;
