//! `tcmuctl handler test` says what became of a plugin that ends its process or never ends.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The C example with a part changed, as a shared object.
fn plugin(dir: &Path, name: &str, what: &str, by: &str) -> PathBuf {
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("../handler-api");
    let source = fs::read_to_string(api.join("examples/ram.c")).unwrap();
    assert!(source.contains(what), "ram.c has no {what:?}");
    let (file, object) = (dir.join(format!("{name}.c")), dir.join(format!("handler_{name}.so")));
    fs::write(&file, source.replacen(what, by, 1)).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-D_GNU_SOURCE", "-include", "stdlib.h", "-include", "unistd.h", "-I"])
        .arg(api.join("include"))
        .arg("-o")
        .args([&object, &file])
        .status()
        .unwrap();
    assert!(compiled.success());
    object
}

fn test(plugin: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcmuctl"))
        .args(["handler", "test", "--config", "x", "--size", "4194304"])
        .args(more)
        .arg(plugin)
        .output()
        .unwrap()
}

#[test]
fn a_plugin_that_crashes_gets_a_report_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let submit = "    struct ram *ram = device;\n\n    for (uint32_t i";
    for (name, by, says) in [
        ("segv", "*(volatile int *)0 = 1;", "crashed (SIGSEGV)"),
        ("abort", "abort();", "crashed (SIGABRT)"),
        ("exit", "_exit(7);", "ended the process with status 7"),
    ] {
        let plugin = plugin(dir.path(), name, submit, &format!("    {by}\n{submit}"));
        let output = test(&plugin, &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(says) && text.contains("during the check \""), "{text}");
        let json: serde_json::Value = serde_json::from_slice(&test(&plugin, &["--json"]).stdout).unwrap();
        assert!(json["crash"].as_str().unwrap().contains(says), "{json}");
    }
}

#[test]
fn a_plugin_that_hangs_where_nobody_can_help_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let entry = "{\n    return &handler;";
    let plugin = plugin(dir.path(), "hang", entry, "{\n    for (;;) pause();\n    return &handler;");
    let output = test(&plugin, &["--timeout", "1"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("did not come to an end within 1 s, during the check \"load\""), "{text}");
}

#[test]
fn a_file_that_is_no_plugin_is_told_from_one_that_fails() {
    let output = test(Path::new("/etc/hostname"), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("tcmuctl: "));
}
