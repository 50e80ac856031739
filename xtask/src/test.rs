//! `cargo xtask test`: everything that has to hold before a change is good.
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    install, package,
    progress::{loudly, quietly, quietly_within},
    root, sanitize,
    vm::{self, Vm},
};

type Step = (&'static str, fn(&[String]) -> anyhow::Result<()>);

const STEPS: &[Step] = &[
    ("fmt", |_| quietly("format", Command::new("cargo").args(["fmt", "--all", "--check"]))),
    ("clippy", |_| {
        let mut clippy = Command::new("cargo");
        quietly("lints", clippy.args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]))
    }),
    ("unit", |_| unit()),
    ("sanitizers", |_| sanitize::run()),
    ("build", |_| vm::build()),
    ("conformance", |_| conformance()),
    ("e2e", end_to_end),
    // Packages installed on a clean Debian, which is made first, under systemd, and a reboot.
    ("install", |_| install::run()),
    ("fuzz", |_| {
        let mut replay = Command::new("cargo");
        // Most of what they stand on is built there already.
        replay.args(["test", "--quiet", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target"]);
        quietly("replaying the fuzz targets' corpus", replay.current_dir(root()))
    }),
    ("deny", |_| deny()),
];

/// Runs the steps and sums up. The exit status.
pub fn run(only: &[String], e2e: &[String]) -> anyhow::Result<u8> {
    let started = Instant::now();
    if let Some(unknown) = only.iter().find(|name| !STEPS.iter().any(|(step, _)| step == name)) {
        let steps: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
        anyhow::bail!("there is no step {unknown:?}; there are: {}", steps.join(", "));
    }
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, step) in STEPS.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|wanted| wanted == name)) {
        println!("== {name}");
        match step(e2e) {
            Ok(()) => passed += 1,
            Err(error) => {
                println!("FAILED {name}: {error:#}");
                failed.push(*name);
            }
        }
    }
    println!(
        "\n{} s; failed: {}",
        started.elapsed().as_secs(),
        if failed.is_empty() { "none".into() } else { failed.join(", ") }
    );
    println!("{passed} passed, {} failed", failed.len());
    Ok(u8::from(!failed.is_empty()))
}

/// Completions and manual pages: the test that compares them writes them when it is told to.
pub fn write_dist_files() -> anyhow::Result<()> {
    let mut write = Command::new("cargo");
    write.args(["test", "--quiet", "-p", "tcmu-runnerd", "--bins", "dist_files"]).env("TCMU_WRITE_DIST_FILES", "1");
    quietly("writing completions and manual pages", &mut write)
}

/// They take some two minutes, and ten where the machine does other things too: what takes longer hangs.
const UNIT_LIMIT: Duration = Duration::from_secs(20 * 60);

fn unit() -> anyhow::Result<()> {
    let mut build = Command::new("cargo");
    quietly("building unit tests", build.args(["test", "--workspace", "--all-features", "--no-run"]))?;
    let mut tests = Command::new("cargo");
    quietly_within(
        UNIT_LIMIT,
        "unit, property and ABI tests",
        tests.args(["test", "--workspace", "--all-features", "--no-fail-fast"]),
    )
}

/// Every plugin that we build against the model.
fn conformance() -> anyhow::Result<()> {
    let build = root().join("target/release");
    let image = std::env::temp_dir().join(format!("conformance-{}.img", std::process::id()));
    let file_config = image.display().to_string();
    let plugins: [(&str, &str, &[&str]); 6] = [
        ("libhandler_alloc.so", "x", &[]),
        ("libhandler_null.so", "x", &["--zeros"]),
        ("libhandler_file.so", &file_config, &["--persistent"]),
        ("examples/libram.so", "x", &[]),
        ("examples/libdelay.so", "1", &[]),
        ("examples/librawcdb.so", "x", &[]),
    ];
    let test = |(plugin, config, more): (&str, &str, &[&str])| {
        let mut command = Command::new(build.join("tcmuctl"));
        command.args(["handler", "test"]).arg(build.join(plugin)).args(["--config", config]).args(more);
        quietly(&format!("conformance of {plugin}"), &mut command)?;
        command.args(["--block-size", "4096", "--seed", "7"]);
        quietly(&format!("conformance of {plugin}, 4096-byte blocks"), &mut command)
    };
    let outcome = plugins.into_iter().try_for_each(test);
    let _ = std::fs::remove_file(image);
    outcome
}

/// Licences, duplicates and sources of our dependencies. Without the advisory database, which can't be fetched everywhere.
fn deny() -> anyhow::Result<()> {
    let deny = package::tool("cargo-deny")?;
    quietly("licences, duplicates, sources", Command::new(deny).args(["--all-features", "check", "licenses", "bans", "sources"]))
}

/// The end-to-end tests, a boot for each group: a directory of `tests/e2e`.
fn end_to_end(only: &[String]) -> anyhow::Result<()> {
    let vm = Vm::ensure(4, 2)?;
    let tests = root().join("tests/e2e");
    let groups = groups(&tests)?;
    let known = |name: &String| groups.iter().any(|(_, tests)| tests.contains(name));
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        let names: Vec<&str> = groups.iter().flat_map(|(_, tests)| tests).map(String::as_str).collect();
        anyhow::bail!("there is no end-to-end test {unknown:?}; there are: {}", names.join(", "));
    }
    let script = tests.join("run.sh").display().to_string();
    let mut failed = Vec::new();
    for (group, tests) in &groups {
        let chosen: Vec<&str> = tests.iter().filter(|name| only.contains(name)).map(String::as_str).collect();
        if chosen.is_empty() && !only.is_empty() {
            continue;
        }
        let command = [vec!["bash", &script, group], chosen].concat();
        let status = loudly(&mut with_limit(&vm.command(&command)))?;
        if !status.success() {
            failed.push(format!("{group} ({status})"));
        }
    }
    anyhow::ensure!(failed.is_empty(), "end-to-end tests: {}", failed.join(", "));
    Ok(())
}

/// Groups and the names of their tests.
fn groups(tests: &Path) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let name_of = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        Some(name.strip_prefix("test_")?.strip_suffix(".sh")?.to_owned())
    };
    let mut groups = Vec::new();
    for entry in std::fs::read_dir(tests)?.flatten().filter(|entry| entry.path().is_dir()) {
        let tests: Vec<String> = std::fs::read_dir(entry.path())?.flatten().filter_map(|file| name_of(&file.path())).collect();
        // Other directories hold what the tests use.
        if !tests.is_empty() {
            groups.push((entry.file_name().to_string_lossy().into_owned(), tests));
        }
    }
    groups.sort();
    Ok(groups)
}

/// The same command, ended after 40 minutes: a guest that hangs must not hang the test.
fn with_limit(command: &Command) -> Command {
    let mut limited = Command::new("timeout");
    limited.args(["-k", "10", "2400"]).arg(Path::new(command.get_program())).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            limited.env(name, value);
        }
    }
    limited
}
