//! `tcmuctl handler test`: a plugin against the model, in a process of its own, so that a plugin that crashes or hangs gets a report
//! like any other.
use std::{
    io::{BufRead, BufReader, IsTerminal, Read, Write},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use tcmu_handler_api::bench::{self, Options};
use tcmu_runnerd::output::Out;

/// What is tested, and how.
#[derive(Args)]
pub(crate) struct Test {
    /// The plugin.
    plugin: PathBuf,
    /// The config string behind `<subtype>/`. All data of that device is overwritten.
    #[arg(long, default_value = "")]
    config: String,
    /// Bytes of the device to test with.
    #[arg(long, default_value_t = 16 << 20)]
    size: u64,
    /// Logical block size in bytes.
    #[arg(long, default_value_t = 512)]
    block_size: u32,
    /// Seed of the random numbers, to repeat a run.
    #[arg(long)]
    seed: Option<u64>,
    /// Data must survive closing and opening; without this the report only notes whether it does.
    #[arg(long)]
    persistent: bool,
    /// The handler keeps nothing and reads give zeros (as `null`): only zeros are written.
    #[arg(long)]
    zeros: bool,
    /// Seconds that the whole run may take.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
}

/// Before the lines by which the child tells where it is.
const MARK: &str = "\u{1}check ";
/// Tells the child that it is one.
const CHILD: &str = "TCMUCTL_TEST_CHILD";
/// After this people want to know what takes so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Exit status: 0 all passed, 1 some failed or the plugin crashed, 2 it can't be tested.
pub(crate) fn test(test: &Test, json: bool) -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        return run(test, json);
    }
    match watch(test, json) {
        Ok(code) => code,
        Err(error) => {
            errln!("tcmuctl: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The child: loads the plugin and tests it.
fn run(test: &Test, json: bool) -> ExitCode {
    let plugin = match bench::load(&test.plugin) {
        Ok(plugin) => plugin,
        Err(error) => {
            errln!("tcmuctl: {error}");
            return ExitCode::from(2);
        }
    };
    let default = Options::default();
    let options = Options {
        size: test.size,
        block_size: test.block_size,
        seed: test.seed.unwrap_or(default.seed),
        persistent: test.persistent,
        zeros: test.zeros,
        progress: Some(|group, name| errln!("{MARK}{group}: {name}")),
        ..default
    };
    let report = bench::conformance(&plugin, &test.config, &options);
    if json {
        outln!("{}", report.to_json());
    } else {
        out!("{report}");
    }
    ExitCode::from(u8::from(!report.is_success()))
}

/// The parent: passes on what the child says, and says how it ended if it can't any more.
fn watch(test: &Test, json: bool) -> anyhow::Result<ExitCode> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("no process for the plugin")?;
    let place = Arc::new(Mutex::new(String::from("load")));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let report = thread::spawn(move || {
        let mut report = Vec::new();
        stdout.map(|mut stdout| stdout.read_to_end(&mut report));
        report
    });
    let noise = thread::spawn({
        let place = place.clone();
        move || {
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(Result::ok) {
                match line.strip_prefix(MARK) {
                    Some(check) => check.clone_into(&mut place.lock().unwrap_or_else(PoisonError::into_inner)),
                    None => errln!("{line}"),
                }
            }
        }
    });
    let ended = wait(&mut child, Duration::from_secs(test.timeout), &place)?;
    let report = report.join().unwrap_or_default();
    let _ = noise.join();
    let place = place.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let why = match ended {
        Some(status) => match crash(status) {
            None => {
                Out.write_all(&report)?;
                return Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)));
            }
            Some(crash) => format!("the plugin {crash} during the check \"{place}\""),
        },
        None => format!("the plugin did not come to an end within {} s, during the check \"{place}\"", test.timeout),
    };
    if json {
        outln!("{}", serde_json::json!({ "plugin": test.plugin, "config": test.config, "failed": 1, "crash": why }));
    } else {
        outln!("FAILED  {why}");
    }
    Ok(ExitCode::FAILURE)
}

/// How a process ended that did not end by itself; `exit` in a plugin is as bad as a signal.
fn crash(status: ExitStatus) -> Option<String> {
    if let Some(signal) = status.signal() {
        let name = nix::sys::signal::Signal::try_from(signal).map_or("a signal", nix::sys::signal::Signal::as_str);
        return Some(format!("crashed ({name})"));
    }
    let code = status.code().unwrap_or(0);
    (code > 2).then(|| format!("ended the process with status {code}"))
}

/// `None`: it took too long and was killed.
fn wait(child: &mut Child, within: Duration, place: &Mutex<String>) -> anyhow::Result<Option<ExitStatus>> {
    let start = Instant::now();
    let show = std::io::stderr().is_terminal();
    loop {
        if let Some(status) = child.try_wait()? {
            if show && start.elapsed() > PATIENCE {
                eprint!("\r\x1b[K");
            }
            return Ok(Some(status));
        }
        if start.elapsed() > within {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        if show && start.elapsed() > PATIENCE {
            let place = place.lock().unwrap_or_else(PoisonError::into_inner);
            eprint!("\r\x1b[K{} s  {place}", start.elapsed().as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
}
