//! Asymmetric logical unit access: REPORT TARGET PORT GROUPS data and the SET TARGET PORT GROUPS parameter list (SPC-6 5.15, 6.36, 6.45).
use super::{AdditionalSense, Sense, be};

/// ASYMMETRIC ACCESS STATE (SPC-6 table 283).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum AccessState {
    ActiveOptimized = 0x0,
    ActiveNonOptimized = 0x1,
    Standby = 0x2,
    Unavailable = 0x3,
    LbaDependent = 0x4,
    Offline = 0xe,
    Transitioning = 0xf,
}

impl AccessState {
    /// `None` for values that are reserved.
    pub fn from_code(code: u8) -> Option<AccessState> {
        use AccessState::*;
        [ActiveOptimized, ActiveNonOptimized, Standby, Unavailable, LbaDependent, Offline, Transitioning]
            .into_iter()
            .find(|state| *state as u8 == code)
    }
}

/// A target port group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortGroup {
    /// TARGET PORT GROUP
    pub id: u16,
    /// Its state for this unit.
    pub state: AccessState,
    /// PREF: this group should be used.
    pub preferred: bool,
    /// Byte 1 of the descriptor: which states it supports (T_SUP, O_SUP, LBD_SUP, U_SUP, S_SUP, AN_SUP, AO_SUP).
    pub supported: u8,
    /// STATUS CODE: 0 none, 1 changed by a command, 2 changed by itself.
    pub status: u8,
    /// Initiators change its state.
    pub explicit: bool,
    /// The target changes its state.
    pub implicit: bool,
    /// IMPLICIT TRANSITION TIME in seconds; 0: not said.
    pub transition_time: u8,
    /// RELATIVE TARGET PORT IDENTIFIERs of its ports.
    pub ports: Vec<u16>,
}

/// REPORT TARGET PORT GROUPS data. A unit whose ports are in no group has none to report.
pub fn report(groups: &[PortGroup], extended: bool) -> Vec<u8> {
    let mut data = vec![0; 4];
    if extended {
        // SPC-6 6.36.3: RETURN DATA FORMAT 1, and the longest time that a transition takes.
        data.extend([0x10, groups.iter().map(|group| group.transition_time).max().unwrap_or(0), 0, 0]);
    }
    for group in groups {
        data.push(u8::from(group.preferred) << 7 | group.state as u8);
        data.push(group.supported);
        data.extend(group.id.to_be_bytes());
        let ports = &group.ports[..group.ports.len().min(255)];
        data.extend([0, group.status, 0, ports.len() as u8]);
        for port in ports {
            data.extend([0, 0]);
            data.extend(port.to_be_bytes());
        }
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

/// The groups and states of a SET TARGET PORT GROUPS parameter list. All of it is judged before anything changes.
pub fn parse_set(list: &[u8]) -> Result<Vec<(u16, AccessState)>, Sense> {
    if list.len() < 4 || !list.len().is_multiple_of(4) {
        return Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR));
    }
    let mut wanted = Vec::new();
    for at in (4..list.len()).step_by(4) {
        // Only these can be asked for (SPC-6 table 340).
        let state = match list[at] & 0x0f {
            code @ (0x0..=0x3 | 0xe) => AccessState::from_code(code),
            _ => None,
        };
        let state = state.ok_or(Sense::invalid_parameter(at as u16, Some(3)))?;
        wanted.push((be::u16(list, at + 2), state));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> PortGroup {
        PortGroup {
            id: 0x0102,
            state: AccessState::Standby,
            preferred: true,
            supported: 0x0f,
            status: 2,
            explicit: true,
            implicit: false,
            transition_time: 7,
            ports: vec![1, 0x0a0b],
        }
    }

    #[test]
    fn groups_are_reported_with_their_ports() {
        let descriptor = [0x82, 0x0f, 1, 2, 0, 2, 0, 2, 0, 0, 0, 1, 0, 0, 0x0a, 0x0b];
        assert_eq!(report(&[group()], false), [&[0, 0, 0, 16][..], &descriptor].concat());
        assert_eq!(report(&[group()], true), [&[0, 0, 0, 20, 0x10, 7, 0, 0][..], &descriptor].concat());
        assert_eq!(report(&[], false), [0; 4]);
    }

    #[test]
    fn only_states_that_can_be_asked_for_are_taken() {
        assert_eq!(parse_set(&[0, 0, 0, 0, 0, 0, 0, 5]), Ok(vec![(5, AccessState::ActiveOptimized)]));
        assert_eq!(parse_set(&[0, 0, 0, 0, 0xf, 0, 0, 5]), Err(Sense::invalid_parameter(4, Some(3))), "transitioning");
        for short in [&[0; 3][..], &[0; 6]] {
            assert_eq!(parse_set(short), Err(Sense::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR)));
        }
    }
}
