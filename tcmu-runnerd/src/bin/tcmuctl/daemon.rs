//! Talking to the daemon over the bus.
use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, bail};
use serde_json::Value;
use tcmu_runnerd::dbus::{BUS_NAME, control::ControlProxy};
use zbus::zvariant::OwnedValue;

/// A row of an answer.
pub(crate) type Dictionary = BTreeMap<String, Value>;

/// Which rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Handlers,
    Devices,
}

/// Talks to the daemon.
pub(crate) fn with_daemon<T>(ask: impl AsyncFnOnce(&ControlProxy<'_>) -> zbus::Result<T>) -> anyhow::Result<T> {
    zbus::block_on(async {
        let connection = bus().await?;
        let proxy = ControlProxy::new(&connection).await?;
        ask(&proxy).await.map_err(explained)
    })
}

/// The system bus.
pub(crate) async fn bus() -> anyhow::Result<zbus::Connection> {
    zbus::Connection::system()
        .await
        .context("no D-Bus system bus; is dbus running? (the daemon serves devices without it, but cannot be asked)")
}

/// What a failed call means for who called.
pub(crate) fn explained(error: zbus::Error) -> anyhow::Error {
    let text = error.to_string();
    let hint = if text.contains("ServiceUnknown") || text.contains("NameHasNoOwner") || text.contains("not provided") {
        "tcmu-runnerd is not running (systemctl start tcmu-runnerd)"
    } else if text.contains("AccessDenied") {
        "only root may talk to tcmu-runnerd"
    } else {
        "the daemon did not answer"
    };
    // What the daemon itself says needs no more words.
    match error {
        zbus::Error::MethodError(name, Some(text), _) if name.as_str() == "org.freedesktop.DBus.Error.Failed" => {
            anyhow::anyhow!(text)
        }
        error => anyhow::Error::from(error).context(hint),
    }
}

/// Has a handler judge a config string; its words are the error.
pub(crate) fn check_config(handler: &str, config: &str) -> anyhow::Result<()> {
    let mut there: Vec<String> =
        rows(Of::Handlers)?.iter().filter_map(|row| row.get("subtype").and_then(Value::as_str).map(str::to_owned)).collect();
    there.sort();
    if !there.iter().any(|subtype| subtype == handler) {
        bail!("there is no handler {handler:?}; there are: {}", if there.is_empty() { "none".into() } else { there.join(", ") });
    }
    let (right, reason): (bool, String) = zbus::block_on(async {
        let connection = zbus::Connection::system().await?;
        let path = format!("/org/kernel/TCMUService1/{handler}");
        let body = (format!("{handler}/{config}"),);
        let interface = Some("org.kernel.TCMUService1");
        let reply = connection.call_method(Some(BUS_NAME), path, interface, "CheckConfig", &body).await?;
        reply.body().deserialize()
    })
    .map_err(explained)?;
    anyhow::ensure!(right, "the handler {handler} refuses the config string {config:?}: {reason}");
    Ok(())
}

/// The words with which a device, or a change of it, was refused when a tool wanted it last.
pub(crate) fn refusal(device: &str) -> Option<String> {
    // A tool that has failed already has nothing more to say when it cannot ask.
    with_daemon(async |daemon| daemon.get_refusal(device).await).ok().filter(|reason| !reason.is_empty())
}

fn plain(rows: Vec<HashMap<String, OwnedValue>>) -> Vec<Dictionary> {
    let value = |variant: OwnedValue| {
        if let Ok(text) = <&str>::try_from(&*variant) {
            Value::from(text)
        } else if let Ok(number) = u64::try_from(&*variant) {
            Value::from(number)
        } else if let Ok(flag) = bool::try_from(&*variant) {
            Value::from(flag)
        } else {
            Value::Null
        }
    };
    rows.into_iter().map(|row| row.into_iter().map(|(name, field)| (name, value(field))).collect()).collect()
}

/// What the daemon knows of its handlers or devices.
pub(crate) fn rows(of: Of) -> anyhow::Result<Vec<Dictionary>> {
    with_daemon(async |daemon| match of {
        Of::Handlers => daemon.list_handlers().await,
        Of::Devices => daemon.list_devices().await,
    })
    .map(plain)
}
