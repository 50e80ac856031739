//! Plugins as files: in Rust, in C, and broken ones. Needs the feature `bench`.
#![cfg(feature = "bench")]
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tcmu_handler_api::{
    bench::{Options, conformance},
    host::{Plugin, blocking_services},
};

fn compile(dir: &Path, name: &str, source: &str) -> PathBuf {
    let (c, so) = (dir.join(format!("{name}.c")), dir.join(format!("handler_{name}.so")));
    fs::write(&c, source).unwrap();
    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/include");
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-I", include, "-o"])
        .arg(&so)
        .arg(&c)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    so
}

fn assert_conforms(plugin: &Path) {
    let plugin = Plugin::load(plugin, blocking_services()).unwrap();
    let report = conformance(&plugin, "x", &Options::default());
    assert_eq!(report.exit_status(), 0, "{report}");
    assert!(report.to_json().starts_with("{\"subject\":"));
}

#[test]
fn the_ram_disk_in_c_conforms() {
    let dir = tempfile::tempdir().unwrap();
    assert_conforms(&compile(dir.path(), "ram_c", include_str!("../examples/ram.c")));
}

#[test]
fn the_ram_disk_in_rust_conforms() {
    // Cargo builds examples before integration tests.
    let deps = std::env::current_exe().unwrap();
    let example = deps.parent().unwrap().parent().unwrap().join("examples/libram.so");
    assert!(example.exists(), "{} is missing", example.display());
    assert_conforms(&example);
}

/// The C example with one thing changed.
fn broken(dir: &Path, name: &str, from: &str, to: &str) -> String {
    let source = include_str!("../examples/ram.c");
    assert!(source.contains(from), "{from}");
    let source = source.replace(from, to).replace("static int32_t ram_open", "__attribute__((unused)) static int32_t ram_open");
    let source = source.replace("static void ram_", "__attribute__((unused)) static void ram_");
    let source = source.replace("static const struct", "__attribute__((unused)) static const struct");
    Plugin::load(&compile(dir, name, &source), blocking_services()).unwrap_err().to_string()
}

#[test]
fn plugins_that_do_not_fit_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let message = broken(dir, "abi", ".abi = TCMU_HANDLER_ABI", ".abi = 7");
    assert!(
        message.ends_with(
            "handler_abi.so: was built for version 7 of the handler ABI, this host speaks version 1: rebuild the plugin for it"
        ),
        "{message}"
    );
    let message = broken(dir, "size", "sizeof(struct tcmu_handler)", "16");
    assert!(message.contains("broken handler table: struct_size is 16, at least"), "{message}");
    let message = broken(dir, "subtype", "\"ram_c\"", "\"ram/c\"");
    assert!(message.contains("subtype \"ram/c\" is not 1 to 64 of A-Z a-z 0-9 _"), "{message}");
    let message = broken(dir, "submit", ".submit = ram_submit", ".submit = 0");
    assert!(message.contains("the required function `submit` is null"), "{message}");
    let message = broken(dir, "threads", "TCMU_THREADS_INLINE", "9");
    assert!(message.contains("threads is 9, which this host does not know"), "{message}");
    let message = broken(dir, "null", "return &ram_handler;", "return 0;");
    assert!(message.contains("returned a null pointer"), "{message}");
    let message = broken(
        dir,
        "symbol",
        "*tcmu_handler_entry(void)",
        "*something_else(void);const struct tcmu_handler *something_else(void)",
    );
    assert!(message.contains("does not export `tcmu_handler_entry`"), "{message}");
    let old = "int handler_init(void); int handler_init(void) { return 0; }";
    let message = Plugin::load(&compile(dir, "tcmur", old), blocking_services()).unwrap_err().to_string();
    assert!(message.contains("a plugin of tcmu-runner"), "{message}");
    fs::write(dir.join("handler_text.so"), "nonsense").unwrap();
    let message = Plugin::load(&dir.join("handler_text.so"), blocking_services()).unwrap_err().to_string();
    assert!(message.contains("cannot be loaded: ") && message.contains("file too short"), "{message}");
}

#[test]
fn shorter_and_longer_tables_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let source = include_str!("../examples/ram.c");
    let older =
        source.replace("sizeof(struct tcmu_handler)", "offsetof(struct tcmu_handler, cancel)").replace("ram_c", "ram_older");
    assert_conforms(&compile(dir.path(), "older", &older));
    let newer = source
        .replace(
            "static const struct tcmu_handler ram_handler = {",
            "static const struct { struct tcmu_handler old; char more[64]; } ram_newer = { .old = {",
        )
        .replace(".submit = ram_submit,\n};", ".submit = ram_submit,\n}, .more = {1}};")
        .replace("sizeof(struct tcmu_handler)", "sizeof(struct tcmu_handler) + 64")
        .replace("&ram_handler", "&ram_newer.old");
    assert_conforms(&compile(dir.path(), "newer", &newer));
}

#[test]
fn a_plugin_that_refuses_in_init_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let source = include_str!("../examples/ram.c").replace(
        "static const struct tcmu_handler ram_handler = {",
        "static int32_t ram_init(const struct tcmu_host *host, struct tcmu_text *error)\n{\n\t(void)host;\n\tsnprintf(error->data, error->capacity, \"no license\");\n\treturn -EPERM;\n}\n\nstatic const struct tcmu_handler ram_handler = {\n\t.init = ram_init,",
    );
    let message = Plugin::load(&compile(dir.path(), "init", &source), blocking_services()).unwrap_err().to_string();
    assert!(message.ends_with("handler_init.so: refused to start: no license"), "{message}");
}
