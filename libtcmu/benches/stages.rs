//! Each stage of a command's way on its own. Times are of 32 commands, as they come in a batch.
use std::{sync::Arc, time::Duration};

use divan::{Bencher, black_box};
use rustix::event::{PollFd, PollFlags, poll};
use tcmu::{
    ring::{Completion, Fetched, Next, Ring},
    server::{Attach, Server, Solo, Turn},
    sim::{Data, SimConfig, SimKernel},
};
use tcmu_handler_api::{
    host::{Events, Level, OpenDevice},
    plugin::{Batch, Device, DeviceInfo, Threads},
    scsi::{AdditionalSense, Sense, command, sense::SENSE_BUFFER},
};

const BATCH: usize = 32;

fn main() {
    divan::main();
}

fn kernel() -> (SimKernel, Ring) {
    let (kernel, map, _) = SimKernel::new(SimConfig { pages: 128, ..SimConfig::default() }).expect("memory");
    (kernel, Ring::attach(map).expect("a sound mailbox"))
}

fn queue(kernel: &mut SimKernel, commands: usize) {
    for n in 0..commands {
        kernel.queue_quietly(&[0x28, 0, 0, 0, 0, n as u8, 0, 0, 8, 0], Data::In(4096)).expect("room");
    }
}

#[divan::bench]
fn fetch(bencher: Bencher<'_, '_>) {
    let mut fetched = Fetched::default();
    let with = || {
        let (mut kernel, ring) = kernel();
        queue(&mut kernel, BATCH);
        (kernel, ring)
    };
    bencher.with_inputs(with).bench_local_refs(|(_, ring)| {
        while let Ok(Next::Command) = ring.next(&mut fetched) {
            black_box(&fetched);
        }
    });
}

#[divan::bench]
fn complete_and_publish(bencher: Bencher<'_, '_>) {
    let with = || {
        let (mut kernel, mut ring) = kernel();
        queue(&mut kernel, BATCH);
        let mut ids = Vec::new();
        let mut fetched = Fetched::default();
        while let Ok(Next::Command) = ring.next(&mut fetched) {
            ids.push(fetched.id);
        }
        (kernel, ring, ids)
    };
    bencher.with_inputs(with).bench_local_refs(|(_, ring, ids)| {
        for id in ids.iter() {
            let _ = ring.complete(*id, &Completion { status: 0, sense: &[], read_len: None });
        }
        ring.publish()
    });
}

#[divan::bench(args = ["read 10", "read 16", "write same 16", "unknown"])]
fn decode(bencher: Bencher<'_, '_>, which: &str) {
    let cdb: &[u8] = match which {
        "read 10" => &[0x28, 0, 0, 0, 1, 2, 0, 0, 8, 0],
        "read 16" => &[0x88, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 8, 0, 0],
        "write same 16" => &[0x93, 8, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 8, 0, 0],
        _ => &[0xff, 0, 0, 0, 0, 0],
    };
    bencher.bench(|| {
        for _ in 0..BATCH {
            let _ = black_box(command::decode(black_box(cdb)));
        }
    });
}

#[divan::bench]
fn sense(bencher: Bencher<'_, '_>) {
    let sense = Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB);
    let mut buffer = [0; SENSE_BUFFER];
    bencher.bench_local(|| {
        for _ in 0..BATCH {
            black_box(black_box(sense).write_fixed(&mut buffer));
        }
    });
}

/// Completes everything at once, or after some time, on worker threads.
struct Worker(Duration);

impl Device for Worker {
    const THREADS: Threads = Threads::Pool;

    fn submit(&self, batch: Batch<'_>) {
        for request in batch {
            if !self.0.is_zero() {
                std::thread::sleep(self.0);
            }
            request.complete(Ok(()));
        }
    }
}

struct Quiet;
impl Events for Quiet {
    fn log(&self, _: Level, _: &str) {}
}

/// A batch for a handler that may block, from the ring to eight worker threads and back: short requests, which one thread could do as
/// well, and such as sleep, for which as many threads as there are had better be awake soon.
#[divan::bench(args = [0, 100])]
fn worker_threads(bencher: Bencher<'_, '_>, microseconds: u64) {
    let (mut kernel, map, fd) = SimKernel::new(SimConfig { pages: 128, ..SimConfig::default() }).expect("memory");
    let device = Worker(Duration::from_micros(microseconds));
    let device = OpenDevice::embed(device, DeviceInfo::new(1 << 20, 512), Arc::new(Quiet), Server::services()).expect("sound");
    let mut solo = Solo::mapped(map.clone(), Attach::new("user_0/t", fd, map.len(), device), 8).expect("threads");
    bencher.bench_local(|| {
        queue(&mut kernel, BATCH);
        kernel.ring_bell();
        let mut done = 0;
        loop {
            while solo.turn().expect("a sound ring") == Turn::More {}
            done += kernel.reap().expect("a sound ring").len();
            if done == BATCH {
                return;
            }
            let [uio, waker] = solo.descriptors();
            let _ = poll(&mut [PollFd::new(&uio, PollFlags::IN), PollFd::new(&waker, PollFlags::IN)], None);
        }
    });
}
