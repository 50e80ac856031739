//! The tests of the C ABI with their C plugins under AddressSanitizer and UndefinedBehaviorSanitizer.
use std::{path::PathBuf, process::Command};

use anyhow::{Context, bail};

use crate::progress::quietly;

/// How the tests compile plugins then (`handler-api/tests/common`).
const FLAGS: &str = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer";

/// Builds the tests as `cargo test` does, and runs them with the sanitizers' runtime in front.
pub fn run() -> anyhow::Result<()> {
    let mut examples = Command::new("cargo");
    quietly("building handlers", examples.args(["build", "-p", "tcmu-handler-api", "--all-features", "--examples", "--quiet"]))?;
    let mut tests = Command::new(executable("plugins")?);
    // The program is no sanitized one, so the runtime has to come first. A plugin is never unloaded, not even one that is refused: what
    // is kept of those would be called leaks.
    tests.env("LD_PRELOAD", runtime()?).env("ASAN_OPTIONS", "detect_leaks=0").env("TCMU_TEST_CFLAGS", FLAGS);
    quietly("tests of the C ABI under sanitizers", &mut tests)
}

/// The path of a test of the handler API, built.
fn executable(test: &str) -> anyhow::Result<PathBuf> {
    let mut build = Command::new("cargo");
    build.args(["test", "--workspace", "--all-features", "--no-run", "--message-format=json", "--quiet", "--test", test]);
    let output = build.output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let path = String::from_utf8_lossy(&output.stdout).lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == test).then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    path.with_context(|| format!("cargo does not tell where the test {test:?} is"))
}

/// The compiler's own AddressSanitizer.
fn runtime() -> anyhow::Result<PathBuf> {
    let output = Command::new("cc").arg("-print-file-name=libasan.so").output().context("cc")?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !path.is_absolute() {
        bail!("the C compiler has no AddressSanitizer (libasan)");
    }
    Ok(path)
}
