//! The device server against the simulated kernel: commands in, status, sense and data out.
mod common;

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use common::{BLOCKS, Quiet, disk, info, memory, run, rw10, sense, serve};
use proptest::prelude::*;
use tcmu::{
    server::{Attach, Server, ServerOptions},
    sim::{Data, SimConfig, SimKernel},
};
use tcmu_handler_api::{
    host::OpenDevice,
    plugin::{Batch, BlockDevice, Buffer, Change, Device, DeviceFlags, DeviceInfo, Error, RequestFlags, Threads},
    scsi::{Sense, SenseKey},
};

#[test]
fn what_is_written_is_read_back() {
    let (mut kernel, _attached, _) = disk();
    let data: Vec<u8> = (0..9 * 512).map(|n| (n / 7) as u8).collect();
    assert_eq!(run(&mut kernel, &rw10(0x2a, 0, 7, 9), Data::Out(data.clone())).status, 0);
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, 7, 9), Data::In(9 * 512)).data, data);
    let last = run(&mut kernel, &rw10(0x28, 0, BLOCKS as u32 - 1, 1), Data::In(512));
    assert_eq!((last.status, last.data), (0, vec![0xee; 512]));
}

#[test]
fn access_past_the_end_is_out_of_range() {
    let (mut kernel, _attached, _) = disk();
    for lba in [BLOCKS as u32, u32::MAX] {
        let done = run(&mut kernel, &rw10(0x28, 0, lba, 1), Data::In(512));
        assert_eq!(sense(&done), (SenseKey::IllegalRequest, 0x21, 0));
    }
    let mut cdb = [0xff; 16];
    cdb[..2].copy_from_slice(&[0x8a, 0]);
    cdb[14..].copy_from_slice(&[0, 0]);
    assert_eq!(sense(&run(&mut kernel, &cdb, Data::Out(vec![0; 512]))), (SenseKey::IllegalRequest, 0x21, 0));
}

#[test]
fn a_buffer_longer_than_the_data_shows_nothing_stale() {
    let (mut kernel, _attached, _) = disk();
    // Leaves 0x77 in the pages that the read is going to get.
    run(&mut kernel, &rw10(0x2a, 0, 0, 8), Data::Out(vec![0x77; 4096]));
    let done = run(&mut kernel, &rw10(0x28, 0, 100, 1), Data::In(4096));
    assert_eq!(done.data, vec![0xee; 512]);
    let inquiry = run(&mut kernel, &[0x12, 0, 0, 0, 255, 0], Data::In(255));
    assert_eq!(inquiry.data.len(), 74);
    // A kernel that does not know READ_LEN copies all of the buffer.
    let (memory, _) = memory();
    let flags = tcmu::ring::MailboxFlags::OUT_OF_ORDER;
    let (mut kernel, _attached) = serve(memory, info(), SimConfig { flags, ..SimConfig::default() });
    run(&mut kernel, &rw10(0x2a, 0, 0, 8), Data::Out(vec![0x77; 4096]));
    let done = run(&mut kernel, &rw10(0x28, 0, 100, 1), Data::In(4096));
    assert_eq!(done.data, [vec![0xee; 512], vec![0; 4096 - 512]].concat());
    let none = run(&mut kernel, &[0x12, 0, 0, 0, 0, 0], Data::In(100));
    assert_eq!(none.data, vec![0; 100]);
}

#[test]
fn a_buffer_shorter_than_the_data_gets_what_fits() {
    let (mut kernel, _attached, _) = disk();
    let done = run(&mut kernel, &rw10(0x28, 0, 0, 2), Data::In(700));
    assert_eq!((done.status, done.data), (0, vec![0xee; 700]));
    let done = run(&mut kernel, &rw10(0x2a, 0, 0, 2), Data::Out(vec![1; 700]));
    assert_eq!(sense(&done), (SenseKey::IllegalRequest, 0x24, 0));
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, 0, 1), Data::In(512)).data, vec![0xee; 512], "nothing was written");
}

#[test]
fn the_pages_describe_the_device() {
    let (mut kernel, _attached, _) = disk();
    let capacity = run(&mut kernel, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], Data::In(32)).data;
    assert_eq!(capacity[..16], [0, 0, 0, 0, 0, 0, 7, 0xff, 0, 0, 2, 0, 0, 0, 0xc0, 0]);
    let pages = run(&mut kernel, &[0x12, 1, 0, 0, 255, 0], Data::In(255)).data;
    assert_eq!(pages[4..], [0, 0x80, 0x83, 0x86, 0x87, 0x8f, 0xb0, 0xb1, 0xb2]);
    let serial = run(&mut kernel, &[0x12, 1, 0x80, 0, 255, 0], Data::In(255)).data;
    assert_eq!(&serial[4..], b"0a1b2c3d");
    let caching = run(&mut kernel, &[0x1a, 8, 8, 0, 255, 0], Data::In(255)).data;
    assert_eq!(caching[6], 4, "WCE");
    assert_eq!(sense(&run(&mut kernel, &[0xc5, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::None)), (SenseKey::IllegalRequest, 0x20, 0));
    let opcodes = run(&mut kernel, &[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0], Data::In(2048)).data;
    assert!(opcodes.len() > 100 && opcodes.len() % 8 == 4);
}

#[test]
fn forced_unit_access_and_a_disabled_cache_make_writes_durable() {
    let (mut kernel, _attached, log) = disk();
    run(&mut kernel, &rw10(0x2a, 0, 0, 1), Data::Out(vec![1; 512]));
    assert_eq!(log.flushes.load(Ordering::Relaxed), 0);
    run(&mut kernel, &rw10(0x2a, 8, 0, 1), Data::Out(vec![1; 512]));
    assert_eq!(log.flushes.load(Ordering::Relaxed), 1, "FUA");
    run(&mut kernel, &rw10(0x35, 0, 0, 0), Data::None);
    assert_eq!(log.flushes.load(Ordering::Relaxed), 2, "SYNCHRONIZE CACHE");
    let mut select = run(&mut kernel, &[0x1a, 8, 8, 0, 255, 0], Data::In(255)).data;
    (select[0], select[6]) = (0, 0);
    let length = select.len() as u8;
    assert_eq!(run(&mut kernel, &[0x15, 0x10, 0, 0, length, 0], Data::Out(select)).status, 0);
    assert_eq!(log.flushes.load(Ordering::Relaxed), 3, "the cache was flushed before it went off");
    assert_eq!(run(&mut kernel, &[0x1a, 8, 8, 0, 255, 0], Data::In(255)).data[6], 0);
    run(&mut kernel, &rw10(0x2a, 0, 0, 1), Data::Out(vec![1; 512]));
    assert_eq!(log.flushes.load(Ordering::Relaxed), 4);
}

#[test]
fn unmap_deallocates_every_range_or_none() {
    let (mut kernel, _attached, log) = disk();
    let list = |ranges: &[(u64, u32)]| {
        let mut list = vec![0, 0, 0, 16 * ranges.len() as u8, 0, 0, 0, 0];
        list[1] = list[3] + 6;
        for (lba, blocks) in ranges {
            list.extend([&lba.to_be_bytes()[..], &blocks.to_be_bytes(), &[0; 4]].concat());
        }
        list
    };
    let unmap = |list: &[u8]| [0x42, 0, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
    let good = list(&[(8, 8), (100, 0), (32, 1)]);
    assert_eq!(run(&mut kernel, &unmap(&good), Data::Out(good)).status, 0);
    assert_eq!(*log.unmaps.lock().unwrap(), [(8 * 512, 8 * 512), (32 * 512, 512)]);
    let bad = list(&[(8, 8), (BLOCKS, 1)]);
    assert_eq!(sense(&run(&mut kernel, &unmap(&bad), Data::Out(bad))), (SenseKey::IllegalRequest, 0x21, 0));
    assert_eq!(log.unmaps.lock().unwrap().len(), 2, "not even the first range");
    let block = run(&mut kernel, &rw10(0x28, 0, 8, 1), Data::In(512)).data;
    assert_eq!(block, vec![0; 512]);
}

#[test]
fn write_same_repeats_its_block() {
    let (mut kernel, _attached, _) = disk();
    assert_eq!(run(&mut kernel, &rw10(0x41, 0, 10, 1000), Data::Out(vec![5; 512])).status, 0);
    let around = run(&mut kernel, &rw10(0x28, 0, 9, 1002), Data::In(1002 * 512)).data;
    assert_eq!(around, [vec![0xee; 512], vec![5; 1000 * 512], vec![0xee; 512]].concat());
    let zero = rw10(0x41, 0, 10, 0);
    assert_eq!(sense(&run(&mut kernel, &zero, Data::Out(vec![5; 512]))), (SenseKey::IllegalRequest, 0x24, 0), "WSNZ");
    let mut ndob = [0; 16];
    (ndob[0], ndob[1], ndob[9], ndob[13]) = (0x93, 0x09, 10, 5);
    assert_eq!(run(&mut kernel, &ndob, Data::None).status, 0);
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, 10, 6), Data::In(6 * 512)).data, [vec![0; 5 * 512], vec![5; 512]].concat());
}

#[test]
fn compare_and_write_writes_only_over_what_it_expects() {
    let (mut kernel, _attached, _) = disk();
    let mut cdb = [0; 16];
    (cdb[0], cdb[9], cdb[13]) = (0x89, 3, 2);
    let data = [vec![0xee; 1024], vec![1; 1024]].concat();
    assert_eq!(run(&mut kernel, &cdb, Data::Out(data.clone())).status, 0);
    let done = run(&mut kernel, &cdb, Data::Out(data));
    assert_eq!(sense(&done), (SenseKey::Miscompare, 0x1d, 0));
    assert_eq!(Sense::parse(&done.sense).unwrap().information, Some(0));
    let mut expected = vec![1; 1024];
    expected[1000] = 2;
    let done = run(&mut kernel, &cdb, Data::Out([expected, vec![9; 1024]].concat()));
    assert_eq!(Sense::parse(&done.sense).unwrap().information, Some(1000));
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, 3, 2), Data::In(1024)).data, vec![1; 1024]);
}

#[test]
fn compare_and_write_is_atomic_against_others() {
    let (mut kernel, _attached, _) = disk();
    // Many initiators increment a counter in block 5 with COMPARE AND WRITE, all at once.
    run(&mut kernel, &rw10(0x2a, 0, 5, 1), Data::Out(vec![0; 512]));
    let mut cdb = [0; 16];
    (cdb[0], cdb[9], cdb[13]) = (0x89, 5, 1);
    let mut wins = 0u8;
    for round in 0..40u8 {
        for _ in 0..8 {
            kernel.queue_quietly(&cdb, Data::Out([vec![round; 512], vec![round + 1; 512]].concat())).unwrap();
        }
        kernel.ring_bell();
        let mut done = 0;
        let mut won = 0;
        while done < 8 {
            for completion in kernel.wait(Duration::from_secs(10)).unwrap() {
                done += 1;
                won += u8::from(completion.status == 0);
            }
        }
        assert_eq!(won, 1, "exactly one of them finds what it expects");
        wins += won;
    }
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, 5, 1), Data::In(512)).data, vec![wins; 512]);
}

#[test]
fn a_read_only_device_is_write_protected() {
    let (memory, _) = memory();
    let mut info = info();
    info.set_flags(DeviceFlags::READ_ONLY, true);
    let (mut kernel, _attached) = serve(memory, info, SimConfig::default());
    let done = run(&mut kernel, &rw10(0x2a, 0, 0, 1), Data::Out(vec![1; 512]));
    assert_eq!(sense(&done), (SenseKey::DataProtect, 0x27, 0));
    assert_eq!(run(&mut kernel, &[0x1a, 8, 8, 0, 255, 0], Data::In(255)).data[2] & 0x80, 0x80, "WP");
}

#[test]
fn a_resize_is_announced_by_a_unit_attention() {
    let (mut kernel, attached, _) = disk();
    attached.reconfigure(&Change::Size(2 * BLOCKS * 512)).unwrap();
    assert_eq!(attached.counters().size, 2 * BLOCKS * 512);
    assert_eq!(run(&mut kernel, &[0x12, 0, 0, 0, 36, 0], Data::In(36)).status, 0, "INQUIRY reports no unit attention");
    assert_eq!(sense(&run(&mut kernel, &[0; 6], Data::None)), (SenseKey::UnitAttention, 0x2a, 9));
    assert_eq!(run(&mut kernel, &[0; 6], Data::None).status, 0);
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, BLOCKS as u32, 1), Data::In(512)).status, 0);
    assert!(attached.reconfigure(&Change::Config("x")).is_err());
    for size in [0, 1000, 1 << 63] {
        let refusal = attached.reconfigure(&Change::Size(size)).unwrap_err();
        assert_eq!(refusal.message(), format!("size {size}: a multiple of the block size 512 is needed, below 2^63"));
    }
    assert_eq!(run(&mut kernel, &[0; 6], Data::None).status, 0, "what is refused is not announced");
}

/// The caching page: WCE.
fn write_cache(kernel: &mut SimKernel) -> bool {
    let done = run(kernel, &[0x1a, 8, 8, 0, 255, 0], Data::In(255));
    assert_eq!(done.status, 0);
    done.data[4 + 2] & 4 != 0
}

#[test]
fn the_server_switches_the_write_cache_of_a_handler_that_cannot() {
    let (mut kernel, attached, seen) = disk();
    let flushes = || seen.flushes.load(Ordering::Relaxed);
    let write = |kernel: &mut SimKernel| assert_eq!(run(kernel, &rw10(0x2a, 0, 0, 1), Data::Out(vec![1; 512])).status, 0);
    let told = |kernel: &mut SimKernel| assert_eq!(sense(&run(kernel, &[0; 6], Data::None)), (SenseKey::UnitAttention, 0x2a, 1));
    write(&mut kernel);
    assert_eq!((write_cache(&mut kernel), flushes()), (true, 0));
    attached.reconfigure(&Change::WriteCache(false)).unwrap();
    assert_eq!(flushes(), 1, "what was written before");
    told(&mut kernel);
    assert!(!write_cache(&mut kernel));
    write(&mut kernel);
    assert_eq!(flushes(), 2, "every write");
    attached.reconfigure(&Change::WriteCache(false)).unwrap();
    assert_eq!(run(&mut kernel, &[0; 6], Data::None).status, 0, "it was off already");
    attached.reconfigure(&Change::WriteCache(true)).unwrap();
    told(&mut kernel);
    write(&mut kernel);
    assert_eq!((write_cache(&mut kernel), flushes()), (true, 3));
}

#[test]
fn a_write_cache_that_is_not_there_can_be_switched_off_only() {
    let info = DeviceInfo::new(BLOCKS * 512, 512);
    let (mut kernel, attached) = serve(memory().0, info, SimConfig::default());
    attached.reconfigure(&Change::WriteCache(false)).unwrap();
    assert_eq!(attached.reconfigure(&Change::WriteCache(true)).unwrap_err().errno(), libc::EOPNOTSUPP);
    assert_eq!(run(&mut kernel, &[0; 6], Data::None).status, 0);
}

#[test]
fn a_device_that_is_taken_over_goes_on_as_it_was() {
    let (mut kernel, map, fd) = SimKernel::new(SimConfig::default()).unwrap();
    let (memory, seen) = memory();
    let device = OpenDevice::embed(memory, info(), Arc::new(Quiet), Server::services()).unwrap();
    let attach =
        Attach { known_size: Some(2 * BLOCKS * 512), write_cache: Some(false), ..Attach::new("user_0/t", fd, map.len(), device) };
    let server = Server::start(ServerOptions { reactors: 1, workers: 1, ..ServerOptions::default() }).unwrap();
    let _attached = server.attach_mapped(map, attach, |_| ()).unwrap();
    assert_eq!(sense(&run(&mut kernel, &[0; 6], Data::None)), (SenseKey::UnitAttention, 0x2a, 9), "it is smaller now");
    assert!(!write_cache(&mut kernel));
    assert_eq!(run(&mut kernel, &rw10(0x2a, 0, 0, 1), Data::Out(vec![1; 512])).status, 0);
    assert_eq!(seen.flushes.load(Ordering::Relaxed), 1);
}

#[test]
fn another_medium_is_announced_unless_initiators_keep_the_old_one_in() {
    let medium = |config: &'static str, size| Change::Medium { config, size };
    let (_kernel, attached, _) = disk();
    assert_eq!(attached.reconfigure(&medium("b", 512)).unwrap_err().errno(), libc::EOPNOTSUPP, "not a removable one");

    let (memory, _) = memory();
    let mut info = info();
    info.set_flags(DeviceFlags::REMOVABLE, true);
    let (mut kernel, attached) = serve(memory, info, SimConfig::default());
    let read = |kernel: &mut SimKernel| run(kernel, &rw10(0x28, 0, 0, 1), Data::In(512));
    let prevent = |kernel: &mut SimKernel, yes: u8| assert_eq!(run(kernel, &[0x1e, 0, 0, 0, yes, 0], Data::None).status, 0);
    prevent(&mut kernel, 1);
    assert_eq!(attached.reconfigure(&medium("b", 1 << 20)).unwrap_err().errno(), libc::EBUSY);
    assert_eq!(read(&mut kernel).data, vec![0xee; 512], "the old one is still there, and nothing is announced");
    prevent(&mut kernel, 0);
    // Who only looks at a disk, as udev does after each write, has it open for a moment.
    prevent(&mut kernel, 1);
    let looked_at = thread::scope(|scope| {
        let changed = scope.spawn(|| attached.reconfigure(&medium("a", BLOCKS * 512)));
        thread::sleep(Duration::from_millis(50));
        prevent(&mut kernel, 0);
        changed.join().unwrap()
    });
    looked_at.unwrap();
    assert_eq!(sense(&read(&mut kernel)), (SenseKey::UnitAttention, 0x28, 0));

    attached.reconfigure(&medium("b", 4 * 512)).unwrap();
    assert_eq!(sense(&read(&mut kernel)), (SenseKey::UnitAttention, 0x28, 0));
    assert_eq!(read(&mut kernel).data, vec![0x11; 512]);
    assert_eq!(run(&mut kernel, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::In(8)).data[..4], [0, 0, 0, 3]);

    attached.reconfigure(&medium("", 0)).unwrap();
    assert_eq!(sense(&read(&mut kernel)), (SenseKey::NotReady, 0x3a, 0));
    prevent(&mut kernel, 1); // nothing
    attached.reconfigure(&medium("e", 8 * 512)).unwrap();
    assert_eq!(sense(&read(&mut kernel)), (SenseKey::UnitAttention, 0x28, 0));
    prevent(&mut kernel, 0);
    // One that initiators ejected is in again when it is another.
    attached.reconfigure(&medium("c", 8 * 512)).unwrap();
    assert_eq!(sense(&read(&mut kernel)), (SenseKey::UnitAttention, 0x28, 0));
    assert_eq!(run(&mut kernel, &[0x1b, 0, 0, 0, 2, 0], Data::None).status, 0);
    assert_eq!(sense(&read(&mut kernel)), (SenseKey::NotReady, 0x3a, 0));
    attached.reconfigure(&medium("d", 8 * 512)).unwrap();
    assert_eq!(sense(&read(&mut kernel)), (SenseKey::UnitAttention, 0x28, 0));
    assert_eq!(read(&mut kernel).status, 0);
    // Of the handler's own doing the serving thread hears later.
    attached.medium_changed();
    let announced = (0..1000).map(|_| read(&mut kernel)).find(|answer| answer.status != 0);
    assert_eq!(announced.map(|answer| sense(&answer)), Some((SenseKey::UnitAttention, 0x28, 0)));
}

#[test]
fn a_panicking_handler_fails_its_request_and_nothing_else() {
    struct Panics;
    impl BlockDevice for Panics {
        const THREADS: Threads = Threads::Inline;
        fn read(&self, offset: u64, _: Buffer<'_>) -> Result<(), Error> {
            assert!(offset > 0, "no reads at 0");
            Ok(())
        }
        fn write(&self, _: u64, _: Buffer<'_>, _: RequestFlags) -> Result<(), Error> {
            Ok(())
        }
    }
    let (mut kernel, _attached) = serve(Panics, DeviceInfo::new(1 << 20, 512), SimConfig::default());
    assert_eq!(sense(&run(&mut kernel, &rw10(0x28, 0, 0, 1), Data::In(512))), (SenseKey::HardwareError, 0x44, 0));
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, 1, 1), Data::In(512)).status, 0);
}

#[test]
fn a_handler_gets_whole_cdbs_if_it_wants_them_and_leaves_the_rest_to_the_engine() {
    struct Tape;
    impl Device for Tape {
        const THREADS: Threads = Threads::Serial;
        fn submit(&self, batch: Batch<'_>) {
            for mut request in batch {
                match request.cdb()[0] {
                    0x08 => {
                        // A block shorter than asked for: data, and CHECK CONDITION with ILI.
                        request.buffer().copy_from(&[0xaa; 100]);
                        request.set_result(100);
                        request.set_sense(&[0xf0, 0, 0x20, 0, 0, 1, 0x9c, 10]);
                        request.complete(Err(Error::Sense));
                    }
                    0x01 => request.complete(Err(Error::Scsi(0x18))),
                    _ => request.complete(Err(Error::NotHandled)),
                }
            }
        }
    }
    let mut info = DeviceInfo::new(1 << 20, 512);
    info.set_flags(DeviceFlags::SCSI, true);
    info.0.device_type = 1;
    let (mut kernel, _attached) = serve(Tape, info, SimConfig::default());
    let short = run(&mut kernel, &[0x08, 0, 0, 2, 0, 0], Data::In(512));
    assert_eq!((short.status, short.data), (2, vec![0xaa; 100]));
    assert_eq!(short.sense[..7], [0xf0, 0, 0x20, 0, 0, 1, 0x9c]);
    assert_eq!(run(&mut kernel, &[0x01, 0, 0, 0, 0, 0], Data::None).status, 0x18);
    let inquiry = run(&mut kernel, &[0x12, 0, 0, 0, 36, 0], Data::In(36));
    assert_eq!((inquiry.status, inquiry.data[0]), (0, 1));
}

#[derive(Clone, Debug)]
enum Op {
    Write(u16, u16, u8, bool),
    Read(u16, u16),
    WriteSame(u16, u16, u8, bool),
    Compare(u16, u8, u8),
    Unmap(u16, u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..80u16, 0..20u16, any::<u8>(), any::<bool>()).prop_map(|(l, n, b, f)| Op::Write(l, n, b, f)),
        3 => (0..80u16, 0..20u16).prop_map(|(l, n)| Op::Read(l, n)),
        1 => (0..80u16, 1..20u16, any::<u8>(), any::<bool>()).prop_map(|(l, n, b, u)| Op::WriteSame(l, n, b % 2, u)),
        1 => (0..80u16, any::<u8>(), any::<u8>()).prop_map(|(l, a, b)| Op::Compare(l, a, b)),
        1 => (0..80u16, 0..20u16).prop_map(|(l, n)| Op::Unmap(l, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Random commands, one after the other, against a model in memory.
    #[test]
    fn the_disk_does_what_the_model_does(ops in proptest::collection::vec(op(), 1..60)) {
        let (mut kernel, _attached, _) = disk();
        let mut model = vec![0xee; 100 * 512];
        run(&mut kernel, &rw10(0x2a, 0, 0, 100), Data::Out(model.clone()));
        for op in ops {
            let range = |lba: u16, blocks: u16| lba as usize * 512..(lba + blocks) as usize * 512;
            match op {
                Op::Write(lba, blocks, byte, fua) => {
                    let cdb = rw10(0x2a, u8::from(fua) << 3, lba.into(), blocks);
                    prop_assert_eq!(run(&mut kernel, &cdb, Data::Out(vec![byte; blocks as usize * 512])).status, 0);
                    model[range(lba, blocks)].fill(byte);
                }
                Op::Read(lba, blocks) => {
                    let done = run(&mut kernel, &rw10(0x28, 0, lba.into(), blocks), Data::In(blocks as usize * 512));
                    prop_assert_eq!(&done.data[..], &model[range(lba, blocks)]);
                }
                Op::WriteSame(lba, blocks, byte, unmap) => {
                    let cdb = rw10(0x41, u8::from(unmap) << 3, lba.into(), blocks);
                    prop_assert_eq!(run(&mut kernel, &cdb, Data::Out(vec![byte; 512])).status, 0);
                    model[range(lba, blocks)].fill(byte);
                }
                Op::Compare(lba, expected, byte) => {
                    let mut cdb = [0; 16];
                    (cdb[0], cdb[9], cdb[13]) = (0x89, lba as u8, 1);
                    let data = [vec![expected; 512], vec![byte; 512]].concat();
                    let equal = model[range(lba, 1)].iter().all(|b| *b == expected);
                    prop_assert_eq!(run(&mut kernel, &cdb, Data::Out(data)).status, if equal { 0 } else { 2 });
                    if equal {
                        model[range(lba, 1)].fill(byte);
                    }
                }
                Op::Unmap(lba, blocks) => {
                    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
                    list.extend(u64::from(lba).to_be_bytes());
                    list.extend(u32::from(blocks).to_be_bytes());
                    list.extend([0; 4]);
                    let cdb = [0x42, 0, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
                    prop_assert_eq!(run(&mut kernel, &cdb, Data::Out(list)).status, 0);
                    model[range(lba, blocks)].fill(0);
                }
            }
        }
        prop_assert_eq!(run(&mut kernel, &rw10(0x28, 0, 0, 100), Data::In(100 * 512)).data, model);
    }

    /// Any CDB with any data is answered, and the device goes on.
    #[test]
    fn any_command_is_answered(cdbs in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 6..33), 0usize..5000), 1..40)) {
        let (mut kernel, _attached, _) = disk();
        for (mut cdb, len) in cdbs {
            let full = match cdb[0] >> 5 { 0 => 6, 1 | 2 => 10, 4 => 16, 5 => 12, _ => 16 };
            cdb.resize(full, 0);
            if cdb[0] == 0x7f { cdb[7] = 8; }
            kernel.run(&cdb, Data::Out(vec![0xff; len])).unwrap();
            kernel.run(&cdb, Data::In(len)).unwrap();
        }
        prop_assert_eq!(run(&mut kernel, &[0; 6], Data::None).status, 0);
    }
}
