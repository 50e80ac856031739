//! The safe Rust side keeps its promises when a handler breaks its own.
use std::{
    fs::{File, OpenOptions},
    os::fd::AsFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use tcmu_handler_api::{
    bench::{Bench, BenchError, Command, Options, Outcome, conformance, linked},
    plugin::FileIo,
    prelude::*,
};

/// Panics or drops where its config string or the request's offset says so.
struct Fragile(String);

impl Handler for Fragile {
    const INFO: HandlerInfo = HandlerInfo { subtype: c"fragile", name: c"Fragile", version: c"1", config_desc: c"fragile/WHERE" };

    fn open(open: &Open<'_>, _info: &mut DeviceInfo) -> Result<Fragile, Refusal> {
        assert_ne!(open.config(), "open", "told to");
        Ok(Fragile(open.config().to_owned()))
    }
}

impl Device for Fragile {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        for request in batch {
            match request.offset() {
                0 => request.complete(Ok(())),
                512 => drop(request),
                1024 => panic!("told to"),
                _ => drop(thread::spawn(move || {
                    thread::sleep(Duration::from_millis(20));
                    request.buffer().fill(7);
                    request.complete(Ok(()));
                })),
            }
        }
    }

    fn reconfigure(&self, _change: Change<'_>, _info: &mut DeviceInfo) -> Result<(), Refusal> {
        panic!("{} {}", "told", "to")
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert_ne!(self.0, "close", "told to");
    }
}

const NOT_RECOVERABLE: Option<Error> = Some(Error::Errno(libc::ENOTRECOVERABLE));

fn fragile(config: &str) -> Bench {
    Bench::new(linked::<Fragile>().unwrap(), config).timeout(Duration::from_secs(5))
}

#[test]
fn a_panic_in_open_is_a_refusal_with_its_words() {
    let BenchError::Refused(refusal) = fragile("open").open().unwrap_err() else { panic!("it must be refused") };
    assert_eq!(refusal.errno(), libc::ENOTRECOVERABLE);
    assert!(refusal.message().starts_with("the handler panicked: ") && refusal.message().contains("told to"), "{refusal}");
}

#[test]
fn a_panic_in_close_is_survived() {
    assert!(fragile("close").open().unwrap().close().unwrap().is_empty());
}

#[test]
fn a_panic_in_reconfigure_is_a_refusal_and_the_device_goes_on() {
    let device = fragile("").open().unwrap();
    let info = device.info();
    let refusal = device.control("reconfigure", move |d| d.reconfigure(&Change::Size(1 << 20), info)).unwrap().unwrap_err();
    assert_eq!((refusal.errno(), refusal.message()), (libc::ENOTRECOVERABLE, "the handler panicked: told to"));
    device.run(Command::read(0, 512)).unwrap();
}

#[test]
fn a_panic_in_submit_fails_what_is_left_of_the_batch_and_the_device_goes_on() {
    let device = fragile("").open().unwrap();
    let batch = [0, 1024, 0, 0].map(|offset| Command::read(offset, 512));
    let errors: Vec<_> = device.submit_batch(batch).into_iter().map(|p| p.wait().unwrap().error()).collect();
    assert_eq!(errors, [None, NOT_RECOVERABLE, NOT_RECOVERABLE, NOT_RECOVERABLE]);
    device.run(Command::read(0, 512)).unwrap();
    assert!(device.close().unwrap().is_empty());
}

#[test]
fn a_dropped_request_is_completed_as_a_failure() {
    let device = fragile("").open().unwrap();
    assert_eq!(device.answer(Command::read(512, 512)).unwrap().error(), NOT_RECOVERABLE);
    assert!(device.close().unwrap().is_empty());
}

#[test]
fn a_request_may_be_completed_by_another_thread_after_submit_returned() {
    let device = fragile("").open().unwrap();
    let pending = device.submit(Command::read(2048, 512).segments(&[5]));
    device.run(Command::read(0, 512)).unwrap();
    assert!(!pending.is_done());
    assert_eq!(pending.wait_ok().unwrap().data, [7; 512]);
    assert!(device.close().unwrap().is_empty());
}

/// A file whose I/O the host does. If `IMPATIENT` it believes that a write has ended when `io_then` returns.
struct Disk<const IMPATIENT: bool>(File);

impl<const IMPATIENT: bool> Handler for Disk<IMPATIENT> {
    const INFO: HandlerInfo = HandlerInfo { subtype: c"disk", name: c"File", version: c"1", config_desc: c"disk/PATH" };

    fn check_config(config: &str) -> Result<(), Refusal> {
        if config.starts_with("/") && !config.starts_with("/dev/") {
            Ok(())
        } else {
            Err(Refusal::invalid(format!("{config:.20}: a path is needed")))
        }
    }

    fn open(open: &Open<'_>, info: &mut DeviceInfo) -> Result<Self, Refusal> {
        Self::check_config(open.config())?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(open.config());
        let file = file.map_err(|e| Refusal::io(open.config(), &e))?;
        file.set_len(info.size()).map_err(|e| Refusal::io(open.config(), &e))?;
        info.supports(Operations::FLUSH | Operations::UNMAP | Operations::WRITE_ZEROES);
        info.set_flags(DeviceFlags::UNMAP_ZEROES | DeviceFlags::FUA, true);
        Ok(Disk(file))
    }
}

impl<const IMPATIENT: bool> Device for Disk<IMPATIENT> {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        for request in batch {
            let (fd, offset, length) = (self.0.as_fd(), request.offset(), request.length());
            match request.operation() {
                Operation::Read => request.io(FileIo::read(fd, offset, length)),
                Operation::Write if IMPATIENT => {
                    let ended = Arc::new(AtomicBool::new(false));
                    let end = ended.clone();
                    let io = FileIo::write(fd, offset, length);
                    let wrong = Arc::new(AtomicBool::new(false));
                    let was_wrong = wrong.clone();
                    request.io_then(io, move |request, outcome| {
                        end.store(true, SeqCst);
                        request.complete(if was_wrong.load(SeqCst) { Err(Error::IO) } else { outcome });
                    });
                    wrong.store(!ended.load(SeqCst), SeqCst);
                }
                Operation::Write => {
                    let durable = request.flags().contains(RequestFlags::FUA);
                    request.io(FileIo::write(fd, offset, length).durable(durable));
                }
                Operation::Flush => request.io(FileIo::datasync(fd)),
                Operation::Unmap | Operation::WriteZeroes => request.io(FileIo::punch_hole(fd, offset, length)),
                _ => request.complete(Err(Error::UNSUPPORTED)),
            }
        }
    }
}

fn disk(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_TARGET_TMPDIR"), name].iter().collect();
    let _ = std::fs::remove_file(&path);
    path.display().to_string()
}

fn options() -> Options {
    Options { size: 1 << 20, rounds: 100, persistent: true, ..Options::default() }
}

#[test]
fn a_handler_whose_io_the_host_does_conforms_whether_it_ends_at_once_or_later() {
    let report = conformance(&linked::<Disk<false>>().unwrap(), &disk("patient"), &options());
    assert!(report.is_success(), "{report}");
    let deferred = report.checks.iter().find(|c| c.name.contains("ends I/O on descriptors later")).unwrap();
    assert_eq!(deferred.outcome, Outcome::Passed, "{report}");
}

#[test]
fn a_handler_that_counts_on_io_that_ends_at_once_is_found_out() {
    let report = conformance(&linked::<Disk<true>>().unwrap(), &disk("impatient"), &options());
    let failed: Vec<_> = report.failures().map(|c| c.name.as_str()).collect();
    assert_eq!(failed, ["all is right when the host ends I/O on descriptors later, on another thread"], "{report}");
}
