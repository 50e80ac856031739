//! `cargo xtask demo`: the whole at work, where a person can watch.
use std::{path::Path, process::Command};

use anyhow::ensure;

use crate::{
    packages::as_root,
    progress::loudly,
    root,
    vm::{self, Vm},
};

/// Runs `tests/e2e/demo.sh` on a kernel with TCMU: this machine's if it has the module, else in a virtual machine.
pub fn run() -> anyhow::Result<()> {
    vm::build()?;
    let script = root().join("tests/e2e/demo.sh");
    let status = if has_tcmu() {
        println!("· this machine's kernel has TCMU");
        let build = root().join("target/release");
        let guest = root().join("tests/e2e/guest_env.sh");
        loudly(as_root("bash").arg(guest).arg(build).arg("bash").arg(&script))?
    } else {
        println!("· this machine's kernel has no TCMU: a virtual machine has one");
        let vm = Vm::ensure(4, 2)?;
        println!("· booting it (about 10 s)");
        loudly(&mut vm.command(&["bash", &script.display().to_string()]))?
    };
    ensure!(status.success(), "the demo failed: {status}");
    Ok(())
}

fn has_tcmu() -> bool {
    Path::new("/sys/module/target_core_user").exists()
        || Command::new("modprobe").args(["-n", "-q", "target_core_user"]).status().is_ok_and(|status| status.success())
            && as_root("modprobe").args(["-a", "target_core_user", "tcm_loop"]).status().is_ok_and(|status| status.success())
}
