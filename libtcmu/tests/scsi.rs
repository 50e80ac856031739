//! Commands beyond reading and writing, through the ring: what initiators get to see.
mod common;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use common::{BLOCKS, Memory, disk, info, memory, run, rw10, sense, serve, serve_for};
use tcmu::{
    engine::Target,
    server::{Attach, Server, ServerOptions},
    sim::{Data, SimConfig, SimKernel},
};
use tcmu_handler_api::{
    host::OpenDevice,
    plugin::{Batch, Device, DeviceFlags, Error, LockState, Operation, Operations, Refusal, Threads},
    scsi::{
        SenseKey,
        alua::{AccessState, PortGroup},
        vpd,
    },
};

fn write(kernel: &mut SimKernel, lba: u32, byte: u8, blocks: u16) {
    let data = vec![byte; usize::from(blocks) * 512];
    assert_eq!(run(kernel, &rw10(0x2a, 0, lba, blocks), Data::Out(data)).status, 0);
}

fn read(kernel: &mut SimKernel, lba: u32) -> u8 {
    let data = run(kernel, &rw10(0x28, 0, lba, 1), Data::In(512)).data;
    assert!(data.iter().all(|byte| *byte == data[0]), "{data:?}");
    data[0]
}

fn cdb16(code: u8, action: u8, lba: u64, length: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (code, action);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&length.to_be_bytes());
    cdb
}

fn copy_list(designator: &[u8; 16], from: u64, to: u64, blocks: u16) -> Vec<u8> {
    let mut list = vec![0; 16 + 32 + 28];
    (list[0], list[3], list[11]) = (7, 32, 28);
    (list[16], list[20], list[21], list[23]) = (0xe4, 1, 3, 16);
    list[24..40].copy_from_slice(designator);
    list[45..48].copy_from_slice(&[0, 2, 0]);
    (list[48], list[51]) = (0x02, 24);
    list[58..60].copy_from_slice(&blocks.to_be_bytes());
    list[60..68].copy_from_slice(&from.to_be_bytes());
    list[68..76].copy_from_slice(&to.to_be_bytes());
    list
}

fn extended_copy(list: Vec<u8>) -> ([u8; 16], Data) {
    (cdb16(0x83, 0, 0, list.len() as u32), Data::Out(list))
}

#[test]
fn a_copy_moves_blocks_within_the_unit_and_tells_how_it_went() {
    let (mut kernel, _attached, _) = disk();
    write(&mut kernel, 10, 1, 1);
    write(&mut kernel, 11, 2, 1);
    let (cdb, list) = extended_copy(copy_list(&vpd::naa("0a1b2c3d"), 10, 11, 2));
    assert_eq!(run(&mut kernel, &cdb, list).status, 0);
    assert_eq!((read(&mut kernel, 10), read(&mut kernel, 11), read(&mut kernel, 12)), (1, 1, 2), "they overlap");
    let mut status = cdb16(0x84, 0, 0, 12);
    status[2] = 7;
    assert_eq!(run(&mut kernel, &status, Data::In(12)).data, [0, 0, 0, 8, 1, 0, 1, 0, 0, 0, 4, 0]);
    status[2] = 8;
    assert_eq!(sense(&run(&mut kernel, &status, Data::In(12))), (SenseKey::IllegalRequest, 0x24, 0), "no such list");
}

/// An initiator that names another unit must not reach it, whatever its ACL says of that one.
#[test]
fn cve_2021_3139_a_copy_does_not_reach_another_unit() {
    let (mut kernel, _attached, _) = disk();
    write(&mut kernel, 0, 9, 4);
    let other = vpd::naa("ffffffff");
    for index in [16, 48] {
        // The other unit alone, and beside this one as source or destination.
        let mut list = copy_list(&other, 0, 8, 4);
        if index == 48 {
            list = [&copy_list(&vpd::naa("0a1b2c3d"), 0, 8, 4)[..48], &list[16..]].concat();
            list[3] = 64;
            list[87] = 1;
        }
        let (cdb, list) = extended_copy(list);
        assert_eq!(sense(&run(&mut kernel, &cdb, list)), (SenseKey::CopyAborted, 0x0d, 0x02));
    }
    assert_eq!(read(&mut kernel, 8), 0xee, "nothing was written");
}

/// Two units of one server, which copy to each other as far as `allowed` goes.
fn pair(allowed: bool) -> [(SimKernel, Box<tcmu::server::Attached>); 2] {
    let server = Server::start(ServerOptions { reactors: 2, workers: 1, ..ServerOptions::default() }).unwrap();
    [("user_0/a", "user_1/b", "0a"), ("user_1/b", "user_0/a", "0b")].map(|(name, other, serial)| {
        let (kernel, map, uio) = SimKernel::new(SimConfig::default()).unwrap();
        let device = OpenDevice::embed(memory().0, info(), Arc::new(common::Quiet), Server::services()).unwrap();
        let attach = Attach {
            target: Arc::new(move || Some(serial.to_owned())),
            copies_with: if allowed { vec![other.to_owned()] } else { Vec::new() },
            ..Attach::new(name, uio, map.len(), device)
        };
        (kernel, server.attach_mapped(map, attach, |_| ()).unwrap())
    })
}

/// From the unit `source` at 0 to the unit `target` at 8, four blocks.
fn copy_from_to(source: &str, target: &str) -> ([u8; 16], Data) {
    let mut list = copy_list(&vpd::naa(source), 0, 8, 4);
    let other = copy_list(&vpd::naa(target), 0, 8, 4);
    list.splice(48..48, other[16..48].iter().copied());
    (list[3], list[87]) = (64, 1);
    extended_copy(list)
}

#[test]
fn a_copy_to_another_unit_needs_the_operators_word() {
    for (allowed, sent_to) in [(false, 0), (true, 0), (true, 1)] {
        let mut units = pair(allowed);
        write(&mut units[0].0, 0, 5, 4);
        let (cdb, list) = copy_from_to("0a", "0b");
        let done = run(&mut units[sent_to].0, &cdb, list);
        if allowed {
            assert_eq!(done.status, 0, "{done:?}");
            assert_eq!((read(&mut units[1].0, 8), read(&mut units[1].0, 11), read(&mut units[1].0, 12)), (5, 5, 0xee));
        } else {
            assert_eq!(sense(&done), (SenseKey::CopyAborted, 0x0d, 0x02));
            assert_eq!(read(&mut units[1].0, 8), 0xee);
        }
    }
}

#[test]
fn a_copy_to_a_unit_that_went_away_is_aborted() {
    let [(mut kernel, _attached), (_other, gone)] = pair(true);
    gone.stop(Duration::from_secs(5)).unwrap();
    let (cdb, list) = copy_from_to("0a", "0b");
    assert_eq!(sense(&run(&mut kernel, &cdb, list)).0, SenseKey::CopyAborted);
    assert_eq!(run(&mut kernel, &[0; 6], Data::None).status, 0);
}

#[test]
fn a_copy_beyond_the_end_copies_nothing() {
    let (mut kernel, _attached, _) = disk();
    for (from, to) in [(0, BLOCKS - 1), (BLOCKS - 1, 0), (u64::MAX, 0), (0, u64::MAX - 1)] {
        let (cdb, list) = extended_copy(copy_list(&vpd::naa("0a1b2c3d"), from, to, 2));
        assert_eq!(sense(&run(&mut kernel, &cdb, list)).0, SenseKey::CopyAborted);
    }
    assert_eq!(read(&mut kernel, 0), 0xee);
}

fn token_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let mut list = (16 * ranges.len() as u16).to_be_bytes().to_vec();
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

fn populate(kernel: &mut SimKernel, list: u32, ranges: &[(u64, u32)]) -> Vec<u8> {
    let ranges = token_list(ranges);
    let mut parameters = vec![0; 14];
    parameters.extend(&ranges);
    let length = parameters.len() as u16 - 2;
    parameters[..2].copy_from_slice(&length.to_be_bytes());
    let mut cdb = cdb16(0x83, 0x10, 0, parameters.len() as u32);
    cdb[6..10].copy_from_slice(&list.to_be_bytes());
    assert_eq!(run(kernel, &cdb, Data::Out(parameters)).status, 0);
    let mut cdb = cdb16(0x84, 0x07, 0, 1000);
    cdb[2..6].copy_from_slice(&list.to_be_bytes());
    let data = run(kernel, &cdb, Data::In(1000)).data;
    assert_eq!(data[4..6], [0x10, 0x01], "{data:?}");
    data[38..550].to_vec()
}

fn write_using(token: &[u8], offset: u64, ranges: &[(u64, u32)]) -> ([u8; 16], Data) {
    let mut parameters = vec![0; 8];
    parameters.extend(offset.to_be_bytes());
    parameters.extend(token);
    parameters.extend([0; 6]);
    parameters.extend(token_list(ranges));
    let length = parameters.len() as u16 - 2;
    parameters[..2].copy_from_slice(&length.to_be_bytes());
    (cdb16(0x83, 0x11, 0, parameters.len() as u32), Data::Out(parameters))
}

#[test]
fn a_token_stands_for_data_until_that_changes() {
    let (mut kernel, _attached, _) = disk();
    for n in 0..4 {
        write(&mut kernel, n, n as u8, 1);
    }
    let token = populate(&mut kernel, 1, &[(2, 2), (0, 1)]);
    let (cdb, data) = write_using(&token, 1, &[(100, 1), (200, 1)]);
    assert_eq!(run(&mut kernel, &cdb, data).status, 0);
    assert_eq!((read(&mut kernel, 100), read(&mut kernel, 200)), (3, 0));
    let (cdb, data) = write_using(&token, 2, &[(100, 2)]);
    assert_eq!(sense(&run(&mut kernel, &cdb, data)).0, SenseKey::IllegalRequest, "there is not that much of it");
    write(&mut kernel, 1, 9, 1);
    let (cdb, data) = write_using(&token, 0, &[(100, 1)]);
    assert_eq!(run(&mut kernel, &cdb, data).status, 0, "block 1 is not its");
    write(&mut kernel, 3, 9, 1);
    let (cdb, data) = write_using(&token, 0, &[(100, 1)]);
    assert_eq!(sense(&run(&mut kernel, &cdb, data)), (SenseKey::IllegalRequest, 0x23, 0x06), "revoked");
    let mut other = token;
    other[15] ^= 1;
    let (cdb, data) = write_using(&other, 0, &[(100, 1)]);
    assert_eq!(sense(&run(&mut kernel, &cdb, data)), (SenseKey::IllegalRequest, 0x23, 0x04), "unknown");
    let mut zeros = [0; 512];
    zeros[..8].copy_from_slice(&[0xff, 0xff, 0, 1, 0, 0, 1, 0xf8]);
    let (cdb, data) = write_using(&zeros, 0, &[(100, 1)]);
    assert_eq!(run(&mut kernel, &cdb, data).status, 0);
    assert_eq!(read(&mut kernel, 100), 0);
}

/// A disk on which everything takes a while.
struct Slow(Arc<Memory>);

impl Device for Slow {
    const THREADS: Threads = Threads::Serial;

    fn submit(&self, batch: Batch<'_>) {
        use tcmu_handler_api::plugin::BlockDevice;
        for request in batch {
            thread::sleep(Duration::from_millis(30));
            let outcome = match request.operation() {
                Operation::Read => self.0.read(request.offset(), request.buffer()),
                Operation::Write => self.0.write(request.offset(), request.buffer(), request.flags()),
                Operation::Flush => self.0.flush(),
                Operation::Unmap => self.0.unmap(request.offset(), request.length()),
                _ => Err(Error::UNSUPPORTED),
            };
            request.complete(outcome);
        }
    }
}

fn slow(blocks: u64) -> (SimKernel, Box<tcmu::server::Attached>) {
    let (memory, _) = memory();
    memory.0.write().unwrap().resize((blocks * 512) as usize, 0xee);
    let mut info = info();
    info.0.size = blocks * 512;
    serve(Slow(Arc::new(memory)), info, SimConfig::default())
}

/// Overwrites with 5Ah, which takes a piece of a MiB at a time.
const OVERWRITE: [u8; 5] = [1, 0, 0, 1, 0x5a];

fn ready_again(kernel: &mut SimKernel) {
    for _ in 0..200 {
        if run(kernel, &[0; 6], Data::None).status == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("it never ends");
}

#[test]
fn a_sanitize_goes_on_alone_and_tells_how_far_it_is() {
    let (mut kernel, _attached) = slow(8 * 2048);
    let cdb = [0x48, 0x81, 0, 0, 0, 0, 0, 0, 5, 0];
    assert_eq!(run(&mut kernel, &cdb, Data::Out(OVERWRITE.to_vec())).status, 0, "IMMED");
    let busy = run(&mut kernel, &rw10(0x28, 0, 0, 1), Data::In(512));
    assert_eq!(sense(&busy), (SenseKey::NotReady, 0x04, 0x1b));
    assert_eq!(busy.sense[15] & 0x80, 0x80, "a progress indication");
    assert_eq!(run(&mut kernel, &[0x12, 0, 0, 0, 36, 0], Data::In(36)).status, 0, "INQUIRY is always answered");
    let progress = |kernel: &mut SimKernel| {
        let sense = run(kernel, &[0x03, 0, 0, 0, 18, 0], Data::In(18)).data;
        u16::from_be_bytes([sense[16], sense[17]])
    };
    let first = progress(&mut kernel);
    thread::sleep(Duration::from_millis(80));
    assert!(progress(&mut kernel) > first);
    ready_again(&mut kernel);
    assert_eq!((read(&mut kernel, 0), read(&mut kernel, 8 * 2048 - 1)), (0x5a, 0x5a));
}

#[test]
fn an_aborted_sanitize_is_answered_and_goes_on() {
    let (mut kernel, _attached) = slow(8 * 2048);
    let cdb = [0x48, 0x01, 0, 0, 0, 0, 0, 0, 5, 0];
    let id = kernel.queue(&cdb, Data::Out(OVERWRITE.to_vec())).unwrap();
    thread::sleep(Duration::from_millis(50));
    kernel.task_management(1, &[id]).unwrap();
    let done = kernel.wait(Duration::from_secs(5)).unwrap();
    assert_eq!(done.iter().map(|done| (done.id, done.status)).collect::<Vec<_>>(), [(id, 0x40)], "TASK ABORTED");
    assert_eq!(sense(&run(&mut kernel, &[0; 6], Data::None)), (SenseKey::NotReady, 0x04, 0x1b));
    ready_again(&mut kernel);
    assert_eq!(read(&mut kernel, 5000), 0x5a);
}

#[test]
fn a_format_leaves_zeros() {
    let (mut kernel, _attached, log) = disk();
    assert_eq!(run(&mut kernel, &[0x04, 0x10, 0, 0, 0, 0], Data::Out(vec![0; 4])).status, 0);
    assert_eq!((read(&mut kernel, 0), read(&mut kernel, 2047)), (0, 0));
    assert_eq!(*log.unmaps.lock().unwrap(), [(0, BLOCKS * 512)], "by deallocation");
}

#[test]
fn a_failed_sanitize_must_be_left_before_the_medium_is_used() {
    struct Broken;
    impl Device for Broken {
        const THREADS: Threads = Threads::Inline;
        fn submit(&self, batch: Batch<'_>) {
            batch.for_each(|request| {
                let outcome = if request.operation() == Operation::Write { Err(Error::IO) } else { Ok(()) };
                request.complete(outcome);
            });
        }
    }
    let (mut kernel, _attached) = serve(Broken, info(), SimConfig::default());
    let sanitize = |kernel: &mut SimKernel, flags: u8| {
        sense(&run(kernel, &[0x48, flags, 0, 0, 0, 0, 0, 0, 5, 0], Data::Out(OVERWRITE.to_vec())))
    };
    let exit = [0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(sanitize(&mut kernel, 0x01), (SenseKey::MediumError, 0x31, 0x03));
    let used = run(&mut kernel, &rw10(0x28, 0, 0, 1), Data::In(512));
    assert_eq!(sense(&used), (SenseKey::MediumError, 0x31, 0x03));
    assert_eq!(sense(&run(&mut kernel, &exit, Data::None)).0, SenseKey::IllegalRequest, "AUSE was not set");
    assert_eq!(sanitize(&mut kernel, 0x21), (SenseKey::MediumError, 0x31, 0x03));
    assert_eq!(run(&mut kernel, &exit, Data::None).status, 0);
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, 0, 1), Data::In(512)).status, 0);
}

#[test]
fn serial_numbers_of_every_length_make_valid_pages() {
    for length in [0, 1, 35, 36, 200, 254] {
        let (memory, _) = memory();
        let serial = "f".repeat(length);
        let (mut kernel, _attached) = serve_for(memory, info(), SimConfig::default(), Arc::new(move || Some(serial.clone())));
        let pages = run(&mut kernel, &[0x12, 1, 0, 0, 255, 0], Data::In(255)).data;
        for code in &pages[4..] {
            let page = run(&mut kernel, &[0x12, 1, *code, 4, 0, 0], Data::In(1024)).data;
            assert_eq!((page[1], usize::from(u16::from_be_bytes([page[2], page[3]]))), (*code, page.len() - 4));
        }
    }
}

#[test]
fn write_protection_by_an_initiator_holds_until_it_is_taken_back() {
    let (mut kernel, _attached, _) = disk();
    for (protected, expected) in [(0x08, 2), (0x00, 0)] {
        let list = vec![0, 0, 0, 0, 0x0a, 10, 2, 0, protected, 0x40, 0, 0, 0xff, 0xff, 0, 0];
        assert_eq!(run(&mut kernel, &[0x15, 0x10, 0, 0, 16, 0], Data::Out(list)).status, 0);
        let done = run(&mut kernel, &rw10(0x2a, 0, 0, 1), Data::Out(vec![0; 512]));
        assert_eq!(done.status, expected);
        if expected != 0 {
            assert_eq!(sense(&done), (SenseKey::DataProtect, 0x27, 0x02));
        }
    }
}

/// Two target port groups.
#[derive(Default)]
struct Groups(Mutex<Vec<(u16, AccessState)>>);

impl Target for Groups {
    fn serial(&self) -> Option<String> {
        None
    }
    fn asymmetric_access(&self) -> u8 {
        3
    }
    fn port_groups(&self) -> io::Result<Vec<PortGroup>> {
        let set = self.0.lock().unwrap();
        let state = |id| set.iter().rev().find(|(group, _)| *group == id).map_or(AccessState::Standby, |(_, state)| *state);
        Ok((1..=2)
            .map(|id| PortGroup {
                id,
                state: state(id),
                preferred: false,
                supported: 0x05,
                status: 0,
                explicit: id == 1,
                implicit: true,
                transition_time: 0,
                ports: vec![id],
            })
            .collect())
    }
    fn set_access_state(&self, group: u16, state: AccessState) -> io::Result<()> {
        self.0.lock().unwrap().push((group, state));
        Ok(())
    }
}

#[test]
fn access_states_are_reported_and_set() {
    let (memory, _) = memory();
    let (mut kernel, _attached) = serve_for(memory, info(), SimConfig::default(), Arc::new(Groups::default()));
    let mut report = [0; 12];
    (report[0], report[1], report[9]) = (0xa3, 0x0a, 255);
    let data = run(&mut kernel, &report, Data::In(255)).data;
    assert_eq!(data[..16], [0, 0, 0, 24, 0x02, 0x05, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
    let mut set = [0; 12];
    (set[0], set[1], set[9]) = (0xa4, 0x0a, 8);
    assert_eq!(run(&mut kernel, &set, Data::Out(vec![0, 0, 0, 0, 0, 0, 0, 1])).status, 0);
    assert_eq!(run(&mut kernel, &report, Data::In(255)).data[4], 0x00, "active/optimized");
    let implicit = run(&mut kernel, &set, Data::Out(vec![0, 0, 0, 0, 0, 0, 0, 2]));
    assert_eq!(sense(&implicit).0, SenseKey::IllegalRequest, "this group is not for initiators to set");
    let unknown = run(&mut kernel, &set, Data::Out(vec![0, 0, 0, 0, 0, 0, 0, 9]));
    assert_eq!(sense(&unknown), (SenseKey::IllegalRequest, 0x26, 0));
    assert_eq!(run(&mut kernel, &[0x12, 0, 0, 0, 36, 0], Data::In(36)).data[5] & 0x30, 0x30, "TPGS");
}

/// A disk that only the owner of a lock may write.
struct Locked(Memory, Arc<AtomicU32>);

impl Device for Locked {
    const THREADS: Threads = Threads::Inline;
    fn submit(&self, batch: Batch<'_>) {
        use tcmu_handler_api::plugin::BlockDevice;
        for request in batch {
            let outcome = match request.operation() {
                Operation::Read => self.0.read(request.offset(), request.buffer()),
                Operation::Write if self.1.load(Ordering::SeqCst) == 0 => Err(Error::Fenced),
                Operation::Write => self.0.write(request.offset(), request.buffer(), request.flags()),
                _ => Ok(()),
            };
            request.complete(outcome);
        }
    }
    fn lock(&self, _tag: u32) -> Result<(), Refusal> {
        self.1.store(1, Ordering::SeqCst);
        Ok(())
    }
    fn unlock(&self) -> Result<(), Refusal> {
        self.1.store(0, Ordering::SeqCst);
        Ok(())
    }
    fn lock_state(&self) -> Result<LockState, Refusal> {
        Ok(LockState::Free)
    }
}

#[test]
fn a_write_takes_the_lock_first_and_a_fenced_one_takes_it_again() {
    let (memory, _) = memory();
    let lock = Arc::new(AtomicU32::new(0));
    let mut info = info();
    info.set_flags(DeviceFlags::LOCKED_ACCESS, true);
    let (mut kernel, _attached) = serve(Locked(memory, lock.clone()), info, SimConfig::default());
    let write = |kernel: &mut SimKernel| run(kernel, &rw10(0x2a, 0, 0, 1), Data::Out(vec![1; 512]));
    assert_eq!(run(&mut kernel, &rw10(0x28, 0, 0, 1), Data::In(512)).status, 0, "reads need no lock");
    assert_eq!(lock.load(Ordering::SeqCst), 0);
    assert_eq!(sense(&write(&mut kernel)), (SenseKey::NotReady, 0x04, 0x0a), "in transition: try again");
    assert_eq!(write(&mut kernel).status, 0);
    lock.store(0, Ordering::SeqCst); // another node takes it
    assert_eq!(sense(&write(&mut kernel)), (SenseKey::NotReady, 0x04, 0x0b));
    assert_eq!(sense(&write(&mut kernel)), (SenseKey::NotReady, 0x04, 0x0a));
    assert_eq!(write(&mut kernel).status, 0);
}

#[test]
fn verify_finds_the_block_that_differs() {
    let (mut kernel, _attached, _) = disk();
    write(&mut kernel, 5, 7, 3);
    let verify =
        |kernel: &mut SimKernel, check: u8, blocks: u16, data: Data| run(kernel, &rw10(0x2f, check << 1, 5, blocks), data);
    assert_eq!(verify(&mut kernel, 0, 3, Data::None).status, 0);
    assert_eq!(verify(&mut kernel, 1, 3, Data::Out(vec![7; 1536])).status, 0);
    assert_eq!(verify(&mut kernel, 3, 3, Data::Out(vec![7; 512])).status, 0);
    let mut other = vec![7; 1536];
    other[1535] = 8;
    assert_eq!(sense(&verify(&mut kernel, 1, 3, Data::Out(other))), (SenseKey::Miscompare, 0x1d, 0));
    assert_eq!(sense(&verify(&mut kernel, 3, 4, Data::Out(vec![7; 512]))), (SenseKey::Miscompare, 0x1d, 0));
    assert_eq!(sense(&verify(&mut kernel, 2, 1, Data::Out(vec![7; 512]))), (SenseKey::IllegalRequest, 0x24, 0));
}

#[test]
fn only_handlers_that_can_write_atomically_do() {
    let (mut kernel, _attached, _) = disk();
    let mut cdb = cdb16(0x9c, 0, 4, 0);
    cdb[13] = 2;
    assert_eq!(sense(&run(&mut kernel, &cdb, Data::Out(vec![1; 1024]))), (SenseKey::IllegalRequest, 0x20, 0));
    let (memory, _) = memory();
    let mut info = info();
    info.supports(Operations::READ).0.max_atomic = 1024;
    let (mut kernel, _attached) = serve(memory, info, SimConfig::default());
    assert_eq!(run(&mut kernel, &cdb, Data::Out(vec![1; 1024])).status, 0);
    assert_eq!(read(&mut kernel, 5), 1);
    cdb[13] = 3;
    assert_eq!(sense(&run(&mut kernel, &cdb, Data::Out(vec![1; 1536]))), (SenseKey::IllegalRequest, 0x24, 0));
}
