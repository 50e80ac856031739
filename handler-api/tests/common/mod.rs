//! What the integration tests share: compilers, places, built examples.
#![allow(dead_code)] // each test binary uses its part

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// This crate's folder.
pub fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fresh folder below cargo's own for tests.
pub fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a scratch folder");
    path
}

/// Whether a program can be started.
pub fn have(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

/// Runs a compiler; what it says on failure is the failure.
pub fn compile(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Compiles C source to a plugin `name.so` in a fresh folder, with the options in `TCMU_TEST_CFLAGS` besides.
pub fn c_plugin(name: &str, source: &Path, extra: &[&str]) -> PathBuf {
    let plugin = scratch(name).join(format!("{name}.so"));
    let more = std::env::var("TCMU_TEST_CFLAGS").unwrap_or_default();
    compile(
        Command::new("cc")
            // What is put in front of the tests (a sanitizer's runtime) is not for the compiler.
            .env_remove("LD_PRELOAD")
            .args(["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-D_GNU_SOURCE", "-I"])
            .arg(crate_dir().join("include"))
            .args(extra)
            .args(more.split_whitespace())
            .arg(source)
            .arg("-o")
            .arg(&plugin)
            .arg("-pthread"),
    );
    plugin
}

/// The `cdylib` that cargo made of `examples/<name>.rs` for this test run.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let path = profile.join("examples").join(format!("lib{name}.so"));
    assert!(
        path.exists(),
        "{}: not there; `cargo test` without --test builds it, and so does `cargo build -p tcmu-handler-api --examples`",
        path.display()
    );
    path
}
