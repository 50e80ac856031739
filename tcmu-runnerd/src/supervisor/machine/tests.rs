mod model;

use super::*;
use crate::policy::{HangAction, PolicyChange};

fn name(n: u32) -> DeviceName {
    DeviceName::parse(&format!("tcm-user/{n}/d/file//x")).unwrap()
}

fn machine() -> Machine {
    let mut machine = Machine::new(settings(), 0);
    machine.add_handler("file");
    machine
}

fn settings() -> Settings {
    Settings {
        open_timeout: Duration::from_secs(20),
        foreign: ["other".to_owned()].into(),
        host_per_device: HashSet::new(),
        policies: policies(None, None, HangAction::Report),
    }
}

fn policies(give_up: Option<u64>, hang: Option<u64>, hang_action: HangAction) -> Policies {
    let (give_up, hang) = (give_up.map(Duration::from_secs), hang.map(Duration::from_secs));
    let general = Policy { give_up, hang, hang_action, slow_command: None };
    Policies { general, changes: BTreeMap::new() }
}

fn file() -> HostName {
    HostName::of_handler("file")
}

fn up(machine: &mut Machine) {
    machine.handle(Input::HostUp { host: file() }, Instant::now());
}

fn found(n: u32, doing: Doing) -> Found {
    Found { minor: n, name: name(n), doing, write_cache: None, added: None }
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
    assert_eq!(actions, [Action::AnswerKernel { token: 1, status: -libc::EACCES }, Action::Release { id: id.clone() }]);
    assert!(machine.devices().is_empty());
    assert_eq!(machine.refusal(&id), Some("no"));
    // Until it is served after all.
    machine.handle(Input::Added { token: 2, minor: 5, name: name(0) }, now);
    let actions = machine.handle(Input::Prepared { id: id.clone(), outcome: Ok(()) }, now);
    let [Action::Open { request, .. }] = actions[..] else { panic!() };
    machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
    assert_eq!(machine.refusal(&id), None);
}

#[test]
fn unknown_subtypes_are_refused_and_foreign_ones_left_alone() {
    let (mut machine, now) = (machine(), Instant::now());
    let unknown = DeviceName { subtype: "nobody".into(), ..name(0) };
    let answer = machine.handle(Input::Added { token: 1, minor: 0, name: unknown }, now);
    assert_eq!(answer, [Action::AnswerKernel { token: 1, status: -libc::ENOENT }]);
    let foreign = DeviceName { subtype: "other".into(), ..name(0) };
    let id = foreign.id.clone();
    let disowned = |token| [Action::Disown { token }];
    assert_eq!(machine.handle(Input::Added { token: 2, minor: 0, name: foreign }, now), disowned(2));
    // Also what names no config string.
    let resized =
        Input::Reconfigured { token: 3, id: id.clone(), of: "other".into(), change: DeviceChange::Size(5), subtype: None };
    assert_eq!(machine.handle(resized, now), disowned(3));
    assert_eq!(machine.handle(Input::Removed { token: 4, id, of: "other".into() }, now), disowned(4));
}

#[test]
fn events_are_left_to_a_program_as_long_as_it_is_there() {
    let (mut machine, now) = (machine(), Instant::now());
    machine.add_program("program");
    let of = |n| DeviceName { subtype: "program".into(), ..name(n) };
    assert_eq!(machine.handle(Input::Added { token: 1, minor: 0, name: of(0) }, now), []);
    assert_eq!(machine.handle(Input::Added { token: 2, minor: 1, name: of(1) }, now), []);
    assert_eq!(machine.handle(Input::Present(vec![(0, of(0))]), now), [], "its devices are left alone");
    // The kernel sends no other event of a device before it has an answer: the first one was answered.
    let removed = Input::Removed { token: 3, id: name(0).id, of: "program".into() };
    assert_eq!(machine.handle(removed, now), [Action::Disown { token: 1 }]);
    assert_eq!(machine.left(), 2);
    let mut gone = machine.handle(Input::ProgramGone { subtype: "program".into() }, now);
    gone.sort_by_key(|action| format!("{action:?}"));
    let answer = |token, status| Action::AnswerKernel { token, status };
    assert_eq!(gone, [answer(2, -libc::ENOENT), answer(3, 0)], "who waits for it waits no more");
    let added = machine.handle(Input::Added { token: 4, minor: 0, name: of(0) }, now);
    assert_eq!(added, [answer(4, -libc::ENOENT)]);
}

#[test]
fn a_config_string_that_the_device_has_already_is_no_change() {
    let (mut machine, now) = (serving(1, settings()), Instant::now());
    let id = name(0).id;
    let config = |token, config: &str| Input::Reconfigured {
        token,
        id: name(0).id,
        of: "file".into(),
        change: DeviceChange::Config(config.into()),
        subtype: Some("file".into()),
    };
    assert_eq!(machine.handle(config(1, "/x"), now), [Action::AnswerKernel { token: 1, status: 0 }]);
    assert!(matches!(machine.handle(config(2, "/y"), now)[..], [Action::Reconfigure { .. }]));
    machine.medium_changed(&id, "/z".into(), 512);
    assert_eq!(machine.handle(config(3, "/z"), now), [Action::AnswerKernel { token: 3, status: 0 }]);
    assert_eq!(machine.devices()[&id].size, Some(512));
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
    let [Action::Open { take_over: true, request, .. }] = actions[..] else { panic!("{actions:?}") };
    let later = now + Duration::from_secs(3);
    assert_eq!(machine.devices()[&id].pauses(later), (0, Duration::from_secs(3)), "the pause goes on");
    machine.handle(Input::Answer { request, outcome: Outcome::Done }, later);
    assert_eq!(machine.devices()[&id].pauses(later + Duration::from_secs(9)), (1, Duration::from_secs(3)));
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
    let mut machine = Machine::new(Settings { host_per_device: ["file".to_owned()].into(), ..settings() }, 0);
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
    let actions = machine.handle(Input::Removed { token: 9, id: name(1).id, of: "file".into() }, now);
    let [Action::Close { request, .. }] = actions[..] else { panic!("{actions:?}") };
    let actions = machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
    assert!(actions.contains(&Action::EndHost { host: host(1) }), "{actions:?}");
    assert_eq!(machine.handle(Input::HostUp { host: host(1) }, now), [], "it comes too late");
}

#[test]
fn commands_fail_once_nobody_served_them_for_as_long_as_the_operator_says() {
    let now = Instant::now();
    let second = |n| now + Duration::from_secs(n);
    let mut machine = Machine::new(Settings { policies: policies(Some(60), None, HangAction::Report), ..settings() }, 0);
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

/// A machine with devices 0 to `n` - 1 served by the host of `file`.
fn serving(n: u32, settings: Settings) -> Machine {
    let mut machine = Machine::new(settings, 0);
    machine.add_handler("file");
    let devices = (0..n).map(|n| found(n, Doing::Serving)).collect();
    machine.handle(Input::Adopted { host: file(), devices }, Instant::now());
    machine
}

#[test]
fn devices_of_a_host_that_is_adopted_are_served_without_a_pause() {
    let now = Instant::now();
    let mut machine = machine();
    let devices = vec![
        found(0, Doing::Serving),
        found(1, Doing::Opening { id: 7 }),
        found(2, Doing::Closing { id: 8 }),
        found(3, Doing::Serving),
        found(5, Doing::Changing { id: 9 }),
    ];
    let actions = machine.handle(Input::Adopted { host: file(), devices }, now);
    let unblocked = |n: u32| [Action::Unblock { id: name(n).id }, Action::Compare { id: name(n).id, unsure: false }];
    assert_eq!(actions, [unblocked(0), unblocked(3), unblocked(5)].concat());
    let states = |machine: &Machine| machine.devices().values().map(|device| device.state.clone()).collect::<Vec<_>>();
    assert_eq!(states(&machine), [State::Serving, State::Opening, State::Closing, State::Serving, State::Serving]);
    // What the earlier supervisor asked for is answered to this one.
    let actions = machine.handle(Input::Answer { request: 7, outcome: Outcome::Done }, now);
    assert_eq!(actions, [Action::Unblock { id: name(1).id }]);
    let actions = machine.handle(Input::Answer { request: 9, outcome: Outcome::Done }, now);
    assert_eq!(actions, [Action::Compare { id: name(5).id, unsure: true }], "its tool was told that it failed");
    // Number 3 was removed meanwhile, number 4 was added, and number 0 has another config string.
    let mut changed = name(0);
    changed.config = "/y".into();
    let actions = machine.handle(Input::Present(vec![(0, changed), (1, name(1)), (2, name(2)), (4, name(4)), (5, name(5))]), now);
    assert!(matches!(&actions[0], Action::Close { id, .. } if *id == name(3).id), "{actions:?}");
    assert!(
        matches!(&actions[1], Action::Reconfigure { id, change: DeviceChange::Config(c), .. } if *id == name(0).id && c == "/y"),
        "{actions:?}"
    );
    assert_eq!(actions[2], Action::Prepare { id: name(4).id, minor: 4, take_over: true });
    // It was closed for a reason that is not known any more; it is there, so it is served.
    let actions = machine.handle(Input::Answer { request: 8, outcome: Outcome::Done }, now);
    assert_eq!(actions, [Action::Prepare { id: name(2).id, minor: 2, take_over: true }]);
}

#[test]
fn a_tool_that_enabled_a_device_while_no_supervisor_was_there_is_answered() {
    let now = Instant::now();
    let mut machine = machine();
    let waits = |token, found| Found { added: Some(token), ..found };
    let devices = vec![
        waits(1, found(0, Doing::Serving)),
        waits(2, found(1, Doing::Opening { id: 7 })),
        waits(3, found(2, Doing::Opening { id: 8 })),
    ];
    let actions = machine.handle(Input::Adopted { host: file(), devices }, now);
    assert_eq!(actions, [Action::AnswerKernel { token: 1, status: 0 }]);
    // It was not there before: there is nothing to let go on.
    let actions = machine.handle(Input::Answer { request: 7, outcome: Outcome::Done }, now);
    assert_eq!(actions, [Action::AnswerKernel { token: 2, status: 0 }]);
    let actions = machine.handle(Input::Answer { request: 8, outcome: refused(libc::EACCES) }, now);
    assert_eq!(actions, [Action::AnswerKernel { token: 3, status: -libc::EACCES }, Action::Release { id: name(2).id }]);
}

#[test]
fn a_device_that_was_seen_before_its_event_is_added_all_the_same() {
    let now = Instant::now();
    let mut machine = machine();
    up(&mut machine);
    let id = name(0).id;
    let prepare = |take_over| Action::Prepare { id: id.clone(), minor: 0, take_over };
    assert_eq!(machine.handle(Input::Present(vec![(0, name(0))]), now), [prepare(true)]);
    assert_eq!(machine.handle(Input::Added { token: 1, minor: 0, name: name(0) }, now), []);
    // It could not be blocked, as it was not enabled yet.
    let actions = machine.handle(Input::Prepared { id: id.clone(), outcome: Err((libc::EINVAL, "not configured".into())) }, now);
    assert_eq!(actions, [Action::Release { id: id.clone() }, prepare(false)]);
    let actions = machine.handle(Input::Prepared { id: id.clone(), outcome: Ok(()) }, now);
    let [Action::Open { request, take_over: false, .. }] = actions[..] else { panic!("{actions:?}") };
    let actions = machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
    assert_eq!(actions, [Action::AnswerKernel { token: 1, status: 0 }]);
}

#[test]
fn a_device_whose_removal_was_missed_is_closed_before_the_next_of_its_name_is_opened() {
    let now = Instant::now();
    let mut machine = serving(1, settings());
    let actions = machine.handle(Input::Added { token: 1, minor: 9, name: name(0) }, now);
    let [Action::Close { request, .. }] = actions[..] else { panic!("{actions:?}") };
    let actions = machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
    let id = name(0).id;
    assert_eq!(actions, [Action::Release { id: id.clone() }, Action::Prepare { id, minor: 9, take_over: false }]);
    // One that cannot be closed keeps nobody waiting for ever.
    let mut machine = serving(1, settings());
    machine.handle(Input::Added { token: 1, minor: 9, name: name(0) }, now);
    let late = now + Duration::from_secs(20);
    assert_eq!(machine.handle(Input::Tick, late), [Action::AnswerKernel { token: 1, status: -libc::ETIMEDOUT }]);
}

#[test]
fn a_change_waits_for_a_host_that_is_away_for_a_moment() {
    let now = Instant::now();
    let mut machine = serving(1, settings());
    let id = name(0).id;
    let change = |machine: &mut Machine, token| {
        let input =
            Input::Reconfigured { token, id: name(0).id, of: "file".into(), change: DeviceChange::Size(512), subtype: None };
        machine.handle(input, now)
    };
    machine.handle(Input::HostDown { host: file() }, now);
    assert_eq!(change(&mut machine, 1), []);
    machine.handle(Input::Prepared { id: id.clone(), outcome: Ok(()) }, now);
    let actions = machine.handle(Input::HostUp { host: file() }, now);
    let [Action::Open { request, .. }] = actions[..] else { panic!("{actions:?}") };
    let actions = machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
    let [Action::Unblock { .. }, Action::Reconfigure { request, .. }] = actions[..] else { panic!("{actions:?}") };
    let done = machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
    assert_eq!(done, [Action::AnswerKernel { token: 1, status: 0 }]);
    // But not for ever, and not for one that cannot be opened.
    machine.handle(Input::HostDown { host: file() }, now);
    assert_eq!(change(&mut machine, 2), []);
    let late = now + Duration::from_secs(20);
    assert_eq!(machine.handle(Input::Tick, late), [Action::AnswerKernel { token: 2, status: -libc::EAGAIN }]);
    assert_eq!(change(&mut machine, 3), []);
    let actions = machine.handle(Input::Prepared { id, outcome: Err((libc::EIO, "x".into())) }, now);
    assert_eq!(actions, [Action::AnswerKernel { token: 3, status: -libc::EAGAIN }]);
    assert_eq!(change(&mut machine, 4), [Action::AnswerKernel { token: 4, status: -libc::EAGAIN }]);
}

#[test]
fn a_config_string_that_is_no_other_is_no_change() {
    let mut machine = serving(1, settings());
    let mut change = |token, config: &str| {
        let change = DeviceChange::Config(config.into());
        let input = Input::Reconfigured { token, id: name(0).id, of: "file".into(), change, subtype: Some("file".into()) };
        machine.handle(input, Instant::now())
    };
    assert_eq!(change(1, "/x"), [Action::AnswerKernel { token: 1, status: 0 }]);
    assert!(matches!(change(2, "/y")[..], [Action::Reconfigure { .. }]));
}

#[test]
fn a_write_cache_that_was_switched_stays_so_in_the_next_host() {
    let now = Instant::now();
    let mut machine = serving(1, settings());
    let change = DeviceChange::WriteCache(false);
    let actions = machine.handle(Input::Reconfigured { token: 1, id: name(0).id, of: "file".into(), change, subtype: None }, now);
    let [Action::Reconfigure { request, .. }] = actions[..] else { panic!("{actions:?}") };
    let actions = machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
    let off = || Action::KeepCachesOff { devices: [name(0).id].into() };
    assert_eq!(actions, [off(), Action::AnswerKernel { token: 1, status: 0 }]);
    machine.handle(Input::HostDown { host: file() }, now);
    assert_eq!(machine.devices()[&name(0).id].write_cache, Some(false));
    // Nor does the next daemon switch it on, unless it is another device.
    let next = |input| {
        let mut machine = self::machine();
        machine.set_caches_off([name(0).id].into());
        let actions = machine.handle(input, now);
        (machine.devices()[&name(0).id].write_cache, actions.contains(&Action::KeepCachesOff { devices: BTreeSet::new() }))
    };
    assert_eq!(next(Input::Present(vec![(0, name(0))])), (Some(false), false));
    assert_eq!(next(Input::Added { token: 1, minor: 0, name: name(0) }), (None, true));
}

#[test]
fn a_host_is_replaced_when_it_has_closed_all_devices() {
    let now = Instant::now();
    let mut machine = serving(2, settings());
    let actions = machine.handle(Input::Replace { host: file() }, now);
    assert_eq!(actions, [0, 1].map(|n| Action::Block { id: name(n).id }));
    let mut close = |n: u32| {
        let actions = machine.handle(Input::Blocked { id: name(n).id }, now);
        let [Action::Close { request, .. }] = actions[..] else { panic!("{actions:?}") };
        machine.handle(Input::Answer { request, outcome: Outcome::Done }, now)
    };
    let prepare = |n: u32| Action::Prepare { id: name(n).id, minor: n, take_over: true };
    assert_eq!(close(0), [prepare(0)]);
    assert_eq!(close(1), [prepare(1), Action::SwapHost { host: file() }]);
    for n in 0..2 {
        assert_eq!(machine.handle(Input::Prepared { id: name(n).id, outcome: Ok(()) }, now), []);
    }
    let actions = machine.handle(Input::HostUp { host: file() }, now);
    assert!(matches!(actions[..], [Action::Open { take_over: true, .. }, Action::Open { .. }]), "{actions:?}");
}

/// The kernel keeps whoever blocks a device that is being removed until that is done, which waits for us.
#[test]
fn a_device_that_is_removed_while_it_is_blocked_is_closed_at_once() {
    let now = Instant::now();
    let mut machine = serving(2, settings());
    machine.handle(Input::Replace { host: file() }, now);
    let actions = machine.handle(Input::Removed { token: 1, id: name(0).id, of: "file".into() }, now);
    let [Action::Close { request, .. }] = actions[..] else { panic!("{actions:?}") };
    let actions = machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
    assert_eq!(actions, [Action::Release { id: name(0).id }, Action::AnswerKernel { token: 1, status: 0 }]);
    assert_eq!(machine.handle(Input::Blocked { id: name(0).id }, now), [], "it comes to nothing");
    let actions = machine.handle(Input::Blocked { id: name(1).id }, now);
    let [Action::Close { request, .. }] = actions[..] else { panic!("{actions:?}") };
    let actions = machine.handle(Input::Answer { request, outcome: Outcome::Done }, now);
    assert_eq!(actions.last(), Some(&Action::SwapHost { host: file() }));
}

/// The same of one that is being taken over: whoever blocks it and empties its ring is kept.
#[test]
fn a_device_that_is_removed_while_it_is_prepared_keeps_nobody_waiting() {
    let now = Instant::now();
    let mut machine = serving(1, settings());
    let id = name(0).id;
    let actions = machine.handle(Input::HostDown { host: file() }, now);
    assert!(matches!(actions[..], [Action::Prepare { take_over: true, .. }]), "{actions:?}");
    let actions = machine.handle(Input::Removed { token: 1, id: id.clone(), of: "file".into() }, now);
    assert_eq!(actions, [Action::AnswerKernel { token: 1, status: 0 }]);
    // The next one of its name waits until nothing is done with this one any more.
    assert_eq!(machine.handle(Input::Added { token: 2, minor: 7, name: name(0) }, now), []);
    let actions = machine.handle(Input::Prepared { id: id.clone(), outcome: Err((libc::ENODEV, "gone".into())) }, now);
    assert_eq!(actions, [Action::Release { id: id.clone() }, Action::Prepare { id, minor: 7, take_over: false }]);
}

#[test]
fn a_host_that_keeps_its_devices_is_killed_to_be_replaced() {
    let now = Instant::now();
    let mut machine = serving(1, settings());
    machine.handle(Input::Replace { host: file() }, now);
    let actions = machine.handle(Input::Blocked { id: name(0).id }, now);
    let [Action::Close { request, .. }] = actions[..] else { panic!("{actions:?}") };
    let actions = machine.handle(Input::Answer { request, outcome: refused(libc::ETIMEDOUT) }, now);
    assert_eq!(actions, [Action::KillHost { host: file() }]);
    let actions = machine.handle(Input::HostDown { host: file() }, now);
    assert_eq!(actions, [Action::Prepare { id: name(0).id, minor: 0, take_over: true }]);
}

#[test]
fn a_device_that_its_host_does_not_let_go_of_is_asked_for_again_and_not_forgotten() {
    let now = Instant::now();
    let mut machine = serving(1, settings());
    let actions = machine.handle(Input::Removed { token: 1, id: name(0).id, of: "file".into() }, now);
    let [Action::Close { request, .. }] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(machine.handle(Input::Answer { request, outcome: refused(libc::ETIMEDOUT) }, now), []);
    assert_eq!(machine.devices()[&name(0).id].state, State::Closing);
    let due = machine.next_tick().unwrap();
    let actions = machine.handle(Input::Tick, due);
    let [Action::Close { request, .. }] = actions[..] else { panic!("{actions:?}") };
    let actions = machine.handle(Input::Answer { request, outcome: Outcome::Done }, due);
    assert_eq!(actions, [Action::Release { id: name(0).id }, Action::AnswerKernel { token: 1, status: 0 }]);
}

#[test]
fn a_broken_device_whose_host_dies_while_it_closes_it_is_taken_over() {
    let now = Instant::now();
    let mut machine = serving(1, settings());
    let actions = machine.handle(Input::DeviceFailed { id: name(0).id, reason: "ring".into() }, now);
    assert!(matches!(actions[..], [Action::Close { .. }]));
    let actions = machine.handle(Input::HostDown { host: file() }, now);
    assert_eq!(actions, [Action::Prepare { id: name(0).id, minor: 0, take_over: true }]);
}

#[test]
fn a_device_that_vanished_is_not_tried_again() {
    let now = Instant::now();
    let mut machine = serving(1, settings());
    machine.handle(Input::HostDown { host: file() }, now);
    let gone = Input::Prepared { id: name(0).id, outcome: Err((libc::ENODEV, "gone".into())) };
    assert_eq!(machine.handle(gone, now), [Action::Release { id: name(0).id }]);
    assert!(machine.devices().is_empty());
}

#[test]
fn a_handler_that_hangs_is_shown_and_killed_only_where_the_operator_wants_that() {
    let now = Instant::now();
    let second = Duration::from_secs;
    let (a, b) = (name(0).id, name(1).id);
    let change = PolicyChange { hang_seconds: Some(3), hang_action: Some(HangAction::Restart), ..PolicyChange::default() };
    let policies = Policies { changes: [(b.to_string(), change)].into(), ..policies(None, Some(10), HangAction::Report) };
    let mut machine = serving(2, Settings { policies, ..settings() });
    assert_eq!(machine.handle(Input::Oldest { id: a.clone(), age: second(9) }, now), []);
    assert_eq!(machine.devices()[&a].hangs, None);
    assert_eq!(machine.handle(Input::Oldest { id: a.clone(), age: second(10) }, now), []);
    assert_eq!(machine.devices()[&a].hangs, Some(second(10)));
    assert_eq!(machine.handle(Input::Oldest { id: a.clone(), age: second(0) }, now), []);
    assert_eq!(machine.devices()[&a].hangs, None, "it goes on");
    assert_eq!(machine.handle(Input::HostSilent { host: file(), time: second(10) }, now), []);
    assert_eq!(machine.devices()[&a].hangs, Some(second(10)));
    let kill = [Action::KillHost { host: file() }];
    assert_eq!(machine.handle(Input::Oldest { id: b.clone(), age: second(3) }, now), kill);
    assert_eq!(machine.handle(Input::Oldest { id: b.clone(), age: second(4) }, now), [], "once is enough");
    assert!(machine.is_killed(&file()));
    let actions = machine.handle(Input::HostDown { host: file() }, now);
    assert_eq!(actions, [0, 1].map(|n| Action::Prepare { id: name(n).id, minor: n, take_over: true }));
}

#[test]
fn a_handler_that_hangs_in_open_is_killed_where_the_operator_wants_that() {
    let now = Instant::now();
    let settings = Settings { policies: policies(None, Some(10), HangAction::Restart), ..settings() };
    let mut machine = serving(1, settings);
    machine.handle(Input::Added { token: 1, minor: 5, name: name(5) }, now);
    machine.handle(Input::Prepared { id: name(5).id, outcome: Ok(()) }, now);
    let at = |n| now + Duration::from_secs(n);
    assert_eq!(machine.handle(Input::Tick, at(20)), [Action::AnswerKernel { token: 1, status: -libc::ETIMEDOUT }]);
    assert_eq!(machine.handle(Input::Tick, at(29)), []);
    assert_eq!(machine.handle(Input::Tick, at(30)), [Action::KillHost { host: file() }]);
    assert_eq!(machine.handle(Input::Tick, at(40)), []);
}
