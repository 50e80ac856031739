//! The loopback fabric (`tcm_loop`): a backstore as a SCSI disk of this machine.
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    configfs::{Backstore, ConfigfsError, Undo, module::fabric_dir, names::naa, read, wait_for, write},
    roots::Roots,
};

/// A loopback target with one logical unit: the backstore becomes a SCSI disk of this machine. Removed on drop.
#[derive(Debug)]
pub struct Loopback {
    tpg: PathBuf,
    undo: Undo,
}

impl Loopback {
    /// Exports a backstore. Needs the module `tcm_loop`.
    pub fn attach(roots: &Roots, backstore: &Backstore) -> Result<Loopback, ConfigfsError> {
        let mut undo = Undo::default();
        let fabric = fabric_dir(roots, "loopback", "tcm_loop")?;
        let (name, nexus) = backstore.port_names();
        let target = fabric.join(&name);
        let tpg = target.join("tpgt_1");
        if tpg.join("lun/lun_0").exists() {
            return Err(ConfigfsError::Invalid(format!("{} is a disk of this machine already ({name})", backstore.id())));
        }
        undo.dir(&target)?;
        undo.dir(&tpg)?;
        write(&tpg.join("nexus"), nexus)?;
        let lun = tpg.join("lun/lun_0");
        undo.dir(&lun)?;
        undo.link(backstore.path(), &lun.join("storage"))?;
        Ok(Loopback { tpg, undo })
    }

    /// The block device (`sda`) that appeared for it, waiting for it. Blocks.
    pub fn block_device(&self, roots: &Roots, within: Duration) -> Result<String, ConfigfsError> {
        let address = read(&self.tpg.join("address"))?; // host:channel:target
        wait_for(&format!("the disk at SCSI address {address}"), within, || block_of(roots, &self.tpg, 0))
    }

    /// Takes the disk away. Fails if it is in use.
    pub fn remove(mut self) -> Result<(), ConfigfsError> {
        self.undo.run()
    }

    /// Leaves it when this value is dropped.
    pub fn keep(&mut self) {
        self.undo.keep();
    }
}

/// The block device behind a logical unit of a loopback target, if it is there.
pub(super) fn block_of(roots: &Roots, tpg: &Path, lun: u32) -> Option<String> {
    let address = read(&tpg.join("address")).ok()?;
    let block = roots.sys.join("bus/scsi/devices").join(format!("{address}:{lun}")).join("block");
    fs::read_dir(block).ok()?.flatten().next()?.file_name().into_string().ok()
}

impl Backstore {
    /// The NAA names of a target and an initiator that belong to this backstore alone. They go by its serial number, since its place in
    /// configfs may be another after the next boot.
    pub(super) fn port_names(&self) -> (String, String) {
        let seed = self.serial().unwrap_or_else(|| self.id().to_string());
        (naa(&seed, "target"), naa(&seed, "nexus"))
    }
}
