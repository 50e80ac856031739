//! What has to be done so that a disk is as it is wanted.
use std::fmt;

use tcmu::{
    BackstoreId,
    configfs::{Backstore, Export, Fabric},
};

use super::{
    Machine, find,
    size::Size,
    spec::{ANY, DiskSpec, WRITE_CACHE},
};

/// What is only done when it was allowed, since something may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Allow {
    /// Make a disk smaller.
    Shrink,
    /// Take a disk away and make it anew, where what was changed is fixed otherwise.
    Recreate,
    /// Take away exports that are not in the file.
    Detach,
    /// Take away disks whose file is gone.
    Remove,
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Allow::Shrink => "shrink",
            Allow::Recreate => "recreate",
            Allow::Detach => "detach",
            Allow::Remove => "remove",
        })
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// The disk is not there: all of it.
    Create,
    /// What is wanted can't be had from the disk that is there.
    Recreate(Vec<String>),
    /// A limit or switch.
    Set {
        attribute: String,
        from: String,
        to: String,
    },
    /// A disk of this machine.
    Loopback,
    /// A disk of virtual machines.
    Vhost,
    /// The export over iSCSI of this number.
    Iscsi {
        number: usize,
        target: String,
    },
    /// The target is there, and lacks these.
    Extend {
        number: usize,
        target: String,
        what: String,
    },
    Resize {
        from: Size,
        to: Size,
    },
    /// An export that is not wanted.
    Detach(Export),
    /// The disk is not wanted.
    Remove,
}

impl Change {
    /// What must be allowed for it.
    pub(crate) fn needs(&self) -> Option<Allow> {
        match self {
            Change::Recreate(_) => Some(Allow::Recreate),
            Change::Resize { from, to } if to < from => Some(Allow::Shrink),
            Change::Detach(_) => Some(Allow::Detach),
            Change::Remove => Some(Allow::Remove),
            _ => None,
        }
    }

    /// The sign at the front of its line.
    pub(crate) fn sign(&self) -> char {
        match self {
            Change::Create | Change::Loopback | Change::Vhost | Change::Iscsi { .. } | Change::Extend { .. } => '+',
            Change::Detach(_) | Change::Remove => '-',
            Change::Recreate(_) | Change::Set { .. } | Change::Resize { .. } => '~',
        }
    }
}

/// What has to be done for one disk.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The disk that is there.
    pub live: Option<BackstoreId>,
    /// In the order in which it is to be done.
    pub changes: Vec<Change>,
}

/// Compares a disk as it is wanted with what is there.
pub(crate) fn plan(machine: &Machine, spec: &DiskSpec) -> anyhow::Result<Plan> {
    let Some(disk) = find::find(machine, &spec.name, spec.hba)? else {
        return Ok(Plan { live: None, changes: vec![Change::Create] });
    };
    let live = Some(disk.id().clone());
    let fixed = fixed(&disk, spec)?;
    if !fixed.is_empty() {
        return Ok(Plan { live, changes: vec![Change::Recreate(fixed)] });
    }
    let mut changes = Vec::new();
    for (attribute, to) in spec.changeable() {
        let from = disk.attribute_text(&attribute)?;
        if from != to {
            changes.push(Change::Set { attribute, from, to });
        }
    }
    let exports = disk.exports(&machine.roots);
    let unwanted = exports_of(machine, spec, &exports, &mut changes)?;
    let (from, to) = (Size(disk.facts()?.size), spec.size);
    if from != to {
        changes.push(Change::Resize { from, to });
    }
    changes.extend(unwanted.into_iter().map(Change::Detach));
    Ok(Plan { live, changes })
}

/// What is wanted otherwise and can't be changed.
fn fixed(disk: &Backstore, spec: &DiskSpec) -> anyhow::Result<Vec<String>> {
    let mut why = Vec::new();
    let mut differs = |what: &str, from: &str, to: &str| {
        if from != to {
            why.push(format!("{what} {from} → {to}"));
        }
    };
    differs("config", &disk.dev_config()?, &spec.dev_config());
    for (name, wanted) in spec.fixed() {
        differs(&name, &disk.attribute_text(&name)?, &wanted);
    }
    if let Some(serial) = &spec.serial {
        differs("serial", &disk.serial().unwrap_or_default(), serial);
    }
    if !disk.is_enabled().unwrap_or(false) {
        why.push("it was never enabled".into());
    }
    Ok(why)
}

/// Adds the exports that are wanted and not there; the ones that are there and not wanted.
fn exports_of(machine: &Machine, spec: &DiskSpec, exports: &[Export], changes: &mut Vec<Change>) -> anyhow::Result<Vec<Export>> {
    let of = |fabric: &Fabric| exports.iter().find(|export| export.fabric == *fabric);
    for (wanted, fabric, change) in
        [(spec.loopback, Fabric::Loopback, Change::Loopback), (spec.vhost, Fabric::Vhost, Change::Vhost)]
    {
        if wanted && of(&fabric).is_none() {
            changes.push(change);
        }
    }
    let mut targets = Vec::new();
    for (number, wish) in spec.iscsi.iter().enumerate() {
        let target = wish.target(machine, &spec.name);
        match exports.iter().find(|export| export.fabric == Fabric::Iscsi && export.target == target) {
            None => changes.push(Change::Iscsi { number, target: target.clone() }),
            Some(export) => {
                let what = lacking(machine, spec, number, export)?;
                if !what.is_empty() {
                    changes.push(Change::Extend { number, target: target.clone(), what: what.join(", ") });
                }
            }
        }
        targets.push(target);
    }
    let unwanted = exports.iter().filter(|export| match &export.fabric {
        Fabric::Loopback => !spec.loopback,
        Fabric::Vhost => !spec.vhost,
        Fabric::Iscsi => !targets.contains(&export.target),
        // We can't make them, so that the file can't speak of them.
        Fabric::Other(_) => false,
    });
    Ok(unwanted.cloned().collect())
}

/// What a target that is there lacks of what is wanted.
fn lacking(machine: &Machine, spec: &DiskSpec, number: usize, export: &Export) -> anyhow::Result<Vec<String>> {
    let wish = &spec.iscsi[number];
    let (portals, initiators) = (export.portals(), export.initiators());
    let mut what: Vec<String> = wish
        .portals()?
        .iter()
        .map(ToString::to_string)
        .filter(|portal| !portals.contains(portal))
        .map(|p| format!("portal {p}"))
        .collect();
    let missing = wish.initiators.iter().filter(|name| if *name == ANY { !export.is_open() } else { !initiators.contains(name) });
    what.extend(missing.map(|name| format!("initiator {name}")));
    if wish.chap.is_some() && wish.spec(machine, &spec.name)?.chap != export.chap() {
        what.push("CHAP user or password".into());
    }
    Ok(what)
}

/// As a line for people, without sign and name.
pub(crate) fn line(spec: &DiskSpec, change: &Change) -> String {
    match change {
        Change::Create => {
            let mut parts = vec![format!("{} {}, {}", spec.handler, spec.config, spec.size)];
            parts.extend(spec.loopback.then(|| "loopback".to_owned()));
            parts.extend(spec.vhost.then(|| "vhost".to_owned()));
            parts.extend(spec.iscsi.iter().map(|wish| format!("iscsi {}", wish.target.as_deref().unwrap_or("(default)"))));
            format!("create: {}", parts.join(", "))
        }
        Change::Recreate(why) => format!("take away and make anew: {}", why.join("; ")),
        Change::Set { attribute, from, to } if attribute == WRITE_CACHE => {
            let word = |value: &str| if value == "1" { "on" } else { "off" };
            format!("write_cache {} → {}", word(from), word(to))
        }
        Change::Set { attribute, from, to } => format!("{attribute} {from} → {to}"),
        Change::Loopback => "loopback".into(),
        Change::Vhost => "vhost".into(),
        Change::Iscsi { target, .. } => format!("iscsi {target}"),
        Change::Extend { target, what, .. } => format!("iscsi {target}: {what}"),
        Change::Resize { from, to } => format!("size {from} → {to}"),
        Change::Detach(export) => format!("{export}"),
        Change::Remove => "remove: its file is gone".into(),
    }
}
