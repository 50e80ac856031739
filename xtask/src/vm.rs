//! A real kernel with TCMU: Debian's, under QEMU, with this machine's own root file system (virtme-ng). Software emulation: nested
//! virtualisation hangs in early boot.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::{
    packages::{self, as_root},
    progress::{loudly, quietly},
    root,
};

/// Where the kernel and virtme-ng are kept.
fn cache() -> PathBuf {
    root().join("target/vm")
}

/// What the kernel is told of the emulated machine's clock. By itself it does not trust the processors' own counters there, and takes an
/// emulated timer (hpet): each reading then takes a lock of the emulator, which costs up to a quarter of the small commands. The emulated
/// counters are this machine's own, so they can be trusted where its kernel trusts those.
const CLOCK: &str = "tsc=reliable clocksource=tsc";

/// The emulated processor: the one of virtme-ng, but for string instructions that are said to be fast. Hardware moves 32 bytes a cycle with
/// them; the emulator moves one at a time, where it moves eight without them.
const PROCESSOR: &str = "max,-erms";

/// A machine to boot.
pub struct Vm {
    kernel: PathBuf,
    memory: u32,
    cpus: u32,
}

impl Vm {
    /// Makes sure of packages, kernel and virtme-ng. Quick when they are there.
    pub fn ensure(memory: u32, cpus: u32) -> anyhow::Result<Vm> {
        packages::ensure()?;
        fs::create_dir_all(cache())?;
        ensure_virtme()?;
        Ok(Vm { kernel: ensure_kernel()?, memory, cpus })
    }

    /// The command that boots the machine and runs a shell command in it, made ready by `tests/e2e/guest.sh`.
    pub fn command(&self, guest_command: &[&str]) -> Command {
        let root = root();
        let mut words = vec![
            "bash".to_owned(),
            root.join("tests/e2e/guest.sh").display().to_string(),
            root.display().to_string(),
            root.join("target/release").display().to_string(),
        ];
        words.extend(guest_command.iter().map(ToString::to_string));
        let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let venv = cache().join("venv/bin");
        let path = format!("{}:{}", venv.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(venv.join("vng"));
        command.env("PATH", path).arg("-r").arg(&self.kernel).arg("--disable-kvm").arg(format!("--qemu-opts=-cpu {PROCESSOR}"));
        if counters_are_trusted() {
            command.args(["--append", CLOCK]);
        }
        command
            .args(["--memory", &format!("{}G", self.memory), "--cpus", &self.cpus.to_string(), "--user", "root", "--"])
            .arg(format!("{} 2>&1", line.join(" ")));
        command
    }
}

/// What somebody who reads figures has to know of the emulated machine.
pub fn description() -> String {
    let clock = if counters_are_trusted() { "their counters" } else { "an emulated timer" };
    format!("QEMU without hardware help, processors `{PROCESSOR}`, {clock} as the clock")
}

/// Whether this machine's kernel takes the processors' time stamp counters for a clock: it drops them from the list when they are not in
/// step, or not steady.
fn counters_are_trusted() -> bool {
    let clocks = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/available_clocksource").unwrap_or_default();
    clocks.split_whitespace().any(|clock| clock == "tsc")
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn ensure_virtme() -> anyhow::Result<()> {
    let venv = cache().join("venv");
    if venv.join("bin/vng").exists() {
        return Ok(());
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).output().is_ok_and(|output| output.status.success());
    if !made || !venv.join("bin/pip").exists() {
        packages::update()?;
        quietly("installing python3-venv", as_root("apt-get").args(["install", "-y", "-q", "python3", "python3-venv"]))?;
        quietly("making a Python environment", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    }
    quietly("installing virtme-ng", Command::new(venv.join("bin/pip")).args(["install", "-q", "virtme-ng"]))
}

/// The kernel, and its version.
pub fn kernel() -> anyhow::Result<(PathBuf, String)> {
    packages::ensure()?;
    fs::create_dir_all(cache())?;
    let kernel = ensure_kernel()?;
    let version = fs::read_to_string(cache().join("kernel"))?;
    Ok((kernel, version))
}

/// Debian's current kernel, unpacked to where virtme-ng looks for it; it is not installed as this machine's.
fn ensure_kernel() -> anyhow::Result<PathBuf> {
    let marker = cache().join("kernel");
    if let Ok(version) = fs::read_to_string(&marker) {
        let kernel = PathBuf::from(format!("/boot/vmlinuz-{version}"));
        if kernel.exists() && Path::new("/lib/modules").join(&version).join("modules.dep").exists() {
            return Ok(kernel);
        }
    }
    let package = || {
        let output = Command::new("apt-cache").args(["depends", "linux-image-amd64"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::Ok(text.lines().find_map(|line| line.trim().strip_prefix("Depends: ").map(str::to_owned)))
    };
    let package = match package()? {
        Some(package) => package,
        None => {
            packages::update()?;
            package()?.context("there is no package linux-image-amd64 here")?
        }
    };
    let version = package.strip_prefix("linux-image-").context("a kernel package of another kind")?.to_owned();
    let unpacked = cache().join("unpacked");
    let _ = fs::remove_dir_all(&unpacked);
    fs::create_dir_all(&unpacked)?;
    let mut download = Command::new("apt-get");
    download.args(["download", "-q", &package]).current_dir(&unpacked);
    if quietly("downloading a kernel", &mut download).is_err() {
        packages::update()?;
        quietly("downloading a kernel", &mut download)?;
    }
    let file =
        fs::read_dir(&unpacked)?.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "deb"));
    let Some(file) = file else { bail!("the kernel's package was not downloaded") };
    quietly("unpacking it", Command::new("dpkg").arg("-x").arg(&file).arg(&unpacked))?;
    let lib = ["lib/modules", "usr/lib/modules"].iter().map(|dir| unpacked.join(dir)).find(|dir| dir.exists());
    let modules = lib.context("the kernel's package has no modules")?.join(&version);
    quietly("putting it where virtme-ng looks", as_root("mkdir").args(["-p", "/boot", "/lib/modules"]))?;
    quietly("copying the kernel", as_root("cp").arg(unpacked.join(format!("boot/vmlinuz-{version}"))).arg("/boot/"))?;
    quietly("copying its modules", as_root("cp").arg("-rT").arg(&modules).arg(format!("/lib/modules/{version}")))?;
    quietly("listing its modules", as_root("depmod").arg(&version))?;
    let _ = fs::remove_dir_all(&unpacked);
    fs::write(&marker, &version)?;
    Ok(PathBuf::from(format!("/boot/vmlinuz-{version}")))
}

/// Builds what runs in the machine: optimised, since it is emulated.
pub fn build() -> anyhow::Result<()> {
    quietly("building the daemon, the tools and the plugins", Command::new("cargo").args(["build", "--release", "--workspace"]))?;
    let mut examples = Command::new("cargo");
    quietly("building the examples", examples.args(["build", "--release", "-p", "tcmu", "-p", "tcmu-handler-api", "--examples"]))
}

/// `cargo xtask vm -- COMMAND`
pub fn run_command(memory: u32, cpus: u32, build_first: bool, command: &[String]) -> anyhow::Result<u8> {
    if build_first {
        build()?;
    }
    let vm = Vm::ensure(memory, cpus)?;
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let status = loudly(&mut vm.command(&command))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_reach_the_guest_as_they_are() {
        assert_eq!(super::quoted("it's $HOME"), "'it'\\''s $HOME'");
    }
}
