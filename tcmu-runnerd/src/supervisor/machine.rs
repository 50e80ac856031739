//! The registry of devices, as a machine: inputs go in, actions come out. It does nothing itself and knows no threads, so that every
//! order of events can be tried.
use std::{
    collections::{BTreeMap, HashMap, HashSet},
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
    /// A handler's host is ready.
    HostUp { subtype: String },
    /// A handler's host is gone; another will come.
    HostDown { subtype: String },
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
    Open { request: Request, id: BackstoreId, subtype: String, take_over: bool },
    /// Send a host this.
    Close { request: Request, id: BackstoreId, subtype: String },
    /// Send a host this.
    Reconfigure { request: Request, id: BackstoreId, subtype: String, change: DeviceChange },
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
    take_over: bool,
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
    /// Handlers and whether their hosts are ready.
    hosts: HashMap<String, bool>,
    foreign: HashSet<String>,
    requests: HashMap<Request, (BackstoreId, Purpose)>,
    next_request: Request,
    open_timeout: Duration,
    stopping: bool,
    actions: Vec<Action>,
}

impl Machine {
    /// A registry without devices. Subtypes in `foreign` are another program's.
    pub fn new(open_timeout: Duration, foreign: impl IntoIterator<Item = String>) -> Machine {
        Machine {
            devices: BTreeMap::new(),
            hosts: HashMap::new(),
            foreign: foreign.into_iter().collect(),
            requests: HashMap::new(),
            next_request: 0,
            open_timeout,
            stopping: false,
            actions: Vec::new(),
        }
    }

    /// A handler that devices can be routed to.
    pub fn add_handler(&mut self, subtype: &str) {
        self.hosts.entry(subtype.to_owned()).or_insert(false);
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
            .filter_map(|device| match device.state {
                State::Failed { retry, .. } => Some(retry),
                _ => device.deadline.filter(|_| device.added.is_some() || device.removed.is_some()),
            })
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
            Input::HostUp { subtype } => {
                self.hosts.insert(subtype.clone(), true);
                for id in self.of_host(&subtype, |device| device.state == State::Waiting) {
                    self.open(&id);
                }
            }
            Input::HostDown { subtype } => self.host_down(&subtype),
            Input::Answer { request, outcome } => self.answered(request, outcome, now),
            Input::DeviceFailed { id, reason } => {
                if let Some(device) = self.devices.get_mut(&id).filter(|device| device.state == State::Serving) {
                    // Nothing comes from this ring until it is reset: the device is closed and taken over anew.
                    tracing::error!(device = %id, "{reason}");
                    device.take_over = true;
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
        if self.foreign.contains(&name.subtype) {
            return;
        }
        let refuse = if self.stopping {
            Some(libc::ESHUTDOWN)
        } else if !self.hosts.contains_key(&name.subtype) {
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
        self.insert(minor, name, false, Some(token), Some(now + self.open_timeout));
    }

    fn insert(&mut self, minor: u32, name: DeviceName, take_over: bool, added: Option<Token>, deadline: Option<Instant>) {
        let id = name.id.clone();
        let device = Device { minor, name, state: State::Preparing, take_over, added, removed: None, unwanted: false, deadline };
        self.devices.insert(id.clone(), device);
        self.actions.push(Action::Prepare { id, minor, take_over });
    }

    fn removed(&mut self, token: Option<Token>, id: &BackstoreId, now: Instant) {
        let Some(device) = self.devices.get_mut(id) else { return self.answer_kernel(token, 0) };
        let earlier = device.removed.take();
        device.removed = token;
        device.unwanted = true;
        if device.added.is_none() {
            device.deadline = Some(now + self.open_timeout);
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
        let subtype = device.name.subtype.clone();
        let request = self.request(id, Purpose::Reconfigure(token, change.clone()));
        self.actions.push(Action::Reconfigure { request, id: id.clone(), subtype, change });
    }

    fn unknown_reconfigured(&mut self, token: Token, subtype: Option<&str>) {
        if !subtype.is_some_and(|subtype| self.foreign.contains(subtype)) {
            self.answer_kernel(Some(token), -libc::ENODEV);
        }
    }

    fn present(&mut self, present: Vec<(u32, DeviceName)>, now: Instant) {
        let there: HashSet<_> = present.iter().map(|(minor, name)| (name.id.clone(), *minor)).collect();
        for id in self.ids(|device| !there.contains(&(device.name.id.clone(), device.minor))) {
            self.removed(None, &id, now);
        }
        for (minor, name) in present {
            if self.devices.contains_key(&name.id) || self.foreign.contains(&name.subtype) {
                continue;
            }
            if !self.hosts.contains_key(&name.subtype) {
                tracing::warn!(device = %name.id, "there is no handler {:?}; the device is left alone", name.subtype);
                continue;
            }
            tracing::info!(device = %name.id, "taking over");
            self.insert(minor, name, true, None, None);
        }
    }

    fn prepared(&mut self, id: &BackstoreId, outcome: Result<(), (i32, String)>, now: Instant) {
        let Some(device) = self.devices.get(id).filter(|device| device.state == State::Preparing) else { return };
        if device.unwanted {
            return self.forget(id);
        }
        match outcome {
            Ok(()) if self.hosts.get(&device.name.subtype) == Some(&true) => self.open(id),
            Ok(()) => self.set(id, State::Waiting),
            Err((errno, reason)) => self.failed(id, errno, reason, now),
        }
    }

    fn open(&mut self, id: &BackstoreId) {
        let Some(device) = self.devices.get_mut(id) else { return };
        device.state = State::Opening;
        let (subtype, take_over) = (device.name.subtype.clone(), device.take_over);
        let request = self.request(id, Purpose::Open);
        self.actions.push(Action::Open { request, id: id.clone(), subtype, take_over });
    }

    fn close(&mut self, id: &BackstoreId) {
        let Some(device) = self.devices.get_mut(id) else { return };
        device.state = State::Closing;
        let subtype = device.name.subtype.clone();
        let request = self.request(id, Purpose::Close);
        self.actions.push(Action::Close { request, id: id.clone(), subtype });
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
        // Closed because its ring could not be used: from the start.
        device.state = State::Preparing;
        let minor = device.minor;
        self.actions.push(Action::Release { id: id.clone() });
        self.actions.push(Action::Prepare { id: id.clone(), minor, take_over: true });
    }

    fn host_down(&mut self, subtype: &str) {
        self.hosts.insert(subtype.to_owned(), false);
        let lost: Vec<Request> = self
            .requests
            .iter()
            .filter(|(_, (id, _))| self.devices.get(id).is_none_or(|device| device.name.subtype == subtype))
            .map(|(request, _)| *request)
            .collect();
        for request in lost {
            if let Some((_, Purpose::Reconfigure(token, _))) = self.requests.remove(&request) {
                self.answer_kernel(Some(token), -libc::EIO);
            }
        }
        for id in self.of_host(subtype, |_| true) {
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
                    device.take_over = true;
                    device.state = State::Preparing;
                    let minor = device.minor;
                    self.actions.push(Action::Prepare { id, minor, take_over: true });
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
                device.state = State::Preparing;
                device.take_over = true;
                let minor = device.minor;
                self.actions.push(Action::Prepare { id, minor, take_over: true });
            }
        }
    }

    /// A device's end.
    fn forget(&mut self, id: &BackstoreId) {
        let Some(device) = self.devices.remove(id) else { return };
        self.actions.push(Action::Release { id: id.clone() });
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

    fn of_host(&self, subtype: &str, which: impl Fn(&Device) -> bool) -> Vec<BackstoreId> {
        self.ids(|device| device.name.subtype == subtype && which(device))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn name(n: u32) -> DeviceName {
        DeviceName::parse(&format!("tcm-user/{n}/d/file//x")).unwrap()
    }

    fn machine() -> Machine {
        let mut machine = Machine::new(Duration::from_secs(20), ["other".to_owned()]);
        machine.add_handler("file");
        machine
    }

    fn up(machine: &mut Machine) {
        machine.handle(Input::HostUp { subtype: "file".into() }, Instant::now());
    }

    fn refused(errno: i32) -> Outcome {
        Outcome::Refused { errno, message: "no".into() }
    }

    #[test]
    fn a_device_is_enabled_only_when_it_is_served() {
        let (mut machine, now) = (machine(), Instant::now());
        up(&mut machine);
        let id = name(0).id;
        let prepare = Action::Prepare { id: id.clone(), minor: 5, take_over: false };
        assert_eq!(machine.handle(Input::Added { token: 1, minor: 5, name: name(0) }, now), [prepare]);
        let actions = machine.handle(Input::Prepared { id: id.clone(), outcome: Ok(()) }, now);
        let [Action::Open { request, take_over: false, .. }] = actions[..] else { panic!("{actions:?}") };
        let done = machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
        assert_eq!(done, [Action::AnswerKernel { token: 1, status: 0 }]);
        assert_eq!(machine.devices()[&id].state, State::Serving);
    }

    #[test]
    fn a_refusal_is_passed_on_and_leaves_nothing() {
        let (mut machine, now) = (machine(), Instant::now());
        up(&mut machine);
        let id = name(0).id;
        machine.handle(Input::Added { token: 1, minor: 5, name: name(0) }, now);
        let actions = machine.handle(Input::Prepared { id: id.clone(), outcome: Ok(()) }, now);
        let [Action::Open { request, .. }] = actions[..] else { panic!() };
        let actions = machine.handle(Input::Answer { request, outcome: refused(libc::EACCES) }, now);
        assert_eq!(actions, [Action::AnswerKernel { token: 1, status: -libc::EACCES }, Action::Release { id }]);
        assert!(machine.devices().is_empty());
    }

    #[test]
    fn unknown_subtypes_are_refused_and_foreign_ones_left_alone() {
        let (mut machine, now) = (machine(), Instant::now());
        let unknown = DeviceName { subtype: "nobody".into(), ..name(0) };
        let answer = machine.handle(Input::Added { token: 1, minor: 0, name: unknown }, now);
        assert_eq!(answer, [Action::AnswerKernel { token: 1, status: -libc::ENOENT }]);
        let foreign = DeviceName { subtype: "other".into(), ..name(0) };
        assert_eq!(machine.handle(Input::Added { token: 2, minor: 0, name: foreign }, now), []);
    }

    #[test]
    fn a_handler_that_hangs_does_not_keep_the_tool_waiting() {
        let (mut machine, now) = (machine(), Instant::now());
        up(&mut machine);
        let id = name(0).id;
        machine.handle(Input::Added { token: 1, minor: 5, name: name(0) }, now);
        let actions = machine.handle(Input::Prepared { id: id.clone(), outcome: Ok(()) }, now);
        let [Action::Open { request, .. }] = actions[..] else { panic!() };
        assert_eq!(machine.handle(Input::Tick, now + Duration::from_secs(19)), []);
        let late = now + Duration::from_secs(20);
        assert_eq!(machine.handle(Input::Tick, late), [Action::AnswerKernel { token: 1, status: -libc::ETIMEDOUT }]);
        let actions = machine.handle(Input::Answer { request, outcome: Outcome::Done }, late);
        assert!(matches!(actions[..], [Action::Close { .. }]), "{actions:?}");
    }

    #[test]
    fn devices_of_a_host_that_died_are_taken_over_by_the_next() {
        let (mut machine, now) = (machine(), Instant::now());
        up(&mut machine);
        let id = name(0).id;
        machine.handle(Input::Present(vec![(5, name(0))]), now);
        let actions = machine.handle(Input::Prepared { id: id.clone(), outcome: Ok(()) }, now);
        let [Action::Open { request, take_over: true, .. }] = actions[..] else { panic!() };
        assert_eq!(machine.handle(Input::Answer { request, outcome: Outcome::Done }, now), [Action::Unblock { id: id.clone() }]);
        let actions = machine.handle(Input::HostDown { subtype: "file".into() }, now);
        assert_eq!(actions, [Action::Prepare { id: id.clone(), minor: 5, take_over: true }]);
        assert_eq!(machine.handle(Input::Prepared { id: id.clone(), outcome: Ok(()) }, now), []);
        assert_eq!(machine.devices()[&id].state, State::Waiting);
        let actions = machine.handle(Input::HostUp { subtype: "file".into() }, now);
        assert!(matches!(actions[..], [Action::Open { take_over: true, .. }]));
    }

    #[test]
    fn a_failed_take_over_is_tried_again() {
        let (mut machine, now) = (machine(), Instant::now());
        up(&mut machine);
        let id = name(0).id;
        machine.handle(Input::Present(vec![(5, name(0))]), now);
        machine.handle(Input::Prepared { id: id.clone(), outcome: Err((5, "gone".into())) }, now);
        let due = machine.next_tick().unwrap();
        assert_eq!(machine.handle(Input::Tick, due), [Action::Prepare { id, minor: 5, take_over: true }]);
    }

    #[derive(Clone, Debug)]
    enum Move {
        Add(u32),
        Remove(u32),
        Change(u32),
        Present(Vec<u32>),
        Prepare(usize, bool),
        Answer(usize, u8),
        Up,
        Down,
        Fail(u32),
        Time(u64),
    }

    fn moves() -> impl Strategy<Value = Move> {
        prop_oneof![
            4 => (0..4u32).prop_map(Move::Add),
            3 => (0..4u32).prop_map(Move::Remove),
            2 => (0..4u32).prop_map(Move::Change),
            1 => proptest::collection::vec(0..4u32, 0..4).prop_map(Move::Present),
            6 => (any::<usize>(), any::<bool>()).prop_map(|(n, ok)| Move::Prepare(n, ok)),
            6 => (any::<usize>(), 0..3u8).prop_map(|(n, kind)| Move::Answer(n, kind)),
            2 => Just(Move::Up),
            1 => Just(Move::Down),
            1 => (0..4u32).prop_map(Move::Fail),
            1 => (0..30u64).prop_map(Move::Time),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

        /// Whatever happens in whatever order: every event of the kernel gets exactly one answer.
        #[test]
        fn every_event_is_answered_exactly_once(moves in proptest::collection::vec(moves(), 1..80)) {
            let mut machine = machine();
            let mut now = Instant::now();
            let mut token = 0;
            let mut owed = HashSet::new();
            let mut preparing: VecDeque<BackstoreId> = VecDeque::new();
            let mut blocking: VecDeque<BackstoreId> = VecDeque::new();
            let mut requests: VecDeque<Request> = VecDeque::new();
            let drain = moves.len();
            let mut moves: VecDeque<Move> = moves.into();
            let mut step = 0;
            loop {
                step += 1;
                prop_assert!(step < drain + 2000, "it comes to an end");
                let next = match moves.pop_front() {
                    Some(next) => next,
                    // Then everything that is going on ends, one way or another.
                    None if !preparing.is_empty() => Move::Prepare(0, true),
                    None if !requests.is_empty() => Move::Answer(0, 0),
                    None if !blocking.is_empty() => Move::Time(0),
                    None if !owed.is_empty() => Move::Time(30),
                    None => break,
                };
                let mut inputs = Vec::new();
                match next {
                    Move::Add(n) => {
                        token += 1;
                        owed.insert(token);
                        inputs.push(Input::Added { token, minor: n, name: name(n) });
                    }
                    Move::Remove(n) => {
                        token += 1;
                        owed.insert(token);
                        inputs.push(Input::Removed { token, id: name(n).id });
                    }
                    Move::Change(n) => {
                        token += 1;
                        owed.insert(token);
                        inputs.push(Input::Reconfigured { token, id: name(n).id, change: DeviceChange::Size(512), subtype: None });
                    }
                    Move::Present(there) => inputs.push(Input::Present(there.into_iter().map(|n| (n, name(n))).collect())),
                    Move::Prepare(n, ok) if !preparing.is_empty() => {
                        let id = preparing.remove(n % preparing.len()).unwrap();
                        inputs.push(Input::Prepared { id, outcome: if ok { Ok(()) } else { Err((5, "x".into())) } });
                    }
                    Move::Answer(n, kind) if !requests.is_empty() => {
                        let request = requests.remove(n % requests.len()).unwrap();
                        inputs.push(Input::Answer { request, outcome: if kind == 2 { refused(5) } else { Outcome::Done } });
                    }
                    Move::Up => inputs.push(Input::HostUp { subtype: "file".into() }),
                    Move::Down => {
                        requests.clear();
                        inputs.push(Input::HostDown { subtype: "file".into() });
                    }
                    Move::Fail(n) => inputs.push(Input::DeviceFailed { id: name(n).id, reason: "x".into() }),
                    Move::Time(seconds) => {
                        now += Duration::from_secs(seconds);
                        inputs.extend(blocking.drain(..).map(|id| Input::Blocked { id }));
                        inputs.push(Input::Tick);
                    }
                    _ => {}
                }
                for input in inputs {
                    for action in machine.handle(input, now) {
                        match action {
                            Action::AnswerKernel { token, .. } => prop_assert!(owed.remove(&token), "answered twice"),
                            Action::Prepare { id, .. } => preparing.push_back(id),
                            Action::Open { request, .. }
                            | Action::Close { request, .. }
                            | Action::Reconfigure { request, .. } => requests.push_back(request),
                            Action::Block { id } => blocking.push_back(id),
                            Action::Unblock { .. } | Action::Release { .. } => {}
                        }
                    }
                }
            }
        }
    }
}
