//! What is counted, and how long commands are said to take.
mod common;

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use common::{BLOCKS, Quiet, disk, info, memory, run, rw10, serve};
use tcmu::{
    server::{
        Attach, Completed, Observe, Server, ServerOptions,
        counters::{Counters, Histogram, Kind, Page},
    },
    sim::{Data, SimConfig, SimKernel},
};
use tcmu_handler_api::{
    host::OpenDevice,
    plugin::{BlockDevice, Buffer, DeviceInfo, Error, RequestFlags, Threads},
};

fn counts(counters: &Counters) -> [u64; 8] {
    Kind::ALL.map(|kind| counters.latency[kind as usize].count())
}

#[test]
fn each_command_is_counted_once_by_its_kind() {
    let (mut kernel, attached, _) = disk();
    for n in 0..5 {
        assert_eq!(run(&mut kernel, &rw10(0x28, 0, n, 1), Data::In(512)).status, 0);
    }
    for n in 0..3 {
        assert_eq!(run(&mut kernel, &rw10(0x2a, 0, n, 1), Data::Out(vec![1; 512])).status, 0);
    }
    assert_eq!(run(&mut kernel, &rw10(0x2a, 0x08, 9, 1), Data::Out(vec![1; 512])).status, 0, "FUA takes the long way");
    assert_eq!(run(&mut kernel, &rw10(0x35, 0, 0, 0), Data::None).status, 0);
    assert_eq!(run(&mut kernel, &[0; 6], Data::None).status, 0);
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, BLOCKS as u32, 1), Data::In(512)).status, 2, "beyond the end");
    // The turn that completes a command counts it afterwards.
    let end = Instant::now() + Duration::from_secs(10);
    while attached.counters().latency.iter().map(Histogram::count).sum::<u64>() < 12 {
        assert!(Instant::now() < end, "{:?}", attached.counters());
        thread::yield_now();
    }
    let counters = attached.counters();
    assert_eq!(counts(&counters), [6, 4, 1, 0, 0, 0, 0, 1]);
    assert_eq!((counters.commands, counters.errors, counters.sense_keys[5], counters.other_status), (12, 1, 1, 0));
    assert_eq!((counters.size, counters.in_flight_max), (BLOCKS * 512, 1));
}

macro_rules! slow {
    ($name:ident, $threads:ident) => {
        /// Takes its time to read.
        struct $name;
        impl BlockDevice for $name {
            const THREADS: Threads = Threads::$threads;
            fn read(&self, _: u64, _: Buffer<'_>) -> Result<(), Error> {
                thread::sleep(Duration::from_millis(30));
                Ok(())
            }
            fn write(&self, _: u64, _: Buffer<'_>, _: RequestFlags) -> Result<(), Error> {
                Ok(())
            }
        }
    };
}

slow!(Inline, Inline);
slow!(Pool, Pool);

/// Three reads with a limit of 10 ms, and one without a limit, counted in a page of somebody else's.
fn check_slow<D: BlockDevice>(device: D) {
    let page = Page::create().unwrap();
    let (mut kernel, map, fd) = SimKernel::new(SimConfig::default()).unwrap();
    let device = OpenDevice::embed(device, DeviceInfo::new(1 << 20, 512), Arc::new(Quiet), Server::services()).unwrap();
    let server = Server::start(ServerOptions { reactors: 1, workers: 4, ..ServerOptions::default() }).unwrap();
    let attach = Attach {
        slow: Some(Duration::from_millis(10)),
        counters: Page::shared(&page).unwrap(),
        ..Attach::new("user_0/t", fd, map.len(), device)
    };
    let attached = server.attach_mapped(map, attach, |_| ()).unwrap();
    for n in 0..3 {
        assert_eq!(run(&mut kernel, &rw10(0x28, 0, n, 1), Data::In(512)).status, 0);
    }
    attached.set_slow(None);
    thread::sleep(Duration::from_millis(300)); // the serving thread is told by a message
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, 9, 1), Data::In(512)).status, 0);
    attached.stop(Duration::from_secs(10)).unwrap();
    let counters = Page::read_from(&page).unwrap();
    let reads = &counters.latency[Kind::Read as usize];
    assert_eq!((reads.count(), counters.slow), (4, 3));
    assert!(reads.buckets[..15].iter().all(|count| *count == 0), "less than 16 ms: {reads:?}");
    assert!(reads.mean().unwrap() >= Duration::from_millis(30), "{reads:?}");
}

#[test]
fn a_command_that_keeps_the_thread_that_serves_is_slow() {
    check_slow(Inline);
}

#[test]
fn a_command_that_comes_back_from_another_thread_is_slow() {
    check_slow(Pool);
}

/// CDB, bytes, status, bytes of sense data.
type Told = (Vec<u8>, u64, u8, usize);

#[derive(Default)]
struct Seen(Mutex<Vec<Told>>);

impl Observe for Seen {
    fn completed(&self, command: &Completed<'_>) {
        let seen = (command.cdb.to_vec(), command.length, command.status, command.sense.len());
        self.0.lock().unwrap().push(seen);
    }
}

#[test]
fn who_looks_at_single_commands_sees_each_until_the_end_of_it() {
    let (memory, _) = memory();
    let (mut kernel, attached) = serve(memory, info(), SimConfig::default());
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, 0, 1), Data::In(512)).status, 0);
    let seen = Arc::new(Seen::default());
    attached.observe(Some(seen.clone()));
    // The serving thread is told by a message.
    let while_seen = |wanted: bool, kernel: &mut SimKernel| {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            seen.0.lock().unwrap().clear();
            run(kernel, &[0; 6], Data::None);
            if seen.0.lock().unwrap().is_empty() != wanted {
                return seen.0.lock().unwrap().clear();
            }
            assert!(Instant::now() < end);
        }
    };
    while_seen(true, &mut kernel);
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, 1, 2), Data::In(1024)).status, 0);
    assert_eq!(run(&mut kernel, &rw10(0x2a, 0, 2, 1), Data::Out(vec![7; 512])).status, 0);
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, BLOCKS as u32, 1), Data::In(512)).status, 2);
    let wanted = [
        (rw10(0x28, 0, 1, 2).to_vec(), 1024, 0, 0),
        (rw10(0x2a, 0, 2, 1).to_vec(), 512, 0, 0),
        (rw10(0x28, 0, BLOCKS as u32, 1).to_vec(), 512, 2, 18),
    ];
    assert_eq!(*seen.0.lock().unwrap(), wanted);
    attached.observe(None);
    while_seen(false, &mut kernel);
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, 2, 1), Data::In(512)).data, vec![7; 512]);
    assert!(seen.0.lock().unwrap().is_empty());
    let counters = attached.counters();
    assert_eq!((counters.reads, counters.writes), (3, 1), "they are counted the same way");
}
