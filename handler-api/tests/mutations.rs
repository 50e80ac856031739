//! The bench finds what is wrong: handlers with one deliberate fault each, and the check that must see it. A check that nothing can
//! fail is no check.
use std::{
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use tcmu_handler_api::{
    abi,
    bench::{Options, Outcome, Report, conformance, linked},
    prelude::*,
};

/// The faults. `NONE` is a handler that can do everything, rightly.
mod fault {
    macro_rules! faults { ($($name:ident)*) => { faults!(@ 0usize; $($name)*); };
        (@ $n:expr; $name:ident $($rest:ident)*) => { pub const $name: usize = $n; faults!(@ $n + 1; $($rest)*); };
        (@ $n:expr;) => {}; }
    faults! {
        NONE STALE OFF_BY_ONE LAST_BLOCK SHORT_READ FIRST_SEGMENT TWICE NEVER PAST_END ALTERS LATE STATUS SHARED_BOUNCE
        UNKNOWN_OP FUA_IGNORED FLUSH_FAILS UNMAP_KEEPS ZEROES_TOO_MANY SAME_ONCE SAME_ZERO CAW_OFFSET CAW_WRITES CAW_RACES COPY_FORWARD
        EXTENTS_GAP EXTENTS_MANY EXTENTS_HOLE PREFETCH_FAILS READ_ONLY_WRITES SIZE NO_READ VENDOR DESCRIBE CHANGE CHANGE_CONFIG
        OPENS_ANYTHING TWO_LINES PANICS_IN_CHECK HANGS_IN_SUBMIT HANGS_IN_OPEN HANGS_IN_CLOSE PANICS_IN_SUBMIT SCSI_RESULT SCSI_SENSE
        SCSI_ACCEPTS LOCK REOPEN CONFIG_REFUSED TAKE_OVER NONDETERMINISTIC LARGE ATOMIC
    }
}
use fault::*;

const BLOCK: usize = 512;

struct Wrong<const FAULT: usize> {
    bytes: RwLock<Vec<u8>>,
    before: RwLock<Vec<u8>>,
    bounce: Mutex<Vec<u8>>,
    late: Mutex<Vec<usize>>,
    count: AtomicU32,
    locked: AtomicBool,
}

static OPENED: AtomicU32 = AtomicU32::new(0);

impl<const FAULT: usize> Handler for Wrong<FAULT> {
    const INFO: HandlerInfo =
        HandlerInfo { subtype: c"wrong", name: c"Wrong", version: c"1", config_desc: c"wrong/good: the only config" };

    fn check_config(config: &str) -> Result<(), Refusal> {
        match FAULT {
            PANICS_IN_CHECK if config.is_empty() => panic!("no config"),
            CONFIG_REFUSED => Err(Refusal::invalid("never")),
            TWO_LINES if config != "good" => Err(Refusal::invalid("this is\nwrong")),
            _ if config == "good" => Ok(()),
            _ => Err(Refusal::invalid(format!("{config:?}: `good` is needed"))),
        }
    }

    fn open(open: &Open<'_>, info: &mut DeviceInfo) -> Result<Self, Refusal> {
        if FAULT != OPENS_ANYTHING && FAULT != TWO_LINES && open.config() != "good" {
            return Err(Refusal::invalid("`good` is needed"));
        }
        if FAULT == HANGS_IN_OPEN {
            thread::sleep(Duration::from_secs(3600));
        }
        if FAULT == REOPEN && OPENED.fetch_add(1, SeqCst) > 0 {
            return Err(Refusal::new(libc::EBUSY, "still open"));
        }
        if FAULT == TAKE_OVER && open.is_take_over() {
            return Err(Refusal::unsupported("can't take over"));
        }
        let all = Operations::FLUSH
            | Operations::UNMAP
            | Operations::WRITE_ZEROES
            | Operations::WRITE_SAME
            | Operations::COMPARE_AND_WRITE
            | Operations::COPY
            | Operations::EXTENTS
            | Operations::PREFETCH;
        info.supports(all).set_flags(DeviceFlags::UNMAP_ZEROES | DeviceFlags::LOCKED_ACCESS | DeviceFlags::SCSI, true);
        let size = info.size() as usize;
        info.0.max_atomic = 4096;
        match FAULT {
            SIZE => info.0.size -= 1,
            NO_READ => {
                info.set_flags(DeviceFlags::SCSI, false).0.ops = 1 << abi::TCMU_OP_WRITE;
            }
            VENDOR => info.0.vendor = *b"\xffvendor\0",
            READ_ONLY_WRITES => {
                info.set_flags(DeviceFlags::READ_ONLY, true);
            }
            _ => {}
        }
        Ok(Wrong {
            bytes: RwLock::new(vec![0; size]),
            before: RwLock::new(vec![0; size]),
            bounce: Mutex::default(),
            late: Mutex::default(),
            count: AtomicU32::new(0),
            locked: AtomicBool::new(false),
        })
    }
}

impl<const FAULT: usize> Drop for Wrong<FAULT> {
    fn drop(&mut self) {
        if FAULT == HANGS_IN_CLOSE {
            thread::sleep(Duration::from_secs(3600));
        }
    }
}

impl<const FAULT: usize> Device for Wrong<FAULT> {
    const THREADS: Threads = Threads::Pool;

    fn submit(&self, batch: Batch<'_>) {
        for mut request in batch {
            let count = self.count.fetch_add(1, SeqCst);
            match FAULT {
                HANGS_IN_SUBMIT if count == 40 => thread::sleep(Duration::from_secs(3600)),
                PANICS_IN_SUBMIT if count == 40 => panic!("forty"),
                NEVER if count == 40 => {
                    request.into_raw();
                    continue;
                }
                _ => {}
            }
            let outcome = self.perform(&mut request);
            let data = request.buffer().iovecs().first().map(|s| (s.iov_base.cast::<u8>(), s.iov_len));
            let reads = request.operation() == Operation::Read;
            match FAULT {
                PAST_END if reads => {
                    let (base, len) = data.unwrap();
                    // SAFETY: guard bytes of the bench; what this test is for.
                    unsafe { base.add(len).write(base.add(len).read() ^ 1) };
                }
                TWICE if count == 40 => {
                    let raw = request.into_raw();
                    // SAFETY: the bench keeps the memory of completed requests; what this test is for.
                    unsafe {
                        ((*raw).complete)(raw, 0);
                        ((*raw).complete)(raw, -5);
                    }
                    continue;
                }
                LATE if reads => {
                    // The next one finds the buffers of earlier ones: the bench keeps them.
                    let mut late = self.late.lock().unwrap();
                    if let Some(address) = late.pop() {
                        // SAFETY: kept by the bench; what this test is for.
                        unsafe { (address as *mut u8).write(!(address as *mut u8).read()) };
                    }
                    let mine = data.unwrap().0 as usize;
                    request.complete(outcome);
                    thread::sleep(Duration::from_millis(1));
                    late.push(mine);
                    continue;
                }
                STATUS if count == 40 => {
                    let raw = request.into_raw();
                    // SAFETY: ours, completed once.
                    unsafe { ((*raw).complete)(raw, 77) };
                    continue;
                }
                _ => {}
            }
            request.complete(outcome);
        }
    }

    fn reconfigure(&self, change: Change<'_>, _info: &mut DeviceInfo) -> Result<(), Refusal> {
        match change {
            Change::Unknown(_) if FAULT == CHANGE => Ok(()),
            Change::Config(_) if FAULT == CHANGE_CONFIG => Ok(()),
            Change::Config("good") => Ok(()),
            _ => Err(Refusal::unsupported("no")),
        }
    }

    fn lock(&self, _tag: u32) -> Result<(), Refusal> {
        self.locked.store(true, SeqCst);
        Ok(())
    }

    fn unlock(&self) -> Result<(), Refusal> {
        self.locked.store(FAULT == LOCK, SeqCst);
        Ok(())
    }

    fn lock_state(&self) -> Result<tcmu_handler_api::plugin::LockState, Refusal> {
        use tcmu_handler_api::plugin::LockState;
        Ok(if self.locked.load(SeqCst) { LockState::Own(7) } else { LockState::Free })
    }

    fn describe(&self) -> String {
        if FAULT == DESCRIBE { "all is well".into() } else { "state=well\nlock=".into() }
    }
}

impl<const FAULT: usize> Wrong<FAULT> {
    fn perform(&self, request: &mut Request) -> Result<(), Error> {
        let (at, len) = (request.offset() as usize, request.length() as usize);
        let size = self.bytes.read().unwrap().len();
        let is_last = at + len == size;
        match request.operation() {
            Operation::Read => {
                let bytes = self.bytes.read().unwrap();
                let from = match FAULT {
                    OFF_BY_ONE if at > 0 => at - BLOCK,
                    _ => at,
                };
                let mut data = bytes[from..from + len].to_vec();
                match FAULT {
                    STALE if at % (16 * BLOCK) == 0 => data.copy_from_slice(&self.before.read().unwrap()[at..at + len]),
                    SHORT_READ => data.truncate(len - 1),
                    FIRST_SEGMENT => data.truncate(request.buffer().iovecs()[0].iov_len),
                    LARGE if len > 64 << 10 => data.truncate(64 << 10),
                    NONDETERMINISTIC => data[0] ^= self.count.load(SeqCst) as u8,
                    _ => {}
                }
                request.buffer().copy_from(&data);
            }
            Operation::Write => {
                if FAULT == LAST_BLOCK && is_last && at > 0 || FAULT == FUA_IGNORED && request.flags().contains(RequestFlags::FUA)
                {
                    return Ok(());
                }
                if FAULT == ATOMIC && request.flags().contains(RequestFlags::ATOMIC) {
                    return Err(Error::UNSUPPORTED);
                }
                let data = if FAULT == SHARED_BOUNCE {
                    *self.bounce.lock().unwrap() = request.buffer().to_vec();
                    thread::sleep(Duration::from_micros(200));
                    let mut bounced = self.bounce.lock().unwrap().clone();
                    bounced.resize(len, 0);
                    bounced
                } else {
                    request.buffer().to_vec()
                };
                if FAULT == ALTERS {
                    request.buffer().fill_at(0, 1, !data[0]);
                }
                let mut bytes = self.bytes.write().unwrap();
                self.before.write().unwrap()[at..at + len].copy_from_slice(&bytes[at..at + len]);
                bytes[at..at + len].copy_from_slice(&data);
            }
            Operation::Flush if FAULT == FLUSH_FAILS => return Err(Error::IO),
            Operation::Prefetch if FAULT == PREFETCH_FAILS => return Err(Error::IO),
            Operation::Flush | Operation::Prefetch => {}
            Operation::Unmap if FAULT == UNMAP_KEEPS => {}
            Operation::Unmap => self.bytes.write().unwrap()[at..at + len].fill(0),
            Operation::WriteZeroes => {
                let more = if FAULT == ZEROES_TOO_MANY && !is_last { BLOCK } else { 0 };
                self.bytes.write().unwrap()[at..at + len + more].fill(0);
            }
            Operation::WriteSame => {
                let pattern = request.buffer().to_vec();
                let times = if FAULT == SAME_ONCE { 1 } else { len / BLOCK };
                let mut bytes = self.bytes.write().unwrap();
                for place in bytes[at..at + len].chunks_mut(BLOCK).take(times) {
                    if FAULT == SAME_ZERO { place.fill(0) } else { place.copy_from_slice(&pattern) }
                }
            }
            Operation::CompareAndWrite => {
                let both = request.buffer().to_vec();
                let (expected, new) = both.split_at(len);
                let mut bytes = self.bytes.write().unwrap();
                let place = &bytes[at..at + len];
                if let Some(n) = (0..len).find(|n| place[*n] != expected[*n]) {
                    if FAULT == CAW_WRITES {
                        bytes[at..at + len].copy_from_slice(new);
                    }
                    let offset = if FAULT == CAW_OFFSET { n + at } else { n };
                    return Err(Error::Miscompare { offset: offset as u64 });
                }
                if FAULT == CAW_RACES {
                    drop(bytes);
                    thread::sleep(Duration::from_micros(300));
                    bytes = self.bytes.write().unwrap();
                }
                bytes[at..at + len].copy_from_slice(new);
            }
            Operation::Copy => {
                let from = request.source_offset() as usize;
                let mut bytes = self.bytes.write().unwrap();
                if FAULT == COPY_FORWARD {
                    (0..len).for_each(|n| bytes[at + n] = bytes[from + n]);
                } else {
                    bytes.copy_within(from..from + len, at);
                }
            }
            Operation::Extents => {
                let gap = if FAULT == EXTENTS_GAP { BLOCK as u64 } else { 0 };
                let state = if FAULT == EXTENTS_HOLE { abi::TCMU_EXTENT_DEALLOCATED } else { abi::TCMU_EXTENT_MAPPED };
                let mut entry = Vec::new();
                entry.extend((at as u64 + gap).to_ne_bytes());
                entry.extend((len as u64).to_ne_bytes());
                entry.extend(state.to_ne_bytes());
                entry.extend([0; 4]);
                request.buffer().copy_from(&entry);
                request.set_result(if FAULT == EXTENTS_MANY { 5000 } else { 1 });
            }
            Operation::Scsi => return self.scsi(request),
            _ if FAULT == UNKNOWN_OP => {}
            _ => return Err(Error::UNSUPPORTED),
        }
        Ok(())
    }

    fn scsi(&self, request: &mut Request) -> Result<(), Error> {
        match request.cdb()[0] {
            0 => request.set_result(0),
            0x12 => return Err(Error::NotHandled),
            _ if FAULT == SCSI_RESULT => request.set_result(1 << 20),
            _ if FAULT == SCSI_ACCEPTS => request.set_result(0),
            _ if FAULT == SCSI_SENSE => return Err(Error::Sense),
            _ => {
                request.set_sense(&[0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0]);
                return Err(Error::Sense);
            }
        }
        Ok(())
    }
}

fn options() -> Options {
    Options { size: 256 << 10, rounds: 60, timeout: Duration::from_millis(400), ..Options::default() }
}

fn run<const FAULT: usize>() -> Report {
    conformance(&linked::<Wrong<FAULT>>().unwrap(), "good", &options())
}

/// The check that must fail, and (unless `others`) alone.
fn finds<const FAULT: usize>(name: &str) -> Report {
    let report = run::<FAULT>();
    let failed: Vec<_> = report.failures().map(|c| c.name.as_str()).collect();
    assert!(failed.contains(&name), "{name:?} must fail:\n{report}");
    report
}

fn finds_only<const FAULT: usize>(name: &str) {
    let report = finds::<FAULT>(name);
    assert_eq!(report.failures().count(), 1, "{name:?} alone must fail:\n{report}");
}

#[test]
fn a_right_handler_that_can_do_everything_passes_every_check() {
    let report = run::<NONE>();
    assert!(report.is_success(), "{report}");
    let idle: Vec<_> =
        report.checks.iter().filter(|c| matches!(c.outcome, Outcome::NotApplicable { .. })).map(|c| c.name.as_str()).collect();
    assert_eq!(
        idle,
        [
            "a read-only device refuses writes",
            "all is right when the host ends I/O on descriptors later, on another thread",
            "without a whole command the device still refuses what it did not announce",
        ],
        "{report}"
    );
}

#[test]
fn wrong_data_is_found() {
    let sizes = "what is written is read back, in many sizes and places";
    finds::<STALE>(sizes);
    finds::<OFF_BY_ONE>(sizes);
    finds::<LAST_BLOCK>("the first and the last block hold what is written there");
    finds::<SHORT_READ>("a read fills its whole buffer");
    finds::<FIRST_SEGMENT>("data comes in segments of any length and alignment");
    finds::<NONDETERMINISTIC>("the same read twice gives the same");
    finds::<LARGE>(sizes);
    finds_only::<ATOMIC>("an atomic write is done");
    finds::<FUA_IGNORED>("a write with FUA is done like any other");
    finds::<READ_ONLY_WRITES>("a read-only device refuses writes");
    finds::<SHARED_BOUNCE>("requests in flight from several threads do not disturb each other");
}

#[test]
fn wrong_completions_are_found() {
    finds_only::<TWICE>("no request is completed twice");
    let report = finds::<NEVER>("every request is completed");
    assert!(report.to_string().contains("was not completed within 0.4 s"), "{report}");
    finds::<STATUS>("every status is one of the ABI");
}

#[test]
fn trespasses_are_found() {
    finds_only::<PAST_END>("nothing is written outside of the buffers");
    finds_only::<ALTERS>("data to be written is not changed");
    finds::<LATE>("nothing is touched after the completion");
}

#[test]
fn wrong_operations_are_found() {
    finds_only::<UNKNOWN_OP>("an unknown operation fails and does no harm");
    finds::<FLUSH_FAILS>("a flush succeeds and changes nothing");
    finds_only::<UNMAP_KEEPS>("unmapped blocks read as announced, their neighbours as before");
    finds_only::<ZEROES_TOO_MANY>("write zeroes makes zeros, and nothing beside them");
    finds_only::<SAME_ONCE>("write same repeats its block, and writes nothing beside");
    finds_only::<SAME_ZERO>("write same repeats its block, and writes nothing beside");
    finds_only::<CAW_OFFSET>("compare and write tells the first different byte, and writes nothing");
    finds::<CAW_WRITES>("compare and write tells the first different byte, and writes nothing");
    finds_only::<CAW_RACES>("compare and write is atomic");
    finds_only::<COPY_FORWARD>("copies arrive, overlapping ones too");
    finds_only::<EXTENTS_GAP>("extents cover their range in order and without gaps");
    finds_only::<EXTENTS_MANY>("extents cover their range in order and without gaps");
    finds_only::<EXTENTS_HOLE>("extents cover their range in order and without gaps");
    finds_only::<PREFETCH_FAILS>("a prefetch succeeds and changes nothing");
}

#[test]
fn wrong_facts_and_configs_are_found() {
    finds::<SIZE>("what the device says of itself makes sense");
    finds::<NO_READ>("what the device says of itself makes sense");
    finds_only::<VENDOR>("what the device says of itself makes sense");
    finds::<CONFIG_REFUSED>("the given config string is accepted");
    finds::<TWO_LINES>("a wrong config string is refused with one line that says why");
    finds::<PANICS_IN_CHECK>("a wrong config string is refused with one line that says why");
    finds_only::<OPENS_ANYTHING>("what `check_config` refuses `open` refuses too, with a reason");
}

#[test]
fn wrong_life_cycles_are_found() {
    finds_only::<DESCRIBE>("the description of the state is lines of key=value");
    finds_only::<CHANGE>("a change that nobody knows is refused and does no harm");
    finds_only::<CHANGE_CONFIG>("a change to a wrong config string is refused and does no harm");
    finds_only::<LOCK>("the exclusive lock is taken, told of and given back");
    finds::<REOPEN>("a device opens and closes, five times");
    finds_only::<TAKE_OVER>("a device can be taken over from an earlier process");
}

#[test]
fn lost_data_is_found_only_where_it_must_survive() {
    let options = Options { persistent: true, ..options() };
    let report = conformance(&linked::<Wrong<NONE>>().unwrap(), "good", &options);
    let failed: Vec<_> = report.failures().map(|c| c.name.as_str()).collect();
    assert_eq!(failed, ["data is there after close and open"]);
}

#[test]
fn hangs_and_panics_are_found_and_do_not_hang_the_bench() {
    let report = finds::<HANGS_IN_OPEN>("a device opens and closes, five times");
    assert!(report.to_string().contains("`open` did not return within 0.4 s"), "{report}");
    finds::<HANGS_IN_CLOSE>("a device opens and closes, five times");
    finds::<HANGS_IN_SUBMIT>("every request is completed");
    let report = finds::<PANICS_IN_SUBMIT>("what is written is read back, in many sizes and places");
    assert!(report.to_string().contains("State not recoverable"), "{report}");
}

#[test]
fn wrong_scsi_answers_are_found() {
    finds::<SCSI_RESULT>("random CDBs of all lengths, with and without data, are completed");
    finds::<SCSI_SENSE>("an unknown operation code is refused or left to the host");
    finds::<SCSI_ACCEPTS>("an unknown operation code is refused or left to the host");
}
