//! What happens to a device's commands while its handler is away or hangs: decided by the operator, for all, for a handler, for a device.
use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use tcmu::BackstoreId;

/// What to do with a handler that hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HangAction {
    /// Say so, in the log and in `tcmuctl devices`.
    Report,
    /// Also kill its host: the next one takes its devices over.
    Restart,
}

/// What holds for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a device may be without a handler before its commands fail; `None`: they are held back for ever.
    pub give_up: Option<Duration>,
    /// How old a command may become before its handler is said to hang; `None`: never.
    pub hang: Option<Duration>,
    /// What is done then.
    pub hang_action: HangAction,
    /// How long a command may take before it is logged as slow; `None`: none is.
    pub slow_command: Option<Duration>,
}

/// What the configuration says for one handler or device only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // as in Config
pub struct PolicyChange {
    pub give_up_seconds: Option<u64>,
    pub hang_seconds: Option<u64>,
    pub hang_action: Option<HangAction>,
    pub slow_command_ms: Option<u64>,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Policies {
    /// Where nothing else is said.
    pub general: Policy,
    /// By subtype, or by device as `user_<hba>/<name>`.
    pub changes: BTreeMap<String, PolicyChange>,
}

fn seconds(value: u64) -> Option<Duration> {
    (value > 0).then(|| Duration::from_secs(value))
}

/// 0 is none.
pub(crate) fn milliseconds(value: u64) -> Option<Duration> {
    (value > 0).then(|| Duration::from_millis(value))
}

impl Policies {
    /// What holds for a handler as a whole.
    pub fn of_handler(&self, subtype: &str) -> Policy {
        self.changed(self.general, subtype)
    }

    /// What holds for a device: what is said of it counts more than what is said of its handler.
    pub fn of(&self, subtype: &str, device: &BackstoreId) -> Policy {
        self.changed(self.of_handler(subtype), &device.to_string())
    }

    /// The shortest time that a command of a handler's devices may take, if any is limited.
    pub fn shortest_hang(&self, subtype: &str) -> Option<Duration> {
        let devices = self.changes.iter().filter(|(name, _)| name.contains('/'));
        devices.filter_map(|(_, change)| seconds(change.hang_seconds?)).chain(self.of_handler(subtype).hang).min()
    }

    fn changed(&self, mut policy: Policy, name: &str) -> Policy {
        let Some(change) = self.changes.get(name) else { return policy };
        policy.give_up = change.give_up_seconds.map_or(policy.give_up, seconds);
        policy.hang = change.hang_seconds.map_or(policy.hang, seconds);
        policy.hang_action = change.hang_action.unwrap_or(policy.hang_action);
        policy.slow_command = change.slow_command_ms.map_or(policy.slow_command, milliseconds);
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_counts_more_than_its_handler_and_that_more_than_all() {
        let change = |give_up, hang| PolicyChange { give_up_seconds: give_up, hang_seconds: hang, ..PolicyChange::default() };
        let policies = Policies {
            general: Policy {
                give_up: None,
                hang: seconds(20),
                hang_action: HangAction::Report,
                slow_command: milliseconds(1000),
            },
            changes: [
                ("rbd".to_owned(), PolicyChange { hang_action: Some(HangAction::Restart), ..change(Some(60), None) }),
                ("user_0/a".to_owned(), PolicyChange { slow_command_ms: Some(5), ..change(Some(0), Some(3)) }),
            ]
            .into(),
        };
        let [a, b] = ["user_0/a", "user_0/b"].map(|name| name.parse().unwrap());
        assert_eq!(policies.of("file", &b), policies.general);
        let rbd = Policy { give_up: seconds(60), hang_action: HangAction::Restart, ..policies.general };
        assert_eq!(policies.of("rbd", &b), rbd);
        assert_eq!(policies.of("rbd", &a), Policy { give_up: None, hang: seconds(3), slow_command: milliseconds(5), ..rbd });
        assert_eq!(policies.shortest_hang("rbd"), seconds(3));
    }
}
