//! Doing what a plan says, one step after the other. When one fails, those before it are undone.
use std::fs;

use anyhow::{Context, bail};
use tcmu::configfs::{Backstore, ConfigfsError, Export, Fabric, Iscsi, Loopback, Vhost, in_use};

use super::{
    Machine,
    plan::Change,
    records,
    size::Size,
    spec::{DiskSpec, FIXED},
};

/// What was done, to be undone in reverse when it is dropped.
#[derive(Default)]
struct Undo(Vec<Done>);

/// Dropping the values takes away what they stand for.
enum Done {
    Backstore(Backstore),
    Loopback(Loopback),
    Vhost(Vhost),
    Iscsi(Iscsi),
    Attribute { disk: Backstore, name: String, before: String },
}

impl Undo {
    fn keep(mut self) {
        for done in &mut self.0 {
            match done {
                Done::Backstore(backstore) => backstore.keep(),
                Done::Loopback(loopback) => loopback.keep(),
                Done::Vhost(vhost) => vhost.keep(),
                Done::Iscsi(iscsi) => iscsi.keep(),
                Done::Attribute { .. } => {}
            }
        }
        self.0.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        while let Some(done) = self.0.pop() {
            if let Done::Attribute { disk, name, before } = &done
                && let Err(error) = disk.set_attribute(name, before)
            {
                errln!("tcmuctl: {name} could not be set back to {before}: {error}");
            }
        }
    }
}

/// Makes a disk with all that belongs to it, or nothing.
pub(crate) fn create(machine: &Machine, spec: &DiskSpec) -> anyhow::Result<Backstore> {
    spec.check()?;
    let wanted = spec.backstore(machine)?;
    // Before anything is made: what the exports lack.
    for wish in &spec.iscsi {
        wish.spec(machine, &spec.name)?;
    }
    let mut undo = Undo::default();
    let backstore = Backstore::create(&machine.roots, &wanted).map_err(|error| refused(machine, error))?;
    let disk = backstore.another();
    undo.0.push(Done::Backstore(backstore));
    for (name, value) in spec.fixed() {
        // The kernel ignores settings that it doesn't know.
        match disk.attribute_text(&name) {
            Ok(taken) if taken == value => {}
            Ok(taken) => bail!("{name} = {value}: the kernel takes {taken} at most"),
            Err(_) => bail!("this kernel knows no {name}"),
        }
    }
    export(machine, &disk, spec, &mut undo)?;
    undo.keep();
    Ok(disk)
}

/// Adds all exports that are wanted.
fn export(machine: &Machine, disk: &Backstore, spec: &DiskSpec, undo: &mut Undo) -> anyhow::Result<()> {
    if spec.loopback {
        undo.0.push(Done::Loopback(Loopback::attach(&machine.roots, disk)?));
    }
    if spec.vhost {
        undo.0.push(Done::Vhost(Vhost::attach(&machine.roots, disk)?));
    }
    for number in 0..spec.iscsi.len() {
        attach_iscsi(machine, disk, spec, number, undo)?;
    }
    Ok(())
}

fn attach_iscsi(machine: &Machine, disk: &Backstore, spec: &DiskSpec, number: usize, undo: &mut Undo) -> anyhow::Result<()> {
    let wanted = spec.iscsi[number].spec(machine, &spec.name)?;
    if disk.exports(&machine.roots).iter().any(|export| export.fabric == Fabric::Iscsi && export.target == wanted.iqn) {
        bail!("{} is exported by {} already", disk.id(), wanted.iqn);
    }
    undo.0.push(Done::Iscsi(Iscsi::attach(&machine.roots, disk, &wanted)?));
    Ok(())
}

/// Exports a disk that is there in more ways.
pub(crate) fn attach(machine: &Machine, disk: &Backstore, spec: &DiskSpec) -> anyhow::Result<()> {
    spec.check()?;
    let mut undo = Undo::default();
    export(machine, disk, spec, &mut undo)?;
    undo.keep();
    Ok(())
}

/// Changes a disk that is there. What can't be undone comes last.
pub(crate) fn carry_out(machine: &Machine, disk: &Backstore, spec: &DiskSpec, changes: &[Change]) -> anyhow::Result<()> {
    let mut undo = Undo::default();
    for change in changes {
        match change {
            Change::Set { attribute, to, .. } => set(machine, disk, attribute, to, &mut undo)?,
            Change::Loopback => undo.0.push(Done::Loopback(Loopback::attach(&machine.roots, disk)?)),
            Change::Vhost => undo.0.push(Done::Vhost(Vhost::attach(&machine.roots, disk)?)),
            Change::Iscsi { number, .. } => attach_iscsi(machine, disk, spec, *number, &mut undo)?,
            Change::Extend { number, .. } => {
                let wanted = spec.iscsi[*number].spec(machine, &spec.name)?;
                undo.0.push(Done::Iscsi(Iscsi::extend(&machine.roots, &wanted)?));
            }
            Change::Resize { to, .. } => resize(machine, disk, *to)?,
            Change::Detach(export) => detach(machine, disk, export, false)?,
            Change::Create | Change::Recreate(_) | Change::Remove => {}
        }
    }
    undo.keep();
    Ok(())
}

/// Sets attributes, all or none.
pub(crate) fn set_all(machine: &Machine, disk: &Backstore, settings: &[(String, String)]) -> anyhow::Result<()> {
    let mut undo = Undo::default();
    for (name, value) in settings {
        set(machine, disk, name, value, &mut undo)?;
    }
    undo.keep();
    Ok(())
}

fn set(machine: &Machine, disk: &Backstore, name: &str, value: &str, undo: &mut Undo) -> anyhow::Result<()> {
    let there = disk.attributes();
    if !there.iter().any(|known| known == name) {
        bail!("{} has no attribute {name:?}; there are: {}", disk.id(), there.join(", "));
    }
    if FIXED.contains(&name) {
        bail!("{name} is fixed when a disk is made; to change it, delete {} and create it anew", disk.id());
    }
    let before = disk.attribute_text(name)?;
    disk.set_attribute(name, value).map_err(|error| match error.errno() {
        Some(libc::EINVAL) if name == "cmd_time_out" && before != value => {
            anyhow::anyhow!("{name} = {value}: the kernel takes it only while nothing exports {}", disk.id())
        }
        _ => refused(machine, error),
    })?;
    undo.0.push(Done::Attribute { disk: disk.another(), name: name.to_owned(), before });
    Ok(())
}

/// Makes a disk larger or smaller, and this machine look at it again.
pub(crate) fn resize(machine: &Machine, disk: &Backstore, to: Size) -> anyhow::Result<()> {
    disk.set_attribute("dev_size", to.0).map_err(|error| refused(machine, error))?;
    for block in disk.exports(&machine.roots).iter().filter_map(|export| export.block_device(&machine.roots)) {
        let rescan = machine.roots.sys.join("block").join(&block).join("device/rescan");
        if let Err(error) = fs::write(&rescan, "1") {
            errln!("tcmuctl: {}: {error}; /dev/{block} shows its old size until it is rescanned", rescan.display());
        }
    }
    Ok(())
}

/// Who uses an export now.
pub(crate) fn user_of(machine: &Machine, export: &Export) -> Option<String> {
    if let Some(block) = export.block_device(&machine.roots) {
        return in_use(&machine.roots, &machine.proc, &block);
    }
    let sessions = export.sessions();
    (!sessions.is_empty()).then(|| format!("{} is logged in to {}", sessions.join(", "), export.target))
}

/// Takes an export away; one that is in use only when it is forced.
pub(crate) fn detach(machine: &Machine, disk: &Backstore, export: &Export, force: bool) -> anyhow::Result<()> {
    if !force && let Some(user) = user_of(machine, export) {
        bail!("{}: {user}; --force takes it away all the same", disk.id());
    }
    export.remove().with_context(|| format!("{}: {export}", disk.id()))
}

/// Takes a disk away with all its exports. What it keeps its data in stays.
pub(crate) fn delete(machine: &Machine, disk: &Backstore, force: bool) -> anyhow::Result<()> {
    let exports = disk.exports(&machine.roots);
    if !force && let Some(user) = exports.iter().find_map(|export| user_of(machine, export)) {
        bail!("{}: {user}; --force takes it away all the same", disk.id());
    }
    for export in &exports {
        detach(machine, disk, export, true)?;
    }
    disk.delete().map_err(|error| refused(machine, error))?;
    records::forget(machine, &disk.id().name);
    Ok(())
}

/// What the kernel's refusal means, in the handler's words where the daemon knows them.
fn refused(machine: &Machine, error: ConfigfsError) -> anyhow::Error {
    let ConfigfsError::Write { path, error, value } = &error else { return error.into() };
    // core/user_<number>/<name>/enable, or below that
    let below: Vec<_> = path.strip_prefix(machine.roots.target.join("core")).unwrap_or(path).iter().collect();
    let disk = below.iter().take(2).map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
    let what = match path.file_name().and_then(|name| name.to_str()) {
        Some("enable") => "the handler did not open it".to_owned(),
        Some(name @ ("dev_size" | "emulate_write_cache" | "dev_config")) => format!("the handler refused {name} = {value}"),
        _ => return anyhow::anyhow!("{disk}: {}: the kernel refused {value:?}: {error}", path.display()),
    };
    match (machine.refusal)(&disk) {
        Some(reason) => anyhow::anyhow!("{disk}: {what}: {reason}"),
        None => anyhow::anyhow!("{disk}: {what}: {error} (the daemon's log may say more: journalctl -u tcmu-runnerd)"),
    }
}

#[cfg(test)]
mod tests;
