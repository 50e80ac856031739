//! What a fresh machine lacks.
use std::{fs, path::Path, process::Command};

use anyhow::bail;

use crate::progress::quietly;

/// For the virtual machine itself.
const MACHINE: &[&str] =
    &["qemu-system-x86", "qemu-utils", "busybox-static", "cpio", "kmod", "udev", "dbus", "iproute2", "zstd", "procps"];

/// Peers and clients of the tests.
const CLIENTS: &[&str] = &[
    "targetcli-fb",
    "python3-rtslib-fb",
    "python3-gi",
    "gir1.2-glib-2.0",
    "python3-prometheus-client",
    "fio",
    "sg3-utils",
    "libiscsi-bin",
    "libiscsi-dev",
    "open-iscsi",
    "lsscsi",
    "dmsetup",
    "sdparm",
    "ddpt",
    "e2fsprogs",
    "xfsprogs",
    "gcc",
    "g++",
];

/// What the benches need besides.
const PEERS: &[&str] = &["tcmu-runner", "valgrind", "linux-perf", "libc6-dev"];

/// What packing needs.
const PACKING: &[&str] = &["binutils", "dpkg-dev", "file", "libc6-dev"];

/// What the test of installation needs besides.
const IMAGE: &[&str] = &["debootstrap", "e2fsprogs", "busybox-static", "cpio", "gcc", "pkgconf"];

/// A command as root.
pub fn as_root(program: &str) -> Command {
    // SAFETY would be needed for geteuid; the file system tells as well.
    if fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0) {
        Command::new(program)
    } else {
        let mut command = Command::new("sudo");
        command.arg(program);
        command
    }
}

fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let installed = |package: &&str| {
        let output = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).output();
        output.is_ok_and(|output| output.stdout.starts_with(b"install ok installed"))
    };
    packages.iter().filter(|package| !installed(package)).copied().collect()
}

/// Installs what the tests need and isn't there.
pub fn ensure() -> anyhow::Result<()> {
    install(&[MACHINE, CLIENTS])
}

/// Installs what the benches need and isn't there.
pub fn ensure_peers() -> anyhow::Result<()> {
    install(&[PEERS])
}

/// Installs what packing needs and isn't there.
pub fn ensure_packing() -> anyhow::Result<()> {
    install(&[PACKING])
}

/// Installs what making a Debian image needs and isn't there.
pub fn ensure_image() -> anyhow::Result<()> {
    install(&[IMAGE])
}

fn install(lists: &[&[&str]]) -> anyhow::Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this task installs Debian packages, and there is no apt-get here; run it on Debian or in a container of it");
    }
    for packages in lists {
        let missing = missing(packages);
        if missing.is_empty() {
            continue;
        }
        update()?;
        let install = |extra: &[&str], packages: &[&str]| {
            let mut command = as_root("apt-get");
            command.args(["install", "-y", "-q", "--no-install-recommends"]).args(extra).args(packages);
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command
        };
        if quietly("installing packages", &mut install(&[], &missing)).is_ok() {
            continue;
        }
        // Some package is there in a version of another release, which does not fit the others: back to this release's.
        let release = fs::read_to_string("/etc/os-release")?;
        let Some(codename) = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")) else {
            bail!("packages cannot be installed, see above")
        };
        let of_release: Vec<String> = packages.iter().map(|package| format!("{package}/{codename}")).collect();
        let of_release: Vec<&str> = of_release.iter().map(String::as_str).collect();
        quietly("installing packages of this release", &mut install(&["--allow-downgrades"], &of_release))?;
    }
    Ok(())
}

/// Brings the lists of packages up to date.
pub fn update() -> anyhow::Result<()> {
    quietly("updating the lists of packages", as_root("apt-get").args(["update", "-q"]))
}
