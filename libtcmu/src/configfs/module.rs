//! Parameters of the kernel module.
use std::path::PathBuf;

use crate::{
    configfs::{ConfigfsError, write},
    roots::Roots,
};

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
