//! `cargo xtask soak`: what the end-to-end test `soak` does for a minute, for longer.
use crate::{progress::loudly, root, vm, vm::Vm};

/// Runs it in the virtual machine. The exit status.
pub fn run(minutes: u32, seed: Option<u32>, build_first: bool) -> anyhow::Result<u8> {
    anyhow::ensure!(minutes > 0, "--minutes 0: at least 1 is needed");
    if build_first {
        vm::build()?;
    }
    let vm = Vm::ensure(4, 2)?;
    let script = root().join("tests/soak/soak.py").display().to_string();
    let seconds = (u64::from(minutes) * 60).to_string();
    let mut command = vec!["/usr/bin/python3", "-B", &script, "--seconds", &seconds];
    let seed = seed.map(|seed| seed.to_string());
    if let Some(seed) = &seed {
        command.extend(["--seed", seed]);
    }
    let status = loudly(&mut vm.command(&command))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
