//! `cargo xtask bench`: measures, beside the peers, and writes down what was found under `docs/benchmarks/`.
mod native;
mod profile;
mod results;
mod vm;

use std::fs;

use crate::{root, vm::build};

/// What is to be measured.
pub struct Options {
    /// `vm`, `native`, `knobs`, `profile`; empty: all.
    pub only: Vec<String>,
    pub rounds: u32,
    pub seconds: u32,
    /// Regular expressions, separated by semicolons; `None`: all.
    pub targets: Option<String>,
    pub cases: Option<String>,
}

/// Measures. What was measured in part is shown, but not written down.
pub fn run(options: &Options) -> anyhow::Result<u8> {
    let wanted = |what: &str| options.only.is_empty() || options.only.iter().any(|only| only == what);
    if let Some(unknown) = options.only.iter().find(|name| !["vm", "native", "knobs", "profile"].contains(&name.as_str())) {
        anyhow::bail!("there is no bench {unknown:?}; there are: native, vm, knobs, profile");
    }
    build()?;
    let whole = options.targets.is_none() && options.cases.is_none();
    let mut missed = 0;
    if wanted("native") {
        let report = native::run(options.seconds)?;
        missed += show(&report, "native", whole)?;
    }
    if wanted("vm") {
        let report = vm::run(options)?;
        missed += show(&report, "vm", whole)?;
    }
    if wanted("knobs") {
        show(&vm::knobs(options)?, "knobs", whole)?;
    }
    if wanted("profile") {
        show(&profile::run(options)?, "profile", whole)?;
    }
    Ok(u8::from(missed > 0))
}

/// A report in both forms, and how many goals were missed.
struct Report {
    text: String,
    json: serde_json::Value,
    missed: usize,
}

fn show(report: &Report, name: &str, keep: bool) -> anyhow::Result<usize> {
    println!("\n{}", report.text);
    if keep {
        let directory = root().join("docs/benchmarks");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(format!("{name}.md")), &report.text)?;
        fs::write(directory.join(format!("{name}.json")), serde_json::to_string_pretty(&report.json)? + "\n")?;
        println!("written to docs/benchmarks/{name}.md and {name}.json");
    }
    Ok(report.missed)
}

/// What the machine is, for whoever reads the figures later.
fn machine() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_matches([' ', ':', '\t']));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}
