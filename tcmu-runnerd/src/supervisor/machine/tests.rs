use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn name(n: u32) -> DeviceName {
    DeviceName::parse(&format!("tcm-user/{n}/d/file//x")).unwrap()
}

fn machine() -> Machine {
    let mut machine = Machine::new(settings());
    machine.add_handler("file");
    machine
}

fn settings() -> Settings {
    Settings {
        open_timeout: Duration::from_secs(20),
        foreign: ["other".to_owned()].into(),
        host_per_device: HashSet::new(),
        give_up: None,
    }
}

fn file() -> HostName {
    HostName::of_handler("file")
}

fn up(machine: &mut Machine) {
    machine.handle(Input::HostUp { host: file() }, Instant::now());
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
    let actions = machine.handle(Input::HostDown { host: file() }, now);
    assert_eq!(actions, [Action::Prepare { id: id.clone(), minor: 5, take_over: true }]);
    assert_eq!(machine.handle(Input::Prepared { id: id.clone(), outcome: Ok(()) }, now), []);
    assert_eq!(machine.devices()[&id].state, State::Waiting);
    let actions = machine.handle(Input::HostUp { host: file() }, now);
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

#[test]
fn a_device_with_a_host_of_its_own_lives_and_dies_with_it() {
    let now = Instant::now();
    let mut machine = Machine::new(Settings { host_per_device: ["file".to_owned()].into(), ..settings() });
    machine.add_handler("file");
    up(&mut machine);
    let host = |n| HostName { device: Some(name(n).id), ..file() };
    for n in 0..2 {
        let actions = machine.handle(Input::Added { token: u64::from(n), minor: n, name: name(n) }, now);
        assert_eq!(actions[0], Action::StartHost { host: host(n) });
        machine.handle(Input::Prepared { id: name(n).id, outcome: Ok(()) }, now);
        let actions = machine.handle(Input::HostUp { host: host(n) }, now);
        let [Action::Open { request, host: ref at, .. }] = actions[..] else { panic!("{actions:?}") };
        assert_eq!(*at, host(n));
        machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
    }
    let actions = machine.handle(Input::HostDown { host: host(0) }, now);
    assert_eq!(actions, [Action::Prepare { id: name(0).id, minor: 0, take_over: true }], "the other one is not touched");
    assert_eq!(machine.handle(Input::HostDown { host: file() }, now), [], "nor by the handler's own host");
    let actions = machine.handle(Input::Removed { token: 9, id: name(1).id }, now);
    let [Action::Close { request, .. }] = actions[..] else { panic!("{actions:?}") };
    let actions = machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
    assert!(actions.contains(&Action::EndHost { host: host(1) }), "{actions:?}");
    assert_eq!(machine.handle(Input::HostUp { host: host(1) }, now), [], "it comes too late");
}

#[test]
fn commands_fail_once_nobody_served_them_for_as_long_as_the_operator_says() {
    let now = Instant::now();
    let second = |n| now + Duration::from_secs(n);
    let mut machine = Machine::new(Settings { give_up: Some(Duration::from_secs(60)), ..settings() });
    machine.add_handler("file");
    up(&mut machine);
    let id = name(0).id;
    machine.handle(Input::Present(vec![(5, name(0))]), now);
    let actions = machine.handle(Input::Prepared { id: id.clone(), outcome: Ok(()) }, now);
    let [Action::Open { request, .. }] = actions[..] else { panic!() };
    machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
    machine.handle(Input::HostDown { host: file() }, second(10));
    machine.handle(Input::Prepared { id: id.clone(), outcome: Ok(()) }, second(10));
    assert_eq!(machine.next_tick(), Some(second(70)));
    assert_eq!(machine.handle(Input::Tick, second(69)), []);
    assert_eq!(machine.handle(Input::Tick, second(70)), [Action::FailCommands { id: id.clone() }]);
    assert_eq!(machine.handle(Input::Tick, second(71)), [Action::FailCommands { id: id.clone() }]);
    let actions = machine.handle(Input::HostUp { host: file() }, second(72));
    assert_eq!(actions, [Action::Prepare { id: id.clone(), minor: 5, take_over: true }], "its ring is emptied first");
    assert_eq!(machine.next_tick(), None);
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
    fn every_event_is_answered_exactly_once(moves in proptest::collection::vec(moves(), 1..80), per_device: bool, give_up: bool) {
        let mut machine = Machine::new(Settings {
            host_per_device: per_device.then(|| "file".to_owned()).into_iter().collect(),
            give_up: give_up.then_some(Duration::from_secs(10)),
            ..settings()
        });
        machine.add_handler("file");
        let mut starts: HashSet<HostName> = HashSet::new();
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
                Move::Up => inputs.extend(starts.iter().cloned().chain([file()]).map(|host| Input::HostUp { host })),
                Move::Down => {
                    requests.clear();
                    inputs.extend(starts.iter().cloned().chain([file()]).map(|host| Input::HostDown { host }));
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
                        Action::StartHost { host } => {
                            starts.insert(host);
                        }
                        Action::EndHost { host } => prop_assert!(starts.remove(&host), "ended twice"),
                        Action::Unblock { .. } | Action::Release { .. } | Action::FailCommands { .. } => {}
                    }
                }
            }
        }
    }
}
