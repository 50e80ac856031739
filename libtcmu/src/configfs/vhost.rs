//! The vhost fabric (`vhost_scsi`): a backstore as a disk of a virtual machine.
use crate::{
    configfs::{Backstore, ConfigfsError, Undo, module::fabric_dir, write},
    roots::Roots,
};

/// A vhost target with one logical unit. Removed on drop.
#[derive(Debug)]
pub struct Vhost {
    wwpn: String,
    undo: Undo,
}

impl Vhost {
    /// Exports a backstore. Needs the module `vhost_scsi`.
    pub fn attach(roots: &Roots, backstore: &Backstore) -> Result<Vhost, ConfigfsError> {
        let mut undo = Undo::default();
        let fabric = fabric_dir(roots, "vhost", "vhost_scsi")?;
        let (wwpn, nexus) = backstore.port_names();
        let target = fabric.join(&wwpn);
        let tpg = target.join("tpgt_1");
        if tpg.join("lun/lun_0").exists() {
            return Err(ConfigfsError::Invalid(format!("{} is exported to virtual machines already ({wwpn})", backstore.id())));
        }
        undo.dir(&target)?;
        undo.dir(&tpg)?;
        write(&tpg.join("nexus"), nexus)?;
        let lun = tpg.join("lun/lun_0");
        undo.dir(&lun)?;
        undo.link(backstore.path(), &lun.join("storage"))?;
        Ok(Vhost { wwpn, undo })
    }

    /// The name by which a virtual machine monitor finds it: `-device vhost-scsi-pci,wwpn=...` of QEMU.
    pub fn wwpn(&self) -> &str {
        &self.wwpn
    }

    /// Takes the target away. Fails while a virtual machine uses it.
    pub fn remove(mut self) -> Result<(), ConfigfsError> {
        self.undo.run()
    }

    /// Leaves it when this value is dropped.
    pub fn keep(&mut self) {
        self.undo.keep();
    }
}
