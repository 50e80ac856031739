//! Asymmetric access (SPC-6 5.15): what the kernel's target knows of the ports and their groups, and how states are set. The kernel
//! itself refuses commands that come through ports in states that don't take them.
use std::io;

use tcmu_handler_api::{
    plugin::Buffer,
    scsi::{
        AdditionalSense, Sense, SenseKey,
        alua::{self, AccessState, PortGroup},
        facts::Port,
    },
};

use super::{Begun, Outcome, Stage, Step, Task, Unit, control};

/// What is known of a unit outside of its handler: by the kernel's target, or by whoever embeds this crate. Asked when an initiator wants
/// to know, since tools change it while the unit is served.
pub trait Target: Send + Sync {
    /// The unit serial number; `None` if it has none (yet).
    fn serial(&self) -> Option<String>;

    /// The ports that the unit is reached by.
    fn ports(&self) -> Vec<Port> {
        Vec::new()
    }

    /// TPGS of the standard INQUIRY data: bit 0, the target changes states by itself; bit 1, initiators do.
    fn asymmetric_access(&self) -> u8 {
        0
    }

    /// The groups that its ports are in. May block: never called on a thread that serves a ring.
    fn port_groups(&self) -> io::Result<Vec<PortGroup>> {
        Ok(Vec::new())
    }

    /// Sets the state of a group, with the reason "by a command". May block, as [`Target::port_groups`].
    fn set_access_state(&self, _group: u16, _state: AccessState) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl<F: Fn() -> Option<String> + Send + Sync> Target for F {
    fn serial(&self) -> Option<String> {
        self()
    }
}

/// What has to be asked on another thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Which groups there are.
    Groups,
    /// Set these states.
    Set(Vec<(u16, AccessState)>),
    /// Take the handler's exclusive lock.
    Lock,
}

/// The handler's exclusive lock, as the host thinks it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockState {
    /// Somebody else may have it.
    Lost,
    /// On its way.
    Acquiring,
    /// Ours.
    Own,
}

/// What the other thread found.
#[derive(Debug)]
pub(crate) enum Answer {
    Groups(Vec<PortGroup>),
    /// Whether the lock is ours now, if the handler has one.
    Set(bool),
    Locked,
    NotLocked,
    Failed(Sense),
}

/// The other thread is at it.
#[derive(Debug)]
pub(super) struct Asked {
    report: Option<(bool, u32)>,
}

pub(super) fn report(extended: bool, allocation: u32) -> (Task, Step) {
    (Task::new(Stage::Asked(Asked { report: Some((extended, allocation)) })), Step::Ask(Question::Groups))
}

pub(super) fn set(list: &[u8]) -> Begun {
    if list.is_empty() {
        return Ok(super::nothing_to_do()); // SPC-6 6.45: no error
    }
    let wanted = alua::parse_set(list)?;
    Ok((Task::new(Stage::Asked(Asked { report: None })), Step::Ask(Question::Set(wanted))))
}

/// Asks. `lock` and `unlock` are the handler's, if it has an exclusive lock. Blocks.
pub(crate) fn ask(
    target: &dyn Target,
    question: &Question,
    lock: impl Fn(u16) -> io::Result<()>,
    unlock: impl Fn() -> io::Result<()>,
) -> Answer {
    if *question == Question::Lock {
        return match lock(0) {
            Ok(()) => Answer::Locked,
            Err(error) => {
                tracing::warn!(%error, "the exclusive lock cannot be had");
                Answer::NotLocked
            }
        };
    }
    let failed = Sense::new(SenseKey::HardwareError, AdditionalSense::SET_TARGET_PORT_GROUPS_COMMAND_FAILED);
    let groups = match target.port_groups() {
        Ok(groups) => groups,
        Err(error) => {
            tracing::warn!(%error, "target port groups cannot be read");
            return Answer::Failed(Sense::new(SenseKey::HardwareError, AdditionalSense::INTERNAL_TARGET_FAILURE));
        }
    };
    let Question::Set(wanted) = question else { return Answer::Groups(groups) };
    // All of it is judged before anything is set.
    for (n, (id, _)) in wanted.iter().enumerate() {
        match groups.iter().find(|group| group.id == *id) {
            None => return Answer::Failed(Sense::invalid_parameter(6 + 4 * n as u16, None)),
            Some(group) if !group.explicit => {
                return Answer::Failed(Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE));
            }
            Some(_) => {}
        }
    }
    let mut own = false;
    for (id, state) in wanted {
        own = matches!(state, AccessState::ActiveOptimized | AccessState::ActiveNonOptimized);
        let done = if own { lock(*id) } else { unlock() };
        if let Err(error) = done.and_then(|()| target.set_access_state(*id, *state)) {
            tracing::error!(group = id, ?state, %error, "the state of a target port group cannot be set");
            return Answer::Failed(failed);
        }
    }
    Answer::Set(own)
}

/// A command that changes the medium, when the lock is not ours: it is taken, and the initiator tries again (SPC-6 5.15.2.5).
pub(super) fn without_lock(unit: &mut Unit) -> (Task, Step) {
    match unit.lock {
        LockState::Lost => {
            unit.lock = LockState::Acquiring;
            (Task::new(Stage::Asked(Asked { report: None })), Step::Ask(Question::Lock))
        }
        _ => super::done(transition().into()),
    }
}

fn transition() -> Sense {
    Sense::not_ready(AdditionalSense::ASYMMETRIC_ACCESS_STATE_TRANSITION)
}

impl Asked {
    pub(super) fn answer(&self, unit: &mut Unit, buffer: &Buffer<'_>) -> Outcome {
        match (unit.answer.take(), self.report) {
            // A unit without groups has no asymmetric access: TPGS is 0.
            (Some(Answer::Groups(groups)), _) if groups.is_empty() => {
                Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE).into()
            }
            (Some(Answer::Groups(groups)), Some((extended, allocation))) => {
                control::reply(buffer, &alua::report(&groups, extended), allocation)
            }
            (Some(Answer::Failed(sense)), _) => sense.into(),
            (Some(Answer::Set(own)), _) => {
                unit.lock = if own { LockState::Own } else { LockState::Lost };
                Outcome::GOOD
            }
            (Some(Answer::Locked), _) => {
                unit.lock = LockState::Own;
                transition().into()
            }
            (Some(Answer::NotLocked), _) => {
                unit.lock = LockState::Lost;
                Sense::not_ready(AdditionalSense::TARGET_PORT_IN_STANDBY_STATE).into()
            }
            _ => Sense::new(SenseKey::HardwareError, AdditionalSense::INTERNAL_TARGET_FAILURE).into(),
        }
    }
}
