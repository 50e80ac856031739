//! Whoever reads what the programs print may stop at any time.
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// `tcmu-runnerd --check` of a configuration and no plugins.
fn check(dir: &Path, config: &str) -> Command {
    let file = dir.join("tcmu.toml");
    fs::write(&file, config).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcmu-runnerd"));
    command.args(["--check", "--handler-path"]).arg(dir).arg("--config").arg(file);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_check_nobody_reads_ends_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut good = check(dir.path(), "");
    assert!(String::from_utf8_lossy(&good.output().unwrap().stdout).starts_with("configuration: valid\n"));
    let output = good.stdout(closed()).output().unwrap();
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), ""));
    let output = check(dir.path(), "no_such = 1").stdout(closed()).stderr(closed()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn tcmuctl_ends_with_its_own_status_when_nobody_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("tcmu.conf");
    fs::write(&from, "log_level = 3\n").unwrap();
    let mut migrate = Command::new(env!("CARGO_BIN_EXE_tcmuctl"));
    migrate.arg("migrate").arg("--from").arg(&from).args(["--to", "-"]);
    assert!(String::from_utf8_lossy(&migrate.output().unwrap().stdout).contains("log_level"));
    let output = migrate.stdout(closed()).stderr(closed()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let full = |command: &mut Command| {
        let full: File = OpenOptions::new().write(true).open("/dev/full").unwrap();
        command.stdout(full).output().unwrap()
    };
    let output = full(&mut check(dir.path(), ""));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).starts_with("tcmu-runnerd: standard output: No space left on device"), "{}", said(&output));
}
