//! Fabrics that export a backstore: the loopback to this machine, and iSCSI.
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    configfs::{Backstore, ConfigfsError, Undo, read, wait_for, write},
    roots::Roots,
};

/// An NAA name (Company Assigned, IEEE Registered) that depends on the backstore and on what it is for.
fn naa(backstore: &Backstore, role: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (backstore.id(), role).hash(&mut hasher);
    format!("naa.5001405{:09x}", hasher.finish() & 0xf_ffff_ffff)
}

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
        let fabric = roots.target.join("loopback");
        super::make_dir(&fabric)?; // belongs to all
        let target = fabric.join(naa(backstore, "target"));
        let tpg = target.join("tpgt_1");
        undo.dir(&target)?;
        undo.dir(&tpg)?;
        write(&tpg.join("nexus"), naa(backstore, "nexus"))?;
        let lun = tpg.join("lun/lun_0");
        undo.dir(&lun)?;
        undo.link(backstore.path(), &lun.join("storage"))?;
        Ok(Loopback { tpg, undo })
    }

    /// The block device (`sda`) that appeared for it, waiting for it. Blocks.
    pub fn block_device(&self, roots: &Roots, within: Duration) -> Result<String, ConfigfsError> {
        let address = read(&self.tpg.join("address"))?; // host:channel:target
        let devices = roots.sys.join("bus/scsi/devices");
        wait_for(&format!("the disk at SCSI address {address}"), within, || {
            let block = devices.join(format!("{address}:0")).join("block");
            fs::read_dir(block).ok()?.flatten().next()?.file_name().into_string().ok()
        })
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

/// How an iSCSI target is made.
#[derive(Clone, Debug)]
pub struct IscsiSpec {
    /// The target's name, `iqn.<year>-<month>.<domain>:<name>`.
    pub iqn: String,
    /// Where it listens.
    pub portals: Vec<SocketAddr>,
    /// Initiators that may log in; empty lets all in.
    pub initiators: Vec<String>,
    /// CHAP user name and password for them.
    pub chap: Option<(String, String)>,
}

/// An iSCSI target with one logical unit. Removed on drop.
#[derive(Debug)]
pub struct Iscsi {
    undo: Undo,
}

impl Iscsi {
    /// Exports a backstore. Needs the module `iscsi_target_mod`.
    pub fn attach(roots: &Roots, backstore: &Backstore, spec: &IscsiSpec) -> Result<Iscsi, ConfigfsError> {
        let mut undo = Undo::default();
        let fabric = roots.target.join("iscsi");
        super::make_dir(&fabric)?;
        let target = fabric.join(&spec.iqn);
        let tpg = target.join("tpgt_1");
        undo.dir(&target)?;
        undo.dir(&tpg)?;
        for portal in &spec.portals {
            undo.dir(&tpg.join("np").join(portal.to_string()))?;
        }
        let open = spec.initiators.is_empty();
        let attribute = |name: &str, value: u8| write(&tpg.join("attrib").join(name), value);
        attribute("authentication", u8::from(spec.chap.is_some()))?;
        attribute("generate_node_acls", u8::from(open))?;
        attribute("cache_dynamic_acls", u8::from(open))?;
        attribute("demo_mode_write_protect", 0)?;
        if let (true, Some(chap)) = (open, &spec.chap) {
            credentials(&tpg.join("auth"), chap)?;
        }
        let lun = tpg.join("lun/lun_0");
        undo.dir(&lun)?;
        undo.link(backstore.path(), &lun.join("storage"))?;
        for initiator in &spec.initiators {
            let acl = tpg.join("acls").join(initiator);
            undo.dir(&acl)?;
            if let Some(chap) = &spec.chap {
                credentials(&acl.join("auth"), chap)?;
            }
            let mapped = acl.join("lun_0");
            undo.dir(&mapped)?;
            undo.link(&lun, &mapped.join("storage"))?;
        }
        undo.value(&tpg.join("enable"), "1", "0")?;
        Ok(Iscsi { undo })
    }

    /// Takes the target away; sessions end.
    pub fn remove(mut self) -> Result<(), ConfigfsError> {
        self.undo.run()
    }

    /// Leaves it when this value is dropped.
    pub fn keep(&mut self) {
        self.undo.keep();
    }
}

fn credentials(auth: &Path, (user, password): &(String, String)) -> Result<(), ConfigfsError> {
    write(&auth.join("userid"), user)?;
    write(&auth.join("password"), password)
}
