//! The data path at native speed, against the simulated kernel.
use std::{
    fmt::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::Context;
use serde_json::{Value, json};

use super::{Report, machine};
use crate::progress::{quietly, shown};

/// Runs of the whole bench, of which the medians are taken.
const RUNS: usize = 5;

/// Nanoseconds for each command at most, of a case; or times another case. Nanoseconds are those of the machine on which libtcmu took 21;
/// elsewhere the ratios to it tell more.
const GOALS: &[(&str, f64, Option<&str>)] = &[
    ("ring", 15.0, None),
    ("ring", 15.0 / 21.0, Some("libtcmu ring")),
    ("null read", 50.0, None),
    ("null read", 50.0 / 21.0, Some("libtcmu ring")),
    ("null write", 50.0, None),
    ("null write", 50.0 / 21.0, Some("libtcmu ring")),
    ("file read", 1.3, Some("preadv alone")),
    ("null read, two devices", 1.15, Some("null read")),
];

pub fn run(seconds: u32) -> anyhow::Result<Report> {
    let bench = executable()?;
    let mut runs: Vec<Value> = Vec::new();
    for run in 0..RUNS {
        let mut command = Command::new(&bench);
        command.args(["--json", "--seconds", &format!("{}", f64::from(seconds) / 4.0)]);
        if run == 0 {
            println!("· commands a second, {RUNS} times\n  $ {}", shown(&command));
        }
        let output = command.output()?;
        runs.push(serde_json::from_slice(&output.stdout).context("the bench's output")?);
        println!("  run {} of {RUNS}", run + 1);
    }
    let cases: Vec<String> = runs[0]["nanoseconds"].as_object().into_iter().flat_map(|cases| cases.keys().cloned()).collect();
    let nanoseconds = |case: &str| {
        let mut values: Vec<f64> = runs.iter().filter_map(|run| run["nanoseconds"][case].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let instructions = |case: &str| instructions(&bench, case);
    let mut text = format!(
        "# The data path at native speed\n\nOn {}. One core, against the simulated kernel, in batches of 32, only our side timed (the kick and the \
         reading of the event count are in it); medians of {RUNS} runs. Instructions by callgrind, in user mode. `ring` fetches and completes, \
         and does nothing else; so does `libtcmu ring`, with the functions of Debian's package `libtcmu2` on the same ring. \
         `preadv alone` is the time of that call, into the same memory and in the same turns as `file`. With two devices each has a thread of its own.\n\n| case | ns for each command | \
         million a second | instructions |\n|---|---|---|---|\n",
        machine()
    );
    let mut figures = serde_json::Map::new();
    for case in &cases {
        let (ns, count) = (nanoseconds(case), instructions(case));
        let _ = writeln!(
            text,
            "| {case} | {ns:.1} | {:.2} | {} |",
            1000.0 / ns,
            count.map_or("-".into(), |count| format!("{count:.0}"))
        );
        figures.insert(case.clone(), json!({ "nanoseconds": ns, "instructions": count }));
    }
    text += "\n## Goals\n\n| case | found | goal | reached |\n|---|---|---|---|\n";
    let mut missed = 0;
    for (case, most, base) in GOALS.iter().filter(|(_, _, base)| base.is_none_or(|base| cases.iter().any(|case| case == base))) {
        let found = nanoseconds(case) / base.map_or(1.0, nanoseconds);
        let unit = base.map_or("ns".to_owned(), |base| format!("times {base}"));
        missed += usize::from(found > *most);
        let _ =
            writeln!(text, "| {case} | {found:.2} {unit} | ≤ {most:.2} | {} |", if found <= *most { "yes" } else { "**no**" });
    }
    Ok(Report { text, json: json!({ "machine": machine(), "cases": figures }), missed })
}

/// Builds the bench, and says where it is.
fn executable() -> anyhow::Result<PathBuf> {
    let mut build = Command::new("cargo");
    build.args(["bench", "-p", "tcmu", "--bench", "commands", "--no-run"]);
    quietly("building the bench", &mut build)?;
    let output = build.arg("--message-format=json").stdout(Stdio::piped()).output()?;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        (message["target"]["name"] == "commands").then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    });
    found.context("cargo did not say where the bench is")
}

/// Instructions for each command, where valgrind is there to count them.
fn instructions(bench: &PathBuf, case: &str) -> Option<f64> {
    const BATCHES: u32 = 500;
    let count = |batches: u32| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=commands::timed"])
            .arg(bench)
            .args(["--count", &batches.to_string(), case])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.lines().find_map(|line| line.split("Collected : ").nth(1)?.trim().parse::<f64>().ok())
    };
    // Without what only happens at the beginning.
    Some((count(2 * BATCHES)? - count(BATCHES)?) / f64::from(BATCHES) / 32.0)
}
