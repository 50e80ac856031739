//! I/O on files by io_uring and by threads: the same answers and the same data, whether it can be done at once or not.
mod common;

use std::{
    os::{fd::AsFd, unix::fs::FileExt},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use common::{Quiet, rw10};
use tcmu::{
    server::{Attach, Attached, IoEngine, Server, ServerOptions},
    sim::{Data, SimConfig, SimKernel},
};
use tcmu_handler_api::{
    host::OpenDevice,
    plugin::{FileIo, Threads},
    prelude::*,
};

const SIZE: u64 = 4 << 20;

/// Has the host do everything.
struct Image(std::fs::File);

impl Device for Image {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        let fd = self.0.as_fd();
        for request in batch {
            let (offset, length) = (request.offset(), request.length());
            let io = match request.operation() {
                Operation::Read => {
                    // Not in the page cache, so that it can't be done at once.
                    rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                    FileIo::read(fd, offset, length)
                }
                Operation::Write => FileIo::write(fd, offset, length).durable(request.flags().contains(RequestFlags::FUA)),
                Operation::Flush => FileIo::datasync(fd),
                Operation::Unmap | Operation::WriteZeroes => FileIo::punch_hole(fd, offset, length),
                _ => {
                    request.complete(Err(Error::UNSUPPORTED));
                    continue;
                }
            };
            request.io(io);
        }
    }
}

fn serve(file: std::fs::File, engine: IoEngine) -> (SimKernel, Box<Attached>) {
    serve_device(Image(file), engine)
}

fn serve_device(device: impl Device, engine: IoEngine) -> (SimKernel, Box<Attached>) {
    let (kernel, map, fd) = SimKernel::new(SimConfig { pages: 512, ..SimConfig::default() }).unwrap();
    let mut info = DeviceInfo::new(SIZE, 512);
    info.supports(Operations::FLUSH | Operations::UNMAP | Operations::WRITE_ZEROES)
        .set_flags(DeviceFlags::WRITE_CACHE | DeviceFlags::FUA | DeviceFlags::UNMAP_ZEROES | DeviceFlags::THIN, true);
    let device = OpenDevice::embed(device, info, Arc::new(Quiet), Server::services()).unwrap();
    let options = ServerOptions { reactors: 1, workers: 2, engine, ..ServerOptions::default() };
    let attach = Attach::new("user_0/t", fd, map.len(), device);
    let server = Server::start(options).unwrap();
    (kernel, server.attach_mapped(map, attach, |error| panic!("{error}")).unwrap())
}

fn engines() -> Vec<IoEngine> {
    let options = ServerOptions { engine: IoEngine::Uring, ..ServerOptions::default() };
    match Server::start(options) {
        Ok(_) => vec![IoEngine::Threads, IoEngine::Uring],
        // A container may forbid it; then there is one engine to test.
        Err(error) => {
            println!("no io_uring here: {error}");
            vec![IoEngine::Threads]
        }
    }
}

/// On a real file system, where the tests are built.
fn file() -> std::fs::File {
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.set_len(SIZE).unwrap();
    file
}

#[test]
fn what_was_written_is_read_however_it_is_done() {
    for engine in engines() {
        let (mut kernel, attached) = serve(file(), engine);
        let mut model = vec![0u8; SIZE as usize];
        let mut seed = 1u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        for round in 0..60u8 {
            // A batch of writes that don't overlap, some of them durable, one that zeroes, and a flush behind them.
            for lane in 0..8 {
                let (lba, blocks) = (lane * 1024 + random(900), 1 + random(100));
                let range = lba as usize * 512..(lba + blocks) as usize * 512;
                if lane == 7 {
                    let mut cdb = rw10(0x41, 0x08, lba, blocks as u16);
                    cdb[1] = 0x08; // UNMAP
                    kernel.queue(&cdb, Data::Out(vec![0; 512])).unwrap();
                    model[range].fill(0);
                } else {
                    let flags = if random(3) == 0 { 0x08 } else { 0 };
                    kernel
                        .queue(&rw10(0x2a, flags, lba, blocks as u16), Data::Out(vec![round ^ lane as u8; range.len()]))
                        .unwrap();
                    model[range].fill(round ^ lane as u8);
                }
            }
            let mut done = 0;
            while done < 8 {
                let ended = kernel.wait(Duration::from_secs(20)).unwrap();
                assert!(!ended.is_empty() && ended.iter().all(|done| done.status == 0), "{engine:?}: {ended:?}");
                done += ended.len();
            }
            let done = common::run(&mut kernel, &rw10(0x35, 0, 0, 0), Data::None);
            assert_eq!(done.status, 0, "{engine:?}");
            for lane in 0..8u32 {
                let done = common::run(&mut kernel, &rw10(0x28, 0, lane * 1024, 1024), Data::In(512 << 10));
                let wanted = &model[lane as usize * (512 << 10)..][..512 << 10];
                assert!(done.status == 0 && done.data == wanted, "{engine:?}, round {round}, lane {lane}");
            }
        }
        attached.stop(Duration::from_secs(10)).unwrap();
    }
}

#[test]
fn a_file_that_became_shorter_and_one_that_cannot_be_written_are_errors() {
    for engine in engines() {
        let short = file();
        short.set_len(4096).unwrap();
        let (mut kernel, attached) = serve(short.try_clone().unwrap(), engine);
        let done = common::run(&mut kernel, &rw10(0x28, 0, 0, 16), Data::In(8192));
        // What is behind the end of a file reads as zeros or fails, but does not hang.
        assert!(done.status == 2 || done.data[4096..].iter().all(|byte| *byte == 0), "{engine:?}");
        attached.stop(Duration::from_secs(10)).unwrap();

        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("read-only-{}-{engine:?}", std::process::id()));
        std::fs::write(&path, vec![7; SIZE as usize]).unwrap();
        let (mut kernel, attached) = serve(std::fs::File::open(&path).unwrap(), engine);
        std::fs::remove_file(&path).unwrap();
        for flags in [0, 0x08] {
            let done = common::run(&mut kernel, &rw10(0x2a, flags, 0, 8), Data::Out(vec![1; 4096]));
            assert_eq!(done.status, 2, "{engine:?}");
        }
        assert_eq!(common::run(&mut kernel, &rw10(0x28, 0, 0, 8), Data::In(4096)).data, [7; 4096], "{engine:?}");
        attached.stop(Duration::from_secs(10)).unwrap();
    }
}

/// Reads from the page cache, now and then without it.
struct Mostly(std::fs::File, std::sync::atomic::AtomicUsize);

impl Device for Mostly {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        if self.1.fetch_add(1, Ordering::Relaxed) % 5 == 4 {
            rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        for request in batch {
            let io = FileIo::read(self.0.as_fd(), request.offset(), request.length());
            request.io(io);
        }
    }
}

#[test]
fn large_reads_that_come_together_are_each_done_right() {
    let model: Vec<u8> = (0..SIZE / 8).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    let memory = if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
    for engine in engines() {
        for file in [tempfile::tempfile_in(&memory).unwrap(), file()] {
            file.write_all_at(&model, 0).unwrap();
            file.sync_all().unwrap();
            let (mut kernel, attached) = serve_device(Mostly(file, std::sync::atomic::AtomicUsize::new(0)), engine);
            for round in 0..40u32 {
                // Four of half a MiB: each takes long enough to be worth a thread of its own.
                let mut places = std::collections::HashMap::new();
                for n in 0..4 {
                    let lba = (round * 131 + n * 2000) % 7000;
                    places.insert(kernel.queue(&rw10(0x28, 0, lba, 1000), Data::In(512_000)).unwrap(), lba);
                }
                while !places.is_empty() {
                    for done in kernel.wait(Duration::from_secs(20)).unwrap() {
                        let lba = places.remove(&done.id).expect("a command in flight") as usize;
                        assert!(done.status == 0 && done.data == model[lba * 512..][..512_000], "{engine:?}, round {round}");
                    }
                }
            }
            attached.stop(Duration::from_secs(10)).unwrap();
        }
    }
}

/// Has all but the last block of each write done, which a handler may do that wants the rest elsewhere.
struct AllButTheLast(std::fs::File);

impl Device for AllButTheLast {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        for request in batch {
            let io = match request.operation() {
                Operation::Write => FileIo::write(self.0.as_fd(), request.offset(), request.length() - 512)
                    .durable(request.flags().contains(RequestFlags::FUA)),
                _ => FileIo::read(self.0.as_fd(), request.offset(), request.length()),
            };
            request.io(io);
        }
    }
}

#[test]
fn no_more_is_written_than_was_asked_for() {
    for engine in engines() {
        // In memory, where it is done at once; and on a disk, durably, where it is not.
        let memory = if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
        for (file, flags) in [(tempfile::tempfile_in(memory).unwrap(), 0), (file(), 0), (file(), 0x08)] {
            file.set_len(SIZE).unwrap();
            let device = AllButTheLast(file.try_clone().unwrap());
            let (mut kernel, attached) = serve_device(device, engine);
            let done = common::run(&mut kernel, &rw10(0x2a, flags, 0, 8), Data::Out(vec![1; 4096]));
            assert_eq!(done.status, 0, "{engine:?}");
            let found = common::run(&mut kernel, &rw10(0x28, 0, 0, 8), Data::In(4096)).data;
            assert_eq!(found, [vec![1; 3584], vec![0; 512]].concat(), "{engine:?}, flags {flags:#x}");
            attached.stop(Duration::from_secs(10)).unwrap();
        }
    }
}

/// Counts what the host did before it came back.
struct Counts {
    file: std::fs::File,
    at_once: Arc<AtomicU32>,
}

impl Device for Counts {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        for request in batch {
            let io = match request.operation() {
                Operation::Write => FileIo::write(self.file.as_fd(), request.offset(), request.length())
                    .durable(request.flags().contains(RequestFlags::FUA)),
                _ => FileIo::datasync(self.file.as_fd()),
            };
            let ended = Arc::new(AtomicBool::new(false));
            let tell = ended.clone();
            request.io_then(io, move |request, outcome| {
                tell.store(true, Ordering::SeqCst);
                request.complete(outcome);
            });
            self.at_once.fetch_add(ended.load(Ordering::SeqCst).into(), Ordering::SeqCst);
        }
    }
}

/// A memory file, which is in tmpfs.
fn in_memory() -> std::fs::File {
    let file = std::fs::File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::empty()).unwrap());
    file.set_len(SIZE).unwrap();
    file
}

#[test]
fn what_is_in_memory_is_flushed_at_once_and_what_is_on_a_disk_is_not() {
    for engine in engines() {
        for (file, wanted) in [(in_memory(), 4..=4), (file(), 0..=2)] {
            let at_once = Arc::new(AtomicU32::new(0));
            let (mut kernel, attached) = serve_device(Counts { file, at_once: at_once.clone() }, engine);
            let mut write = |flags| common::run(&mut kernel, &rw10(0x2a, flags, 0, 8), Data::Out(vec![1; 4096])).status;
            // The first one shows whether it is in memory.
            assert_eq!([write(0), write(0), write(0x08)], [0; 3], "{engine:?}");
            assert_eq!(common::run(&mut kernel, &rw10(0x35, 0, 0, 0), Data::None).status, 0, "{engine:?}");
            attached.stop(Duration::from_secs(10)).unwrap();
            let found = at_once.load(Ordering::SeqCst);
            assert!(wanted.contains(&found), "{engine:?}: {found} of 4, not {wanted:?}");
        }
    }
}

/// A file whose first flush fails, as where a disk could not take a page: the kernel tells that once.
struct FailsOnce {
    file: std::fs::File,
    failed: AtomicBool,
}

impl Device for FailsOnce {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        // Nothing but a name: all I/O on it fails.
        let name = rustix::fs::open(".", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        for request in batch {
            let io = match request.operation() {
                Operation::Flush if !self.failed.swap(true, Ordering::Relaxed) => FileIo::datasync(name.as_fd()),
                Operation::Flush => FileIo::datasync(self.file.as_fd()),
                _ => FileIo::write(self.file.as_fd(), request.offset(), request.length()),
            };
            request.io(io);
        }
        // The host does I/O later.
        std::mem::forget(name);
    }
}

#[test]
fn after_a_failed_flush_all_fail_until_the_device_is_opened_again() {
    for engine in engines() {
        let file = file();
        let fails = |failed: bool| FailsOnce { file: file.try_clone().unwrap(), failed: failed.into() };
        let (mut kernel, attached) = serve_device(fails(false), engine);
        let write = || (rw10(0x2a, 0, 0, 8), Data::Out(vec![1; 4096]));
        for _ in 0..3 {
            let (cdb, data) = write();
            assert_eq!(common::run(&mut kernel, &cdb, data).status, 0, "{engine:?}");
            let done = common::run(&mut kernel, &rw10(0x35, 0, 0, 0), Data::None);
            assert_eq!(done.status, 2, "{engine:?}: whoever tries it again must not think that all is well");
        }
        attached.stop(Duration::from_secs(10)).unwrap();
        let (mut kernel, attached) = serve_device(fails(true), engine);
        assert_eq!(common::run(&mut kernel, &rw10(0x35, 0, 0, 0), Data::None).status, 0, "{engine:?}");
        attached.stop(Duration::from_secs(10)).unwrap();
    }
}
