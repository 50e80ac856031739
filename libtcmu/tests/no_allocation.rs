//! In the steady state a command costs no heap allocation: a daemon that serves the disk it pages from must not need memory to do so.
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    os::fd::AsFd,
    sync::Arc,
};

use tcmu::{
    server::{Attach, Server, Solo},
    sim::{Data, SimConfig, SimKernel},
};
use tcmu_handler_api::{
    host::{Events, Level, OpenDevice},
    plugin::{FileIo, Threads},
    prelude::*,
};

struct Counting;

thread_local! {
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get().map(|count| count + 1)));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations that this thread makes during `work`.
fn counted(work: impl FnOnce()) -> u64 {
    COUNT.set(Some(0));
    work();
    COUNT.take().unwrap()
}

struct Quiet;
impl Events for Quiet {
    fn log(&self, _: Level, _: &str) {}
}

/// Completes all at once, or has the host do it on a file.
struct Disk(Option<std::fs::File>);

impl Device for Disk {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        for request in batch {
            let (offset, length) = (request.offset(), request.length());
            match (&self.0, request.operation()) {
                (Some(file), Operation::Read) => request.io(FileIo::read(file.as_fd(), offset, length)),
                (Some(file), Operation::Write) => request.io(FileIo::write(file.as_fd(), offset, length)),
                _ => request.complete(Ok(())),
            }
        }
    }
}

const SIZE: u64 = 4 << 20;

fn check(disk: Disk) {
    let (mut kernel, map, fd) = SimKernel::new(SimConfig::default()).unwrap();
    let device = OpenDevice::embed(disk, DeviceInfo::new(SIZE, 512), Arc::new(Quiet), Server::services()).unwrap();
    let attach = Attach::new("user_0/t", fd, map.len(), device);
    let mut solo = Solo::mapped(map, attach, 1).unwrap();
    let mut batch = |n: u8| {
        for at in 0..8 {
            let (code, data) = if at % 2 == 0 { (0x28, Data::In(4096)) } else { (0x2a, Data::Out(vec![n; 4096])) };
            kernel.queue(&[code, 0, 0, 0, n, at * 8, 0, 0, 8, 0], data).unwrap();
        }
        kernel.queue(&[0; 6], Data::None).unwrap(); // TEST UNIT READY goes through the engine
        kernel.queue(&[0x2a, 0x08, 0, 0, n, 0, 0, 0, 8, 0], Data::Out(vec![n; 4096])).unwrap(); // and so does FUA
        let allocations = counted(|| {
            solo.turn().unwrap();
        });
        let mut done = kernel.reap().unwrap().len();
        while done < 10 {
            std::thread::yield_now();
            solo.turn().unwrap();
            done += kernel.reap().unwrap().len();
        }
        allocations
    };
    // Buffers grow to what they need.
    for n in 0..10 {
        batch(n);
    }
    for n in 0..20 {
        assert_eq!(batch(n), 0, "batch {n}");
    }
}

#[test]
fn none_for_what_is_completed_at_once() {
    check(Disk(None));
}

#[test]
fn none_for_reads_and_writes_of_a_file_in_memory() {
    let directory = if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
    let file = tempfile::tempfile_in(directory).unwrap();
    file.set_len(SIZE).unwrap();
    check(Disk(Some(file)));
}

#[test]
fn the_count_counts() {
    assert_eq!(counted(|| drop(Box::new(1))), 1);
}
