//! What a handler must do, as checks against a model in memory.
mod concurrency;
mod data;
mod lifecycle;
mod operations;
mod scsi;
mod subject;
mod table;

use std::time::Duration;

use self::subject::Subject;
use super::{
    command::Failure,
    device::{Bench, BenchDevice, BenchError, Fault, FaultKind},
    report::{Check, Outcome, Report},
    rng::Rng,
};
use crate::host::Plugin;

/// After so many hangs the run is given up.
const MAX_HANGS: u32 = 3;

/// How a conformance run is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The capacity that the handler is told, in bytes. It may know better; of a large device only both ends are used, 2 MiB each.
    pub size: u64,
    /// The logical block size that the handler is told, in bytes.
    pub block_size: u32,
    /// Where the pseudo-random data, sizes and orders come from.
    pub seed: u64,
    /// How many commands the random checks send each.
    pub rounds: u32,
    /// How long a call or a completion may take.
    pub timeout: Duration,
    /// Whether data must survive `close` and `open`. Without it the report only notes whether they do.
    pub persistent: bool,
    /// A config string that the handler must refuse, besides the bench's own.
    pub bad_config: Option<String>,
    /// The handler keeps nothing and reads give zeros: only zeros are written, and all the rest is tested.
    pub zeros: bool,
    /// Called before each check with its group and its rule: who watches a plugin that crashes knows then where it was.
    pub progress: Option<fn(group: &str, name: &str)>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            size: 16 << 20,
            block_size: 512,
            seed: 1,
            rounds: 400,
            timeout: Duration::from_secs(10),
            persistent: false,
            bad_config: None,
            zeros: false,
            progress: None,
        }
    }
}

/// Runs everything that a handler must do, on a device with this config string. **All data of the device is overwritten.** A plugin that
/// was loaded with [`super::services`] is also tested with I/O that the host ends late.
pub fn conformance(plugin: &Plugin, config: &str, options: &Options) -> Report {
    let bench =
        Bench::new(*plugin, config).size(options.size).block_size(options.block_size).write_cache(true).timeout(options.timeout);
    let mut run = Run {
        plugin: *plugin,
        bench,
        config: config.to_owned(),
        options: options.clone(),
        checks: Vec::new(),
        subject: None,
        faults: Vec::new(),
        hangs: 0,
        host_ios: 0,
    };
    table::checks(&mut run);
    lifecycle::opening(&mut run);
    data::checks(&mut run);
    operations::checks(&mut run);
    concurrency::checks(&mut run);
    data::deferred(&mut run);
    scsi::checks(&mut run);
    lifecycle::checks(&mut run);
    run.contract();
    Report {
        handler: format!("{} {}", plugin.subtype(), plugin.version()),
        config: config.to_owned(),
        seed: options.seed,
        checks: run.checks,
    }
}

/// Why a check did not pass.
enum Verdict {
    Failed {
        expected: String,
        found: String,
    },
    /// Something never came back: the device is of no use any more.
    Hung(String),
    NotApplicable(String),
    Noted(String),
}

type Checked = Result<(), Verdict>;

fn fail(expected: impl Into<String>, found: impl Into<String>) -> Verdict {
    Verdict::Failed { expected: expected.into(), found: found.into() }
}

fn not_applicable(why: impl Into<String>) -> Verdict {
    Verdict::NotApplicable(why.into())
}

impl From<Failure> for Verdict {
    fn from(failure: Failure) -> Verdict {
        match failure {
            Failure::Status { .. } => fail("success", failure.to_string()),
            Failure::TimedOut { .. } => Verdict::Hung(failure.to_string()),
        }
    }
}

impl From<BenchError> for Verdict {
    fn from(error: BenchError) -> Verdict {
        match error {
            BenchError::Refused(refusal) => {
                fail("success", format!("{refusal} ({})", std::io::Error::from_raw_os_error(refusal.errno())))
            }
            BenchError::Hung { .. } | BenchError::Outstanding(_) => Verdict::Hung(error.to_string()),
        }
    }
}

/// A conformance run.
struct Run {
    plugin: Plugin,
    bench: Bench,
    config: String,
    options: Options,
    checks: Vec<Check>,
    /// The open device, if there is one that is of use.
    subject: Option<Subject>,
    faults: Vec<Fault>,
    hangs: u32,
    /// I/Os that the handler gave to the host, on all devices.
    host_ios: u64,
}

impl Run {
    /// Makes a check that needs no open device.
    fn check(&mut self, group: &'static str, name: impl Into<String>, check: impl FnOnce(&mut Run) -> Checked) {
        let name = name.into();
        if let Some(progress) = self.options.progress {
            progress(group, &name);
        }
        let verdict = if self.hangs < MAX_HANGS { check(self) } else { Err(not_applicable("given up after several hangs")) };
        let outcome = match verdict {
            Ok(()) => Outcome::Passed,
            Err(Verdict::Failed { expected, found }) => Outcome::Failed { expected, found },
            Err(Verdict::Hung(found)) => {
                self.hangs += 1;
                Outcome::Failed { expected: format!("an end within {} s", self.options.timeout.as_secs_f32()), found }
            }
            Err(Verdict::NotApplicable(why)) => Outcome::NotApplicable { why },
            Err(Verdict::Noted(what)) => Outcome::Noted { what },
        };
        self.checks.push(Check { group, name, outcome });
    }

    /// Makes a check on an open device, which is opened if there is none.
    fn on_device(&mut self, group: &'static str, name: impl Into<String>, check: impl FnOnce(&mut Subject) -> Checked) {
        self.check(group, name, |run| {
            let mut subject = match run.subject.take() {
                Some(subject) => subject,
                None => run.open(false)?,
            };
            let verdict = check(&mut subject);
            match verdict {
                Ok(()) | Err(Verdict::NotApplicable(_) | Verdict::Noted(_)) => run.subject = Some(subject),
                // What the device holds is anybody's guess: start from what it says.
                Err(Verdict::Failed { .. }) => {
                    if subject.reload().is_ok() {
                        run.subject = Some(subject);
                    } else {
                        run.abandon(subject);
                    }
                }
                Err(Verdict::Hung(_)) => run.abandon(subject),
            }
            verdict
        });
    }

    /// Opens a device and reads what it holds.
    fn open(&mut self, deferred: bool) -> Result<Subject, Verdict> {
        let device = self.bench.clone().deferred_io(deferred).open()?;
        let rng = Rng::new(self.options.seed ^ self.checks.len() as u64).with_zeros(self.options.zeros);
        Subject::new(device, rng, self.options.rounds)
    }

    /// Closes a device and takes its faults along.
    fn close(&mut self, mut device: BenchDevice) -> Result<(), BenchError> {
        self.host_ios += device.host_ios();
        let closed = device.shut();
        self.faults.extend(device.take_faults_by_kind());
        closed
    }

    fn abandon(&mut self, subject: Subject) {
        // That it can't be closed is known already.
        let _ = self.close(subject.device);
    }

    /// Closes the device that checks have in common.
    fn close_subject(&mut self) -> Result<(), BenchError> {
        match self.subject.take() {
            Some(subject) => self.close(subject.device),
            None => Ok(()),
        }
    }

    /// What was seen on the way, in every check.
    fn contract(&mut self) {
        let closed = self.close_subject();
        self.check("contract", "a device closes when nothing is outstanding", |_| Ok(closed?));
        let faults = std::mem::take(&mut self.faults);
        let mut rule = |name: &str, expected: &str, kinds: &[FaultKind]| {
            let found: Vec<_> = faults.iter().filter(|f| kinds.contains(&f.kind)).map(|f| f.text.as_str()).collect();
            let outcome = match found.len() {
                0 => Outcome::Passed,
                n => {
                    let mut lines = found[..n.min(5)].join("\n");
                    if n > 5 {
                        lines += &format!("\nand {} more", n - 5);
                    }
                    Outcome::Failed { expected: expected.to_owned(), found: lines }
                }
            };
            self.checks.push(Check { group: "contract", name: name.to_owned(), outcome });
        };
        rule("every request is completed", "one completion for each request", &[FaultKind::Never]);
        rule("no request is completed twice", "one completion for each request", &[FaultKind::Twice]);
        rule("nothing is written outside of the buffers", "guard bytes around each segment as they were", &[FaultKind::Trespass]);
        rule("data to be written is not changed", "the buffer of a write as it was", &[FaultKind::Altered]);
        rule("nothing is touched after the completion", "memory of completed requests as it was", &[FaultKind::Late]);
        rule("every status is one of the ABI", "TCMU_STATUS_* or a negative errno, sense data that fits", &[FaultKind::Status]);
    }
}
