//! Plugins as files, in C and in Rust: loaded, judged, run.
mod common;

use std::{fs, path::PathBuf};

use common::{c_plugin, crate_dir, example, scratch};
use tcmu_handler_api::{
    bench::{self, Bench, Command, Options, conformance},
    host::{LoadError, Plugin, blocking_services},
    plugin::{Error, Threads},
};

fn conforms(path: &std::path::Path, config: &str, options: &Options) {
    let plugin = bench::load(path).unwrap();
    let report = conformance(&plugin, config, options);
    assert!(report.is_success(), "{report}");
    println!("{report}");
}

#[test]
fn the_ram_disk_in_c_conforms() {
    conforms(&c_plugin("ram", &crate_dir().join("examples/ram.c"), &["-pedantic"]), "", &Options::default());
}

#[test]
fn the_ram_disk_in_rust_conforms() {
    conforms(&example("ram"), "", &Options::default());
    conforms(&example("ram"), "", &Options { block_size: 4096, size: 64 << 20, seed: 7, ..Options::default() });
}

#[test]
fn the_disk_that_answers_late_conforms() {
    conforms(&example("delay"), "0", &Options { size: 1 << 20, ..Options::default() });
    conforms(&example("delay"), "1", &Options { size: 256 << 10, rounds: 20, ..Options::default() });
}

#[test]
fn the_device_of_whole_scsi_commands_conforms() {
    conforms(&example("rawcdb"), "", &Options::default());
}

#[test]
fn the_device_of_whole_scsi_commands_keeps_what_it_was_sent() {
    let device = Bench::new(bench::load(&example("rawcdb")).unwrap(), "").open().unwrap();
    device.run(Command::scsi(&[0x0a, 0, 0, 0, 5, 0]).data_out(b"hello").segments(&[2])).unwrap();
    let answer = device.run(Command::scsi(&[0x08, 0, 0, 0, 9, 0]).data_in(9)).unwrap();
    assert_eq!((answer.result, &answer.data[..5]), (5, &b"hello"[..]));
    let refused = device.answer(Command::scsi(&[0xff; 6])).unwrap();
    assert_eq!((refused.error(), refused.sense[2], refused.sense[12]), (Some(Error::Sense), 5, 0x20));
    assert_eq!(device.answer(Command::scsi(&[0x12, 0, 0, 0, 36, 0]).data_in(36)).unwrap().error(), Some(Error::NotHandled));
    assert!(device.close().unwrap().is_empty());
}

/// `ram.c` with one line of it exchanged.
fn variant(name: &str, what: &str, by: &str) -> PathBuf {
    let source = fs::read_to_string(crate_dir().join("examples/ram.c")).unwrap();
    assert!(source.contains(what), "ram.c has no {what:?}");
    c_source(name, &source.replace(what, by))
}

fn c_source(name: &str, source: &str) -> PathBuf {
    let file = scratch(&format!("{name}-source")).join("plugin.c");
    fs::write(&file, source).unwrap();
    c_plugin(name, &file, &["-Wno-unused-function", "-Wno-unused-const-variable"])
}

fn load_error(path: &std::path::Path) -> (LoadError, String) {
    let error = Plugin::load(path, blocking_services()).expect_err("it must be refused");
    let text = error.to_string();
    let (file, rest) = text.split_once(": ").expect("it names the file");
    assert_eq!(file, path.display().to_string());
    let rest = rest.to_owned();
    (error, rest)
}

#[test]
fn a_plugin_of_another_abi_version_is_refused_with_both_versions() {
    let path = variant("other-abi", ".abi = TCMU_HANDLER_ABI", ".abi = 77");
    let (error, text) = load_error(&path);
    assert!(matches!(error, LoadError::Abi { plugin: 77, host: 1, .. }));
    assert_eq!(text, "was built for version 77 of the handler ABI, this host speaks version 1: rebuild the plugin for it");
}

#[test]
fn a_table_that_ends_before_the_required_functions_is_refused() {
    let (error, text) = load_error(&variant("too-short", "= sizeof handler", "= 64"));
    assert!(matches!(error, LoadError::Table { .. }));
    assert_eq!(text, "broken handler table: struct_size is 64, at least 88 are needed");
}

#[test]
fn a_library_without_the_entry_symbol_is_refused() {
    let (error, text) = load_error(&c_source("no-entry", "int other(void); int other(void) { return 0; }\n"));
    assert!(matches!(error, LoadError::NoEntry { .. }));
    assert_eq!(text, "is no handler: it does not export `tcmu_handler_entry`");
}

#[test]
fn a_plugin_of_tcmu_runner_is_recognised() {
    let (_, text) = load_error(&c_source("old-runner", "int handler_init(void); int handler_init(void) { return 0; }\n"));
    assert!(text.contains("it looks like a plugin of tcmu-runner"), "{text}");
}

#[test]
fn a_file_that_is_no_library_is_refused_in_the_linkers_words() {
    let path = scratch("no-library").join("handler_x.so");
    fs::write(&path, "not an ELF file, but long enough to look at: ................................").unwrap();
    let (error, text) = load_error(&path);
    assert!(matches!(error, LoadError::Link { .. }));
    assert!(text.starts_with("cannot be loaded: ") && text.contains("invalid ELF header"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_refused_as_that() {
    let (error, text) = load_error(&scratch("no-file").join("handler_x.so"));
    assert!(matches!(error, LoadError::Link { .. }));
    assert!(text.contains("No such file or directory"), "{text}");
}

#[test]
fn a_subtype_that_cannot_be_an_object_path_is_refused() {
    let (error, text) = load_error(&variant("bad-subtype", "\"ramc\"", "\"ram-c/x\""));
    assert!(matches!(error, LoadError::Table { .. }));
    assert_eq!(text, "broken handler table: subtype \"ram-c/x\" is not 1 to 64 of A-Z a-z 0-9 _");
}

#[test]
fn a_null_string_in_the_table_is_refused() {
    let (_, text) = load_error(&variant("null-name", ".name = \"RAM disk in C\"", ".name = NULL"));
    assert_eq!(text, "broken handler table: name is no UTF-8 string");
}

#[test]
fn a_missing_required_function_is_refused_by_name() {
    for function in ["open", "close", "submit"] {
        let line = format!(".{function} = ram_{function}");
        let (error, text) = load_error(&variant(&format!("null-{function}"), &line, &format!(".{function} = NULL")));
        assert!(matches!(error, LoadError::Table { .. }));
        assert_eq!(text, format!("broken handler table: the required function `{function}` is null"));
    }
}

#[test]
fn an_unknown_thread_model_is_refused() {
    let (_, text) = load_error(&variant("bad-threads", ".threads = TCMU_THREADS_INLINE", ".threads = 9"));
    assert_eq!(text, "broken handler table: threads is 9, which this host does not know");
}

#[test]
fn an_entry_that_returns_null_is_refused() {
    let (_, text) = load_error(&variant("null-entry", "return &handler;", "return NULL;"));
    assert_eq!(text, "broken handler table: `tcmu_handler_entry` returned a null pointer");
}

#[test]
fn what_init_says_is_the_reason_of_the_refusal() {
    let init = "static int32_t no_init(const struct tcmu_host *host, struct tcmu_text *error) {\n\
        snprintf(error->data, error->capacity, \"libfoo 2 is needed, %s has 1\", host->version); return -ENOSYS; }\n\
        static const struct tcmu_handler handler = {\n .init = no_init,";
    let (error, text) = load_error(&variant("init-refuses", "static const struct tcmu_handler handler = {", init));
    let LoadError::Init { reason, .. } = error else { panic!("{error:?}") };
    assert_eq!(reason.errno(), libc::ENOSYS);
    assert!(text.starts_with("refused to start: libfoo 2 is needed, tcmu-runnerd "), "{text}");
}

#[test]
fn an_init_that_says_nothing_is_told_by_its_errno() {
    let init = "static int32_t no_init(const struct tcmu_host *host, struct tcmu_text *error) {\n\
        (void)host; (void)error; return -ENOSYS; }\n\
        static const struct tcmu_handler handler = {\n .init = no_init,";
    let (_, text) = load_error(&variant("init-silent", "static const struct tcmu_handler handler = {", init));
    assert!(text.starts_with("refused to start: the handler refused: Function not implemented"), "{text}");
}

#[test]
fn an_older_plugin_with_a_shorter_table_runs() {
    // Built before `cancel` and all behind it were appended: what follows there in memory is not the table's.
    let path = variant(
        "older",
        "    .submit = ram_submit,",
        "    .submit = ram_submit, .cancel = (void *)1, .reconfigure = (void *)2, .describe = (void *)3,",
    );
    let source = fs::read_to_string(scratch_source("older")).unwrap();
    let path_short = c_source("older-short", &source.replace("= sizeof handler", "= offsetof(struct tcmu_handler, cancel)"));
    drop(path);
    let plugin = bench::load(&path_short).unwrap();
    let table = plugin.table();
    assert!(table.cancel.is_none() && table.reconfigure.is_none() && table.describe.is_none());
    let report = conformance(&plugin, "", &Options { size: 1 << 20, rounds: 50, ..Options::default() });
    assert!(report.is_success(), "{report}");
}

fn scratch_source(name: &str) -> PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-source")).join("plugin.c")
}

#[test]
fn a_table_that_ends_within_a_field_does_not_have_that_field() {
    let source = fs::read_to_string(crate_dir().join("examples/ram.c")).unwrap();
    let source = source
        .replace("    .submit = ram_submit,", "    .submit = ram_submit, .cancel = (void *)0x1234567,")
        .replace("= sizeof handler", "= offsetof(struct tcmu_handler, cancel) + 4");
    let plugin = bench::load(&c_source("torn", &source)).unwrap();
    assert!(plugin.table().cancel.is_none());
}

#[test]
fn a_newer_plugin_with_a_longer_table_runs() {
    let newer = "struct newer { struct tcmu_handler now; void (*then)(void); void (*later)(void); };\n\
        static const struct newer handler = { .then = (void (*)(void))1, .later = (void (*)(void))2, .now = {";
    let source = fs::read_to_string(crate_dir().join("examples/ram.c")).unwrap();
    let source = source
        .replace("static const struct tcmu_handler handler = {", newer)
        .replace("    .submit = ram_submit,\n};", "    .submit = ram_submit,\n} };")
        .replace("return &handler;", "return &handler.now;");
    let plugin = bench::load(&c_source("newer", &source)).unwrap();
    assert_eq!((plugin.subtype(), plugin.threads()), ("ramc", Threads::Inline));
    let report = conformance(&plugin, "", &Options { size: 1 << 20, rounds: 50, ..Options::default() });
    assert!(report.is_success(), "{report}");
}

#[test]
fn a_c_handler_that_refuses_to_open_is_heard() {
    let path = variant(
        "open-refuses",
        "(void)open;",
        "if (open->config[0] != 'y') { snprintf(error->data, error->capacity, \"say y, not %s\", open->config); free(ram); return -EINVAL; }",
    );
    let plugin = bench::load(&path).unwrap();
    let error = Bench::new(plugin, "no").open().unwrap_err();
    assert_eq!(error.to_string(), "say y, not no");
    Bench::new(plugin, "y").open().unwrap().close().unwrap();
}
