//! What exports a backstore: found in configfs, whoever made it.
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use crate::{
    configfs::{
        Backstore, Chap, ConfigfsError, dirs_in,
        iscsi::{links_to, lun_of},
        loopback::block_of,
        names_in, read, remove_dir, remove_link, write,
    },
    roots::Roots,
};

/// How a backstore is exported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fabric {
    /// As a disk of this machine.
    Loopback,
    /// Over the network.
    Iscsi,
    /// To virtual machines.
    Vhost,
    /// In another way, by the name of its directory in configfs.
    Other(String),
}

impl Fabric {
    fn of(directory: &str) -> Fabric {
        match directory {
            "loopback" => Fabric::Loopback,
            "iscsi" => Fabric::Iscsi,
            "vhost" => Fabric::Vhost,
            other => Fabric::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fabric::Loopback => "loopback",
            Fabric::Iscsi => "iscsi",
            Fabric::Vhost => "vhost",
            Fabric::Other(name) => name,
        })
    }
}

/// A logical unit of a target that leads to a backstore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// How.
    pub fabric: Fabric,
    /// The target's name.
    pub target: String,
    /// The portal group's tag.
    pub tag: u32,
    /// The number of the logical unit.
    pub lun: u32,
    tpg: PathBuf,
}

impl Backstore {
    /// What exports it.
    pub fn exports(&self, roots: &Roots) -> Vec<Export> {
        let mut found = Vec::new();
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        for fabric in dirs_in(&roots.target).into_iter().filter(|dir| !matches!(name(dir).as_str(), "core" | "version")) {
            for target in dirs_in(&fabric) {
                for tpg in dirs_in(&target) {
                    let Some(tag) = name(&tpg).strip_prefix("tpgt_").and_then(|tag| tag.parse().ok()) else { continue };
                    let luns = dirs_in(&tpg.join("lun")).into_iter().filter(|lun| links_to(lun, self.path()));
                    found.extend(luns.filter_map(|dir| lun_of(&dir)).map(|lun| Export {
                        fabric: Fabric::of(&name(&fabric)),
                        target: name(&target),
                        tag,
                        lun,
                        tpg: tpg.clone(),
                    }));
                }
            }
        }
        found
    }
}

impl Export {
    /// The block device of a loopback (`sda`), if it is there.
    pub fn block_device(&self, roots: &Roots) -> Option<String> {
        (self.fabric == Fabric::Loopback).then(|| block_of(roots, &self.tpg, self.lun)).flatten()
    }

    /// Where an iSCSI target listens.
    pub fn portals(&self) -> Vec<String> {
        names_in(&self.tpg.join("np"))
    }

    /// The initiators that are named.
    pub fn initiators(&self) -> Vec<String> {
        dirs_in(&self.tpg.join("acls")).iter().filter_map(|dir| dir.file_name()?.to_str().map(str::to_owned)).collect()
    }

    /// Whether an iSCSI target lets in initiators that are not named.
    pub fn is_open(&self) -> bool {
        read(&self.tpg.join("attrib/generate_node_acls")).is_ok_and(|text| text.trim() == "1")
    }

    /// The user name and password that an iSCSI target wants; of the first initiator that is named.
    pub fn chap(&self) -> Option<Chap> {
        if !read(&self.tpg.join("attrib/authentication")).is_ok_and(|text| text.trim() == "1") {
            return None;
        }
        let acls = dirs_in(&self.tpg.join("acls")).into_iter().map(|acl| acl.join("auth"));
        acls.chain([self.tpg.join("auth")]).find_map(|auth| {
            let value = |name: &str| read(&auth.join(name)).ok().filter(|text| !text.is_empty() && text != "NULL");
            Some(Chap { user: value("userid")?, password: value("password")? })
        })
    }

    /// The initiators that are logged in to an iSCSI target.
    pub fn sessions(&self) -> Vec<String> {
        let mut names: Vec<String> =
            read(&self.tpg.join("dynamic_sessions")).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        for acl in dirs_in(&self.tpg.join("acls")) {
            // "No active iSCSI Session for Initiator Endpoint: ..." or a description of the session.
            if read(&acl.join("info")).is_ok_and(|info| info.starts_with("InitiatorName")) {
                names.extend(acl.file_name().and_then(|name| name.to_str()).map(str::to_owned));
            }
        }
        names
    }

    /// Takes the logical unit away, and the target with it if that has no other.
    pub fn remove(&self) -> Result<(), ConfigfsError> {
        let dir = self.tpg.join("lun").join(format!("lun_{}", self.lun));
        for acl in dirs_in(&self.tpg.join("acls")) {
            for mapped in dirs_in(&acl).iter().filter(|mapped| links_to(mapped, &dir)) {
                unlink(mapped)?;
            }
        }
        unlink(&dir)?;
        if dirs_in(&self.tpg.join("lun")).is_empty() { self.remove_target() } else { Ok(()) }
    }

    fn remove_target(&self) -> Result<(), ConfigfsError> {
        if self.fabric == Fabric::Iscsi {
            write(&self.tpg.join("enable"), 0)?;
            for acl in dirs_in(&self.tpg.join("acls")) {
                remove_dir(&acl)?;
            }
            for portal in dirs_in(&self.tpg.join("np")) {
                remove_dir(&portal)?;
            }
        }
        remove_dir(&self.tpg)?;
        match self.tpg.parent() {
            Some(target) if !dirs_in(target).iter().any(|dir| is_tpg(dir)) => remove_dir(target),
            _ => Ok(()),
        }
    }
}

/// Whether a directory is a portal group.
fn is_tpg(dir: &Path) -> bool {
    dir.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("tpgt_"))
}

/// Removes the directory of a logical unit with the link in it.
fn unlink(dir: &Path) -> Result<(), ConfigfsError> {
    for link in names_in(dir).iter().map(|name| dir.join(name)).filter(|path| path.is_symlink()) {
        remove_link(&link)?;
    }
    remove_dir(dir)
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} LUN {}", self.fabric, self.target, self.lun)
    }
}

/// Whether a block device is mounted, swapped to, or used by another device.
pub fn in_use(roots: &Roots, proc: &Path, block: &str) -> Option<String> {
    let sys = roots.sys.join("class/block").join(block);
    let parts = names_in(&sys).into_iter().filter(|name| name.starts_with(block)).chain([block.to_owned()]);
    for part in parts {
        let dir = roots.sys.join("class/block").join(&part);
        if let Some(holder) = names_in(&dir.join("holders")).first() {
            return Some(format!("/dev/{part} is used by {holder}"));
        }
        let number = read(&dir.join("dev")).unwrap_or_default();
        let mounts = fs::read_to_string(proc.join("self/mountinfo")).unwrap_or_default();
        if let Some(line) = mounts.lines().find(|line| line.split(' ').nth(2) == Some(number.as_str())) {
            return Some(format!("/dev/{part} is mounted on {}", line.split(' ').nth(4).unwrap_or("?")));
        }
        let swaps = fs::read_to_string(proc.join("swaps")).unwrap_or_default();
        let node = format!("/dev/{part}");
        if swaps.lines().any(|line| line.split_whitespace().next() == Some(node.as_str())) {
            return Some(format!("/dev/{part} is swapped to"));
        }
    }
    None
}
