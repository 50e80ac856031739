//! Where a daemon's processor time goes: `perf` in the virtual machine, sorted by what the kernel was doing.
use std::fmt::Write;

use serde_json::json;

use super::{Options, Report, machine, results::Results, vm};

const TARGETS: &str =
    "^tcmu-runner qcow$;^bare loop$;^bare loop, polling 1 ms$;^bare loop on a file$;^bare loop on a file, polling 1 ms$;^file$";
const CASES: &str = "^4k randread, depth (1|4)$;^4k randwrite, depth 32, 4 jobs$;^128k read";
/// Before the name of a part.
pub(super) const PART: &str = "part: ";

pub fn run(options: &Options) -> anyhow::Result<Report> {
    let options = Options {
        only: Vec::new(),
        targets: options.targets.clone().or_else(|| Some(TARGETS.into())),
        cases: options.cases.clone().or_else(|| Some(CASES.into())),
        ..*options
    };
    let results = vm::measure(&options, "profile.py", &[])?;
    let mut text = format!(
        "# Where the processor time goes\n\nOn {}: the machine and the disks of [vm.md](vm.md), sampled by `perf record -a -e cpu-clock` 499 \
         times a second on each processor while fio runs, which costs everybody something. Microseconds of the daemon's processor time for \
         each command that the disk got (tcmu-runner's are of 64 KiB at most), by what it was doing in the kernel, and of all others; medians of {} rounds of {} s. \
         Where a processor of that machine waits for the emulator, as it does to read its clock, many samples become one: so the sums are below \
         the scheduler's in vm.md. What is below 1 µs is noise.\n",
        machine(),
        options.rounds,
        options.seconds,
    );
    for case in &results.cases {
        let _ = write!(text, "\n## {case}\n\n{}", table(&results, case));
    }
    let json = json!({ "machine": machine(), "rounds": options.rounds, "seconds": options.seconds, "medians": results.json() });
    Ok(Report { text, json, missed: 0 })
}

/// Parts down, targets across; what takes most comes first.
fn table(results: &Results, case: &str) -> String {
    let value = |target: &String, metric: &str| results.median(target, case, metric).unwrap_or(0.0);
    let targets: Vec<_> = results.targets.iter().filter(|target| results.median(target, case, "iops").is_some()).collect();
    let mut parts = results.metrics(PART);
    let most = |part: &String| targets.iter().map(|target| value(target, part)).fold(0.0, f64::max);
    parts.sort_by(|a, b| most(b).total_cmp(&most(a)));
    let names: Vec<_> = targets.iter().map(|target| target.as_str()).collect();
    let mut text = format!("| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let mut line = |name: &str, show: &dyn Fn(&String) -> String| {
        let values: Vec<_> = targets.iter().map(|target| show(target)).collect();
        let _ = write!(text, "\n| {name} | {} |", values.join(" | "));
    };
    for part in &parts {
        line(part.trim_start_matches(PART), &|target| format!("{:.1}", value(target, part)));
    }
    line("**all**", &|target| format!("**{:.0}**", parts.iter().map(|part| value(target, part)).sum::<f64>()));
    line("fio and the kernel's threads", &|target| format!("{:.0}", value(target, "others_us")));
    line("I/O operations a second, meanwhile", &|target| format!("{:.0}", value(target, "iops")));
    text + "\n"
}
