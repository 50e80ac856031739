//! Parameters of the kernel module.
use crate::{
    configfs::{ConfigfsError, write},
    roots::Roots,
};

/// Keeps the kernel from sending netlink events as long as it lives (`block_netlink`): tools get `EAGAIN` meanwhile.
#[derive(Debug)]
pub struct NetlinkBlock(Option<Roots>);

impl NetlinkBlock {
    /// Blocks events, and fails those that a dead daemon left unanswered: the tools that wait for them get `EINTR`. Kernels before 4.19
    /// have neither; then this does nothing.
    pub fn reset(roots: &Roots) -> Result<NetlinkBlock, ConfigfsError> {
        let parameter = |name: &str| roots.sys.join("module/target_core_user/parameters").join(name);
        if !parameter("block_netlink").exists() {
            return Ok(NetlinkBlock(None));
        }
        write(&parameter("block_netlink"), 1)?;
        let block = NetlinkBlock(Some(roots.clone()));
        write(&parameter("reset_netlink"), 1)?;
        Ok(block)
    }
}

impl Drop for NetlinkBlock {
    fn drop(&mut self) {
        if let Some(roots) = &self.0
            && let Err(error) = write(&roots.sys.join("module/target_core_user/parameters/block_netlink"), 0)
        {
            tracing::error!(%error, "netlink events stay blocked");
        }
    }
}
