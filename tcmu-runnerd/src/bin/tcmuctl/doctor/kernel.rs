//! The kernel's side: modules, file systems, directories, limits.
use std::{fs, path::Path};

use tcmu::configfs::Backstore;

use super::{Finding, Places};
use crate::tune;

/// Looks at all of it.
pub(super) fn look(places: &Places<'_>) -> Vec<Finding> {
    let mut found = vec![module(places), configfs(places)];
    if places.machine.roots.target.exists() {
        found.extend(directories(places));
        found.extend(limits(places));
    }
    found.extend(uio(places));
    found.push(io_uring(places));
    found
}

fn module(places: &Places<'_>) -> Finding {
    let about = "module";
    let modules = places.machine.roots.sys.join("module");
    if modules.join("target_core_user").exists() {
        return Finding::fine(about, "target_core_user is loaded");
    }
    let release = fs::read_to_string(places.machine.proc.join("sys/kernel/osrelease")).unwrap_or_default();
    let list = places.usr.join("lib/modules").join(release.trim()).join("modules.dep");
    let lists = fs::read_to_string(&list)
        .or_else(|_| fs::read_to_string(Path::new("/lib/modules").join(release.trim()).join("modules.dep")));
    if !release.is_empty() && lists.is_ok_and(|modules| !modules.contains("target_core_user")) {
        return Finding::wrong(
            about,
            format!("the kernel {} has no module target_core_user (CONFIG_TCM_USER2)", release.trim()),
            "install a kernel that has it; cloud kernels often leave it out (Debian: apt-get install linux-image-amd64)",
        );
    }
    Finding::wrong(about, "target_core_user is not loaded", "modprobe target_core_user")
}

fn configfs(places: &Places<'_>) -> Finding {
    let target = &places.machine.roots.target;
    if target.join("core").exists() {
        return Finding::fine("configfs", format!("{} is there", target.display()));
    }
    if target.parent().is_some_and(Path::exists) && target.exists() {
        return Finding::wrong("configfs", format!("{} lacks core", target.display()), "modprobe target_core_mod");
    }
    let mounts = fs::read_to_string(places.machine.proc.join("self/mountinfo")).unwrap_or_default();
    if mounts.contains(" - configfs ") {
        return Finding::wrong("configfs", format!("{} is not there", target.display()), "modprobe target_core_mod");
    }
    Finding::wrong("configfs", "it is not mounted", "mount -t configfs none /sys/kernel/config")
}

/// Where the kernel keeps reservations and access states; it refuses both when it can't.
fn directories(places: &Places<'_>) -> Vec<Finding> {
    let root = fs::read_to_string(places.machine.roots.target.join("dbroot")).unwrap_or_default();
    let root = root.trim();
    if root.is_empty() {
        return Vec::new();
    }
    let missing: Vec<String> = ["pr", "alua"]
        .iter()
        .map(|name| Path::new(root).join(name))
        .filter(|dir| !dir.is_dir())
        .map(|dir| dir.display().to_string())
        .collect();
    if missing.is_empty() {
        return vec![Finding::fine("reservations", format!("the kernel can keep them in {root}"))];
    }
    vec![Finding::wrong(
        "reservations",
        format!(
            "{} is missing: persistent reservations that outlast a reboot (APTPL) and changes of access states fail",
            missing.join(" and ")
        ),
        format!("mkdir -p {}", missing.join(" ")),
    )]
}

fn uio(places: &Places<'_>) -> Vec<Finding> {
    let class = places.machine.roots.sys.join("class/uio");
    if !class.exists() {
        let loaded = places.machine.roots.sys.join("module/target_core_user").exists();
        return if loaded { vec![Finding::wrong("uio", "there is no UIO", "modprobe uio")] } else { Vec::new() };
    }
    let missing: Vec<String> = fs::read_dir(&class)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("name").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !places.machine.roots.dev.join(name).exists())
        .collect();
    if missing.is_empty() {
        return vec![Finding::fine("uio", "every UIO device has its node")];
    }
    let nodes = format!("/dev/{}", missing.join(", /dev/"));
    vec![Finding::wrong(
        "uio",
        format!("{nodes} is missing: is udev running?"),
        "udevadm trigger --subsystem-match=uio && udevadm settle",
    )]
}

fn io_uring(places: &Places<'_>) -> Finding {
    let about = "io_uring";
    match fs::read_to_string(places.machine.proc.join("sys/kernel/io_uring_disabled")).as_deref().map(str::trim) {
        Ok("2") => Finding::hint(
            about,
            "it is forbidden: file I/O takes threads instead, which are slower",
            "sysctl kernel.io_uring_disabled=0",
        ),
        Ok("1") => Finding::hint(
            about,
            "it is allowed to some only: file I/O may take threads instead, which are slower",
            "sysctl kernel.io_uring_disabled=0",
        ),
        _ => Finding::fine(about, "it is not forbidden"),
    }
}

/// Limits of devices that throttle them.
fn limits(places: &Places<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for disk in Backstore::all(&places.machine.roots) {
        for (limit, effect, how) in tune::throttled(&|name| disk.attribute(name).ok()) {
            found.push(Finding::hint("limits", format!("{}: {limit}: {effect}", disk.id()), format!("create it anew: {how}")));
        }
        if !disk.is_enabled().unwrap_or(false) {
            let mend = format!("rmdir {}", disk.path().display());
            found.push(Finding::hint("devices", format!("{} was made and never enabled", disk.id()), mend));
        }
    }
    found
}
