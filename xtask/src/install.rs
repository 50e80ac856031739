//! The packages on a clean Debian with systemd as init: installed, a disk made, upgraded, rebooted in several ways, and the disk is back. A
//! machine of its own, from an image that is made once.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    package,
    packages::{self, as_root},
    progress::{loudly_past, quietly},
    root, vm,
};

/// QEMU's exit status when the guest reboots, or ends by itself.
const ENDED: i32 = 0;
/// Its exit status when the guest wrote 10h to its debug port: twice that and one.
const SUCCESS: i32 = 0x21;
/// A handler that somebody else wrote.
const THIRD_PARTY: &str = "handler_ramc.so";
/// More often than it reboots: it goes down in several ways.
const MOST_BOOTS: u32 = 9;
/// Each boot, at most.
const SECONDS: &str = "600";
/// What the image says when its services start, before any of ours: `tests/install/install-test-up.service`.
const UP: &str = "the machine is up to its services";
/// How long that takes at most. Seven seconds, where nothing else runs.
const UP_WITHIN: Duration = Duration::from_secs(180);
/// How often the emulated machine may get stuck before it runs anything of ours. Seen once in some fifty boots: both processors of it
/// spun in the kernel, in udev's first minute.
const MOST_STUCK: u32 = 2;

/// Runs the test with what is built.
pub fn run() -> anyhow::Result<()> {
    package::debian(true)?;
    let (kernel, version) = vm::kernel()?;
    let image = ensure_image(&version)?;
    let work = root().join("target/install");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)?;

    third_party(&work)?;
    let payload = work.join("payload.tar");
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(&payload).arg("-C").arg(root().join("tests/install")).arg("test.sh");
    tar.arg("-C").arg(&work).arg(THIRD_PARTY).arg("-C").arg(package::directory());
    for package in package::built()? {
        tar.arg(package.file_name().context("a package without a name")?);
    }
    quietly("what the second disk brings", &mut tar)?;

    let disk = work.join("disk.qcow2");
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(image.join("root.img")).arg(&disk);
    quietly("a disk of its own", &mut create)?;

    let (mut boots, mut stuck, mut lost) = (0, 0, Duration::ZERO);
    loop {
        let started = Instant::now();
        println!("· {}", if boots == 0 { "booting a clean Debian" } else { "booting it again" });
        let status = loudly_past(UP, UP_WITHIN, &mut machine(&kernel, &image, &disk, &payload, lost))?;
        println!("  done in {} s", started.elapsed().as_secs());
        let Some(status) = status else {
            stuck += 1;
            lost += started.elapsed();
            ensure!(stuck <= MOST_STUCK, "the machine was stuck {stuck} times before it ran anything of ours");
            println!("  stuck before it ran anything of ours, which says nothing of us: once more");
            continue;
        };
        if status.code() == Some(SUCCESS) {
            break;
        }
        (boots, lost) = (boots + 1, Duration::ZERO);
        ensure!(status.code() == Some(ENDED) && boots < MOST_BOOTS, "the test of installation failed ({status})");
    }
    let _ = fs::remove_dir_all(&work);
    Ok(())
}

/// Builds the example of the -dev package with what is in that package, as its pkg-config file says.
fn third_party(work: &Path) -> anyhow::Result<()> {
    let dev = work.join("dev");
    let is_dev = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tcmu-runnerd-dev_"));
    let package = package::built()?.into_iter().find(is_dev).context("there is no -dev package")?;
    quietly("what the -dev package brings", Command::new("dpkg-deb").arg("-x").arg(package).arg(&dev))?;
    let mut pkg_config = Command::new("pkg-config");
    pkg_config.args(["--cflags", "tcmu-handler"]).env("PKG_CONFIG_LIBDIR", dev.join("usr/share/pkgconfig"));
    let flags = pkg_config.env("PKG_CONFIG_SYSROOT_DIR", &dev).output().context("pkg-config")?;
    ensure!(flags.status.success(), "pkg-config: {}", String::from_utf8_lossy(&flags.stderr));
    let mut compile = Command::new("gcc");
    compile.args(["-Wall", "-Werror", "-shared", "-fPIC"]).args(String::from_utf8(flags.stdout)?.split_whitespace());
    compile.arg(dev.join("usr/share/doc/tcmu-runnerd-dev/examples/ram.c")).arg("-o").arg(work.join(THIRD_PARTY));
    quietly("a handler that is built against it", &mut compile)
}

/// `lost` is the time for which it was stuck since it last went down, which the test does not count as going down.
fn machine(kernel: &Path, image: &Path, disk: &Path, payload: &Path, lost: Duration) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "10", SECONDS, "qemu-system-x86_64"]);
    command.args(["-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", "2", "-m", "1024"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(image.join("initrd.img"));
    let line = "console=ttyS0 quiet loglevel=4 systemd.show_status=no panic=-1 mitigations=off";
    command.arg("-append").arg(format!("{line} install_test_lost={}", lost.as_secs()));
    command.arg("-drive").arg(format!("file={},if=virtio,cache=unsafe", disk.display()));
    command.arg("-drive").arg(format!("file={},if=virtio,format=raw,readonly=on", payload.display()));
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    command.args(["-no-reboot", "-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none"]);
    command
}

/// A directory with a clean Debian for that kernel. Another one is made when what it is made of changes.
fn ensure_image(version: &str) -> anyhow::Result<PathBuf> {
    packages::ensure_image()?;
    let script = root().join("tests/install/image.sh");
    let parts = [script.clone(), script.with_file_name("install-test.service"), script.with_file_name("install-test-up.service")];
    let image = root().join("target/vm/debian");
    let made_of =
        parts.iter().try_fold(version.to_owned(), |sum, part| anyhow::Ok(format!("{sum}\n{}", fs::read_to_string(part)?)))?;
    let marker = image.join("made-of");
    if fs::read_to_string(&marker).is_ok_and(|made| made == made_of) {
        return Ok(image);
    }
    quietly("making an image of a clean Debian", as_root("bash").arg(&script).arg(version).arg(&image))?;
    let user = Command::new("id").arg("-u").output()?;
    quietly("giving it to us", as_root("chown").args(["-R", String::from_utf8_lossy(&user.stdout).trim()]).arg(&image))?;
    fs::write(marker, made_of)?;
    Ok(image)
}
