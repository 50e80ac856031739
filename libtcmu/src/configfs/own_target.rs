//! A target that has one backstore alone, as its only logical unit: what the loopback and the vhost fabrics have in common.
use std::path::{Path, PathBuf};

use crate::{
    configfs::{Backstore, ConfigfsError, Undo, module::fabric_dir, names::naa, write},
    roots::Roots,
};

/// Taken away on drop.
#[derive(Debug)]
pub(super) struct OwnTarget {
    /// Its NAA name.
    pub(super) name: String,
    tpg: PathBuf,
    undo: Undo,
}

impl OwnTarget {
    /// Makes it in a fabric, which needs that module. Where it exists already, `taken` says what that means.
    pub(super) fn make(
        roots: &Roots,
        (fabric, module): (&str, &str),
        backstore: &Backstore,
        taken: &str,
    ) -> Result<OwnTarget, ConfigfsError> {
        let mut undo = Undo::default();
        let fabric = fabric_dir(roots, fabric, module)?;
        let (name, nexus) = backstore.port_names();
        let target = fabric.join(&name);
        let tpg = target.join("tpgt_1");
        let lun = tpg.join("lun/lun_0");
        if lun.exists() {
            return Err(ConfigfsError::Invalid(format!("{} is {taken} already ({name})", backstore.id())));
        }
        undo.dir(&target)?;
        undo.dir(&tpg)?;
        write(&tpg.join("nexus"), nexus)?;
        undo.dir(&lun)?;
        undo.link(backstore.path(), &lun.join("storage"))?;
        Ok(OwnTarget { name, tpg, undo })
    }

    /// The portal group's directory.
    pub(super) fn tpg(&self) -> &Path {
        &self.tpg
    }

    /// Takes it away. Fails while it is in use.
    pub(super) fn remove(mut self) -> Result<(), ConfigfsError> {
        self.undo.run()
    }

    /// Leaves it when this value is dropped.
    pub(super) fn keep(&mut self) {
        self.undo.keep();
    }
}

impl Backstore {
    /// The NAA names of a target and an initiator that belong to this backstore alone. They go by its serial number, since its place in
    /// configfs may be another after the next boot.
    fn port_names(&self) -> (String, String) {
        let seed = self.serial().unwrap_or_else(|| self.id().to_string());
        (naa(&seed, "target"), naa(&seed, "nexus"))
    }
}
