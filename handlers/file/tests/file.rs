//! The handler passes the bench, and does with files what it says.
use std::{fs, os::unix::fs::PermissionsExt};

use handler_file::File;
use tcmu_handler_api::{
    bench::{self, Bench, BenchDevice, BenchError, Command, Options, conformance},
    host::{Events, Level, OpenDevice, OpenSpec, Plugin},
    plugin::{Change, DeviceFlags, DeviceInfo},
};

const SIZE: u64 = 1 << 20;

fn plugin() -> Plugin {
    bench::linked::<File>().unwrap()
}

fn open(config: &str) -> Result<BenchDevice, String> {
    Bench::new(plugin(), config).size(SIZE).open().map_err(|error| error.to_string())
}

fn errno(config: &str) -> i32 {
    match Bench::new(plugin(), config).size(SIZE).open() {
        Ok(_) => 0,
        Err(BenchError::Refused(refusal)) => refusal.errno(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn it_conforms_with_every_block_size() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("a.img").display().to_string();
    for block_size in [512, 4096] {
        let report = conformance(&plugin(), &config, &Options { block_size, ..Options::default() });
        assert!(report.is_success(), "{report}");
    }
}

#[test]
fn it_conforms_past_the_page_cache() {
    // On a real file system, where the tests are built: one in memory may not know O_DIRECT.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = format!("{};direct=on", dir.path().join("a.img").display());
    for block_size in [512, 4096] {
        let report = conformance(&plugin(), &config, &Options { block_size, ..Options::default() });
        assert!(report.is_success(), "{report}");
    }
}

#[test]
fn mistakes_in_the_config_string_are_named() {
    let message = |config: &str| plugin().check_config(config).unwrap_err().message().to_owned();
    assert!(message("").starts_with("the path is missing"));
    assert!(message("a.img").starts_with("the path \"a.img\" is relative"));
    assert_eq!(message("/a;ro=1"), "option ro=1: `on` or `off` is needed");
    assert_eq!(message("/a;sparse=on"), "option \"sparse\" is not known; there are: ro, create, direct, removable");
}

#[test]
fn a_missing_file_is_created_unless_told_not_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.img");
    assert_eq!(errno(&format!("{};create=off", path.display())), libc_enoent());
    assert!(!path.exists());
    drop(open(&path.display().to_string()).unwrap());
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (SIZE, 0o600));
    assert_eq!(errno(&format!("{}/none/x", dir.path().display())), libc_enoent());
}

#[test]
fn a_device_that_is_taken_over_gets_its_own_file_or_none() {
    struct Quiet;
    impl Events for Quiet {
        fn size_changed(&self, _: u64) {}
        fn log(&self, _: Level, _: &str) {}
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    let config = path.display().to_string();
    let take_over = || {
        let spec = OpenSpec { config: &config, name: "user_0/a", take_over: true, info: DeviceInfo::new(SIZE, 512) };
        let opened = plugin().open(spec, std::sync::Arc::new(Quiet));
        opened.map(|device| device.info().size()).map_err(|refusal| refusal.to_string())
    };
    assert!(take_over().unwrap_err().contains("No such file"), "an empty file must not take the place of one that is away");
    assert!(!path.exists());
    fs::write(&path, [1; 500]).unwrap();
    assert!(take_over().unwrap_err().contains("was it truncated?"), "nor one that is empty");
    // A resize that was left half done.
    fs::write(&path, [1; 5000]).unwrap();
    assert_eq!(take_over(), Ok(4608));
    assert_eq!(fs::metadata(&path).unwrap().len(), 5000, "zeros must not take the place of data that are away");
    drop(open(&config).unwrap());
    assert_eq!(take_over(), Ok(SIZE));
}

fn libc_enoent() -> i32 {
    std::io::Error::from(rustix::io::Errno::NOENT).raw_os_error().unwrap()
}

#[test]
fn two_devices_cannot_write_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("a.img").display().to_string();
    let first = open(&config).unwrap();
    assert!(open(&config).err().unwrap().ends_with("is in use by another device or process"));
    drop(first);
    let _reader = open(&format!("{config};ro=on")).unwrap();
    let _another = open(&format!("{config};ro=on")).unwrap();
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(open(&dir.path().display().to_string()).err().unwrap().contains("Is a directory"));
    assert!(open("/dev/null").err().unwrap().ends_with("is neither a file nor a block device"));
}

#[test]
fn a_read_only_device_that_is_too_short_serves_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("short.img");
    fs::write(&path, vec![7; 1000]).unwrap();
    let device = open(&format!("{};ro=on", path.display())).unwrap();
    assert_eq!(device.info().size(), 512);
    assert!(device.info().flags().contains(DeviceFlags::READ_ONLY));
    assert_eq!(device.run(Command::read(0, 512)).unwrap().data, vec![7; 512]);
    assert_eq!(fs::metadata(&path).unwrap().len(), 1000);
}

#[test]
fn the_file_grows_with_the_device_and_never_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    let device = open(&path.display().to_string()).unwrap();
    let info = device.info();
    let change = |change: fn(u64) -> Change<'static>, value| {
        device.control("reconfigure", move |device| device.reconfigure(&change(value), info)).unwrap()
    };
    let resize = |bytes| change(Change::Size, bytes).map(|info| info.size());
    assert_eq!(resize(2 * SIZE), Ok(2 * SIZE));
    assert_eq!(fs::metadata(&path).unwrap().len(), 2 * SIZE);
    assert_eq!(resize(SIZE / 2), Ok(SIZE / 2));
    assert_eq!(fs::metadata(&path).unwrap().len(), 2 * SIZE);
}

#[test]
fn a_disk_follows_its_file_to_another_name_and_to_no_other_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let device = open(&path("a").display().to_string()).unwrap();
    let info = device.info();
    let change = |config: String| {
        let changed = device.control("reconfigure", move |device| device.reconfigure(&Change::Config(&config), info)).unwrap();
        changed.map(drop).map_err(|refusal| refusal.message().to_owned())
    };
    let is_b = || {
        let described = device.control("describe", OpenDevice::describe).unwrap();
        described.contains(&format!("path={}\n", path("b").display()))
    };
    let to = |name: &str| change(path(name).display().to_string());
    fs::rename(path("a"), path("b")).unwrap();
    fs::write(path("a"), [0; 4096]).unwrap();
    to("b").unwrap();
    assert!(is_b());
    assert!(to("a").unwrap_err().contains("another file needs a new device"));
    assert!(to("c").unwrap_err().contains("No such file"));
    for option in ["ro=on", "direct=on"] {
        assert!(change(format!("{};{option}", path("b").display())).unwrap_err().contains("cannot be changed"));
    }
    assert!(change("relative".into()).unwrap_err().contains("is relative"));
    assert!(is_b(), "what was refused changes nothing");
}

#[test]
fn the_medium_of_a_removable_disk_is_exchanged_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let removable = |name: &str| format!("{};removable=on", path(name));
    fs::write(path("b"), [0xbb; 8192]).unwrap();
    let device = open(&removable("a")).unwrap();
    let info = device.info();
    assert!(info.flags().contains(DeviceFlags::REMOVABLE));
    let change = |config: String, size| {
        let change = move |device: &OpenDevice| device.reconfigure(&Change::Medium { config: &config, size }, info);
        device.control("reconfigure", change).unwrap().map_err(|refusal| refusal.message().to_owned())
    };
    let first = || device.run(Command::read(0, 512)).map(|answer| answer.data[0]);
    device.run(Command::write(0, &[0xaa; 512])).unwrap();

    for (config, size, why) in [
        (path("b"), 8192, "lacks removable=on"),
        (removable("a"), SIZE, "is in the device already"),
        (format!("{};ro=on", removable("b")), 16384, "has only 8192 bytes"),
        (format!("{};create=off", removable("c")), 8192, "No such file"),
        ("b;removable=on".into(), 8192, "is relative"),
    ] {
        let said = change(config.clone(), size).unwrap_err();
        assert!(said.contains(why), "{config}: {said}");
        assert_eq!(first().ok(), Some(0xaa), "what was refused changes nothing");
    }
    let changed = change(format!("{};ro=on", removable("b")), 8192).unwrap();
    assert!(changed.size() == 8192 && changed.flags().contains(DeviceFlags::READ_ONLY | DeviceFlags::REMOVABLE));
    assert!(!changed.flags().contains(DeviceFlags::THIN), "what the last one could do is forgotten");
    assert_eq!(first().ok(), Some(0xbb));
    drop(open(&path("a")).expect("nobody has the last one any more"));

    let out = change(String::new(), 0).unwrap();
    assert!(out.size() == 0 && out.flags().contains(DeviceFlags::NO_MEDIUM));
    assert!(first().is_err());
    assert_eq!(device.control("describe", OpenDevice::describe).unwrap(), "medium=none");
    let back = change(removable("a"), SIZE).unwrap();
    assert!(!back.flags().intersects(DeviceFlags::NO_MEDIUM | DeviceFlags::READ_ONLY));
    assert_eq!(first().ok(), Some(0xaa));
}

#[test]
fn a_file_that_is_cut_off_is_an_error_and_not_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    let device = open(&path.display().to_string()).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    assert!(device.run(Command::read(0, 4096)).is_ok());
    assert!(device.run(Command::read(4096, 512)).is_err());
}

#[test]
fn a_file_that_is_cut_off_is_not_written_until_it_is_whole_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    let device = open(&path.display().to_string()).unwrap();
    let length = |bytes| fs::File::options().write(true).open(&path).unwrap().set_len(bytes).unwrap();
    let answer = |command| device.run(command).is_ok();
    length(SIZE / 2);
    assert!(!answer(Command::flush()), "a part of what was written is gone");
    assert!(!answer(Command::write(SIZE - 512, &[1; 512])), "the file would grow, and what is missing would read as zeros");
    assert!(!answer(Command::read(SIZE / 2, 512)));
    assert!(answer(Command::read(0, 512)));
    assert_eq!(fs::metadata(&path).unwrap().len(), SIZE / 2);
    length(SIZE);
    assert!(answer(Command::flush()));
    assert!(answer(Command::write(SIZE - 512, &[1; 512])));
}

#[test]
fn a_file_without_a_name_is_served_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    let device = open(&path.display().to_string()).unwrap();
    fs::remove_file(&path).unwrap();
    device.run(Command::write(0, &[3; 512])).unwrap();
    device.run(Command::flush()).unwrap();
    assert_eq!(device.run(Command::read(0, 512)).unwrap().data, [3; 512]);
    assert!(!path.exists());
}
