use std::fs;

use super::*;
use crate::disk::fixture::machine;

fn options(path: &Path) -> Apply {
    Apply { path: path.to_owned(), dry_run: false, yes: true, allow: Vec::new(), no_check: false }
}

/// What is said, and whether all is well.
fn run(machine: &Machine, apply: &Apply) -> (String, bool) {
    let mut out = Vec::new();
    let well = apply_on(machine, apply, false, &mut out, || panic!("nobody is to be asked")).unwrap();
    (String::from_utf8(out).unwrap(), well)
}

#[test]
fn files_become_disks_once() {
    let (dir, fake, machine) = machine();
    let disks = dir.path().join("disks.d");
    fs::create_dir(&disks).unwrap();
    fs::write(disks.join("a.toml"), "handler = \"file\"\nconfig = \"/srv/a\"\nsize = \"1G\"\nloopback = true\n").unwrap();
    fs::write(disks.join("b.toml"), "handler = \"alloc\"\nsize = \"64M\"\n[[iscsi]]\ninitiators = [\"any\"]\n").unwrap();
    fs::write(disks.join("b.toml.bak"), "nonsense").unwrap();
    let apply = options(&disks);
    let dry = Apply { dry_run: true, ..options(&disks) };
    let plan = "+ a: create: file /srv/a, 1G, loopback\n+ b: create: alloc b, 64M, iscsi (default)\n";
    assert_eq!(run(&machine, &dry), (plan.to_owned(), true));
    assert_eq!(fake.made(), ["core"], "nothing was done yet");
    assert_eq!(run(&machine, &apply), (plan.to_owned(), true));
    assert_eq!(run(&machine, &apply), ("Nothing to change.\n".to_owned(), true));
    fs::write(disks.join("a.toml"), "handler = \"file\"\nconfig = \"/srv/a\"\nsize = \"2G\"\nloopback = true\n").unwrap();
    assert_eq!(run(&machine, &apply), ("~ a: size 1G → 2G\n".to_owned(), true));
    assert_eq!(run(&machine, &apply), ("Nothing to change.\n".to_owned(), true));
}

#[test]
fn what_would_lose_something_is_left_alone_until_it_is_allowed() {
    let (dir, _fake, machine) = machine();
    let disks = dir.path().join("disks.d");
    fs::create_dir(&disks).unwrap();
    let write =
        |size: &str| fs::write(disks.join("a.toml"), format!("handler = \"file\"\nconfig = \"/srv/a\"\nsize = \"{size}\"\n"));
    write("2G").unwrap();
    fs::write(disks.join("b.toml"), "handler = \"alloc\"\nsize = \"64M\"\n").unwrap();
    assert!(run(&machine, &options(&disks)).1);
    write("1G").unwrap();
    fs::remove_file(disks.join("b.toml")).unwrap();
    let (said, well) = run(&machine, &options(&disks));
    assert_eq!(
        said,
        "~ a: size 2G → 1G   (not done without --allow shrink)\n- b: remove: its file is gone   (not done without --allow remove)\nNothing to change.\n"
    );
    assert!(!well);
    assert_eq!(find::disk(&machine, "a").unwrap().facts().unwrap().size, 2 << 30);
    let allowed = Apply { allow: vec![Allow::Shrink, Allow::Remove], ..options(&disks) };
    assert_eq!(run(&machine, &allowed), ("~ a: size 2G → 1G\n- b: remove: its file is gone\n".to_owned(), true));
    assert!(find::find(&machine, "b", None).unwrap().is_none());
    assert_eq!(run(&machine, &options(&disks)), ("Nothing to change.\n".to_owned(), true));
}

#[test]
fn a_handler_that_changes_needs_a_new_disk() {
    let (dir, _fake, machine) = machine();
    let file = dir.path().join("a.toml");
    fs::write(&file, "handler = \"file\"\nconfig = \"/srv/a\"\nsize = \"1G\"\n").unwrap();
    assert!(run(&machine, &options(&file)).1);
    fs::write(&file, "handler = \"alloc\"\nconfig = \"x\"\nsize = \"1G\"\n").unwrap();
    assert!(!run(&machine, &options(&file)).1);
    assert_eq!(find::disk(&machine, "a").unwrap().dev_config().unwrap(), "file//srv/a");
    assert!(run(&machine, &Apply { allow: vec![Allow::Recreate], ..options(&file) }).1);
    assert_eq!(find::disk(&machine, "a").unwrap().dev_config().unwrap(), "alloc/x");
}

#[test]
fn a_file_that_is_wrong_keeps_no_other_disk_away() {
    let (dir, _fake, machine) = machine();
    let disks = dir.path().join("disks.d");
    fs::create_dir(&disks).unwrap();
    fs::write(disks.join("a.toml"), "handler = \"nobody\"\nsize = \"1G\"\n").unwrap();
    fs::write(disks.join("b.toml"), "sise = 1\n").unwrap();
    fs::write(disks.join("c.toml"), "handler = \"alloc\"\nsize = \"1G\"\n").unwrap();
    fs::write(disks.join("d.toml"), "name = \"c\"\nhandler = \"alloc\"\nsize = \"1G\"\n").unwrap();
    let (_, problems) = compare(&machine, &options(&disks)).unwrap();
    let wanted = [
        "there is no handler \"nobody\"; there are: alloc, file",
        "b.toml:1: unknown field `sise`",
        "describes the disk c already",
    ];
    assert_eq!(problems.len(), 3, "{problems:?}");
    for (problem, wanted) in problems.iter().zip(wanted) {
        assert!(problem.contains(wanted), "{problem}");
    }
    assert!(!run(&machine, &options(&disks)).1);
    assert!(find::disk(&machine, "c").is_ok());
}

#[test]
fn disks_of_others_are_never_removed() {
    let (dir, _fake, machine) = machine();
    let disks = dir.path().join("disks.d");
    fs::create_dir(&disks).unwrap();
    drop(steps::create(&machine, &DiskSpec::new("alloc", "theirs", Size(1 << 20))).unwrap());
    let all = Apply { allow: vec![Allow::Shrink, Allow::Recreate, Allow::Detach, Allow::Remove], ..options(&disks) };
    assert_eq!(run(&machine, &all), ("Nothing to change.\n".to_owned(), true));
    assert!(find::disk(&machine, "theirs").is_ok());
}
