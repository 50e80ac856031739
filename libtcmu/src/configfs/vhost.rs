//! The vhost fabric (`vhost_scsi`): a backstore as a disk of a virtual machine.
use crate::{
    configfs::{Backstore, ConfigfsError, own_target::OwnTarget},
    roots::Roots,
};

/// A vhost target with one logical unit. Removed on drop.
#[derive(Debug)]
pub struct Vhost(OwnTarget);

impl Vhost {
    /// Exports a backstore. Needs the module `vhost_scsi`.
    pub fn attach(roots: &Roots, backstore: &Backstore) -> Result<Vhost, ConfigfsError> {
        OwnTarget::make(roots, ("vhost", "vhost_scsi"), backstore, "exported to virtual machines").map(Vhost)
    }

    /// The name by which a virtual machine monitor finds it: `-device vhost-scsi-pci,wwpn=...` of QEMU.
    pub fn wwpn(&self) -> &str {
        &self.0.name
    }

    /// Takes the target away. Fails while a virtual machine uses it.
    pub fn remove(self) -> Result<(), ConfigfsError> {
        self.0.remove()
    }

    /// Leaves it when this value is dropped.
    pub fn keep(&mut self) {
        self.0.keep();
    }
}
