//! The loopback fabric (`tcm_loop`): a backstore as a SCSI disk of this machine.
use std::{fs, path::Path, time::Duration};

use crate::{
    configfs::{Backstore, ConfigfsError, own_target::OwnTarget, read, wait_for},
    roots::Roots,
};

/// A loopback target with one logical unit: the backstore becomes a SCSI disk of this machine. Removed on drop.
#[derive(Debug)]
pub struct Loopback(OwnTarget);

impl Loopback {
    /// Exports a backstore. Needs the module `tcm_loop`.
    pub fn attach(roots: &Roots, backstore: &Backstore) -> Result<Loopback, ConfigfsError> {
        OwnTarget::make(roots, ("loopback", "tcm_loop"), backstore, "a disk of this machine").map(Loopback)
    }

    /// The block device (`sda`) that appeared for it, waiting for it. Blocks.
    pub fn block_device(&self, roots: &Roots, within: Duration) -> Result<String, ConfigfsError> {
        let address = read(&self.0.tpg().join("address"))?; // host:channel:target
        wait_for(&format!("the disk at SCSI address {address}"), within, || block_of(roots, self.0.tpg(), 0))
    }

    /// Takes the disk away. Fails if it is in use.
    pub fn remove(self) -> Result<(), ConfigfsError> {
        self.0.remove()
    }

    /// Leaves it when this value is dropped.
    pub fn keep(&mut self) {
        self.0.keep();
    }
}

/// The block device behind a logical unit of a loopback target, if it is there.
pub(super) fn block_of(roots: &Roots, tpg: &Path, lun: u32) -> Option<String> {
    let address = read(&tpg.join("address")).ok()?;
    let block = roots.sys.join("bus/scsi/devices").join(format!("{address}:{lun}")).join("block");
    fs::read_dir(block).ok()?.flatten().next()?.file_name().into_string().ok()
}
