//! Disks on a real kernel, ours and the peers', in one boot.
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{
    Options, Report, machine,
    profile::PART,
    results::{Goal, Results},
};
use crate::{
    packages,
    progress::quietly,
    root,
    vm::{self, Vm},
};

const BARE: &[&str] = &["bare loop", "bare loop, polling 20 us", "bare loop, polling 100 us", "bare loop, polling 1 ms"];
const RUNNER: &[&str] = &["tcmu-runner qcow"];

/// The bare loop with one `preadv` or `pwritev` for each entry.
const LIMITS: &[&str] = &["bare loop on a file", "bare loop on a file, polling 1 ms"];

const GOALS: &[Goal<'static>] = &[
    Goal { cases: &["4k rand*"], ours: &["null", "alloc"], peers: BARE, metric: "iops", ratio: 0.95, limits: &[] },
    Goal { cases: &["4k rand*"], ours: &["file"], peers: BARE, metric: "iops", ratio: 0.9, limits: LIMITS },
    Goal { cases: &["128k*", "1M*"], ours: &["file"], peers: BARE, metric: "iops", ratio: 0.8, limits: LIMITS },
    // What serving a file at all costs, beyond what the kernel's half of TCMU does.
    Goal { cases: &["*"], ours: &["file"], peers: LIMITS, metric: "iops", ratio: 0.95, limits: &[] },
    Goal { cases: &["*"], ours: &["file"], peers: LIMITS, metric: "cpu_us_per_io", ratio: 1.1, limits: &[] },
    Goal {
        cases: &["4k randread, depth 1", "4k randwrite, depth 1"],
        ours: &["file"],
        peers: RUNNER,
        metric: "iops",
        ratio: 2.5,
        limits: LIMITS,
    },
    Goal {
        cases: &["4k randread, depth 32, 4 jobs", "4k randwrite, depth 32, 4 jobs"],
        ours: &["file"],
        peers: RUNNER,
        metric: "iops",
        ratio: 2.0,
        limits: LIMITS,
    },
    Goal { cases: &["4k randread, depth 32"], ours: &["file"], peers: RUNNER, metric: "iops", ratio: 1.0, limits: LIMITS },
    Goal { cases: &["4k randwrite, depth 32"], ours: &["file"], peers: RUNNER, metric: "iops", ratio: 1.2, limits: LIMITS },
    Goal { cases: &["128k read*"], ours: &["file"], peers: RUNNER, metric: "iops", ratio: 1.6, limits: LIMITS },
    Goal { cases: &["128k write*"], ours: &["file"], peers: RUNNER, metric: "iops", ratio: 1.2, limits: LIMITS },
    Goal { cases: &["4k*"], ours: &["file"], peers: RUNNER, metric: "cpu_us_per_io", ratio: 0.5, limits: LIMITS },
    Goal { cases: &["4k*"], ours: &["file"], peers: RUNNER, metric: "switches_per_io", ratio: 0.5, limits: LIMITS },
];

/// Ours and the peers'.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    Ok(report(options, &measure(options, "guest.py", &[])?))
}

/// What the kernel's limits cost.
pub fn knobs(options: &Options) -> anyhow::Result<Report> {
    let results = measure(options, "guest.py", &["--set", "knobs"])?;
    let text = format!(
        "# What the kernel's limits cost\n\nOn {}: `file` on an image in tmpfs, with one limit changed at a time; the rest as in \
         [vm.md](vm.md). Medians of {} rounds of {} s each, in one boot and taking turns.\n\n## I/O operations a second\n\n{}\n## Processor \
         time of the daemon, microseconds for each I/O\n\n{}\n## Page faults of the daemon, for 1000 I/Os\n\n{}",
        machine(),
        options.rounds,
        options.seconds,
        results.table("iops", thousands),
        results.table("cpu_us_per_io", |value| format!("{value:.0}")),
        results.table("faults_per_io", |value| format!("{:.1}", value * 1000.0)),
    );
    let json = json!({ "machine": machine(), "rounds": options.rounds, "seconds": options.seconds, "medians": results.json() });
    Ok(Report { text, json, missed: 0 })
}

fn thousands(value: f64) -> String {
    if value >= 10_000.0 { format!("{:.1}k", value / 1000.0) } else { format!("{value:.0}") }
}

/// Has a script measure in the guest.
pub(super) fn measure(options: &Options, script: &str, arguments: &[&str]) -> anyhow::Result<Results> {
    let vm = Vm::ensure(4, 2)?;
    packages::ensure_peers()?;
    let bare = root().join("target/release/bare");
    quietly(
        "building the bare loop",
        Command::new("cc").args(["-O2", "-Wall", "-o"]).arg(&bare).arg(root().join("tests/bench/bare.c")),
    )?;
    let script = root().join("tests/bench").join(script).display().to_string();
    let (rounds, seconds) = (options.rounds.to_string(), options.seconds.to_string());
    let mut command = vec!["python3", "-B", &script, &rounds, &seconds];
    command.extend(arguments);
    for (name, value) in [("--targets", &options.targets), ("--cases", &options.cases)] {
        if let Some(value) = value {
            command.extend([name, value]);
        }
    }
    let mut guest = vm.command(&command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("the virtual machine")?;
    let mut results = Results::default();
    let (mut failures, mut taken, mut made) = (0, 0, None);
    for line in BufReader::new(guest.stdout.take().context("no output")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).replace(['\0', '\r'], "");
        match serde_json::from_str::<Value>(&line) {
            Ok(found) if found["measurements"].is_u64() => made = found["measurements"].as_u64(),
            Ok(found) => {
                taken += 1;
                failures += usize::from(!take(&found, &mut results));
            }
            Err(_) if line.is_empty() => {}
            Err(_) => println!("{line}"),
        }
    }
    ensure!(guest.wait()?.success() && failures == 0, "{failures} measurements failed, see above");
    ensure!(made == Some(taken), "{taken} measurements arrived, {made:?} were made: a line was lost, see above");
    Ok(results)
}

/// Takes one measurement; whether it was one.
fn take(found: &Value, results: &mut Results) -> bool {
    let text = |name: &str| found[name].as_str().unwrap_or_default();
    let (target, case) = (text("target"), text("case"));
    if let Some(error) = found["error"].as_str() {
        println!("{target}, {case}: {error}");
        return false;
    }
    match (found["iops"].as_f64(), found["calls_per_io"].as_f64()) {
        (Some(iops), _) => println!("  {target}, {case}: {iops:.0} IOPS"),
        (_, calls) => println!("  {target}, {case}: {:.2} system calls for each", calls.unwrap_or(0.0)),
    }
    for metric in ["iops", "cpu_us_per_io", "switches_per_io", "calls_per_io", "faults_per_io", "idle", "others_us"] {
        if let Some(value) = found[metric].as_f64() {
            results.add(target, case, metric, value);
        }
    }
    for (part, value) in found["parts_us"].as_object().into_iter().flatten() {
        results.add(target, case, &format!("{PART}{part}"), value.as_f64().unwrap_or(0.0));
    }
    for (way, percentiles) in found["latency_us"].as_object().into_iter().flatten() {
        for (percentile, value) in percentiles.as_object().into_iter().flatten() {
            if let Some(value) = value.as_f64() {
                results.add(target, case, &format!("{way}_p{percentile}_us"), value);
            }
        }
    }
    true
}

fn report(options: &Options, results: &Results) -> Report {
    let mut goals = String::from(Goal::HEADING);
    let missed = GOALS.iter().map(|goal| goal.judge(results, &mut goals)).sum();
    let (rounds, seconds) = (options.rounds, options.seconds);
    let text = format!(
        "# Disks on a real kernel\n\nOn {}: Debian's kernel under {}, 2 processors, 4 GiB. Medians of {rounds} rounds \
         of {seconds} s each, all in one boot; in each round all take turns at one case, and then at the next, so that those who are compared \
         are measured within a minute or two, since a machine that others share may be twice as slow a minute later. Images of 256 MiB in tmpfs; loopback, fio with libaio and O_DIRECT; ours with \
         requests of up to 1 MiB, as `tcmuctl create` makes disks, tcmu-runner's with 64 KiB, as targetcli does, the bare loops without a limit. Only ratios mean anything.\n\n## Goals\n\n{goals}\n## I/O operations a second\n\n{}\n## Processor time of the daemon, microseconds for each \
         I/O\n\n{}\n## Switches of its threads for each I/O\n\n{}\n## System calls for each I/O\n\n{}\n## Page faults of the daemon, for 1000 I/Os\n\n{}\n## Idle time of the machine's processors, in percent\n\n{}\n## Latency of reads, microseconds\n\nMedian:\n\n{}\n99 of 100:\n\n{}",
        machine(),
        vm::description(),
        results.table("iops", thousands),
        results.table("cpu_us_per_io", |value| format!("{value:.0}")),
        results.table("switches_per_io", |value| format!("{value:.2}")),
        results.table("calls_per_io", |value| format!("{value:.2}")),
        results.table("faults_per_io", |value| format!("{:.1}", value * 1000.0)),
        results.table("idle", |value| format!("{:.0}", value * 100.0)),
        results.table("read_p50_us", |value| format!("{value:.0}")),
        results.table("read_p99_us", |value| format!("{value:.0}")),
    );
    let json = json!({ "machine": machine(), "rounds": rounds, "seconds": seconds, "medians": results.json() });
    Report { text, json, missed }
}
