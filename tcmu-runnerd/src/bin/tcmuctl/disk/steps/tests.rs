use tcmu::configfs::fake::FakeConfigfs;

use super::*;
use crate::disk::{
    fixture::machine,
    plan::{self, Allow},
    secret::Secret,
    spec::{ChapWish, IscsiWish, Setting},
};

fn vm1() -> DiskSpec {
    let mut spec = DiskSpec::new("file", "vm1", Size(1 << 30));
    spec.config = "/srv/vm1.img".into();
    spec
}

/// The lines that people see, with what must be allowed.
fn lines(machine: &Machine, spec: &DiskSpec) -> Vec<String> {
    let plan = plan::plan(machine, spec).unwrap();
    plan.changes.iter().map(|change| format!("{} {}", change.sign(), plan::line(spec, change))).collect()
}

fn empty(fake: &FakeConfigfs) -> bool {
    fake.made().iter().all(|path| ["core", "iscsi", "loopback", "vhost"].contains(&path.as_str()))
}

#[test]
fn what_was_made_as_wanted_needs_no_change() {
    let (_dir, fake, machine) = machine();
    let mut spec = vm1();
    spec.write_cache = Some(true);
    spec.block_size = Some(4096);
    spec.loopback = true;
    spec.vhost = true;
    spec.iscsi.push(IscsiWish { initiators: vec!["iqn.x:a".into()], ..IscsiWish::default() });
    spec.attributes.insert("cmd_time_out".into(), Setting::Number(60));
    assert_eq!(lines(&machine, &spec), ["+ create: file /srv/vm1.img, 1G, loopback, vhost, iscsi (default)"]);
    let disk = create(&machine, &spec).unwrap();
    assert_eq!(lines(&machine, &spec), [""; 0]);
    assert_eq!(disk.attribute_text("hw_max_sectors").unwrap(), "2048");
    delete(&machine, &disk, false).unwrap();
    assert!(empty(&fake), "{:#?}", fake.made());
}

#[test]
fn a_disk_is_brought_to_what_is_wanted() {
    let (_dir, _fake, machine) = machine();
    let mut spec = vm1();
    spec.loopback = true;
    let disk = create(&machine, &spec).unwrap();
    spec.loopback = false;
    spec.size = Size(2 << 30);
    spec.write_cache = Some(true);
    spec.attributes.insert("qfull_time_out".into(), Setting::Number(5));
    spec.iscsi.push(IscsiWish { target: Some("iqn.2026-01.org.example:t".into()), ..IscsiWish::default() });
    let all = lines(&machine, &spec);
    assert_eq!(
        all[..4],
        ["~ qfull_time_out -1 → 5", "~ write_cache off → on", "+ iscsi iqn.2026-01.org.example:t", "~ size 1G → 2G",]
    );
    assert!(all[4].starts_with("- loopback naa.5001405"), "{all:?}");
    let changes = plan::plan(&machine, &spec).unwrap().changes;
    assert_eq!(changes[4].needs(), Some(Allow::Detach));
    carry_out(&machine, &disk, &spec, &changes).unwrap();
    assert_eq!(lines(&machine, &spec), [""; 0]);
    // More portals and initiators for the target that is there.
    spec.iscsi[0].portals.push("192.0.2.1".into());
    spec.iscsi[0].initiators.push("iqn.x:more".into());
    assert_eq!(lines(&machine, &spec), ["+ iscsi iqn.2026-01.org.example:t: portal 192.0.2.1:3260, initiator iqn.x:more"]);
    carry_out(&machine, &disk, &spec, &plan::plan(&machine, &spec).unwrap().changes).unwrap();
    assert_eq!(lines(&machine, &spec), [""; 0]);
}

#[test]
fn what_loses_something_must_be_allowed() {
    let (_dir, _fake, machine) = machine();
    create(&machine, &vm1()).unwrap();
    let needs = |spec: &DiskSpec| plan::plan(&machine, spec).unwrap().changes[0].needs();
    assert_eq!(needs(&DiskSpec { size: Size(1 << 20), ..vm1() }), Some(Allow::Shrink));
    assert_eq!(needs(&DiskSpec { size: Size(4 << 30), ..vm1() }), None);
    assert_eq!(needs(&DiskSpec { config: "/srv/other.img".into(), ..vm1() }), Some(Allow::Recreate));
    let alloc = DiskSpec { handler: "alloc".into(), ..vm1() };
    assert_eq!(needs(&alloc), Some(Allow::Recreate));
    assert_eq!(lines(&machine, &alloc), ["~ take away and make anew: config file//srv/vm1.img → alloc//srv/vm1.img"]);
    assert_eq!(needs(&DiskSpec { block_size: Some(4096), ..vm1() }), Some(Allow::Recreate));
}

#[test]
fn a_late_step_that_fails_leaves_nothing_of_the_early_ones() {
    let (_dir, fake, machine) = machine();
    fake.without("auth/password");
    let mut spec = vm1();
    spec.loopback = true;
    spec.vhost = true;
    let chap = ChapWish { user: "u".into(), password_file: "".into(), password: Some(Secret::new("secret-secret".into())) };
    spec.iscsi.push(IscsiWish { chap: Some(chap), ..IscsiWish::default() });
    let error = format!("{:#}", create(&machine, &spec).err().unwrap());
    assert!(error.contains("auth/password") && !error.contains("secret-secret"), "{error}");
    assert!(empty(&fake), "{:#?}", fake.made());
}

#[test]
fn a_change_that_fails_half_way_is_taken_back() {
    let (_dir, fake, machine) = machine();
    let disk = create(&machine, &vm1()).unwrap();
    let before = fake.made();
    let settings = [("qfull_time_out".to_owned(), "7".to_owned()), ("no_such_thing".into(), "1".into())];
    let error = set_all(&machine, &disk, &settings).unwrap_err().to_string();
    assert!(error.contains("no attribute \"no_such_thing\"; there are: cmd_time_out"), "{error}");
    assert_eq!(disk.attribute_text("qfull_time_out").unwrap(), "-1");
    // A target that lets nobody else in.
    let mut other = DiskSpec::new("alloc", "ram", Size(1 << 20));
    other.iscsi.push(IscsiWish { target: Some("iqn.x:t".into()), ..IscsiWish::default() });
    let ram = create(&machine, &other).unwrap();
    let mut spec = vm1();
    spec.loopback = true;
    spec.iscsi.push(IscsiWish { target: Some("iqn.x:t".into()), initiators: vec!["any".into()], ..IscsiWish::default() });
    assert!(attach(&machine, &disk, &spec).is_err());
    delete(&machine, &ram, false).unwrap();
    let after: Vec<String> = fake.made().into_iter().filter(|path| path != "iscsi" && path != "loopback").collect();
    assert_eq!(after, before);
}

#[test]
fn a_refusal_is_told_in_the_words_of_the_handler() {
    let (_dir, fake, machine) = machine();
    fake.without("enable");
    let error = create(&machine, &vm1()).err().unwrap().to_string();
    assert_eq!(error, "user_0/vm1: the handler did not open it: /srv/vm1.img is a directory");
    // One that nobody knows anything of.
    let error = create(&machine, &DiskSpec::new("alloc", "ram", Size(1 << 20))).err().unwrap().to_string();
    assert!(
        error.starts_with("user_0/ram: the handler did not open it: ") && error.contains("journalctl -u tcmu-runnerd"),
        "{error}"
    );
}

#[test]
fn what_is_in_use_is_not_taken_away() {
    let (dir, fake, machine) = machine();
    let mut spec = vm1();
    spec.loopback = true;
    spec.iscsi.push(IscsiWish::default());
    let disk = create(&machine, &spec).unwrap();
    let block = dir.path().join("sys/class/block/sdz");
    fs::create_dir_all(&block).unwrap();
    fs::write(block.join("dev"), "8:400\n").unwrap();
    fs::write(dir.path().join("proc/self/mountinfo"), "36 35 8:400 / /mnt/a rw - ext4 /dev/sdz rw\n").unwrap();
    let error = delete(&machine, &disk, false).unwrap_err().to_string();
    assert_eq!(error, "user_0/vm1: /dev/sdz is mounted on /mnt/a; --force takes it away all the same");
    fs::write(dir.path().join("proc/self/mountinfo"), "").unwrap();
    let target = fake.roots().target.join("iscsi/iqn.2003-01.org.linux-iscsi.store1:vm1/tpgt_1");
    fs::write(target.join("acls/iqn.1993-08.org.debian:01:here/info"), "InitiatorName: iqn.x\n").unwrap();
    let error = delete(&machine, &disk, false).unwrap_err().to_string();
    assert!(error.contains("here is logged in to iqn.2003-01"), "{error}");
    delete(&machine, &disk, true).unwrap();
    assert!(empty(&fake), "{:#?}", fake.made());
}
