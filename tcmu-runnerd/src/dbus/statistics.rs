//! What was done for devices, and traces: an interface of its own beside [`control`](super::control).
use std::{collections::HashMap, sync::Arc};

use zbus::{
    connection::Builder,
    interface, proxy,
    zvariant::{self, OwnedValue, Value},
};

use super::{Question, Supervisor, control::PATH};
use crate::statistics::{self, Figure, Figures};

/// Its name; a change that old clients could not live with gets a new one.
pub const INTERFACE: &str = "org.tcmu_runnerd.Statistics1";

pub(super) fn serve<'a>(builder: Builder<'a>, supervisor: &Supervisor) -> zbus::Result<Builder<'a>> {
    builder.serve_at(PATH, Interface(supervisor.clone()))
}

impl Supervisor {
    /// Asks for all, on a thread that may wait.
    pub(crate) fn statistics(&self) -> Option<statistics::Statistics> {
        zbus::block_on(self.ask(|reply| Question::Statistics { reply })).ok()
    }
}

struct Interface(Supervisor);

type Dictionary = HashMap<String, OwnedValue>;

fn dictionary(figures: Figures) -> Dictionary {
    let value = |figure| match figure {
        Figure::Text(text) => Value::from(text).try_to_owned().ok(),
        Figure::Number(number) => Some(OwnedValue::from(number)),
        Figure::Numbers(numbers) => Value::from(numbers).try_to_owned().ok(),
    };
    figures.into_iter().filter_map(|(name, figure)| Some((name, value(figure)?))).collect()
}

/// What a dictionary says. What is of another type than those that are sent here is left out.
pub fn figures(dictionary: Dictionary) -> Figures {
    let figure = |value: OwnedValue| {
        if let Ok(number) = u64::try_from(&*value) {
            return Some(Figure::Number(number));
        }
        if let Ok(text) = <&str>::try_from(&*value) {
            return Some(Figure::Text(text.to_owned()));
        }
        Vec::<u64>::try_from(value).ok().map(Figure::Numbers)
    };
    dictionary.into_iter().filter_map(|(name, value)| Some((name, figure(value)?))).collect()
}

#[interface(name = "org.tcmu_runnerd.Statistics1")]
impl Interface {
    /// A dictionary for each device: counters, and arrays of how many commands took less than 1, 2, 4, ... microseconds.
    async fn devices(&self) -> zbus::fdo::Result<Vec<Dictionary>> {
        let statistics = self.0.ask(|reply| Question::Statistics { reply }).await?;
        Ok(statistics.devices.iter().map(|device| dictionary(device.figures())).collect())
    }

    /// A dictionary for each handler.
    async fn handlers(&self) -> zbus::fdo::Result<Vec<Dictionary>> {
        let statistics = self.0.ask(|reply| Question::Statistics { reply }).await?;
        Ok(statistics.handlers.iter().map(|handler| dictionary(handler.figures())).collect())
    }

    /// Writes each command of a device to a file, at most so many bytes. Returns when that has begun.
    async fn start_trace(&self, device: String, file: zvariant::OwnedFd, limit: u64) -> zbus::fdo::Result<()> {
        let file = Arc::new(std::os::fd::OwnedFd::from(file));
        done(self.0.ask(|reply| Question::StartTrace { device, file, limit, reply }).await?)
    }

    /// Ends that. Returns when all is in the file.
    async fn stop_trace(&self, device: String) -> zbus::fdo::Result<()> {
        done(self.0.ask(|reply| Question::StopTrace { device, reply }).await?)
    }
}

fn done((yes, reason): (bool, String)) -> zbus::fdo::Result<()> {
    if yes { Ok(()) } else { Err(zbus::fdo::Error::Failed(reason)) }
}

/// The client's side.
#[proxy(
    interface = "org.tcmu_runnerd.Statistics1",
    default_service = "org.kernel.TCMUService1",
    default_path = "/org/tcmu_runnerd/Control1"
)]
pub trait Statistics {
    /// A dictionary for each device; [`figures`] takes it apart.
    fn devices(&self) -> zbus::Result<Vec<HashMap<String, OwnedValue>>>;
    /// A dictionary for each handler.
    fn handlers(&self) -> zbus::Result<Vec<HashMap<String, OwnedValue>>>;
    /// Writes each command of a device to a file.
    fn start_trace(&self, device: &str, file: zvariant::Fd<'_>, limit: u64) -> zbus::Result<()>;
    /// Ends that.
    fn stop_trace(&self, device: &str) -> zbus::Result<()>;
}
