//! Faults that other userspace targets have or had, which ours must not have. More of them are in `server.rs` and `scsi.rs`.
mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use common::{BLOCKS, Memory, Quiet, memory, run, rw10, serve};
use tcmu::{
    server::{Attach, Server, ServerOptions},
    sim::{Data, SimConfig, SimKernel},
};
use tcmu_handler_api::{
    host::OpenDevice,
    plugin::{BlockDevice, Buffer, DeviceFlags, DeviceInfo, Error, Operations, RequestFlags},
};

/// Deallocates whole granules of 4096 bytes and leaves the rest of a range as it is, as thin pools do.
struct Granules(Memory);

impl BlockDevice for Granules {
    fn read(&self, offset: u64, data: Buffer<'_>) -> Result<(), Error> {
        self.0.read(offset, data)
    }

    fn write(&self, offset: u64, data: Buffer<'_>, flags: RequestFlags) -> Result<(), Error> {
        self.0.write(offset, data, flags)
    }

    fn unmap(&self, offset: u64, length: u64) -> Result<(), Error> {
        let (first, end) = (offset.next_multiple_of(4096), (offset + length) / 4096 * 4096);
        if first < end { self.0.unmap(first, end - first) } else { Ok(()) }
    }
}

/// open-iscsi/tcmu-runner 650: WRITE SAME with UNMAP left what was in the unaligned head and tail.
#[test]
fn write_same_with_unmap_leaves_no_old_data_at_its_ends() {
    let mut info = DeviceInfo::new(BLOCKS * 512, 512);
    info.supports(Operations::UNMAP).set_flags(DeviceFlags::THIN, true);
    info.0.unmap_granularity = 4096;
    let (mut kernel, _attached) = serve(Granules(memory().0), info, SimConfig::default());
    for (lba, blocks) in [(3u32, 30u16), (8, 8), (5, 2), (15, 17)] {
        let around = |kernel: &mut SimKernel| run(kernel, &rw10(0x28, 0, 0, 64), Data::In(64 * 512)).data;
        assert_eq!(run(&mut kernel, &rw10(0x2a, 0, 0, 64), Data::Out(vec![0xee; 64 * 512])).status, 0);
        let mut cdb = rw10(0x41, 0, lba, blocks);
        cdb[1] = 0x08;
        assert_eq!(run(&mut kernel, &cdb, Data::Out(vec![0; 512])).status, 0);
        let data = around(&mut kernel);
        let range = lba as usize * 512..(lba as usize + blocks as usize) * 512;
        assert!(data[range.clone()].iter().all(|byte| *byte == 0), "old data in {lba}+{blocks}");
        assert!(data[..range.start].iter().chain(&data[range.end..]).all(|byte| *byte == 0xee), "more than {lba}+{blocks}");
    }
}

/// Remembers the furthest byte that it was asked to deallocate.
struct Furthest(Memory, Arc<AtomicUsize>);

impl BlockDevice for Furthest {
    fn read(&self, offset: u64, data: Buffer<'_>) -> Result<(), Error> {
        self.0.read(offset, data)
    }

    fn write(&self, offset: u64, data: Buffer<'_>, flags: RequestFlags) -> Result<(), Error> {
        self.0.write(offset, data, flags)
    }

    fn unmap(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.1.fetch_max(offset.saturating_add(length).try_into().unwrap_or(usize::MAX), Ordering::Relaxed);
        Ok(())
    }
}

/// The pages of a parameter list are the initiator's all the time: what was judged must be what is done.
#[test]
fn a_parameter_list_that_changes_while_it_is_read_does_what_was_judged() {
    let (mut kernel, map, fd) = SimKernel::new(SimConfig::default()).unwrap();
    let mut info = DeviceInfo::new(BLOCKS * 512, 512);
    info.supports(Operations::UNMAP).set_flags(DeviceFlags::THIN, true);
    let furthest = Arc::new(AtomicUsize::new(0));
    let device = OpenDevice::embed(Furthest(memory().0, furthest.clone()), info, Arc::new(Quiet), Server::services()).unwrap();
    let server = Server::start(ServerOptions { reactors: 1, workers: 1, ..ServerOptions::default() }).unwrap();
    let attach = Attach::new("user_0/t", fd, map.len(), device);
    let _attached = server.attach_mapped(map.clone(), attach, |error| panic!("{error}")).unwrap();
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend([&8u64.to_be_bytes()[..], &8u32.to_be_bytes(), &[0; 4]].concat());
    // Where the list will be: the first page behind the ring. One byte of its address goes back and forth, in range and far beyond it.
    let page = (128 + u64::from(SimConfig::default().ring)).next_multiple_of(4096);
    let stop = AtomicBool::new(false);
    let (mut done, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for byte in [0, 0xff] {
                    map.write(page + 8 + 1, &[byte]).unwrap();
                }
            }
        });
        for _ in 0..3000 {
            let ended = run(&mut kernel, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], Data::Out(list.clone()));
            if ended.status == 0 { done += 1 } else { refused += 1 }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(furthest.load(Ordering::Relaxed) <= 16 * 512, "deallocated up to {}", furthest.load(Ordering::Relaxed));
    // Else nothing was tried.
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
}
