//! The registry of devices, as a machine: inputs go in, actions come out. It does nothing itself and knows no threads, so that every
//! order of events can be tried.
//!
//! | module | subject |
//! |---|---|
//! | `stage` | the states of a device, and the ways between them |
//! | `events` | what the kernel says |
//! | `hosts` | handler hosts that come, go, hang, and are replaced |
//! | `devices` | a device's way from one state to the next |
//! | `foreign` | subtypes that other programs serve |
mod devices;
mod events;
mod foreign;
mod hosts;
mod refusals;
mod stage;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    time::{Duration, Instant},
};

use refusals::Refusals;
pub use stage::{Stage, State};
use tcmu::{BackstoreId, identity::DeviceName};

use crate::{
    policy::{Policies, Policy},
    protocol::{DeviceChange, Doing, Outcome},
};

/// An event of the kernel that waits for an answer.
pub type Token = u64;
/// A request to a host that waits for an answer.
pub type Request = u64;

/// How long after a failed attempt to open or close a device it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often the commands of a device that was given up fail.
const FAIL_EVERY: Duration = Duration::from_secs(1);

/// A process that serves devices: all of a handler's, or one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName {
    /// The handler.
    pub subtype: String,
    /// The only device, where the configuration gives each a host of its own.
    pub device: Option<BackstoreId>,
}

impl HostName {
    /// The host of a handler: it judges config strings, and serves the devices that have none of their own.
    pub fn of_handler(subtype: &str) -> HostName {
        HostName { subtype: subtype.to_owned(), device: None }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            None => f.write_str(&self.subtype),
            Some(device) => write!(f, "{} {device}", self.subtype),
        }
    }
}

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a device may take to be opened or closed before the tool that waits for it is answered.
    pub open_timeout: Duration,
    /// Subtypes that are another program's.
    pub foreign: HashSet<String>,
    /// Subtypes whose devices get a host each.
    pub host_per_device: HashSet<String>,
    /// What is done for devices whose handler is away or hangs.
    pub policies: Policies,
}

/// A device in a host that another supervisor started.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Found {
    pub minor: u32,
    pub name: DeviceName,
    pub doing: Doing,
    /// Whether the operator switched its write cache on or off.
    pub write_cache: Option<bool>,
    /// The event that enables it, if nobody answered that yet.
    pub added: Option<Token>,
}

/// What happens.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // of the variants' fields
pub enum Input {
    /// The kernel enables a device.
    Added { token: Token, minor: u32, name: DeviceName },
    /// The kernel removes a device, which is of that subtype.
    Removed { token: Token, id: BackstoreId, of: String },
    /// The kernel changes a device, which is of the subtype `of`; the new config string may name another.
    Reconfigured { token: Token, id: BackstoreId, of: String, change: DeviceChange, subtype: Option<String> },
    /// A program that served a subtype is gone.
    ProgramGone { subtype: String },
    /// All the devices there are: at the start, and after events were lost.
    Present(Vec<(u32, DeviceName)>),
    /// A device's descriptor is open (or was), and its facts are known. `ENODEV`: it isn't there any more.
    Prepared { id: BackstoreId, outcome: Result<(), (i32, String)> },
    /// A device is blocked, as [`Action::Block`] asked.
    Blocked { id: BackstoreId },
    /// A device changed while no supervisor was there to pass it on.
    Changed { id: BackstoreId, change: DeviceChange },
    /// A host is ready.
    HostUp { host: HostName },
    /// A host that another supervisor started is ready, and has these devices.
    Adopted { host: HostName, devices: Vec<Found> },
    /// A host is gone; another will come.
    HostDown { host: HostName },
    /// Another process is ready to take a host's place: let go of its devices.
    Replace { host: HostName },
    /// A host answers.
    Answer { request: Request, outcome: Outcome },
    /// A host can't serve a device any more.
    DeviceFailed { id: BackstoreId, reason: String },
    /// How long a device's oldest command has been in flight.
    Oldest { id: BackstoreId, age: Duration },
    /// A host has not been heard of for that long.
    HostSilent { host: HostName, time: Duration },
    /// Time passes.
    Tick,
    /// Let go of all devices.
    Shutdown,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // of the variants' fields
pub enum Action {
    /// Answer an event of the kernel: 0 or a negative `errno`.
    AnswerKernel { token: Token, status: i32 },
    /// Forget an event of the kernel: another program answers it.
    Disown { token: Token },
    /// Find out the device's facts and open its descriptor, if it isn't open. With `take_over`: block it and empty its ring first.
    Prepare { id: BackstoreId, minor: u32, take_over: bool },
    /// Find out whether the device is still what its host was told; [`Input::Changed`] if not. `unsure`: nobody knows what that was.
    Compare { id: BackstoreId, unsure: bool },
    /// Send a host this.
    Open { request: Request, id: BackstoreId, host: HostName, take_over: bool },
    /// Send a host this.
    Close { request: Request, id: BackstoreId, host: HostName },
    /// Send a host this.
    Reconfigure { request: Request, id: BackstoreId, host: HostName, change: DeviceChange },
    /// Start a host for one device.
    StartHost { host: HostName },
    /// That device is gone.
    EndHost { host: HostName },
    /// End a host that can't be talked to; [`Input::HostDown`] tells when it is gone.
    KillHost { host: HostName },
    /// The host has no device any more: let the other process take its place; [`Input::HostUp`] tells when it has.
    SwapHost { host: HostName },
    /// Commands go to the ring, and what is in it fails: nobody has been there for too long.
    FailCommands { id: BackstoreId },
    /// New commands end with BUSY.
    Block { id: BackstoreId },
    /// New commands go to the ring.
    Unblock { id: BackstoreId },
    /// Close the device's descriptor and forget its facts.
    Release { id: BackstoreId },
    /// Let the next daemon know which devices' write caches were switched off; the kernel shows it the same for all.
    KeepCachesOff { devices: BTreeSet<BackstoreId> },
}

/// A device.
#[derive(Clone, Debug)]
pub struct Device {
    /// The UIO device's number.
    pub minor: u32,
    /// Names and config string.
    pub name: DeviceName,
    /// Where it is in its life.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// The size in bytes that its handler agreed to last; `None`: what it was prepared with.
    pub size: Option<u64>,
    /// Who serves it.
    pub host: HostName,
    /// How old its oldest command is, if that is too old.
    pub hangs: Option<Duration>,
    /// Whether the operator switched its write cache on or off: its next host is told.
    pub write_cache: Option<bool>,
    take_over: bool,
    /// Its ring can't be used until it is reset.
    broken: bool,
    /// Another supervisor's: not compared with what there is yet.
    adopted: bool,
    /// Since when nobody serves it, though somebody did.
    unserved: Option<Instant>,
    /// Since when it is not served, of those that were; and how often it was served again, after how long in all.
    paused: Option<Instant>,
    pauses: (u64, Duration),
    /// When its commands are to fail again, once it was given up.
    fail: Option<Instant>,
    /// When its host is to be asked again to close it.
    close_again: Option<Instant>,
    /// Why it could not be served, as it was logged.
    said: Option<String>,
    /// The event that enabled it, if it waits for an answer.
    added: Option<Token>,
    /// The event that removes it, if it waits for an answer.
    removed: Option<Token>,
    /// To be closed as soon as it can be.
    unwanted: bool,
    /// When the tool that enables or removes it has waited long enough.
    deadline: Option<Instant>,
    /// A change that is made as soon as it is served.
    change: Option<WaitingChange>,
    /// Another device of that name, which has to wait until this one is gone.
    newer: Option<Newer>,
}

/// A change for which a tool waits until the deadline.
#[derive(Clone, Debug)]
struct WaitingChange {
    token: Token,
    change: DeviceChange,
    deadline: Instant,
}

/// A device for which a tool waits until the deadline.
#[derive(Clone, Debug)]
struct Newer {
    token: Token,
    minor: u32,
    name: DeviceName,
    deadline: Instant,
}

enum Purpose {
    Open,
    Close,
    Reconfigure(Token, DeviceChange),
    /// A change that no tool waits for.
    PutRight(DeviceChange),
    /// A change that another supervisor asked for.
    Inherited,
}

struct Asked {
    id: BackstoreId,
    host: HostName,
    purpose: Purpose,
}

/// What a host is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostState {
    /// It isn't there (yet).
    Down,
    /// It opens devices.
    Up,
    /// It closes its devices; another takes its place.
    Leaving,
    /// It is to die, and may take its time.
    Killed,
}

/// The registry.
pub struct Machine {
    devices: BTreeMap<BackstoreId, Device>,
    handlers: HashSet<String>,
    hosts: HashMap<HostName, HostState>,
    settings: Settings,
    /// Subtypes of programs that are registered.
    programs: HashSet<String>,
    left: HashMap<BackstoreId, foreign::Left>,
    requests: HashMap<Request, Asked>,
    next_request: Request,
    /// Devices whose write cache was switched off.
    caches_off: BTreeSet<BackstoreId>,
    refusals: Refusals,
    stopping: bool,
    actions: Vec<Action>,
}

impl Machine {
    /// A registry without devices. Its requests are counted from the one behind `first_request`.
    pub fn new(settings: Settings, first_request: Request) -> Machine {
        Machine {
            devices: BTreeMap::new(),
            handlers: HashSet::new(),
            hosts: HashMap::new(),
            settings,
            programs: HashSet::new(),
            left: HashMap::new(),
            requests: HashMap::new(),
            next_request: first_request,
            caches_off: BTreeSet::new(),
            refusals: Refusals::default(),
            stopping: false,
            actions: Vec::new(),
        }
    }

    /// A handler that devices can be routed to.
    pub fn add_handler(&mut self, subtype: &str) {
        self.handlers.insert(subtype.to_owned());
        self.hosts.entry(HostName::of_handler(subtype)).or_insert(HostState::Down);
    }

    /// What an earlier daemon knew, before anything else.
    pub fn set_caches_off(&mut self, devices: BTreeSet<BackstoreId>) {
        self.caches_off = devices;
    }

    /// Other limits and policies, from now on.
    pub fn set_limits(&mut self, open_timeout: Duration, policies: Policies) {
        (self.settings.open_timeout, self.settings.policies) = (open_timeout, policies);
    }

    /// All devices.
    pub fn devices(&self) -> &BTreeMap<BackstoreId, Device> {
        &self.devices
    }

    /// Why a device, or a change of it, was refused when a tool wanted it last; `None` if it was not.
    pub fn refusal(&self, id: &BackstoreId) -> Option<&str> {
        self.refusals.of(id)
    }

    /// Whether nothing is going on that has to be waited for before the end.
    pub fn is_quiet(&self) -> bool {
        !self.devices.values().any(|device| device.state.is_in_host())
    }

    /// Whether a host was told to die and has not yet.
    pub fn is_killed(&self, host: &HostName) -> bool {
        self.hosts.get(host) == Some(&HostState::Killed)
    }

    fn policy(&self, device: &Device) -> Policy {
        self.settings.policies.of(&device.name.subtype, &device.name.id)
    }

    /// When [`Input::Tick`] is due next.
    pub fn next_tick(&self) -> Option<Instant> {
        self.devices
            .values()
            .flat_map(|device| {
                let retry = match device.state {
                    State::Failed { retry, .. } => Some(retry).filter(|_| !self.stopping),
                    State::Closing => device.close_again,
                    _ => None,
                };
                let deadline = device.deadline.filter(|_| device.added.is_some() || device.removed.is_some());
                let change = device.change.as_ref().map(|change| change.deadline);
                let newer = device.newer.as_ref().map(|newer| newer.deadline);
                [retry, deadline, change, newer, self.fails_at(device), self.overdue_at(device)]
            })
            .flatten()
            .min()
    }

    /// Takes note of what happens, and says what is to be done.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Action> {
        match input {
            Input::Added { token, minor, name } => self.added(token, minor, name, now),
            Input::Removed { token, id, of } => {
                if !self.leave_to_program(token, &id, &of, 0) {
                    self.removed(token, &id, now);
                }
            }
            Input::Reconfigured { token, id, of, change, subtype } => {
                if !self.leave_to_program(token, &id, &of, -libc::EIO) {
                    self.reconfigured(token, &id, change, subtype.as_deref(), now);
                }
            }
            Input::ProgramGone { subtype } => self.program_gone(&subtype),
            Input::Present(present) => self.present(present, now),
            Input::Prepared { id, outcome } => self.prepared(&id, outcome, now),
            Input::Blocked { id } => {
                if self.devices.get(&id).is_some_and(|device| device.state == State::Blocking) {
                    self.close(&id, now);
                }
            }
            Input::Changed { id, change } => self.put_right(&id, change),
            Input::HostUp { host } => self.host_up(&host, now),
            Input::Adopted { host, devices } => self.adopted(&host, devices, now),
            Input::HostDown { host } => self.host_down(&host, now),
            Input::Replace { host } => self.replace(&host, now),
            Input::Answer { request, outcome } => self.answered(request, outcome, now),
            Input::DeviceFailed { id, reason } => self.device_failed(&id, &reason, now),
            Input::Oldest { id, age } => self.oldest(&id, age),
            Input::HostSilent { host, time } => self.host_silent(&host, time),
            Input::Tick => self.tick(now),
            Input::Shutdown => self.shutdown(now),
        }
        self.swap_hosts();
        std::mem::take(&mut self.actions)
    }

    fn tick(&mut self, now: Instant) {
        for id in self.ids(|_| true) {
            self.tick_device(&id, now);
        }
    }

    fn tick_device(&mut self, id: &BackstoreId, now: Instant) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let change = device.change.take_if(|change| change.deadline <= now).map(|change| change.token);
        let newer = device.newer.take_if(|newer| newer.deadline <= now).map(|newer| newer.token);
        self.answer_kernel(change, -libc::EAGAIN);
        self.answer_kernel(newer, -libc::ETIMEDOUT);
        let Some(device) = self.devices.get_mut(id) else { return };
        let late = device.deadline.is_some_and(|deadline| deadline <= now);
        if late && device.added.is_some() {
            tracing::error!(device = %id, "its handler did not open it in time; it is refused");
            self.refusals.note(id, "its handler did not open it in time");
            let token = device.added.take();
            // Whenever it is opened after all, it is closed again.
            device.unwanted = true;
            let waiting = device.state == State::Waiting;
            self.answer_kernel(token, -libc::ETIMEDOUT);
            if waiting {
                self.forget(id, now);
            }
            return;
        }
        if late && device.removed.is_some() {
            tracing::error!(device = %id, "its handler did not close it in time; the kernel goes on without it");
            let token = device.removed.take();
            return self.answer_kernel(token, 0);
        }
        match device.state {
            State::Failed { retry, .. } if retry <= now && !self.stopping => return self.prepare_anew(id, now),
            State::Closing if device.close_again.is_some_and(|at| at <= now) => return self.close(id, now),
            _ => {}
        }
        let Some(device) = self.devices.get(id) else { return };
        if self.overdue_at(device).is_some_and(|at| at <= now) {
            return self.overdue(id, now);
        }
        if self.fails_at(device).is_some_and(|at| at <= now) {
            self.fail_commands(id, now);
        }
    }

    fn shutdown(&mut self, now: Instant) {
        self.stopping = true;
        for id in self.ids(|device| device.state == State::Serving) {
            self.block(&id, now);
        }
    }

    fn answered(&mut self, request: Request, outcome: Outcome, now: Instant) {
        let Some(Asked { id, purpose, .. }) = self.requests.remove(&request) else { return };
        let refused = match &outcome {
            Outcome::Refused { errno, message } => Some((*errno, message.clone())),
            Outcome::Done => None,
        };
        match (purpose, refused) {
            (Purpose::Open, refused) => self.opened(&id, refused, now),
            (Purpose::Close, refused) => self.closed(&id, refused.map(|(_, message)| message), now),
            // The tool that wanted it was told that it failed.
            (Purpose::Inherited, _) => self.actions.push(Action::Compare { id, unsure: true }),
            (Purpose::Reconfigure(token, change), None) => {
                self.note_change(&id, change);
                self.refusals.forget(&id);
                self.answer_kernel(Some(token), 0);
            }
            (Purpose::Reconfigure(token, _), Some((errno, message))) => {
                tracing::warn!(device = %id, "change refused: {message}");
                self.refusals.note(&id, &message);
                self.answer_kernel(Some(token), -errno);
            }
            (Purpose::PutRight(change), None) => self.note_change(&id, change),
            (Purpose::PutRight(change), Some((_, message))) => {
                tracing::error!(device = %id, ?change, "changed while nobody watched, and its handler refuses that: {message}");
            }
        }
    }

    fn answer_kernel(&mut self, token: Option<Token>, status: i32) {
        if let Some(token) = token {
            self.actions.push(Action::AnswerKernel { token, status });
        }
    }

    fn request(&mut self, id: &BackstoreId, host: &HostName, purpose: Purpose) -> Request {
        self.next_request += 1;
        self.requests.insert(self.next_request, Asked { id: id.clone(), host: host.clone(), purpose });
        self.next_request
    }

    fn ids(&self, which: impl Fn(&Device) -> bool) -> Vec<BackstoreId> {
        self.devices.iter().filter(|(_, device)| which(device)).map(|(id, _)| id.clone()).collect()
    }

    fn of_host(&self, host: &HostName, which: impl Fn(&Device) -> bool) -> Vec<BackstoreId> {
        self.ids(|device| device.host == *host && which(device))
    }
}

#[cfg(test)]
mod tests;
