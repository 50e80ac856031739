//! What comes as text or messages: from the kernel, from configfs, from the bus, from files, and between supervisor and hosts.
use std::{os::fd::AsFd, path::Path};

use tcmu::{
    BackstoreId,
    identity::{DeviceName, split_config},
    netlink::{Event, EventKind},
};
use tcmu_handler_api::{
    host::{Plugin, blocking_services, is_subtype},
    plugin::{Handler, handler_table},
};
use tcmu_runnerd::{
    config::Config,
    dbus::service,
    protocol::{Channel, FromHost, ToHost},
};

/// The number of the netlink family: any will do.
const FAMILY: u16 = 0x1c;

/// A datagram. With its first byte even its header is made right, so that what is behind it counts.
pub fn netlink(data: &[u8]) {
    let Some((honest, datagram)) = data.split_first() else { return };
    let mut datagram = datagram.to_vec();
    if honest & 1 == 0 && datagram.len() >= 8 {
        let length = datagram.len() as u32;
        datagram[..4].copy_from_slice(&length.to_ne_bytes());
        datagram[4..6].copy_from_slice(&FAMILY.to_ne_bytes());
    }
    let Some(event) = Event::parse(&datagram, FAMILY) else { return };
    assert!(!event.device.contains('\0'));
    if event.kind == EventKind::Malformed {
        return;
    }
    if let Some(device) = DeviceName::parse(&event.device) {
        named(&device.id);
    }
}

fn named(id: &BackstoreId) {
    // It becomes a path in configfs.
    assert!(!id.name.is_empty() && !id.name.contains('/') && id.name != "." && id.name != "..");
    assert_eq!(id.to_string().parse(), Ok(id.clone()));
}

/// A name in sysfs or configfs, a `dev_config`, or what somebody on the bus has to say about one.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(device) = DeviceName::parse(&text) {
        named(&device.id);
        let dev_config = format!("{}/{}", device.subtype, device.config);
        assert_eq!(split_config(&dev_config), (device.subtype.as_str(), device.config.as_str()));
    }
    if let Ok(id) = text.parse::<BackstoreId>() {
        named(&id);
    }
    let (subtype, config) = split_config(&text);
    if is_subtype(subtype) {
        assert!(subtype.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        match service::config_of(subtype, &text) {
            Ok(found) => assert_eq!(found, config),
            Err(reason) => assert!(!reason.is_empty()),
        }
    }
    judge::<handler_file::File>(config);
}

/// A handler refuses a string in words, or takes it; it does not panic.
fn judge<H: Handler>(config: &str) {
    let plugin = Plugin::linked(handler_table::<H>(), blocking_services()).expect("a handler of ours");
    if let Err(refusal) = plugin.check_config(config) {
        assert_ne!(refusal.errno(), libc::ENOTRECOVERABLE, "it panicked: {refusal}");
        assert!(refusal.errno() > 0 && !refusal.message().is_empty(), "{refusal:?}");
    }
}

/// The text of `tcmu.toml`.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Config::parse(text, Path::new("tcmu.toml")) {
        Ok(config) => {
            assert!((1..=3600).contains(&config.open_timeout_seconds) && config.workers <= 1024 && config.reactors <= 1024);
        }
        Err(error) => {
            let error = error.to_string();
            let line = error.strip_prefix("tcmu.toml:").and_then(|rest| rest.split_once(": "));
            let (line, reason) = line.unwrap_or_else(|| panic!("no line: {error}"));
            let line: usize = line.parse().expect("a line's number");
            assert!(line >= 1 && line <= text.split('\n').count() + 1, "line {line} of {text:?}");
            assert!(!reason.is_empty());
        }
    }
}

/// Datagrams on the socket between supervisor and host; the first byte says who reads them.
pub fn messages(data: &[u8]) {
    let Some((reader, bytes)) = data.split_first() else { return };
    let (ours, theirs) = Channel::pair().expect("a socket pair");
    let theirs = Channel::from_fd(theirs);
    for datagram in bytes.split(|byte| *byte == b'\n').filter(|datagram| !datagram.is_empty()).take(8) {
        if rustix::net::send(ours.as_fd(), datagram, rustix::net::SendFlags::DONTWAIT).is_err() {
            return;
        }
        // What was understood means the same when it is said again.
        if reader & 1 == 0 {
            if let Ok(Some((message, _))) = theirs.receive::<ToHost>() {
                ours.send(&message, None).expect("it is short enough");
                assert_eq!(theirs.receive::<ToHost>().expect("a message").expect("one").0, message);
            }
        } else if let Ok(Some((message, _))) = theirs.receive::<FromHost>() {
            ours.send(&message, None).expect("it is short enough");
            assert_eq!(theirs.receive::<FromHost>().expect("a message").expect("one").0, message);
        }
    }
}
