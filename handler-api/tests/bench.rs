//! The bench finds what is wrong: each of these handlers breaks one rule, and the check for it fails.
#![cfg(feature = "bench")]
use std::{
    sync::{Mutex, RwLock},
    time::Duration,
};

use tcmu_handler_api::{
    bench::{Options, Report, Verdict, conformance},
    host::{Plugin, blocking_services},
    plugin::handler_table,
    prelude::*,
};

/// What a handler does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    OffByOneBlock,
    DropsLastByte,
    OneSegmentOnly,
    WritesTooMuch,
    NeverCompletes,
    CompletesTwice,
    Panics,
    UnmapIsNothing,
    ForgetsOnMany,
    AcceptsWritesReadOnly,
}

static FAULT: Mutex<Fault> = Mutex::new(Fault::None);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Faulty(RwLock<Vec<u8>>, Fault, Mutex<Vec<Request>>);

impl Handler for Faulty {
    const INFO: HandlerInfo = HandlerInfo { subtype: c"faulty", name: c"n", version: c"1", config_desc: c"d" };

    fn open(_: &Open<'_>, info: &mut DeviceInfo) -> Result<Faulty, Refusal> {
        let fault = *FAULT.lock().unwrap();
        info.supports(Operations::UNMAP).set_flags(DeviceFlags::UNMAP_ZEROES, true);
        info.set_flags(DeviceFlags::READ_ONLY, fault == Fault::AcceptsWritesReadOnly);
        Ok(Faulty(RwLock::new(vec![0; info.size() as usize + 4096]), fault, Mutex::default()))
    }
}

impl Device for Faulty {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        let many = batch.len() > 100;
        for (n, request) in batch.enumerate() {
            let (mut at, length) = (request.offset() as usize, request.length() as usize);
            if self.1 == Fault::OffByOneBlock && request.operation() == Operation::Read {
                at += 512;
            }
            match (request.operation(), self.1) {
                (Operation::Read, Fault::DropsLastByte) => {
                    request.buffer().copy_from(&self.0.read().unwrap()[at..at + length - 1]);
                }
                (Operation::Read, _) => {
                    request.buffer().copy_from(&self.0.read().unwrap()[at..at + length]);
                }
                (Operation::Write, Fault::OneSegmentOnly) => {
                    let first = request.buffer().iovecs()[0].iov_len.min(length);
                    request.buffer().copy_to(&mut self.0.write().unwrap()[at..at + first]);
                }
                (Operation::Write, Fault::ForgetsOnMany) if many && n == 77 => {}
                (Operation::Write, Fault::WritesTooMuch) => {
                    let mut memory = self.0.write().unwrap();
                    request.buffer().copy_to(&mut memory[at..at + length]);
                    memory[at + length] = 0x99;
                }
                (Operation::Write, _) => {
                    request.buffer().copy_to(&mut self.0.write().unwrap()[at..at + length]);
                }
                (Operation::Unmap, Fault::UnmapIsNothing) => {}
                (Operation::Unmap, _) => self.0.write().unwrap()[at..at + length].fill(0),
                (_, Fault::Panics) => panic!("as told"),
                _ => {}
            }
            match self.1 {
                Fault::NeverCompletes if request.operation() == Operation::Unmap => self.2.lock().unwrap().push(request),
                Fault::CompletesTwice if request.operation() == Operation::Unmap => {
                    let raw = request.into_raw();
                    // SAFETY: wrong on purpose; the bench keeps the memory.
                    unsafe {
                        ((*raw).complete)(raw, 0);
                        ((*raw).complete)(raw, 0);
                    }
                }
                _ => request.complete(Ok(())),
            }
        }
    }
}

fn run(fault: Fault) -> Report {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *FAULT.lock().unwrap() = fault;
    let plugin = Plugin::linked(handler_table::<Faulty>(), blocking_services()).unwrap();
    let options = Options { size: 4 << 20, timeout: Duration::from_millis(500), ..Options::default() };
    conformance(&plugin, "x", &options)
}

fn failures(fault: Fault) -> Vec<&'static str> {
    run(fault).failures().map(|check| check.name).collect()
}

#[test]
fn a_right_handler_passes() {
    let report = run(Fault::None);
    assert_eq!(report.exit_status(), 0, "{report}");
    assert!(report.checks.iter().filter(|check| check.verdict == Verdict::Passed).count() > 12, "{report}");
}

#[test]
fn every_fault_is_found() {
    let found = |fault, check: &str| {
        let failed = failures(fault);
        assert!(failed.iter().any(|name| name.contains(check)), "{check}: only {failed:?}");
    };
    found(Fault::OffByOneBlock, "what is written is read");
    found(Fault::DropsLastByte, "what is written is read");
    found(Fault::OneSegmentOnly, "data in many segments");
    found(Fault::WritesTooMuch, "changes nothing around it");
    found(Fault::NeverCompletes, "every request is completed in time");
    found(Fault::CompletesTwice, "no request is completed twice");
    found(Fault::UnmapIsNothing, "UNMAP");
    found(Fault::ForgetsOnMany, "many requests at a time");
    found(Fault::AcceptsWritesReadOnly, "a read-only device refuses writes");
}

#[test]
fn a_panic_fails_its_requests_and_no_more() {
    // The operation that doesn't exist panics; that is a failure of that request, which the check allows.
    assert_eq!(failures(Fault::Panics), Vec::<&str>::new());
}
