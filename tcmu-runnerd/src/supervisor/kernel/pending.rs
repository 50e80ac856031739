//! Tools that enable a device while the daemon that should hear of it is dead, or not there yet. The kernel keeps them waiting and says
//! nothing again; but such a device can be told by its looks, and its event can be answered by its number.
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use tcmu::{
    Roots,
    configfs::{Backstore, NetlinkBlock},
    netlink::Event,
    uio::UioDevice,
};

use super::{Owed, input_of};
use crate::supervisor::{
    Happening,
    machine::{Input, Token},
};

/// How long the look at all devices may take.
const LOOK: Duration = Duration::from_secs(2);
/// How long a look at one device takes at most, unless it is being removed: that keeps whoever looks into its directory.
const GLANCE: Duration = Duration::from_millis(500);
/// Devices that can keep us so.
const LOOKERS: usize = 8;
/// How long other tools may be told to try again (`EAGAIN`) while these devices are opened.
const HOLD: Duration = Duration::from_secs(10);

/// The events that wait for an answer and went to nobody, but those of other programs' devices.
pub(super) fn find(roots: &Roots, mut devices: Vec<UioDevice>, foreign: &[String]) -> Vec<Event> {
    devices.retain(|device| !foreign.contains(&device.name.subtype));
    let devices = Arc::new(devices);
    let next = Arc::new(AtomicUsize::new(0));
    let (found, looks) = mpsc::channel();
    let look = || {
        let (roots, devices, next, found) = (roots.clone(), devices.clone(), next.clone(), found.clone());
        let look = move || {
            while let Some(device) = devices.get(next.fetch_add(1, Ordering::Relaxed)) {
                if found.send(event_of(&roots, device)).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("pending".into()).spawn(look) {
            tracing::error!(%error, "no thread");
        }
    };
    look();
    let (mut lookers, mut seen, mut events) = (1, 0, Vec::new());
    let end = Instant::now() + LOOK;
    while seen < devices.len() && Instant::now() < end {
        match looks.recv_timeout(GLANCE) {
            Ok(event) => {
                seen += 1;
                events.extend(event);
            }
            Err(_) if next.load(Ordering::Relaxed) >= devices.len() || lookers == LOOKERS => break,
            // One keeps its looker; another goes on with the next.
            Err(_) => {
                look();
                lookers += 1;
            }
        }
    }
    events
}

fn event_of(roots: &Roots, device: &UioDevice) -> Option<Event> {
    let backstore = Backstore::at(roots, &device.name.id);
    // One without a directory is being removed: its tool does not mind how that is answered.
    if backstore.is_enabled().ok()? {
        return None;
    }
    Some(Event::added(device.name.to_string(), device.minor, backstore.index().ok()?))
}

/// Keeps other tools' events back until these are answered, and fails whatever else a dead daemon left behind then: that can be done
/// for all at once only.
pub(super) struct Hold {
    block: NetlinkBlock,
    tokens: HashSet<Token>,
    happenings: Sender<Happening>,
}

pub(super) type Held = Arc<Mutex<Option<Hold>>>;

impl Hold {
    /// Begins, with the inputs that these events are; without any it is over at once.
    pub(super) fn begin(
        block: NetlinkBlock,
        events: Vec<Event>,
        owed: &Owed,
        happenings: Sender<Happening>,
    ) -> (Held, Vec<Input>) {
        let (mut inputs, mut tokens) = (Vec::new(), HashSet::new());
        for (token, event) in (1..).zip(events) {
            let Some(input) = input_of(token, &event) else { continue };
            tracing::info!(device = event.device, "somebody waits for it to be enabled");
            owed.lock().unwrap_or_else(PoisonError::into_inner).insert(token, event);
            tokens.insert(token);
            inputs.push(input);
        }
        if inputs.is_empty() {
            free(&block);
            return (Held::default(), inputs);
        }
        let held: Held = Arc::new(Mutex::new(Some(Hold { block, tokens, happenings })));
        let (late, owed) = (held.clone(), owed.clone());
        let wait = move || {
            thread::sleep(HOLD);
            end(&late, &owed);
        };
        if let Err(error) = thread::Builder::new().name("hold".into()).spawn(wait) {
            tracing::error!(%error, "no thread");
        }
        (held, inputs)
    }
}

/// Frees tools that wait for a dead daemon's answers.
fn free(block: &NetlinkBlock) {
    if let Err(error) = block.fail_unanswered() {
        tracing::warn!(%error, "tools may wait for a dead daemon's answers");
    }
}

/// One of them was answered.
pub(super) fn answered(held: &Held, owed: &Owed, token: Token) {
    let mut hold = held.lock().unwrap_or_else(PoisonError::into_inner);
    let last = hold.as_mut().is_some_and(|hold| hold.tokens.remove(&token) && hold.tokens.is_empty());
    drop(hold);
    if last {
        end(held, owed);
    }
}

/// Lets all tools go on.
pub(super) fn end(held: &Held, owed: &Owed) {
    let Some(hold) = held.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    free(&hold.block);
    // No other event can have come meanwhile that somebody waits for.
    owed.lock().unwrap_or_else(PoisonError::into_inner).retain(|token, _| !hold.tokens.contains(token));
    drop(hold.block);
    // What was removed meanwhile was not told.
    let _ = hold.happenings.send(Happening::Rescan);
}
