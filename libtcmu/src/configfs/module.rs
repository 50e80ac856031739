//! The kernel's modules, and the parameters of TCMU's.
use std::{path::PathBuf, process::Command};

use crate::{
    configfs::{ConfigfsError, make_dir, write},
    roots::Roots,
};

/// Loads a module that isn't there. Blocks.
pub fn need_module(roots: &Roots, name: &str) -> Result<(), ConfigfsError> {
    if roots.sys.join("module").join(name).exists() {
        return Ok(());
    }
    match Command::new("modprobe").arg(name).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(ConfigfsError::Module(format!("the kernel module {name} cannot be loaded: {reason}")))
        }
        Err(error) => Err(ConfigfsError::Module(format!("the kernel module {name} is not loaded, and modprobe: {error}"))),
    }
}

/// The directory of a fabric, which all of its targets share. Loads its module if need be.
pub(super) fn fabric_dir(roots: &Roots, name: &str, module: &str) -> Result<PathBuf, ConfigfsError> {
    let dir = roots.target.join(name);
    // For some fabrics the kernel loads the module by itself.
    if make_dir(&dir).is_err() {
        need_module(roots, module)?;
        make_dir(&dir)?;
    }
    Ok(dir)
}

/// Keeps the kernel from sending netlink events as long as it lives (`block_netlink`): tools get `EAGAIN` meanwhile.
#[derive(Debug)]
pub struct NetlinkBlock(Option<Roots>);

impl NetlinkBlock {
    /// Blocks events. Kernels before 4.19 can't; then this does nothing.
    pub fn begin(roots: &Roots) -> Result<NetlinkBlock, ConfigfsError> {
        if !parameter(roots, "block_netlink").exists() {
            return Ok(NetlinkBlock(None));
        }
        write(&parameter(roots, "block_netlink"), 1)?;
        Ok(NetlinkBlock(Some(roots.clone())))
    }

    /// Blocks events, and fails those that are unanswered, as a dead daemon leaves them.
    pub fn reset(roots: &Roots) -> Result<NetlinkBlock, ConfigfsError> {
        let block = NetlinkBlock::begin(roots)?;
        block.fail_unanswered()?;
        Ok(block)
    }

    /// Fails all events that are unanswered: the tools that wait for them get `EINTR`.
    pub fn fail_unanswered(&self) -> Result<(), ConfigfsError> {
        self.0.as_ref().map_or(Ok(()), |roots| write(&parameter(roots, "reset_netlink"), 1))
    }
}

fn parameter(roots: &Roots, name: &str) -> PathBuf {
    roots.sys.join("module/target_core_user/parameters").join(name)
}

impl Drop for NetlinkBlock {
    fn drop(&mut self) {
        if let Some(roots) = &self.0
            && let Err(error) = write(&parameter(roots, "block_netlink"), 0)
        {
            tracing::error!(%error, "netlink events stay blocked");
        }
    }
}
