//! How a device is served: on whose thread, in which turns, until when; and what stops it.
mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use common::{Memory, Quiet, info, memory, run, rw10, serve};
use tcmu::{
    mapping::Mapping,
    ring::layout,
    server::{Attach, Attached, Server, ServerOptions, Solo, Turn},
    sim::{Data, Lie, SimConfig, SimKernel},
};
use tcmu_handler_api::{
    host::OpenDevice,
    plugin::{Batch, BlockDevice, Change, Device, DeviceFlags, DeviceInfo, Operation, Refusal, Request, Threads},
};

/// A device in a server, which tells when it can't be served any more, and why.
fn watched<D: Device>(make: impl FnOnce(&Arc<Mapping>) -> D) -> (SimKernel, Box<Attached>, Receiver<String>) {
    let (kernel, map, fd) = SimKernel::new(SimConfig::default()).unwrap();
    let device = OpenDevice::embed(make(&map), info(), Arc::new(Quiet), Server::services()).unwrap();
    let server = Server::start(ServerOptions { reactors: 1, workers: 1, ..ServerOptions::default() }).unwrap();
    let attach = Attach::new("t", fd, map.len(), device);
    let (tell, told) = channel();
    let attached = server.attach_mapped(map, attach, move |why| tell.send(why.to_owned()).unwrap()).unwrap();
    (kernel, attached, told)
}

/// A device in a loop of the test's own.
fn alone(device: impl Device, workers: usize) -> (SimKernel, Solo) {
    let (kernel, map, fd) = SimKernel::new(SimConfig::default()).unwrap();
    let device = OpenDevice::embed(device, info(), Arc::new(Quiet), Server::services()).unwrap();
    let attach = Attach::new("t", fd, map.len(), device);
    (kernel, Solo::mapped(map, attach, workers).unwrap())
}

/// Completes every request from a thread of its own, in reverse order of arrival.
struct Backwards(Memory, Mutex<Vec<Request>>);
struct SharedBackwards(Arc<Backwards>);

impl Device for SharedBackwards {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        self.0.1.lock().unwrap().extend(batch);
        let me = self.0.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(1));
            for request in std::mem::take(&mut *me.1.lock().unwrap()).into_iter().rev() {
                let outcome = match request.operation() {
                    Operation::Read => me.0.read(request.offset(), request.buffer()),
                    Operation::Write => me.0.write(request.offset(), request.buffer(), request.flags()),
                    _ => Ok(()),
                };
                request.complete(outcome);
            }
        });
    }
}

#[test]
fn requests_completed_by_other_threads_in_any_order_come_back() {
    let device = SharedBackwards(Arc::new(Backwards(memory().0, Mutex::default())));
    let (mut kernel, attached) = serve(device, info(), SimConfig::default());
    let mut ids = HashMap::new();
    for n in 0..200u32 {
        let data = Data::Out(vec![n as u8; 512]);
        ids.insert(kernel.queue_quietly(&rw10(0x2a, 0, n, 1), data).unwrap(), n);
    }
    kernel.ring_bell();
    while !ids.is_empty() {
        for done in kernel.wait(Duration::from_secs(10)).unwrap() {
            assert_eq!(done.status, 0);
            assert!(ids.remove(&done.id).is_some());
        }
    }
    for n in [0, 77, 199] {
        assert_eq!(run(&mut kernel, &rw10(0x28, 0, n, 1), Data::In(512)).data, vec![n as u8; 512]);
    }
    let counters = attached.counters();
    assert_eq!((counters.writes, counters.reads, counters.bytes_written), (200, 3, 200 * 512));
    assert!(counters.kicks <= counters.commands);
}

#[test]
fn a_lying_ring_stops_its_device_with_one_clear_word() {
    let (mut kernel, attached, told) = watched(|_| memory().0);
    kernel.run(&[0; 6], Data::None).unwrap();
    kernel.lie(Lie::CdbOutside);
    let why = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(why.contains("command ring makes no sense"), "{why}");
    attached.stop(Duration::from_secs(5)).unwrap();
}

/// Completes nothing by itself.
struct Slow(Arc<Mutex<Vec<Request>>>);

impl Device for Slow {
    const THREADS: Threads = Threads::Inline;
    fn submit(&self, batch: Batch<'_>) {
        self.0.lock().unwrap().extend(batch);
    }
}

/// One whose medium can be changed.
struct Changing(Slow, Arc<AtomicBool>);

impl Device for Changing {
    const THREADS: Threads = Threads::Inline;
    fn submit(&self, batch: Batch<'_>) {
        self.0.submit(batch);
    }
    fn reconfigure(&self, _: Change<'_>, _: &mut DeviceInfo) -> Result<(), Refusal> {
        assert!(self.0.0.lock().unwrap().is_empty(), "a request of the old medium is still there");
        self.1.store(true, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_medium_is_exchanged_between_commands() {
    let (held, changed): (Arc<Mutex<Vec<Request>>>, Arc<AtomicBool>) = Default::default();
    let mut info = info();
    info.set_flags(DeviceFlags::REMOVABLE, true);
    let (mut kernel, attached) = serve(Changing(Slow(held.clone()), changed.clone()), info, SimConfig::default());
    let arrives = |count: usize| {
        while held.lock().unwrap().len() < count {
            thread::yield_now();
        }
    };
    let finish = || held.lock().unwrap().drain(..).for_each(|request| request.complete(Ok(())));
    let medium = Change::Medium { config: "b", size: 1 << 20 };
    kernel.queue(&rw10(0x28, 0, 0, 1), Data::In(512)).unwrap();
    arrives(1);
    // In vain at first: the command takes too long, and the next one is served as if nothing had been.
    assert_eq!(attached.reconfigure(&medium).unwrap_err().errno(), libc::EBUSY);
    kernel.queue(&rw10(0x28, 0, 1, 1), Data::In(512)).unwrap();
    arrives(2);
    assert!(!changed.load(Ordering::SeqCst));
    thread::scope(|scope| {
        let change = scope.spawn(|| attached.reconfigure(&medium));
        thread::sleep(Duration::from_millis(50));
        kernel.queue(&rw10(0x28, 0, 2, 1), Data::In(512)).unwrap();
        thread::sleep(Duration::from_millis(50));
        assert_eq!((held.lock().unwrap().len(), changed.load(Ordering::SeqCst)), (2, false), "the next one waits");
        finish();
        change.join().unwrap().unwrap();
    });
    assert!(changed.load(Ordering::SeqCst));
    // The third finds the other medium, and is told so.
    let mut done = Vec::new();
    while done.len() < 3 {
        done.extend(kernel.wait(Duration::from_secs(10)).unwrap());
    }
    assert_eq!(done.iter().map(|done| done.status).collect::<Vec<_>>(), [0, 0, 2]);
    kernel.queue(&rw10(0x28, 0, 2, 1), Data::In(512)).unwrap();
    arrives(1);
    finish();
    attached.stop(Duration::from_secs(10)).unwrap();
}

/// Writes over `cmd_tail` while it has a request.
struct Wild(Arc<Mapping>);

impl Device for Wild {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        self.0.store_u32(layout::mailbox::CMD_TAIL, 4096, Ordering::Release).unwrap();
        batch.for_each(|request| request.complete(Ok(())));
    }
}

#[test]
fn a_ring_that_is_written_over_is_told_of_before_another_command_comes() {
    let (mut kernel, attached, told) = watched(|map| Wild(map.clone()));
    kernel.queue(&rw10(0x28, 0, 0, 1), Data::In(512)).unwrap();
    let why = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(why.contains("cmd_tail is 4096, where 0 was stored: something wrote over the mailbox"), "{why}");
    attached.stop(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_device_whose_ring_lied_is_let_go_when_its_handler_has_given_all_back() {
    let held: Arc<Mutex<Vec<Request>>> = Arc::default();
    let (mut kernel, attached, told) = watched(|_| Slow(held.clone()));
    // Plain commands, and one that the whole engine has.
    for cdb in [rw10(0x28, 0, 0, 1), rw10(0x28, 0, 1, 1), rw10(0x2f, 0x02, 0, 1), rw10(0x28, 0, 2, 1)] {
        let data = if cdb[0] == 0x28 { Data::In(512) } else { Data::Out(vec![0; 512]) };
        kernel.queue(&cdb, data).unwrap();
    }
    while held.lock().unwrap().len() < 4 {
        thread::yield_now();
    }
    kernel.lie(Lie::CdbOutside);
    told.recv_timeout(Duration::from_secs(10)).unwrap();
    for request in held.lock().unwrap().drain(..) {
        request.complete(Ok(()));
    }
    attached.stop(Duration::from_secs(5)).expect("nothing is in flight");
}

#[test]
fn stopping_waits_for_what_is_in_flight_and_leaves_the_rest_on_the_ring() {
    let slow = Slow(Arc::default());
    let held = slow.0.clone();
    let (mut kernel, attached) = serve(slow, DeviceInfo::new(1 << 20, 512), SimConfig::default());
    kernel.queue(&rw10(0x28, 0, 0, 1), Data::In(512)).unwrap();
    while held.lock().unwrap().is_empty() {
        thread::yield_now();
    }
    let attached = attached.stop(Duration::from_millis(50)).expect_err("a command is in flight");
    kernel.queue(&rw10(0x28, 0, 1, 1), Data::In(512)).unwrap();
    while held.lock().unwrap().len() < 2 {
        thread::yield_now();
    }
    for request in held.lock().unwrap().drain(..) {
        request.complete(Ok(()));
    }
    attached.stop(Duration::from_secs(10)).unwrap();
    assert_eq!(kernel.reap().unwrap().len(), 2);
    kernel.queue(&[0; 6], Data::None).unwrap();
    assert_eq!(kernel.wait(Duration::from_millis(20)).unwrap(), [], "nobody serves the ring now");
}

#[test]
fn a_program_can_serve_a_device_in_its_own_loop() {
    let (mut kernel, mut solo) = alone(memory().0, 2);
    kernel.queue(&rw10(0x28, 0, 3, 1), Data::In(512)).unwrap();
    let done = loop {
        while solo.turn().unwrap() == Turn::More {}
        let done = kernel.reap().unwrap();
        if !done.is_empty() {
            break done;
        }
        let mut fds = solo.descriptors().map(|fd| rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN));
        rustix::event::poll(&mut fds, None).unwrap();
    };
    assert_eq!(done[0].data, vec![0xee; 512]);
    solo.stop();
    assert!(solo.is_idle());
}

/// Completes everything at once.
struct AtOnce;

impl Device for AtOnce {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        batch.for_each(|request| request.complete(Ok(())));
    }
}

#[test]
fn a_descriptor_that_is_not_read_in_a_batch_is_read_when_nothing_is_left() {
    let (mut kernel, mut solo) = alone(AtOnce, 1);
    let is_readable = |solo: &Solo| {
        let mut fds = solo.descriptors().map(|fd| rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN));
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())).unwrap() > 0
    };
    // More events than the descriptor has room for.
    for batch in 0..1000 {
        for lba in 0..3 {
            kernel.queue(&rw10(0x28, 0, lba, 1), Data::In(512)).unwrap();
        }
        assert!(is_readable(&solo), "of batch {batch}, nobody would have heard");
        assert_eq!(solo.turn().unwrap(), Turn::Idle);
        assert_eq!(kernel.reap().unwrap().len(), 3);
    }
    assert!(is_readable(&solo), "the last turn left it unread");
    assert_eq!(solo.turn().unwrap(), Turn::Idle);
    assert!(!is_readable(&solo));
}

/// Waits in each request until as many are there.
struct Together(Arc<Barrier>);

impl Device for Together {
    const THREADS: Threads = Threads::Pool;

    fn submit(&self, batch: Batch<'_>) {
        for request in batch {
            self.0.wait();
            request.complete(Ok(()));
        }
    }
}

#[test]
fn a_batch_that_blocks_gets_all_threads_that_there_are() {
    const THREADS: usize = 7;
    let (mut kernel, mut solo) = alone(Together(Arc::new(Barrier::new(THREADS))), THREADS);
    for _ in 0..200 {
        for _ in 0..2 * THREADS {
            kernel.queue(&rw10(0x28, 0, 0, 1), Data::In(512)).unwrap();
        }
        let mut done = 0;
        while done < 2 * THREADS {
            solo.turn().unwrap();
            done += kernel.reap().unwrap().len();
            thread::yield_now();
        }
    }
}

#[test]
fn a_turn_ends_after_some_bytes_so_that_the_first_need_not_wait_for_the_last() {
    let (mut kernel, mut solo) = alone(AtOnce, 1);
    for _ in 0..10 {
        kernel.queue(&rw10(0x28, 0, 0, 128), Data::In(128 * 512)).unwrap();
    }
    for (turn, done) in [(Turn::More, 4), (Turn::More, 4), (Turn::Idle, 2)] {
        assert_eq!(solo.turn().unwrap(), turn);
        assert_eq!(kernel.reap().unwrap().len(), done);
    }
}

#[test]
fn small_commands_are_completed_together_however_many_bytes_they_are() {
    let (mut kernel, mut solo) = alone(AtOnce, 1);
    for _ in 0..200 {
        kernel.queue(&rw10(0x28, 0, 0, 8), Data::In(4096)).unwrap();
    }
    assert_eq!(solo.turn().unwrap(), Turn::Idle);
    assert_eq!((kernel.reap().unwrap().len(), kernel.kicks()), (200, 1));
}
