//! The bytes of the messages (`include/uapi/linux/target_core_user.h`, `enum tcmu_genl_cmd`, `enum tcmu_genl_attr`).

/// A request that wants an acknowledgement.
const REQUEST_ACK: u16 = 1 | 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_HEADER: usize = 16;
const GENL_HEADER: usize = 4;

mod command {
    pub(super) const ADDED: u8 = 1;
    pub(super) const REMOVED: u8 = 2;
    pub(super) const RECONFIG: u8 = 3;
    /// The answer to a command is this much more.
    pub(super) const DONE: u8 = 3;
    pub(super) const SET_FEATURES: u8 = 7;
}

mod attribute {
    pub(super) const DEVICE: u16 = 1;
    pub(super) const MINOR: u16 = 2;
    pub(super) const DEV_CFG: u16 = 4;
    pub(super) const DEV_SIZE: u16 = 5;
    pub(super) const WRITECACHE: u16 = 6;
    pub(super) const CMD_STATUS: u16 = 7;
    pub(super) const DEVICE_ID: u16 = 8;
    pub(super) const SUPP_KERN_CMD_REPLY: u16 = 9;
}

/// What changes about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The whole `dev_config`, subtype included.
    Config(String),
    /// Bytes.
    Size(u64),
    /// On or off.
    WriteCache(bool),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A device was enabled.
    Added,
    /// A device goes away.
    Removed,
    /// A device shall change.
    Reconfigured(Change),
    /// An event that can't be understood; it can be answered all the same.
    Malformed,
}

/// An event of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The UIO device's number.
    pub minor: u32,
    /// The UIO device's name, `tcm-user/...`.
    pub device: String,
    command: u8,
    device_id: Option<u32>,
}

impl Event {
    /// Reads an event from a datagram; `None` if it isn't one of this family. Anything may be in it.
    pub fn parse(datagram: &[u8], family: u16) -> Option<Event> {
        parse(datagram, family)
    }

    /// The event of a device that is being enabled, though it went to another process or to nobody: it can be answered all the same.
    /// `device_id` is [`Backstore::index`](crate::configfs::Backstore::index).
    pub fn added(device: String, minor: u32, device_id: u32) -> Event {
        Event { kind: EventKind::Added, minor, device, command: command::ADDED, device_id: Some(device_id) }
    }

    /// The id by which the kernel knows what is answered.
    pub fn device_id(&self) -> Option<u32> {
        self.device_id
    }

    /// The device id and the command of the answer, if there is to be one.
    pub(super) fn answer(&self) -> Option<(u32, u8)> {
        let known = (command::ADDED..=command::RECONFIG).contains(&self.command);
        Some((self.device_id.filter(|_| known)?, self.command + command::DONE))
    }
}

/// Reads an event from a datagram; `None` if it isn't one of this family.
pub(super) fn parse(datagram: &[u8], family: u16) -> Option<Event> {
    let length = u32_at(datagram, 0)? as usize;
    let message = datagram.get(..length)?;
    if u16_at(message, 4)? != family {
        return None;
    }
    let (command, version) = (*message.get(NLMSG_HEADER)?, *message.get(NLMSG_HEADER + 1)?);
    let (mut minor, mut device, mut device_id, mut change) = (None, None, None, None);
    let mut rest = message.get(NLMSG_HEADER + GENL_HEADER..)?;
    while let (Some(len), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let len = usize::from(len);
        let Some(payload) = rest.get(4..len) else { break };
        // The upper bits say "nested" and "network byte order".
        match kind & 0x3fff {
            attribute::DEVICE => device = text(payload),
            attribute::MINOR => minor = u32_at(payload, 0),
            attribute::DEVICE_ID => device_id = u32_at(payload, 0),
            attribute::DEV_CFG => change = text(payload).map(Change::Config),
            attribute::DEV_SIZE => change = u64_at(payload).map(Change::Size),
            attribute::WRITECACHE => change = payload.first().map(|on| Change::WriteCache(*on != 0)),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    let kind = match (command, minor.is_some() && device.is_some(), change) {
        (command::ADDED, true, _) => EventKind::Added,
        (command::REMOVED, true, _) => EventKind::Removed,
        (command::RECONFIG, true, Some(change)) => EventKind::Reconfigured(change),
        _ => EventKind::Malformed,
    };
    Some(Event {
        kind,
        minor: minor.unwrap_or(u32::MAX),
        device: device.unwrap_or_default(),
        command,
        // Version 1 kernels neither send the id nor wait.
        device_id: device_id.filter(|_| version >= 2),
    })
}

/// `SET_FEATURES`
pub(super) fn set_features(family: u16, replies: bool) -> Vec<u8> {
    message(family, command::SET_FEATURES, &[(attribute::SUPP_KERN_CMD_REPLY, &[u8::from(replies)])])
}

/// `ADDED_DEVICE_DONE` and its like.
pub(super) fn done(family: u16, command: u8, device_id: u32, status: i32) -> Vec<u8> {
    let attributes: [(u16, &[u8]); 2] =
        [(attribute::CMD_STATUS, &status.to_ne_bytes()), (attribute::DEVICE_ID, &device_id.to_ne_bytes())];
    message(family, command, &attributes)
}

fn message(family: u16, command: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = vec![0; NLMSG_HEADER];
    message[4..6].copy_from_slice(&family.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_ACK.to_ne_bytes());
    message.extend([command, 2, 0, 0]);
    for (kind, payload) in attributes {
        message.extend((4 + payload.len() as u16).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(*payload);
        message.resize(message.len().next_multiple_of(4), 0);
    }
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

/// The status in an acknowledgement: 0 or a negative `errno`.
pub(super) fn acknowledgement(datagram: &[u8]) -> Option<i32> {
    (u16_at(datagram, 4)? == NLMSG_ERROR).then_some(())?;
    u32_at(datagram, NLMSG_HEADER).map(u32::cast_signed)
}

fn text(payload: &[u8]) -> Option<String> {
    let end = payload.iter().position(|b| *b == 0).unwrap_or(payload.len());
    String::from_utf8(payload[..end].to_vec()).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAMILY: u16 = 0x1c;

    fn event(command: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        message(FAMILY, command, attributes)
    }

    #[test]
    fn events_are_read_as_the_kernel_writes_them() {
        let name = b"tcm-user/0/a/file//a\0";
        let datagram = event(1, &[(1, name), (2, &5u32.to_ne_bytes()), (8, &77u32.to_ne_bytes())]);
        let added = parse(&datagram, FAMILY).unwrap();
        assert_eq!((&added.kind, added.minor, added.device.as_str()), (&EventKind::Added, 5, "tcm-user/0/a/file//a"));
        assert_eq!(added.answer(), Some((77, 4)));
        assert_eq!(parse(&datagram, FAMILY + 1), None);
        let size = event(3, &[(1, name), (2, &5u32.to_ne_bytes()), (8, &77u32.to_ne_bytes()), (5, &4096u64.to_ne_bytes())]);
        assert_eq!(parse(&size, FAMILY).unwrap().kind, EventKind::Reconfigured(Change::Size(4096)));
    }

    #[test]
    fn a_malformed_event_can_still_be_answered() {
        let event = parse(&event(1, &[(8, &9u32.to_ne_bytes())]), FAMILY).unwrap();
        assert_eq!((&event.kind, event.answer()), (&EventKind::Malformed, Some((9, 4))));
    }

    #[test]
    fn an_event_that_went_to_another_process_is_answered_like_ones_own() {
        let name = "tcm-user/0/a/file//a";
        let own = event(1, &[(1, b"tcm-user/0/a/file//a\0"), (2, &5u32.to_ne_bytes()), (8, &77u32.to_ne_bytes())]);
        assert_eq!(Event::added(name.into(), 5, 77), parse(&own, FAMILY).unwrap());
    }

    #[test]
    fn an_answer_has_the_kernels_layout() {
        let bytes = done(FAMILY, 4, 7, -2);
        let mut expected = Vec::new();
        expected.extend(36u32.to_ne_bytes());
        expected.extend(FAMILY.to_ne_bytes());
        expected.extend(5u16.to_ne_bytes());
        expected.extend([0; 8]);
        expected.extend([4, 2, 0, 0]);
        expected.extend([8u16.to_ne_bytes(), 7u16.to_ne_bytes()].concat());
        expected.extend((-2i32).to_ne_bytes());
        expected.extend([8u16.to_ne_bytes(), 8u16.to_ne_bytes()].concat());
        expected.extend(7u32.to_ne_bytes());
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), honest: bool) {
            let mut bytes = bytes;
            if honest && bytes.len() >= 8 {
                let length = bytes.len() as u32;
                bytes[..4].copy_from_slice(&length.to_ne_bytes());
                bytes[4..6].copy_from_slice(&FAMILY.to_ne_bytes());
            }
            let _ = parse(&bytes, FAMILY);
            let _ = acknowledgement(&bytes);
        }
    }
}
