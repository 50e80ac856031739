//! The ring against the simulated kernel.
use std::{collections::BTreeMap, sync::atomic::Ordering};

use proptest::prelude::*;
use tcmu::{
    ring::{Completed, Completion, Doorbell, Fetched, Next, Ring, RingError, layout},
    sim::{Data, Lie, SimConfig, SimKernel},
};

const GOOD: Completion<'static> = Completion { status: 0, sense: &[], read_len: None };

fn device(config: SimConfig) -> (SimKernel, Ring, Doorbell) {
    let (kernel, map, fd) = SimKernel::new(config).unwrap();
    (kernel, Ring::attach(map).unwrap(), Doorbell::new(fd))
}

fn bytes(fetched: &Fetched) -> Vec<u8> {
    let mut all = Vec::new();
    for segment in fetched.data() {
        // SAFETY: the command is in flight, its segments are within the mapping, and nobody else touches them.
        all.extend_from_slice(unsafe { std::slice::from_raw_parts(segment.iov_base.cast::<u8>(), segment.iov_len) });
    }
    all
}

fn fill(fetched: &Fetched, byte: u8) {
    for segment in fetched.data() {
        // SAFETY: as above.
        unsafe { segment.iov_base.cast::<u8>().write_bytes(byte, segment.iov_len) };
    }
}

#[test]
fn a_command_goes_through_with_its_data_both_ways() {
    let (mut kernel, mut ring, bell) = device(SimConfig::default());
    let write = kernel.queue(&[0x2a, 0, 0, 0, 0, 9, 0, 0, 1, 0], Data::Out(vec![7; 5000])).unwrap();
    let read = kernel.queue(&[0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0], Data::In(5000)).unwrap();
    assert!(bell.clear().unwrap());
    let mut fetched = Fetched::default();
    assert_eq!(ring.next(&mut fetched), Ok(Next::Command));
    assert_eq!((fetched.id.id, fetched.cdb()[0], bytes(&fetched)), (write, 0x2a, vec![7; 5000]));
    let first = fetched.id;
    assert_eq!(ring.next(&mut fetched), Ok(Next::Command));
    fill(&fetched, 9);
    assert_eq!(ring.next(&mut Fetched::default()), Ok(Next::Empty));
    assert_eq!(ring.in_flight(), 2);
    // Out of order.
    ring.complete(fetched.id, &Completion { read_len: Some(100), ..GOOD }).unwrap();
    ring.complete(first, &Completion { status: 2, sense: &[0x70, 0, 5], read_len: None }).unwrap();
    assert!(kernel.reap().unwrap().is_empty(), "nothing is visible before it is published");
    assert!(ring.publish());
    assert!(!ring.publish(), "nothing new");
    bell.kick().unwrap();
    let done = kernel.reap().unwrap();
    assert_eq!(kernel.kicks(), 1);
    assert_eq!((done[0].id, done[0].status, &done[0].data), (read, 0, &vec![9; 100]));
    assert_eq!((done[1].id, done[1].status, &done[1].sense[..4]), (write, 2, &[0x70, 0, 5, 0][..]));
}

#[test]
fn bidirectional_commands_have_two_buffers() {
    let (mut kernel, mut ring, _bell) = device(SimConfig::default());
    kernel.queue(&[0x53, 0, 0, 0, 0, 0, 0, 0, 1, 0], Data::Bidi(vec![1; 600], 700)).unwrap();
    let mut fetched = Fetched::default();
    assert_eq!(ring.next(&mut fetched), Ok(Next::Command));
    assert_eq!(bytes(&fetched), vec![1; 600]);
    assert_eq!(fetched.bidi().iter().map(|s| s.iov_len).sum::<usize>(), 700);
}

#[test]
fn a_second_completion_is_stale_and_does_nothing() {
    let (mut kernel, mut ring, _bell) = device(SimConfig::default());
    kernel.queue(&[0; 6], Data::None).unwrap();
    let mut fetched = Fetched::default();
    ring.next(&mut fetched).unwrap();
    assert_eq!(ring.complete(fetched.id, &GOOD), Ok(Completed::Written));
    assert_eq!(ring.complete(fetched.id, &GOOD), Ok(Completed::Stale));
    ring.publish();
    assert_eq!(kernel.reap().unwrap().len(), 1);
}

#[test]
fn completions_from_before_a_reset_are_stale() {
    let (mut kernel, mut ring, _bell) = device(SimConfig::default());
    let mut fetched = Fetched::default();
    let lost = kernel.queue(&[0; 6], Data::None).unwrap();
    ring.next(&mut fetched).unwrap();
    assert_eq!(kernel.reset(), [lost]);
    ring.reset().unwrap();
    assert_eq!(ring.complete(fetched.id, &GOOD), Ok(Completed::Stale));
    kernel.queue(&[0; 6], Data::None).unwrap();
    assert_eq!(ring.next(&mut fetched), Ok(Next::Command));
    ring.complete(fetched.id, &GOOD).unwrap();
    ring.publish();
    assert_eq!(kernel.reap().unwrap().len(), 1);
}

#[test]
fn a_ring_that_somebody_else_reset_is_not_read_on() {
    let (mut kernel, mut ring, _bell) = device(SimConfig::default());
    let mut fetched = Fetched::default();
    for _ in 0..3 {
        kernel.queue(&[0; 6], Data::None).unwrap();
        ring.next(&mut fetched).unwrap();
        ring.complete(fetched.id, &GOOD).unwrap();
        ring.publish();
        kernel.reap().unwrap();
    }
    kernel.reset();
    kernel.queue(&[0; 6], Data::None).unwrap();
    assert!(matches!(ring.next(&mut Fetched::default()), Err(RingError::Reset { found: 0, .. })));
    assert!(!ring.publish());
    assert_eq!(kernel.reap(), Ok(vec![]), "nothing was stored over the new ring");
    ring.reset().unwrap();
    assert_eq!(ring.next(&mut Fetched::default()), Ok(Next::Command));
}

/// The kernel walks to `cmd_tail` when it blocks the device, and would never come to an end where something else stands there.
#[test]
fn a_tail_that_something_wrote_over_is_put_back() {
    let (mut kernel, map, _fd) = SimKernel::new(SimConfig::default()).unwrap();
    let mut ring = Ring::attach(map.clone()).unwrap();
    let mut fetched = Fetched::default();
    let tail = || map.load_u32(layout::mailbox::CMD_TAIL, Ordering::Acquire).unwrap();
    for wrong in [8, (SimConfig::default().ring / 2) & !7, 5, u32::MAX] {
        kernel.queue(&[0; 6], Data::None).unwrap();
        ring.next(&mut fetched).unwrap();
        ring.complete(fetched.id, &GOOD).unwrap();
        ring.publish();
        kernel.reap().unwrap();
        let published = tail();
        kernel.queue(&[0; 6], Data::None).unwrap();
        map.store_u32(layout::mailbox::CMD_TAIL, wrong, Ordering::Release).unwrap();
        assert_eq!(ring.next(&mut fetched), Err(RingError::Tail { found: wrong, published }));
        assert_eq!(tail(), published);
        assert_eq!(kernel.reap(), Ok(vec![]), "the kernel went on from there");
        kernel.reset();
        ring.reset().unwrap();
    }
}

#[test]
fn task_management_names_the_commands_still_in_flight() {
    let (mut kernel, mut ring, _bell) = device(SimConfig::default());
    let id = kernel.queue(&[0; 6], Data::None).unwrap();
    kernel.task_management(1, &[id, 999]).unwrap();
    let mut fetched = Fetched::default();
    ring.next(&mut fetched).unwrap();
    let Ok(Next::TaskManagement(tm)) = ring.next(&mut Fetched::default()) else { panic!() };
    assert_eq!((tm.kind, tm.commands), (1, vec![fetched.id]));
    ring.complete(fetched.id, &GOOD).unwrap();
    assert!(ring.publish());
    assert_eq!(kernel.reap().unwrap().len(), 1);
}

#[test]
fn a_ring_without_commands_is_retired_without_a_completion() {
    let (mut kernel, mut ring, _bell) = device(SimConfig::default());
    kernel.task_management(5, &[]).unwrap();
    assert!(matches!(ring.next(&mut Fetched::default()), Ok(Next::TaskManagement(_))));
    assert!(ring.publish());
    assert_eq!(kernel.reap(), Ok(vec![]));
}

#[test]
fn every_lie_is_an_error_and_never_more() {
    for lie in Lie::ALL {
        let (mut kernel, mut ring, _bell) = device(SimConfig::default());
        let mut fetched = Fetched::default();
        kernel.queue(&[0; 6], Data::None).unwrap();
        assert_eq!(ring.next(&mut fetched), Ok(Next::Command));
        kernel.lie(lie);
        let next = ring.next(&mut Fetched::default());
        if lie == Lie::UnknownOpcode {
            assert_eq!(next, Ok(Next::Empty));
            ring.complete(fetched.id, &GOOD).unwrap();
            ring.publish();
            let done = kernel.reap().unwrap();
            assert_eq!(done.len(), 2);
            assert!(done[1].unknown_op);
            continue;
        }
        assert!(next.is_err(), "{lie:?}");
        assert_eq!(ring.next(&mut Fetched::default()), Err(RingError::Poisoned), "{lie:?}");
        assert_eq!(ring.complete(fetched.id, &GOOD), Err(RingError::Poisoned));
        assert!(!ring.publish());
    }
}

#[test]
fn cdbs_of_all_lengths_arrive_whole() {
    let variable = |additional: u8| [&[0x7f, 0, 0, 0, 0, 0, 0, additional][..], &vec![0x5a; additional.into()]].concat();
    let mut cdbs: Vec<Vec<u8>> = [(0x00, 6), (0x28, 10), (0x53, 10), (0x88, 16), (0xa8, 12), (0xc5, 16)]
        .map(|(code, length)| [&[code][..], &vec![0xa5; length - 1]].concat())
        .into();
    cdbs.extend([0, 4, 8, 9, 24, 252].map(variable));
    let (mut kernel, mut ring, _bell) = device(SimConfig::default());
    let mut fetched = Fetched::default();
    for cdb in &cdbs {
        kernel.queue(cdb, Data::None).unwrap();
        assert_eq!(ring.next(&mut fetched), Ok(Next::Command));
        assert_eq!(fetched.cdb(), cdb);
    }
    assert_eq!(ring.in_flight(), cdbs.len());
}

// Miri takes too long for all that memory.
#[cfg_attr(miri, ignore)]
#[test]
fn a_command_may_have_more_segments_than_any_before() {
    let (mut kernel, mut ring, _bell) = device(SimConfig::default());
    // Every other page, so that none lies behind the next.
    let ids: Vec<u16> = (0..400).map(|_| kernel.queue(&[0; 6], Data::In(4096)).unwrap()).collect();
    let mut fetched: Vec<Fetched> = ids.iter().map(|_| Fetched::default()).collect();
    for fetched in &mut fetched {
        assert_eq!(ring.next(fetched), Ok(Next::Command));
    }
    for fetched in fetched.iter().filter(|fetched| fetched.id.id % 2 == 0) {
        ring.complete(fetched.id, &GOOD).unwrap();
    }
    ring.publish();
    kernel.reap().unwrap();
    kernel.queue(&[0x2a; 10], Data::Out(vec![7; 150 * 4096])).unwrap();
    let mut large = Fetched::default();
    assert_eq!(ring.next(&mut large), Ok(Next::Command));
    assert!(large.data().len() > 100, "{large:?}");
    assert_eq!(bytes(&large), vec![7; 150 * 4096]);
    assert_eq!(large.data_len(), 150 * 4096);
}

#[test]
fn a_buffer_is_in_the_data_area_or_empty() {
    let config = SimConfig::default();
    let (start, ring_end) = (layout::mailbox::SIZE as usize, layout::mailbox::SIZE as usize + config.ring as usize);
    let map = device(config).1.mapping().len();
    for (base, length, sound) in [
        (ring_end, 16, true),
        (map - 16, 16, true),
        (map, 0, true),
        (0, 0, true),
        (ring_end, map - ring_end, true),
        (0, 16, false),
        (start, 16, false),
        (ring_end - 8, 16, false),
        (map - 8, 16, false),
        (map + 8, 0, false),
        (ring_end, map - ring_end + 1, false),
        (ring_end, usize::MAX, false),
        (usize::MAX, usize::MAX, false),
    ] {
        let (mut kernel, mut ring, _bell) = device(config);
        kernel.queue(&[0; 6], Data::In(16)).unwrap();
        let iovec = layout::mailbox::SIZE + layout::request::IOV;
        ring.mapping().write(iovec, &base.to_ne_bytes()).unwrap();
        ring.mapping().write(iovec + layout::IOVEC / 2, &length.to_ne_bytes()).unwrap();
        let next = ring.next(&mut Fetched::default());
        assert_eq!(next.is_ok(), sound, "{length} bytes at {base}: {next:?}");
    }
}

#[test]
fn mailboxes_that_make_no_sense_are_refused() {
    for (at, value) in [(0, 3u32), (4, 0), (4, u32::MAX), (8, 0), (8, u32::MAX), (64, u32::MAX), (64, 4)] {
        let (_kernel, map, _fd) = SimKernel::new(SimConfig::default()).unwrap();
        map.write(at, &value.to_ne_bytes()).unwrap();
        assert!(Ring::attach(map).is_err(), "{value} at {at}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Queue(usize, bool),
    Fetch,
    Complete(usize),
    Publish,
    Expire(usize),
    Manage,
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..20_000, any::<bool>()).prop_map(|(len, out)| Step::Queue(len, out)),
        6 => Just(Step::Fetch),
        6 => any::<usize>().prop_map(Step::Complete),
        3 => Just(Step::Publish),
        1 => any::<usize>().prop_map(Step::Expire),
        1 => Just(Step::Manage),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 200 }, ..ProptestConfig::default() })]

    /// Small rings, so that entries wrap and pad all the time.
    #[test]
    fn every_command_is_completed_exactly_once_with_its_data(steps in proptest::collection::vec(step(), 1..300), ring_kib in 1u32..3) {
        let config = SimConfig { ring: ring_kib * 1024 + 128, pages: 64, ..SimConfig::default() };
        let (mut kernel, mut ring, _bell) = device(config);
        // id → the data that is expected back (Data-In), or None
        let mut expected: BTreeMap<u16, Option<Vec<u8>>> = BTreeMap::new();
        let mut working: Vec<Fetched> = Vec::new();
        let mut pattern = 0u8;
        for step in steps {
            match step {
                Step::Queue(len, out) => {
                    pattern = pattern.wrapping_add(1);
                    let data = if out { Data::Out(vec![pattern; len]) } else { Data::In(len) };
                    if let Ok(id) = kernel.queue(&[pattern; 6].map(|b| b & 0x1f), data) {
                        let before = expected.insert(id, (!out).then(|| vec![!(pattern & 0x1f); len]));
                        prop_assert!(before.is_none());
                    }
                }
                Step::Fetch => {
                    let mut fetched = Fetched::default();
                    if ring.next(&mut fetched).unwrap() == Next::Command {
                        if let Some(Some(_)) = expected.get(&fetched.id.id) {
                            fill(&fetched, !fetched.cdb()[0]);
                        } else {
                            let data = bytes(&fetched);
                            prop_assert!(data.iter().all(|b| b & 0x1f == fetched.cdb()[0]));
                        }
                        working.push(fetched);
                    }
                }
                Step::Complete(which) if !working.is_empty() => {
                    let fetched = working.swap_remove(which % working.len());
                    prop_assert_eq!(ring.complete(fetched.id, &GOOD), Ok(Completed::Written));
                }
                Step::Publish => {
                    ring.publish();
                    for done in kernel.reap().unwrap() {
                        let data = expected.remove(&done.id);
                        prop_assert!(data.is_some(), "completed twice");
                        prop_assert_eq!(done.data, data.flatten().unwrap_or_default());
                    }
                }
                Step::Expire(which) if !expected.is_empty() => {
                    let id = *expected.keys().nth(which % expected.len()).unwrap();
                    kernel.expire(id);
                }
                Step::Manage => {
                    let _ = kernel.task_management(1, &expected.keys().copied().collect::<Vec<_>>());
                }
                Step::Reset => {
                    kernel.reset();
                    ring.reset().unwrap();
                    for fetched in working.drain(..) {
                        prop_assert_eq!(ring.complete(fetched.id, &GOOD), Ok(Completed::Stale));
                    }
                    expected.clear();
                }
                Step::Complete(_) | Step::Expire(_) => {}
            }
        }
        // Whatever is left comes to an end.
        let mut fetched = Fetched::default();
        while ring.next(&mut fetched).unwrap() != Next::Empty {
            working.push(std::mem::take(&mut fetched));
        }
        for fetched in working.iter().filter(|f| !f.cdb().is_empty()) {
            ring.complete(fetched.id, &GOOD).unwrap();
        }
        ring.publish();
        let done = kernel.reap().unwrap();
        prop_assert_eq!(done.len(), expected.len());
        prop_assert_eq!(kernel.outstanding(), 0);
        prop_assert_eq!(ring.in_flight(), 0);
    }

    #[test]
    fn a_scribbled_ring_never_crashes(scribbles in proptest::collection::vec((0u64..70_000, any::<[u8; 8]>()), 1..40)) {
        let (mut kernel, mut ring, _bell) = device(SimConfig { ring: 4096, pages: 16, ..SimConfig::default() });
        let mut ids = Vec::new();
        let mut fetched = Fetched::default();
        for (n, (at, bytes)) in scribbles.iter().enumerate() {
            let _ = kernel.queue(&[0x2a; 10], Data::Out(vec![1; 100 * n]));
            let _ = ring.mapping().write(at % 5000, bytes);
            if let Ok(Next::Command) = ring.next(&mut fetched) {
                ids.push(fetched.id);
            }
            if n % 3 == 0 && let Some(id) = ids.pop() {
                let _ = ring.complete(id, &GOOD);
                ring.publish();
            }
        }
    }
}
