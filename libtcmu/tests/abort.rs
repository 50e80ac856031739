//! Aborted commands: what nobody waits for any more is not begun, goes no further, and is never done after it was answered.
mod common;

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use common::{BLOCKS, Memory, Quiet, info, memory, run, rw10, serve};
use tcmu::{
    server::{Attach, Attached, Server, Solo, Turn},
    sim::{Data, SimCompletion, SimConfig, SimKernel},
};
use tcmu_handler_api::{
    host::OpenDevice,
    plugin::{Batch, BlockDevice, Device, DeviceFlags, Error, Operation, Operations, Request, RequestId, Threads},
};

/// SAM-6 5.3.1
const TASK_ABORTED: u8 = 0x40;
/// `TCMU_TMR_*`
const ABORT_TASK: u8 = 1;
const LUN_RESET: u8 = 5;

fn within(kernel: &mut SimKernel, commands: usize) -> Vec<SimCompletion> {
    let (mut done, end) = (Vec::new(), Instant::now() + Duration::from_secs(20));
    while done.len() < commands {
        assert!(Instant::now() < end, "{} of {commands} ended", done.len());
        done.extend(kernel.wait(Duration::from_millis(100)).unwrap());
    }
    done
}

fn perform(memory: &Memory, request: Request) {
    let outcome = match request.operation() {
        Operation::Read => memory.read(request.offset(), request.buffer()),
        Operation::Write => memory.write(request.offset(), request.buffer(), request.flags()),
        _ => Ok(()),
    };
    request.complete(outcome);
}

/// One request at a time, each when the test says so; what it was asked for.
struct Gated(Arc<Memory>, Mutex<Receiver<()>>, Arc<Mutex<Vec<u64>>>);

impl Device for Gated {
    const THREADS: Threads = Threads::Serial;

    fn submit(&self, batch: Batch<'_>) {
        for request in batch {
            self.2.lock().unwrap().push(request.offset());
            let _ = self.1.lock().unwrap().recv();
            perform(&self.0, request);
        }
    }
}

type Asked = Arc<Mutex<Vec<u64>>>;

fn gated(flags: DeviceFlags, blocks: u64) -> (SimKernel, Box<Attached>, Sender<()>, Asked, Arc<Memory>) {
    let (gate, opens) = channel();
    let (memory, asked) = (Arc::new(memory().0), Asked::default());
    memory.0.write().unwrap().resize((blocks * 512) as usize, 0xee);
    let mut info = info();
    info.0.size = blocks * 512;
    info.set_flags(flags, true);
    let (kernel, attached) = serve(Gated(memory.clone(), Mutex::new(opens), asked.clone()), info, SimConfig::default());
    (kernel, attached, gate, asked, memory)
}

fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < end, "it did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

fn write(kernel: &mut SimKernel, lba: u32, byte: u8) -> u16 {
    kernel.queue(&rw10(0x2a, 0, lba, 1), Data::Out(vec![byte; 512])).unwrap()
}

#[test]
fn a_command_that_waits_for_its_handler_is_not_begun() {
    for flags in [DeviceFlags::empty(), DeviceFlags::SCSI] {
        let (mut kernel, _attached, gate, asked, memory) = gated(flags, BLOCKS);
        let ids: Vec<u16> = (0..4).map(|n| write(&mut kernel, n, 0x55)).collect();
        until(|| asked.lock().unwrap().len() == 1);
        kernel.task_management(ABORT_TASK, &ids[1..3]).unwrap();
        let aborted = within(&mut kernel, 2);
        assert!(aborted.iter().all(|done| done.status == TASK_ABORTED && ids[1..3].contains(&done.id)), "{aborted:?}");
        gate.send(()).unwrap();
        gate.send(()).unwrap();
        assert!(within(&mut kernel, 2).iter().all(|done| [ids[0], ids[3]].contains(&done.id)));
        assert_eq!(asked.lock().unwrap().len(), 2, "an aborted command reached the handler");
        let written = |lba: usize| memory.0.read().unwrap()[lba * 512];
        if flags.is_empty() {
            assert_eq!([written(0), written(1), written(2), written(3)], [0x55, 0xee, 0xee, 0x55]);
        }
        drop(gate);
    }
}

#[test]
fn what_the_handler_has_is_waited_for() {
    let (mut kernel, _attached, gate, asked, memory) = gated(DeviceFlags::empty(), BLOCKS);
    let id = write(&mut kernel, 0, 0x55);
    until(|| asked.lock().unwrap().len() == 1);
    kernel.task_management(LUN_RESET, &[id]).unwrap();
    assert!(kernel.wait(Duration::from_millis(200)).unwrap().is_empty(), "it was answered before it had ended");
    assert_eq!(memory.0.read().unwrap()[0], 0xee);
    gate.send(()).unwrap();
    assert_eq!(within(&mut kernel, 1)[0].id, id);
    assert_eq!(memory.0.read().unwrap()[0], 0x55);
    drop(gate);
    // The reset is told of, once.
    assert_eq!(run(&mut kernel, &[0; 6], Data::None).status, 2);
    assert_eq!(run(&mut kernel, &[0; 6], Data::None).status, 0);
}

#[test]
fn a_long_command_goes_no_further_than_its_piece() {
    let (mut kernel, _attached, gate, asked, memory) = gated(DeviceFlags::empty(), 0x10000);
    let id = kernel.queue(&rw10(0x41, 0, 0, 0xffff), Data::Out(vec![0x55; 512])).unwrap();
    until(|| asked.lock().unwrap().len() == 1);
    kernel.task_management(ABORT_TASK, &[id]).unwrap();
    assert!(kernel.wait(Duration::from_millis(100)).unwrap().is_empty(), "it was answered before it had ended");
    gate.send(()).unwrap();
    let done = within(&mut kernel, 1);
    assert_eq!((done[0].id, done[0].status), (id, TASK_ABORTED));
    drop(gate);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(asked.lock().unwrap().len(), 1, "it went on");
    assert_eq!(memory.0.read().unwrap()[0xfffe * 512], 0xee);
}

#[test]
fn a_command_that_waits_for_another_ones_range_is_not_begun() {
    let (mut kernel, _attached, gate, asked, memory) = gated(DeviceFlags::empty(), BLOCKS);
    let mut compare = [0; 16];
    (compare[0], compare[13]) = (0x89, 1);
    let first = kernel.queue(&compare, Data::Out([vec![0xee; 512], vec![1; 512]].concat())).unwrap();
    until(|| asked.lock().unwrap().len() == 1);
    let second = write(&mut kernel, 0, 0x55);
    kernel.task_management(ABORT_TASK, &[second]).unwrap();
    let done = within(&mut kernel, 1);
    assert_eq!((done[0].id, done[0].status), (second, TASK_ABORTED));
    drop(gate);
    let done = within(&mut kernel, 1);
    assert_eq!((done[0].id, done[0].status), (first, 0));
    assert_eq!(memory.0.read().unwrap()[0], 1);
}

/// Keeps its requests until they are cancelled.
#[derive(Default)]
struct Keeper(Arc<Mutex<Vec<Request>>>, Arc<Mutex<Vec<RequestId>>>);

impl Device for Keeper {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        self.0.lock().unwrap().extend(batch);
    }

    fn cancel(&self, request: RequestId) {
        self.1.lock().unwrap().push(request);
        let mut kept = self.0.lock().unwrap();
        let at = kept.iter().position(|kept| kept.id() == request);
        let cancelled = at.map(|at| kept.remove(at));
        drop(kept);
        if let Some(request) = cancelled {
            request.complete(Err(Error::Aborted));
        }
    }
}

#[test]
fn a_handler_that_lets_go_of_what_is_aborted_answers_at_once() {
    let keeper = Keeper::default();
    let (kept, cancelled) = (keeper.0.clone(), keeper.1.clone());
    let mut unit = info();
    unit.0.ops = (Operations::READ | Operations::WRITE).bits();
    let (mut kernel, _attached) = serve(keeper, unit, SimConfig::default());
    let ids: Vec<u16> = (0..3).map(|n| write(&mut kernel, n, 0x55)).collect();
    until(|| kept.lock().unwrap().len() == 3);
    kernel.task_management(ABORT_TASK, &ids[1..2]).unwrap();
    let done = within(&mut kernel, 1);
    assert_eq!((done[0].id, done[0].status), (ids[1], TASK_ABORTED));
    assert_eq!((kept.lock().unwrap().len(), cancelled.lock().unwrap().len()), (2, 1));
    kernel.task_management(LUN_RESET, &[ids[0], ids[2]]).unwrap();
    assert!(within(&mut kernel, 2).iter().all(|done| done.status == TASK_ABORTED));
    assert!(kept.lock().unwrap().is_empty());
}

/// Counts what it is asked for.
struct Counting(Arc<Mutex<u32>>);

impl Device for Counting {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        for request in batch {
            *self.0.lock().unwrap() += 1;
            request.complete(Ok(()));
        }
    }
}

#[test]
fn a_command_and_its_abort_in_one_batch_are_both_done() {
    let (mut kernel, map, fd) = SimKernel::new(SimConfig::default()).unwrap();
    let asked = Arc::default();
    let device = OpenDevice::embed(Counting(Arc::clone(&asked)), info(), Arc::new(Quiet), Server::services()).unwrap();
    let mut solo = Solo::mapped(map.clone(), Attach::new("user_0/t", fd, map.len(), device), 1).unwrap();
    let ids: Vec<u16> = (0..3).map(|n| write(&mut kernel, n, 0x55)).collect();
    kernel.task_management(ABORT_TASK, &[ids[0], ids[2]]).unwrap();
    while solo.turn().unwrap() == Turn::More {}
    let done = kernel.reap().unwrap();
    assert!(done.len() == 3 && done.iter().all(|done| done.status == 0), "{done:?}");
    assert_eq!(*asked.lock().unwrap(), 3);
    // What it left behind is used again, and means nothing.
    for n in 0..8 {
        write(&mut kernel, n, 0x55);
    }
    while solo.turn().unwrap() == Turn::More {}
    assert!(kernel.reap().unwrap().iter().all(|done| done.status == 0));
}
