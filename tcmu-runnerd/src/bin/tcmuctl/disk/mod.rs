//! Disks as `tcmuctl` knows them: described in one place, compared with what the kernel has, and brought there step by step.
//!
//! | module | what it holds |
//! |---|---|
//! | [`spec`] | a disk as it is wanted: from the command line or a file |
//! | [`file`] | such a file |
//! | [`find`] | a disk that is there, by its name |
//! | [`plan`] | what has to be done to get from one to the other |
//! | [`steps`] | doing it, and undoing it when a step fails |
//! | [`records`] | which disks came from which file |
//! | [`secret`] | CHAP passwords |
pub(crate) mod file;
pub(crate) mod find;
pub(crate) mod plan;
pub(crate) mod records;
pub(crate) mod secret;
pub(crate) mod size;
pub(crate) mod spec;
pub(crate) mod steps;

use std::path::PathBuf;

use tcmu::Roots;

/// Where things are on this machine, and who judges config strings: others in tests.
pub(crate) struct Machine {
    /// The kernel's file systems.
    pub roots: Roots,
    /// `/proc`
    pub proc: PathBuf,
    /// `/etc`
    pub etc: PathBuf,
    /// Where it is noted which disk came from which file, until the next boot.
    pub run: PathBuf,
    /// Whether a handler takes a config string.
    pub check: fn(handler: &str, config: &str) -> anyhow::Result<()>,
    /// Why a device (`user_<number>/<name>`) was refused, if somebody knows.
    pub refusal: fn(device: &str) -> Option<String>,
}

impl Machine {
    /// This machine.
    pub(crate) fn this() -> Machine {
        Machine {
            roots: Roots::default(),
            proc: "/proc".into(),
            etc: "/etc".into(),
            run: "/run/tcmuctl".into(),
            check: super::daemon::check_config,
            refusal: super::daemon::refusal,
        }
    }

    /// The host's name, without its domain.
    pub(crate) fn host_name(&self) -> String {
        let name = std::fs::read_to_string(self.proc.join("sys/kernel/hostname")).unwrap_or_default();
        name.trim().split('.').next().filter(|name| !name.is_empty()).unwrap_or("localhost").to_owned()
    }

    /// What tells this machine from others (machine-id(5)).
    pub(crate) fn id(&self) -> String {
        let id = std::fs::read_to_string(self.etc.join("machine-id")).unwrap_or_default();
        if id.trim().is_empty() { self.host_name() } else { id.trim().to_owned() }
    }

    /// The name of this machine's own iSCSI initiator, if it has one.
    pub(crate) fn initiator(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.etc.join("iscsi/initiatorname.iscsi")).ok()?;
        let name = text.lines().find_map(|line| line.trim().strip_prefix("InitiatorName="))?.trim();
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// Whether a program is root is for the kernel to say; this says it in words that help.
    pub(crate) fn need_root(&self) -> anyhow::Result<()> {
        anyhow::ensure!(rustix::process::geteuid().is_root(), "disks are configured in the kernel: run this as root");
        let core = self.roots.target.join("core");
        if !core.exists() {
            tcmu::configfs::need_module(&self.roots, "target_core_user")?;
        }
        anyhow::ensure!(
            core.exists(),
            "{} is not there: is configfs mounted? (mount -t configfs none /sys/kernel/config)",
            core.display()
        );
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    use tcmu::configfs::fake::FakeConfigfs;

    use super::Machine;

    /// A machine in a directory, with a handler `file` that takes absolute paths only, and `alloc`.
    pub(crate) fn machine() -> (tempfile::TempDir, FakeConfigfs, Machine) {
        let dir = tempfile::tempdir().unwrap();
        let fake = FakeConfigfs::start(dir.path());
        for (path, text) in [
            ("etc/machine-id", "0123456789abcdef\n"),
            ("etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.1993-08.org.debian:01:here\n"),
            ("proc/sys/kernel/hostname", "Store1.example.org\n"),
            ("proc/self/mountinfo", ""),
            ("proc/swaps", ""),
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let machine = Machine {
            roots: fake.roots().clone(),
            proc: dir.path().join("proc"),
            etc: dir.path().join("etc"),
            run: dir.path().join("run/tcmuctl"),
            check: |handler, config| {
                anyhow::ensure!(["file", "alloc"].contains(&handler), "there is no handler {handler:?}; there are: alloc, file");
                anyhow::ensure!(handler != "file" || config.starts_with('/'), "the path {config:?} is relative");
                Ok(())
            },
            refusal: |device| device.ends_with("/vm1").then(|| "/srv/vm1.img is a directory".into()),
        };
        (dir, fake, machine)
    }
}
