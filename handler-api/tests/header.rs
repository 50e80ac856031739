//! The C header: the same as the Rust file it is generated from, and good C and C++.
use std::{
    fmt::Write,
    fs,
    mem::{offset_of, size_of},
    path::Path,
    process::Command,
};

use tcmu_handler_api::abi;

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include/tcmu_handler.h");

#[test]
fn the_header_is_what_abi_rs_says() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap();
    let mut bytes = Vec::new();
    cbindgen::Builder::new().with_src(here.join("src/abi.rs")).with_config(config).generate().unwrap().write(&mut bytes);
    // Links of rustdoc read badly in C.
    let generated = String::from_utf8(bytes).unwrap().replace("[`", "`").replace("`]", "`");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        fs::write(HEADER, &generated).unwrap();
    }
    let checked_in = fs::read_to_string(HEADER).unwrap_or_default();
    assert!(
        checked_in == generated,
        "include/tcmu_handler.h is stale; refresh it with: UPDATE_HEADER=1 cargo test -p tcmu-handler-api --test header"
    );
}

macro_rules! layout {
    ($program:ident, $($struct:ident { $($field:ident),* })*) => {
        $(
            let _ = writeln!($program, "_Static_assert(sizeof(struct {0}) == {1}, \"size of {0}\");", stringify!($struct), size_of::<abi::$struct>());
            $(
                let _ = writeln!(
                    $program,
                    "_Static_assert(offsetof(struct {0}, {1}) == {2}, \"{0}.{1}\");",
                    stringify!($struct), stringify!($field), offset_of!(abi::$struct, $field)
                );
            )*
        )*
    };
}

#[test]
fn c_and_rust_agree_on_every_struct() {
    let mut program =
        String::from("#include \"tcmu_handler.h\"\n#ifdef __cplusplus\n#define _Static_assert static_assert\n#endif\n");
    layout! { program,
        tcmu_handler { abi, struct_size, subtype, name, version, config_desc, threads, concurrency, init, check_config, open, close,
            submit, cancel, reconfigure, lock, unlock, lock_state, describe, needs }
        tcmu_host { struct_size, abi, request_size, io_size, version, log, io, find_handler }
        tcmu_request { complete, owner, handler_data, op, flags, offset, length, source_offset, iov, bidi_iov, iov_count,
            bidi_iov_count, cdb, cdb_length, sense_length, sense, result }
        tcmu_io { op, fd, flags, iov_count, iov, offset, length, done, handler_data, host_data }
        tcmu_device_info { struct_size, block_size, size, ops, flags, device_type, physical_block_size, rotation_rate, max_transfer,
            optimal_transfer, unmap_granularity, unmap_alignment, max_unmap, max_atomic, buffer_alignment, vendor, product, revision,
            reserved }
        tcmu_open { struct_size, flags, config, name, notify, host_device }
        tcmu_change { struct_size, what, value, config }
        tcmu_extent { offset, length, state, reserved }
        tcmu_text { data, capacity }
    }
    let dir = tempfile::tempdir().unwrap();
    for (compiler, standard, file) in [("cc", "-std=c11", "check.c"), ("c++", "-std=c++17", "check.cc")] {
        let source = dir.path().join(file);
        fs::write(&source, &program).unwrap();
        let include = Path::new(HEADER).parent().unwrap();
        let output = Command::new(compiler)
            .args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"])
            .arg(include)
            .arg(&source)
            .output()
            .unwrap_or_else(|error| panic!("{compiler}: {error}"));
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
