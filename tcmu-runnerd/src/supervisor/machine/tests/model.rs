//! Every order of events, with a small world around the machine.
use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

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
    Replace,
    Age(u32, u64),
    Silent,
    Vanish(u32),
    Fail(u32),
    Stop,
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
        1 => Just(Move::Replace),
        1 => (0..4u32, 0..20u64).prop_map(|(n, age)| Move::Age(n, age)),
        1 => Just(Move::Silent),
        1 => (0..4u32).prop_map(Move::Vanish),
        1 => prop::bool::weighted(0.05).prop_map(|stop| if stop { Move::Stop } else { Move::Time(1) }),
        1 => (0..30u64).prop_map(Move::Time),
    ]
}

/// What is around the machine: a kernel, and hosts, as far as they matter here.
struct World {
    machine: Machine,
    now: Instant,
    token: Token,
    /// Events that were not answered.
    owed: HashSet<Token>,
    /// Events that a device is added by.
    adding: HashMap<Token, BackstoreId>,
    preparing: VecDeque<BackstoreId>,
    blocking: VecDeque<BackstoreId>,
    requests: VecDeque<(Request, BackstoreId, HostName, Wants)>,
    /// Which host has a device: from the request to open it until it is closed, or the host is gone.
    open: HashMap<BackstoreId, HostName>,
    /// Hosts, and whether they are there.
    hosts: BTreeMap<String, (HostName, bool)>,
    killed: Vec<HostName>,
    /// Devices that are there and that nobody wanted to be gone.
    wanted: HashSet<BackstoreId>,
    stopped: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Wants {
    Open,
    Close,
    Change,
}

impl World {
    fn new(settings: Settings, adopted: &[u8]) -> World {
        let mut machine = Machine::new(settings, 100);
        machine.add_handler("file");
        let hosts = [("file".to_owned(), (file(), false))].into();
        let mut world = World {
            machine,
            now: Instant::now(),
            token: 0,
            owed: HashSet::new(),
            adding: HashMap::new(),
            preparing: VecDeque::new(),
            blocking: VecDeque::new(),
            requests: VecDeque::new(),
            open: HashMap::new(),
            hosts,
            killed: Vec::new(),
            wanted: HashSet::new(),
            stopped: false,
        };
        world.adopt(adopted);
        world
    }

    /// Each device in what state an earlier supervisor left it, or not at all.
    fn adopt(&mut self, adopted: &[u8]) {
        let mut devices = Vec::new();
        for (n, kind) in (0..).zip(adopted) {
            let (id, request) = (name(n).id, u64::from(n) + 1);
            let doing = match kind {
                0 => Doing::Serving,
                1 => Doing::Opening { id: request },
                2 => Doing::Closing { id: request },
                3 => Doing::Changing { id: request },
                4 => Doing::Failed { reason: "ring".into() },
                // With a tool that waits for it to be enabled.
                5 => Doing::Serving,
                6 => Doing::Opening { id: request },
                _ => continue,
            };
            let wants = [(1, Wants::Open), (2, Wants::Close), (3, Wants::Change), (6, Wants::Open)];
            let wants = wants.into_iter().find(|(k, _)| k == kind);
            if let Some((_, wants)) = wants {
                self.requests.push_back((request, id.clone(), file(), wants));
            }
            let added = (5..=6).contains(kind).then(|| self.token());
            if let Some(token) = added {
                self.adding.insert(token, id.clone());
            } else {
                self.wanted.insert(id.clone());
            }
            self.open.insert(id, file());
            devices.push(Found { added, ..found(n, doing) });
        }
        if !devices.is_empty() {
            self.hosts.get_mut("file").unwrap().1 = true;
            self.input(Input::Adopted { host: file(), devices });
        }
    }

    fn token(&mut self) -> Token {
        self.token += 1;
        self.owed.insert(self.token);
        self.token
    }

    fn input(&mut self, input: Input) {
        for action in self.machine.handle(input, self.now) {
            self.act(action);
        }
        for id in &self.wanted {
            assert!(self.stopped || self.machine.devices().contains_key(id), "{id} was forgotten");
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::AnswerKernel { token, status } => {
                assert!(self.owed.remove(&token), "answered twice");
                if let (0, Some(id)) = (status, self.adding.remove(&token)) {
                    self.wanted.insert(id);
                }
            }
            Action::Prepare { id, .. } => self.preparing.push_back(id),
            Action::Open { request, id, host, .. } => {
                assert!(self.is_up(&host), "opened in a host that is not there");
                assert_eq!(self.open.insert(id.clone(), host.clone()), None, "{id} is open already");
                self.requests.push_back((request, id, host, Wants::Open));
            }
            Action::Close { request, id, host } => {
                assert_eq!(self.open.get(&id), Some(&host), "{id} is not open there");
                self.requests.push_back((request, id, host, Wants::Close));
            }
            Action::Reconfigure { request, id, host, .. } => {
                assert_eq!(self.open.get(&id), Some(&host), "{id} is not open there");
                self.requests.push_back((request, id, host, Wants::Change));
            }
            Action::Block { id } => self.blocking.push_back(id),
            Action::StartHost { host } => {
                assert!(self.hosts.insert(host.to_string(), (host, false)).is_none(), "started twice");
            }
            Action::EndHost { host } => {
                assert!(self.hosts.remove(&host.to_string()).is_some(), "ended twice");
                assert!(!self.open.values().any(|other| *other == host), "ended with a device");
                self.killed.retain(|other| *other != host);
            }
            Action::KillHost { host } => {
                assert!(self.is_up(&host) && !self.killed.contains(&host), "killed twice");
                self.killed.push(host);
            }
            Action::SwapHost { host } => {
                assert!(!self.open.values().any(|other| *other == host), "replaced with a device");
                self.hosts.get_mut(&host.to_string()).unwrap().1 = false;
            }
            Action::Disown { .. } => unreachable!("no device is another program's"),
            Action::Unblock { .. }
            | Action::Release { .. }
            | Action::FailCommands { .. }
            | Action::Compare { .. }
            | Action::KeepCachesOff { .. } => {}
        }
    }

    fn is_up(&self, host: &HostName) -> bool {
        self.hosts.get(&host.to_string()).is_some_and(|(_, up)| *up)
    }

    fn come(&mut self) {
        let down: Vec<HostName> = self.hosts.values().filter(|(_, up)| !up).map(|(host, _)| host.clone()).collect();
        for host in down {
            if let Some((_, up)) = self.hosts.get_mut(&host.to_string()) {
                *up = true;
                self.input(Input::HostUp { host });
            }
        }
    }

    fn die(&mut self, hosts: Vec<HostName>) {
        for host in hosts {
            let Some((_, up)) = self.hosts.get_mut(&host.to_string()) else { continue };
            *up = false;
            self.open.retain(|_, other| *other != host);
            self.requests.retain(|(_, _, other, _)| *other != host);
            self.killed.retain(|other| *other != host);
            self.input(Input::HostDown { host });
        }
    }

    fn all_hosts(&self) -> Vec<HostName> {
        self.hosts.values().map(|(host, _)| host.clone()).collect()
    }

    fn unwant(&mut self, n: u32) {
        self.wanted.remove(&name(n).id);
    }

    fn make(&mut self, next: Move) {
        match next {
            Move::Add(n) => {
                // One that is there already is taken for gone.
                self.unwant(n);
                let token = self.token();
                self.adding.insert(token, name(n).id);
                self.input(Input::Added { token, minor: n, name: name(n) });
            }
            Move::Remove(n) => {
                self.unwant(n);
                let token = self.token();
                // Whoever still waits for it to be enabled may hear that it was, and not keep it.
                self.adding.retain(|_, id| *id != name(n).id);
                self.input(Input::Removed { token, id: name(n).id, of: "file".into() });
            }
            Move::Change(n) => {
                let token = self.token();
                let change = DeviceChange::Size(512);
                self.input(Input::Reconfigured { token, id: name(n).id, of: "file".into(), change, subtype: None });
            }
            Move::Present(there) => {
                for n in (0..4).filter(|n| !there.contains(n)) {
                    self.unwant(n);
                    self.adding.retain(|_, id| *id != name(n).id);
                }
                let new: Vec<u32> =
                    there.iter().copied().filter(|n| !self.machine.devices().contains_key(&name(*n).id)).collect();
                self.input(Input::Present(there.into_iter().map(|n| (n, name(n))).collect()));
                self.wanted.extend(new.into_iter().map(|n| name(n).id));
            }
            Move::Prepare(n, ok) if !self.preparing.is_empty() => {
                let id = self.preparing.remove(n % self.preparing.len()).unwrap();
                self.input(Input::Prepared { id, outcome: if ok { Ok(()) } else { Err((5, "x".into())) } });
            }
            Move::Vanish(n) if self.preparing.contains(&name(n).id) => {
                self.unwant(n);
                self.preparing.retain(|id| *id != name(n).id);
                self.input(Input::Prepared { id: name(n).id, outcome: Err((libc::ENODEV, "x".into())) });
            }
            Move::Answer(n, kind) if !self.requests.is_empty() => {
                let (request, id, _, wants) = self.requests.remove(n % self.requests.len()).unwrap();
                let outcome = if kind == 2 { refused(5) } else { Outcome::Done };
                if (wants == Wants::Close && kind != 2) || (wants == Wants::Open && kind == 2) {
                    self.open.remove(&id);
                }
                self.input(Input::Answer { request, outcome });
            }
            Move::Up => self.come(),
            Move::Down => self.die(self.all_hosts()),
            Move::Replace => self.all_hosts().into_iter().for_each(|host| self.input(Input::Replace { host })),
            Move::Age(n, age) => self.input(Input::Oldest { id: name(n).id, age: Duration::from_secs(age) }),
            Move::Silent => self.input(Input::HostSilent { host: file(), time: Duration::from_secs(30) }),
            Move::Fail(n) => self.input(Input::DeviceFailed { id: name(n).id, reason: "x".into() }),
            Move::Stop => {
                self.stopped = true;
                self.input(Input::Shutdown);
            }
            Move::Time(seconds) => {
                self.now += Duration::from_secs(seconds);
                while let Some(id) = self.blocking.pop_front() {
                    self.input(Input::Blocked { id });
                }
                self.input(Input::Tick);
            }
            Move::Prepare(..) | Move::Answer(..) | Move::Vanish(_) => {}
        }
    }

    /// What comes next when nothing goes wrong any more.
    fn rest(&self) -> Option<Move> {
        let served = |id| self.machine.devices()[id].state == State::Serving;
        if !self.preparing.is_empty() {
            Some(Move::Prepare(0, true))
        } else if !self.requests.is_empty() {
            Some(Move::Answer(0, 0))
        } else if !self.blocking.is_empty() {
            Some(Move::Time(0))
        } else if self.hosts.values().any(|(_, up)| !up) {
            Some(Move::Up)
        } else if !self.owed.is_empty() {
            Some(Move::Time(30))
        } else if if self.stopped { !self.machine.is_quiet() } else { !self.wanted.iter().all(served) } {
            Some(Move::Time(5))
        } else {
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: every event of the kernel gets exactly one answer, no device is in two hosts, none that is
    /// there is forgotten, and all are served in the end.
    #[test]
    fn every_order_of_events_ends_well(
        moves in proptest::collection::vec(moves(), 1..80),
        adopted in proptest::collection::vec(0..10u8, 0..4),
        per_device: bool,
        give_up: bool,
        restart: bool,
    ) {
        let action = if restart { HangAction::Restart } else { HangAction::Report };
        let settings = Settings {
            host_per_device: per_device.then(|| "file".to_owned()).into_iter().collect(),
            policies: policies(give_up.then_some(10), Some(10), action),
            ..settings()
        };
        let mut world = World::new(settings, &adopted);
        for next in moves {
            world.make(next);
        }
        let mut step = 0;
        loop {
            step += 1;
            prop_assert!(step < 2000, "it comes to an end");
            let killed = std::mem::take(&mut world.killed);
            if !killed.is_empty() {
                world.die(killed);
            } else if let Some(next) = world.rest() {
                world.make(next);
            } else {
                break;
            }
        }
        if world.stopped {
            prop_assert!(world.machine.is_quiet());
        }
    }
}
