//! Tells what there is, and then every change of handlers and devices, until it is interrupted: `watch`.
use futures_lite::{StreamExt, stream};
use tcmu_dbus::control::{ControlProxy, Properties};
use zbus::zvariant::OwnedValue;

enum Change {
    Now(String, Properties),
    Gone(String),
}

fn main() -> zbus::Result<()> {
    zbus::block_on(async {
        let connection = zbus::Connection::system().await?;
        let daemon = ControlProxy::new(&connection).await?;
        // First the signals: what changes while the list comes is told after it.
        let added = daemon.receive_device_added().await?.filter_map(|signal| {
            let args = signal.args().ok()?;
            Some(Change::Now(args.device.to_owned(), args.properties))
        });
        let changed = daemon.receive_device_changed().await?.filter_map(|signal| {
            let args = signal.args().ok()?;
            Some(Change::Now(args.device.to_owned(), args.properties))
        });
        let removed =
            daemon.receive_device_removed().await?.filter_map(|signal| Some(Change::Gone(signal.args().ok()?.device.to_owned())));
        let handlers = daemon.receive_handler_changed().await?.filter_map(|signal| {
            let args = signal.args().ok()?;
            Some(Change::Now(format!("handler {}", args.subtype), args.properties))
        });
        for device in daemon.list_devices().await? {
            tell(&Change::Now(text(&device, "device"), device));
        }
        let mut changes = stream::or(stream::or(added, changed), stream::or(removed, handlers));
        while let Some(change) = changes.next().await {
            tell(&change);
        }
        Ok(())
    })
}

fn tell(change: &Change) {
    match change {
        Change::Now(name, properties) => println!("{name}: {}", text(properties, "state")),
        Change::Gone(name) => println!("{name}: gone"),
    }
}

fn text(properties: &Properties, name: &str) -> String {
    let value: Option<&OwnedValue> = properties.get(name);
    value.and_then(|value| <&str>::try_from(value).ok()).unwrap_or("?").to_owned()
}
