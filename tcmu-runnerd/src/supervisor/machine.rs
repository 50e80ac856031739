//! The registry of devices, as a machine: inputs go in, actions come out. It does nothing itself and knows no threads, so that every
//! order of events can be tried.
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::{Duration, Instant},
};

use tcmu::{BackstoreId, identity::DeviceName};

use crate::protocol::{DeviceChange, Outcome};

/// An event of the kernel that waits for an answer.
pub type Token = u64;
/// A request to a host that waits for an answer.
pub type Request = u64;

/// How long after a failed take-over it is tried again.
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
    /// How long a device may be without a handler before its commands fail; `None`: they are held back for ever.
    pub give_up: Option<Duration>,
}

/// What happens.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // of the variants' fields
pub enum Input {
    /// The kernel enables a device.
    Added { token: Token, minor: u32, name: DeviceName },
    /// The kernel removes a device.
    Removed { token: Token, id: BackstoreId },
    /// The kernel changes a device.
    Reconfigured { token: Token, id: BackstoreId, change: DeviceChange, subtype: Option<String> },
    /// All the devices there are: at the start, and after events were lost.
    Present(Vec<(u32, DeviceName)>),
    /// A device's descriptor is open (or was), and its facts are known.
    Prepared { id: BackstoreId, outcome: Result<(), (i32, String)> },
    /// A device is blocked, as [`Action::Block`] asked.
    Blocked { id: BackstoreId },
    /// A host is ready.
    HostUp { host: HostName },
    /// A host is gone; another will come.
    HostDown { host: HostName },
    /// A host answers.
    Answer { request: Request, outcome: Outcome },
    /// A host can't serve a device any more.
    DeviceFailed { id: BackstoreId, reason: String },
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
    /// Find out the device's facts and open its descriptor, if it isn't open. With `take_over`: block it and empty its ring first.
    Prepare { id: BackstoreId, minor: u32, take_over: bool },
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
    /// Commands go to the ring, and what is in it fails: nobody has been there for too long.
    FailCommands { id: BackstoreId },
    /// New commands end with BUSY.
    Block { id: BackstoreId },
    /// New commands go to the ring.
    Unblock { id: BackstoreId },
    /// Close the device's descriptor and forget its facts.
    Release { id: BackstoreId },
}

/// Where a device is in its life.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // of the variants' fields
pub enum State {
    /// Its facts are being read and its descriptor is being opened.
    Preparing,
    /// Its handler's host isn't there.
    Waiting,
    /// Its handler opens it.
    Opening,
    /// It is served.
    Serving,
    /// It is being blocked before it is closed.
    Blocking,
    /// Its handler closes it.
    Closing,
    /// It can't be served; tried again at this time.
    Failed { reason: String, retry: Instant },
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
    /// Who serves it.
    pub host: HostName,
    take_over: bool,
    /// Since when nobody serves it, though somebody did.
    unserved: Option<Instant>,
    /// When its commands are to fail again, once it was given up.
    fail: Option<Instant>,
    /// The event that enabled it, if it waits for an answer.
    added: Option<Token>,
    /// The event that removes it, if it waits for an answer.
    removed: Option<Token>,
    /// To be closed as soon as it can be.
    unwanted: bool,
    /// When the tool that enables or removes it has waited long enough.
    deadline: Option<Instant>,
}

enum Purpose {
    Open,
    Close,
    Reconfigure(Token, DeviceChange),
}

/// The registry.
pub struct Machine {
    devices: BTreeMap<BackstoreId, Device>,
    handlers: HashSet<String>,
    /// Hosts and whether they are ready.
    hosts: HashMap<HostName, bool>,
    settings: Settings,
    requests: HashMap<Request, (BackstoreId, Purpose)>,
    next_request: Request,
    stopping: bool,
    actions: Vec<Action>,
}

impl Machine {
    /// A registry without devices.
    pub fn new(settings: Settings) -> Machine {
        Machine {
            devices: BTreeMap::new(),
            handlers: HashSet::new(),
            hosts: HashMap::new(),
            settings,
            requests: HashMap::new(),
            next_request: 0,
            stopping: false,
            actions: Vec::new(),
        }
    }

    /// A handler that devices can be routed to.
    pub fn add_handler(&mut self, subtype: &str) {
        self.handlers.insert(subtype.to_owned());
        self.hosts.entry(HostName::of_handler(subtype)).or_insert(false);
    }

    /// All devices.
    pub fn devices(&self) -> &BTreeMap<BackstoreId, Device> {
        &self.devices
    }

    /// Whether nothing is going on that has to be waited for before the end.
    pub fn is_quiet(&self) -> bool {
        self.devices
            .values()
            .all(|device| !matches!(device.state, State::Opening | State::Blocking | State::Closing | State::Serving))
    }

    /// When [`Input::Tick`] is due next.
    pub fn next_tick(&self) -> Option<Instant> {
        self.devices
            .values()
            .flat_map(|device| {
                let due = match device.state {
                    State::Failed { retry, .. } => Some(retry),
                    _ => device.deadline.filter(|_| device.added.is_some() || device.removed.is_some()),
                };
                [due, self.fails_at(device)]
            })
            .flatten()
            .min()
    }

    /// Takes note of what happens, and says what is to be done.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Action> {
        match input {
            Input::Added { token, minor, name } => self.added(token, minor, name, now),
            Input::Removed { token, id } => self.removed(Some(token), &id, now),
            Input::Reconfigured { token, id, change, subtype } => self.reconfigured(token, &id, change, subtype.as_deref()),
            Input::Present(present) => self.present(present, now),
            Input::Prepared { id, outcome } => self.prepared(&id, outcome, now),
            Input::Blocked { id } => {
                if self.devices.get(&id).is_some_and(|device| device.state == State::Blocking) {
                    self.close(&id);
                }
            }
            Input::HostUp { host } => self.host_up(&host),
            Input::HostDown { host } => self.host_down(&host, now),
            Input::Answer { request, outcome } => self.answered(request, outcome, now),
            Input::DeviceFailed { id, reason } => {
                if let Some(device) = self.devices.get_mut(&id).filter(|device| device.state == State::Serving) {
                    // Nothing comes from this ring until it is reset: the device is closed and taken over anew.
                    tracing::error!(device = %id, "{reason}");
                    device.take_over = true;
                    device.unserved = Some(now);
                    self.close(&id);
                }
            }
            Input::Tick => self.tick(now),
            Input::Shutdown => {
                self.stopping = true;
                let serving: Vec<_> = self.ids(|device| device.state == State::Serving);
                for id in serving {
                    self.set(&id, State::Blocking);
                    self.actions.push(Action::Block { id });
                }
            }
        }
        std::mem::take(&mut self.actions)
    }

    fn added(&mut self, token: Token, minor: u32, name: DeviceName, now: Instant) {
        if self.settings.foreign.contains(&name.subtype) {
            return;
        }
        let refuse = if self.stopping {
            Some(libc::ESHUTDOWN)
        } else if !self.handlers.contains(&name.subtype) {
            tracing::warn!(device = %name.id, "there is no handler {:?}; it is refused", name.subtype);
            Some(libc::ENOENT)
        } else if self.devices.contains_key(&name.id) {
            // Its removal was missed; the next attempt finds it gone.
            self.removed(None, &name.id.clone(), now);
            Some(libc::EAGAIN)
        } else {
            None
        };
        if let Some(errno) = refuse {
            return self.answer_kernel(Some(token), -errno);
        }
        self.insert(minor, name, false, Some(token), Some(now + self.settings.open_timeout));
    }

    fn insert(&mut self, minor: u32, name: DeviceName, take_over: bool, added: Option<Token>, deadline: Option<Instant>) {
        let id = name.id.clone();
        let mut host = HostName::of_handler(&name.subtype);
        if self.settings.host_per_device.contains(&name.subtype) {
            host.device = Some(id.clone());
            self.hosts.insert(host.clone(), false);
            self.actions.push(Action::StartHost { host: host.clone() });
        }
        let device = Device {
            minor,
            name,
            state: State::Preparing,
            host,
            take_over,
            unserved: None,
            fail: None,
            added,
            removed: None,
            unwanted: false,
            deadline,
        };
        self.devices.insert(id.clone(), device);
        self.actions.push(Action::Prepare { id, minor, take_over });
    }

    fn removed(&mut self, token: Option<Token>, id: &BackstoreId, now: Instant) {
        let Some(device) = self.devices.get_mut(id) else { return self.answer_kernel(token, 0) };
        let earlier = device.removed.take();
        device.removed = token;
        device.unwanted = true;
        if device.added.is_none() {
            device.deadline = Some(now + self.settings.open_timeout);
        }
        let state = device.state.clone();
        self.answer_kernel(earlier, 0);
        match state {
            State::Preparing | State::Opening | State::Closing | State::Blocking => {}
            State::Waiting | State::Failed { .. } => self.forget(id),
            State::Serving => self.close(id),
        }
    }

    fn reconfigured(&mut self, token: Token, id: &BackstoreId, change: DeviceChange, subtype: Option<&str>) {
        let Some(device) = self.devices.get(id) else { return self.unknown_reconfigured(token, subtype) };
        if subtype.is_some_and(|subtype| subtype != device.name.subtype) {
            tracing::warn!(device = %id, "a device cannot move to another handler");
            return self.answer_kernel(Some(token), -libc::EINVAL);
        }
        if device.state != State::Serving {
            return self.answer_kernel(Some(token), -libc::EAGAIN);
        }
        let host = device.host.clone();
        let request = self.request(id, Purpose::Reconfigure(token, change.clone()));
        self.actions.push(Action::Reconfigure { request, id: id.clone(), host, change });
    }

    fn unknown_reconfigured(&mut self, token: Token, subtype: Option<&str>) {
        if !subtype.is_some_and(|subtype| self.settings.foreign.contains(subtype)) {
            self.answer_kernel(Some(token), -libc::ENODEV);
        }
    }

    fn present(&mut self, present: Vec<(u32, DeviceName)>, now: Instant) {
        let there: HashSet<_> = present.iter().map(|(minor, name)| (name.id.clone(), *minor)).collect();
        for id in self.ids(|device| !there.contains(&(device.name.id.clone(), device.minor))) {
            self.removed(None, &id, now);
        }
        for (minor, name) in present {
            if self.devices.contains_key(&name.id) || self.settings.foreign.contains(&name.subtype) {
                continue;
            }
            if !self.handlers.contains(&name.subtype) {
                tracing::warn!(device = %name.id, "there is no handler {:?}; the device is left alone", name.subtype);
                continue;
            }
            tracing::info!(device = %name.id, "taking over");
            let id = name.id.clone();
            self.insert(minor, name, true, None, None);
            if let Some(device) = self.devices.get_mut(&id) {
                device.unserved = Some(now);
            }
        }
    }

    fn prepared(&mut self, id: &BackstoreId, outcome: Result<(), (i32, String)>, now: Instant) {
        let Some(device) = self.devices.get(id).filter(|device| device.state == State::Preparing) else { return };
        if device.unwanted {
            return self.forget(id);
        }
        match outcome {
            Ok(()) if self.hosts.get(&device.host) == Some(&true) => self.open(id),
            Ok(()) => self.set(id, State::Waiting),
            Err((errno, reason)) => self.failed(id, errno, reason, now),
        }
    }

    fn open(&mut self, id: &BackstoreId) {
        let Some(device) = self.devices.get_mut(id) else { return };
        device.state = State::Opening;
        let (host, take_over) = (device.host.clone(), device.take_over);
        let request = self.request(id, Purpose::Open);
        self.actions.push(Action::Open { request, id: id.clone(), host, take_over });
    }

    fn close(&mut self, id: &BackstoreId) {
        let Some(device) = self.devices.get_mut(id) else { return };
        device.state = State::Closing;
        let host = device.host.clone();
        let request = self.request(id, Purpose::Close);
        self.actions.push(Action::Close { request, id: id.clone(), host });
    }

    /// A device could not be opened: a new one is refused, one that was there before is tried again.
    fn failed(&mut self, id: &BackstoreId, errno: i32, reason: String, now: Instant) {
        let Some(device) = self.devices.get_mut(id) else { return };
        match device.added.take() {
            Some(token) => {
                tracing::warn!(device = %id, "refused: {reason}");
                self.answer_kernel(Some(token), -errno);
                self.forget(id);
            }
            None if device.unwanted => self.forget(id),
            None => {
                if !matches!(device.state, State::Failed { .. }) {
                    tracing::error!(device = %id, "cannot be served: {reason}; trying again every {} s", RETRY.as_secs());
                }
                device.state = State::Failed { reason, retry: now + RETRY };
            }
        }
    }

    fn answered(&mut self, request: Request, outcome: Outcome, now: Instant) {
        let Some((id, purpose)) = self.requests.remove(&request) else { return };
        match purpose {
            Purpose::Open => self.opened(&id, outcome, now),
            Purpose::Close => self.closed(&id, &outcome),
            Purpose::Reconfigure(token, change) => {
                let status = match outcome {
                    Outcome::Refused { errno, message } => {
                        tracing::warn!(device = %id, "change refused: {message}");
                        -errno
                    }
                    _ => 0,
                };
                if let (0, DeviceChange::Config(config), Some(device)) = (status, change, self.devices.get_mut(&id)) {
                    device.name.config = config;
                }
                self.answer_kernel(Some(token), status);
            }
        }
    }

    fn opened(&mut self, id: &BackstoreId, outcome: Outcome, now: Instant) {
        let Some(device) = self.devices.get_mut(id).filter(|device| device.state == State::Opening) else { return };
        if let Outcome::Refused { errno, message } = outcome {
            return self.failed(id, errno, message, now);
        }
        device.state = State::Serving;
        (device.unserved, device.fail) = (None, None);
        if device.removed.is_none() {
            device.deadline = None;
        }
        let (added, take_over, unwanted) = (device.added.take(), device.take_over, device.unwanted);
        tracing::info!(device = %id, config = device.name.config, "served by {}", device.name.subtype);
        device.take_over = false;
        if unwanted {
            self.answer_kernel(added, -libc::ENODEV);
            return self.close(id);
        }
        self.answer_kernel(added, 0);
        if self.stopping {
            self.set(id, State::Blocking);
            self.actions.push(Action::Block { id: id.clone() });
        } else if take_over {
            self.actions.push(Action::Unblock { id: id.clone() });
        }
    }

    fn closed(&mut self, id: &BackstoreId, outcome: &Outcome) {
        let Some(device) = self.devices.get_mut(id) else { return };
        if let Outcome::Refused { message, .. } = outcome {
            tracing::warn!(device = %id, "closing: {message}");
        }
        if device.unwanted || self.stopping {
            tracing::info!(device = %id, "closed");
            return self.forget(id);
        }
        // Closed because its ring could not be used.
        self.actions.push(Action::Release { id: id.clone() });
        self.prepare_anew(id);
    }

    fn host_up(&mut self, host: &HostName) {
        // The host of a device that is gone is on its way out.
        let Some(up) = self.hosts.get_mut(host) else { return };
        *up = true;
        for id in self.of_host(host, |device| device.state == State::Waiting) {
            let Some(device) = self.devices.get_mut(&id) else { continue };
            if device.fail.take().is_some() {
                // There may be commands in its ring: they are for the next reset.
                self.prepare_anew(&id);
            } else {
                self.open(&id);
            }
        }
    }

    /// From the start: block it, empty its ring, open it.
    fn prepare_anew(&mut self, id: &BackstoreId) {
        let Some(device) = self.devices.get_mut(id) else { return };
        (device.state, device.take_over, device.fail) = (State::Preparing, true, None);
        let minor = device.minor;
        self.actions.push(Action::Prepare { id: id.clone(), minor, take_over: true });
    }

    fn host_down(&mut self, host: &HostName, now: Instant) {
        let Some(up) = self.hosts.get_mut(host) else { return };
        *up = false;
        let lost: Vec<Request> = self
            .requests
            .iter()
            .filter(|(_, (id, _))| self.devices.get(id).is_none_or(|device| device.host == *host))
            .map(|(request, _)| *request)
            .collect();
        for request in lost {
            if let Some((_, Purpose::Reconfigure(token, _))) = self.requests.remove(&request) {
                self.answer_kernel(Some(token), -libc::EIO);
            }
        }
        for id in self.of_host(host, |_| true) {
            let Some(device) = self.devices.get_mut(&id) else { continue };
            match device.state {
                State::Closing | State::Blocking => self.forget(&id),
                State::Opening | State::Serving if device.unwanted => self.forget(&id),
                State::Opening | State::Serving => {
                    if let Some(token) = device.added.take() {
                        self.answer_kernel(Some(token), -libc::EIO);
                        self.forget(&id);
                        continue;
                    }
                    device.unserved.get_or_insert(now);
                    self.prepare_anew(&id);
                }
                State::Preparing | State::Waiting | State::Failed { .. } => {}
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        for id in self.ids(|_| true) {
            let Some(device) = self.devices.get_mut(&id) else { continue };
            if device.added.is_none() && device.removed.is_some() && device.deadline.is_some_and(|deadline| deadline <= now) {
                tracing::error!(device = %id, "its handler did not close it in time; the kernel goes on without it");
                let token = device.removed.take();
                self.answer_kernel(token, 0);
                continue;
            }
            if device.added.is_some() && device.deadline.is_some_and(|deadline| deadline <= now) {
                tracing::error!(device = %id, "its handler did not open it in time; it is refused");
                let token = device.added.take();
                // Whenever it is opened after all, it is closed again.
                device.unwanted = true;
                let waiting = device.state == State::Waiting;
                self.answer_kernel(token, -libc::ETIMEDOUT);
                if waiting {
                    self.forget(&id);
                }
                continue;
            }
            if let State::Failed { retry, .. } = device.state
                && retry <= now
                && !self.stopping
            {
                self.prepare_anew(&id);
                continue;
            }
            if self.devices.get(&id).and_then(|device| self.fails_at(device)).is_some_and(|at| at <= now) {
                self.fail_commands(&id, now);
            }
        }
    }

    /// When the commands of a device that nobody serves are to fail (again).
    fn fails_at(&self, device: &Device) -> Option<Instant> {
        let unserved = matches!(device.state, State::Waiting | State::Failed { .. }) && !self.stopping;
        let limit = device.unserved? + self.settings.give_up?;
        unserved.then(|| device.fail.unwrap_or(limit))
    }

    fn fail_commands(&mut self, id: &BackstoreId, now: Instant) {
        let Some(device) = self.devices.get_mut(id) else { return };
        if device.fail.is_none() {
            tracing::error!(device = %id, "nobody has served it for too long: its commands fail until somebody does");
        }
        device.fail = Some(now + FAIL_EVERY);
        self.actions.push(Action::FailCommands { id: id.clone() });
    }

    /// A device's end.
    fn forget(&mut self, id: &BackstoreId) {
        let Some(device) = self.devices.remove(id) else { return };
        self.actions.push(Action::Release { id: id.clone() });
        if device.host.device.is_some() {
            self.hosts.remove(&device.host);
            self.actions.push(Action::EndHost { host: device.host });
        }
        self.answer_kernel(device.added, -libc::ENODEV);
        // After the descriptor is closed, which is what the kernel waits for.
        self.answer_kernel(device.removed, 0);
    }

    fn answer_kernel(&mut self, token: Option<Token>, status: i32) {
        if let Some(token) = token {
            self.actions.push(Action::AnswerKernel { token, status });
        }
    }

    fn request(&mut self, id: &BackstoreId, purpose: Purpose) -> Request {
        self.next_request += 1;
        self.requests.insert(self.next_request, (id.clone(), purpose));
        self.next_request
    }

    fn set(&mut self, id: &BackstoreId, state: State) {
        if let Some(device) = self.devices.get_mut(id) {
            device.state = state;
        }
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
