//! The iSCSI fabric: targets, their portals, logical units, and who may log in.
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    configfs::{Backstore, ConfigfsError, Undo, dirs_in, module::fabric_dir, names_in, read, write},
    roots::Roots,
};

/// Longest name of a node (RFC 3720, 3.2.6.1).
const LONGEST_NAME: usize = 223;
/// Most characters of a CHAP user name or password that the kernel takes (`MAX_USER_LEN`, `MAX_PASS_LEN`, less the NUL).
const LONGEST_CHAP: usize = 255;

/// Who may log in to a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admit {
    /// Whoever may already. A new target lets nobody in.
    #[default]
    AsItIs,
    /// Every initiator.
    All,
    /// These initiators, besides those that may already.
    Only(Vec<String>),
}

/// A user name and password that initiators need.
#[derive(Clone, PartialEq, Eq)]
pub struct Chap {
    /// The user's name.
    pub user: String,
    /// The password; initiators want 12 characters or more.
    pub password: String,
}

impl fmt::Debug for Chap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chap").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How a backstore is exported over iSCSI.
#[derive(Clone, Debug)]
pub struct IscsiSpec {
    /// The target's name, `iqn.<year>-<month>.<domain>:<name>`. One that is there gets another logical unit.
    pub iqn: String,
    /// Where it listens, besides where it does already.
    pub portals: Vec<SocketAddr>,
    /// Who may log in.
    pub admit: Admit,
    /// What they need.
    pub chap: Option<Chap>,
    /// The number of the logical unit; `None` takes the first that is free.
    pub lun: Option<u32>,
}

impl IscsiSpec {
    /// A target that listens nowhere and lets nobody in.
    pub fn new(iqn: impl Into<String>) -> IscsiSpec {
        IscsiSpec { iqn: iqn.into(), portals: Vec::new(), admit: Admit::AsItIs, chap: None, lun: None }
    }

    fn check(&self) -> Result<(), ConfigfsError> {
        check_name(&self.iqn)?;
        if let Admit::Only(initiators) = &self.admit {
            initiators.iter().try_for_each(|name| check_name(name))?;
        }
        if let Some(Chap { user, password }) = &self.chap {
            for (what, text) in [("user name", user), ("password", password)] {
                if text.is_empty() || text.len() > LONGEST_CHAP || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
                    return Err(ConfigfsError::Invalid(format!(
                        "the CHAP {what} must be 1 to {LONGEST_CHAP} printable characters"
                    )));
                }
            }
            // What the kernel takes for "there is none".
            if user == "NULL" || password == "NULL" {
                return Err(ConfigfsError::Invalid("NULL is no CHAP user name or password: the kernel deletes it then".into()));
            }
        }
        Ok(())
    }
}

/// Names of targets and initiators: `iqn.`, `eui.` or `naa.` (RFC 3720, 3.2.6.3), in lower case.
fn check_name(name: &str) -> Result<(), ConfigfsError> {
    let wrong = |what: &str| Err(ConfigfsError::Invalid(format!("{name:?} is no iSCSI name: {what}")));
    if !["iqn.", "eui.", "naa."].iter().any(|kind| name.starts_with(kind)) {
        return wrong("iqn.<year>-<month>.<domain>:<name> is needed");
    }
    if name.len() > LONGEST_NAME {
        return wrong("at most 223 characters");
    }
    if let Some(bad) = name.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(*c))) {
        return wrong(&format!("{bad:?} cannot be in it; there may be lower-case letters, digits, '-', '.' and ':'"));
    }
    Ok(())
}

/// A backstore's export over iSCSI: a logical unit, and the target if it wasn't there. Removed on drop.
#[derive(Debug)]
pub struct Iscsi {
    lun: u32,
    undo: Undo,
}

impl Iscsi {
    /// Exports a backstore. Needs the module `iscsi_target_mod`. Who could log in to a target before, and how, stays as it was.
    pub fn attach(roots: &Roots, backstore: &Backstore, spec: &IscsiSpec) -> Result<Iscsi, ConfigfsError> {
        spec.check()?;
        let fabric = fabric_dir(roots, "iscsi", "iscsi_target_mod")?;
        let target = fabric.join(&spec.iqn);
        let tpg = target.join("tpgt_1");
        let is_new = !tpg.exists();
        let mut undo = Undo::default();
        undo.dir(&target)?;
        undo.dir(&tpg)?;
        if is_new {
            let open = spec.admit == Admit::All;
            let attribute = |name: &str, value: u8| write(&tpg.join("attrib").join(name), value);
            attribute("authentication", u8::from(spec.chap.is_some()))?;
            attribute("generate_node_acls", u8::from(open))?;
            attribute("cache_dynamic_acls", u8::from(open))?;
            attribute("demo_mode_write_protect", 0)?;
        } else {
            fits(&tpg, spec)?;
        }
        for portal in &spec.portals {
            undo.dir(&tpg.join("np").join(portal.to_string()))?;
        }
        let lun = link_lun(&tpg, backstore, spec, &mut undo)?;
        admit(&tpg, spec, &mut undo)?;
        let lun_dir = tpg.join("lun").join(format!("lun_{lun}"));
        for acl in dirs_in(&tpg.join("acls")) {
            map(&acl, lun, &lun_dir, &mut undo)?;
        }
        if read(&tpg.join("enable")).is_ok_and(|text| text != "1") {
            undo.value(&tpg.join("enable"), "1", "0")?;
        }
        Ok(Iscsi { lun, undo })
    }

    /// Adds portals and initiators to a target that is there; sets the password of those that are named. Its logical units stay.
    pub fn extend(roots: &Roots, spec: &IscsiSpec) -> Result<Iscsi, ConfigfsError> {
        spec.check()?;
        let tpg = roots.target.join("iscsi").join(&spec.iqn).join("tpgt_1");
        if !tpg.exists() {
            return Err(ConfigfsError::Invalid(format!("there is no target {}", spec.iqn)));
        }
        fits(&tpg, spec)?;
        let mut undo = Undo::default();
        for portal in &spec.portals {
            undo.dir(&tpg.join("np").join(portal.to_string()))?;
        }
        admit(&tpg, spec, &mut undo)?;
        Ok(Iscsi { lun: spec.lun.unwrap_or(0), undo })
    }

    /// The number of the logical unit.
    pub fn lun(&self) -> u32 {
        self.lun
    }

    /// Takes away what was made; sessions of a target that goes end.
    pub fn remove(mut self) -> Result<(), ConfigfsError> {
        self.undo.run()
    }

    /// Leaves it when this value is dropped.
    pub fn keep(&mut self) {
        self.undo.keep();
    }
}

/// Whether a target that is there can be what is asked for without changing what its other users have.
fn fits(tpg: &Path, spec: &IscsiSpec) -> Result<(), ConfigfsError> {
    let attribute = |name: &str| read(&tpg.join("attrib").join(name)).is_ok_and(|text| text.trim() == "1");
    let (open, authenticates) = (attribute("generate_node_acls"), attribute("authentication"));
    let invalid = |what: &str| Err(ConfigfsError::Invalid(format!("the target {} {what}", spec.iqn)));
    match &spec.admit {
        Admit::All if !open => invalid("is there already and lets in named initiators only: name them, or take another target"),
        Admit::Only(_) if open => {
            invalid("is there already and lets all initiators in: leave out who may, or take another target")
        }
        _ if spec.chap.is_some() && !authenticates => invalid("is there already and wants no password: take another target"),
        _ => Ok(()),
    }
}

fn link_lun(tpg: &Path, backstore: &Backstore, spec: &IscsiSpec, undo: &mut Undo) -> Result<u32, ConfigfsError> {
    let luns = tpg.join("lun");
    let dir = |lun: u32| luns.join(format!("lun_{lun}"));
    let lun = match spec.lun {
        Some(lun) if !names_in(&dir(lun)).is_empty() && has_link(&dir(lun)) => {
            return Err(ConfigfsError::Invalid(format!("LUN {lun} of {} is taken", spec.iqn)));
        }
        Some(lun) => lun,
        None => (0..=u32::from(u16::MAX)).find(|lun| !dir(*lun).exists()).unwrap_or(0),
    };
    undo.dir(&dir(lun))?;
    undo.link(backstore.path(), &dir(lun).join("storage"))?;
    Ok(lun)
}

fn has_link(dir: &Path) -> bool {
    names_in(dir).iter().any(|name| dir.join(name).is_symlink())
}

/// Lets initiators in: those that are named, with what they need.
fn admit(tpg: &Path, spec: &IscsiSpec, undo: &mut Undo) -> Result<(), ConfigfsError> {
    let acls = tpg.join("acls");
    match &spec.admit {
        Admit::AsItIs => {}
        Admit::All => {
            if let Some(chap) = &spec.chap {
                credentials(&tpg.join("auth"), chap)?;
            }
        }
        Admit::Only(initiators) => {
            for initiator in initiators {
                let acl = acls.join(initiator);
                let was_there = acl.exists();
                undo.dir(&acl)?;
                if let Some(chap) = &spec.chap {
                    credentials(&acl.join("auth"), chap)?;
                }
                if !was_there {
                    map_others(tpg, &acl, undo)?;
                }
            }
        }
    }
    Ok(())
}

/// A new initiator sees all logical units that the target has.
fn map_others(tpg: &Path, acl: &Path, undo: &mut Undo) -> Result<(), ConfigfsError> {
    for dir in dirs_in(&tpg.join("lun")) {
        if let Some(lun) = lun_of(&dir) {
            map(acl, lun, &dir, undo)?;
        }
    }
    Ok(())
}

/// Shows a logical unit to an initiator, under the same number where that is free.
fn map(acl: &Path, lun: u32, lun_dir: &Path, undo: &mut Undo) -> Result<(), ConfigfsError> {
    let mapped = |number: u32| acl.join(format!("lun_{number}"));
    let to_it = |dir: &PathBuf| links_to(dir, lun_dir);
    if dirs_in(acl).iter().any(to_it) {
        return Ok(());
    }
    let number = std::iter::once(lun).chain(0..=u32::from(u16::MAX)).find(|number| !mapped(*number).exists()).unwrap_or(lun);
    undo.dir(&mapped(number))?;
    undo.link(lun_dir, &mapped(number).join("storage"))
}

/// `lun_3` → 3
pub(super) fn lun_of(dir: &Path) -> Option<u32> {
    dir.file_name()?.to_str()?.strip_prefix("lun_")?.parse().ok()
}

/// Whether a link in this directory leads to that one.
pub(super) fn links_to(dir: &Path, to: &Path) -> bool {
    let to = to.canonicalize().ok();
    to.is_some()
        && names_in(dir).iter().map(|name| dir.join(name)).any(|link| link.is_symlink() && link.canonicalize().ok() == to)
}

fn credentials(auth: &Path, chap: &Chap) -> Result<(), ConfigfsError> {
    write(&auth.join("userid"), &chap.user)?;
    // The value must not be in an error's words.
    write(&auth.join("password"), &chap.password).map_err(|error| match error {
        ConfigfsError::Write { path, error, .. } => ConfigfsError::Write { path, value: "(the password)".into(), error },
        other => other,
    })
}
