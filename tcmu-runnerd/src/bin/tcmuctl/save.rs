//! `tcmuctl save`: the file that `apply` would make a disk from, written from the disk that is there.
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use tcmu::configfs::{Backstore, Fabric};

use super::disk::{
    Machine, file, find, records,
    secret::Secret,
    size::Size,
    spec::{ANY, ChapWish, DiskSpec, IscsiWish, Setting, WRITE_CACHE},
};

/// What is written where.
#[derive(Args)]
pub(crate) struct Save {
    /// The disk: its name, or user_<number>/<name>.
    name: String,
    /// The file; NAME.toml in /etc/tcmu/disks.d if nothing is said. `-` prints it. CHAP passwords go into files beside it.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

/// What the kernel sets these to, so that they need not be said.
const DEFAULTS: [(&str, &str); 7] = [
    ("cmd_time_out", "30"),
    ("qfull_time_out", "-1"),
    ("tmr_notification", "0"),
    ("data_pages_per_blk", "1"),
    ("cmd_ring_size_mb", "8"),
    ("max_data_area_mb", "1024"),
    // Ours: the kernel's own is 128.
    ("hw_max_sectors", "2048"),
];

/// A disk as it is now.
fn spec_of(machine: &Machine, disk: &Backstore) -> anyhow::Result<DiskSpec> {
    let facts = disk.facts()?;
    let dev_config = disk.dev_config()?;
    let (handler, config) = tcmu::identity::split_config(&dev_config);
    let mut spec = DiskSpec::new(handler, &disk.id().name, Size(facts.size));
    config.clone_into(&mut spec.config);
    spec.hba = Some(disk.id().hba);
    spec.block_size = (facts.block_size != 512).then_some(facts.block_size);
    spec.serial = disk.serial();
    spec.write_cache = disk.attribute_text(WRITE_CACHE).ok().map(|text| text == "1");
    for (name, default) in DEFAULTS {
        if let Ok(value) = disk.attribute_text(name)
            && value != default
        {
            spec.attributes.insert(name.into(), value.parse().map_or_else(|_| Setting::Text(value), Setting::Number));
        }
    }
    for export in disk.exports(&machine.roots) {
        match &export.fabric {
            Fabric::Loopback => spec.loopback = true,
            Fabric::Vhost => spec.vhost = true,
            Fabric::Iscsi if export.tag != 1 => {
                errln!("tcmuctl: {export}: portal group {} is left out; targetcli saves it", export.tag);
            }
            Fabric::Iscsi => spec.iscsi.push(IscsiWish {
                target: Some(export.target.clone()),
                portals: export.portals(),
                initiators: if export.is_open() { vec![ANY.into()] } else { export.initiators() },
                lun: Some(export.lun),
                chap: export.chap().map(|chap| ChapWish {
                    user: chap.user,
                    password_file: PathBuf::new(),
                    password: Some(Secret::new(chap.password)),
                }),
            }),
            Fabric::Other(_) => errln!("tcmuctl: {export}: left out; targetcli saves it"),
        }
    }
    Ok(spec)
}

/// Writes it.
pub(crate) fn save(save: &Save, json: bool) -> anyhow::Result<()> {
    let machine = Machine::this();
    machine.need_root()?;
    let disk = find::disk(&machine, &save.name)?;
    let mut spec = spec_of(&machine, &disk)?;
    let path = save.output.clone().unwrap_or_else(|| Path::new(file::DIRECTORY).join(format!("{}.toml", spec.name)));
    if path == Path::new("-") {
        for (number, chap) in spec.iscsi.iter_mut().enumerate().filter_map(|(number, wish)| Some((number, wish.chap.as_mut()?))) {
            chap.password_file = password_name(&spec.name, number);
        }
        out!("{}", file::text(&spec)?);
        return Ok(());
    }
    write(&spec.clone(), &mut spec, &path, save.force)?;
    records::note(&machine, &spec.name, &path);
    if json {
        outln!("{}", serde_json::json!({ "device": disk.id().to_string(), "file": path }));
    } else {
        outln!("{}", path.display());
    }
    Ok(())
}

fn password_name(disk: &str, number: usize) -> PathBuf {
    PathBuf::from(if number == 0 { format!("{disk}.chap") } else { format!("{disk}-{number}.chap") })
}

fn write(from: &DiskSpec, spec: &mut DiskSpec, path: &Path, force: bool) -> anyhow::Result<()> {
    if path.exists() && !force {
        bail!("{} is there already; --force replaces it", path.display());
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    for (number, wish) in from.iscsi.iter().enumerate() {
        if let Some((wanted, secret)) = wish.chap.as_ref().and_then(|chap| Some((chap, chap.password.as_ref()?))) {
            let name = password_name(&from.name, number);
            replace(&dir.join(&name), &format!("{}\n", secret.reveal()), 0o600)?;
            spec.iscsi[number].chap = Some(ChapWish { password_file: name, ..wanted.clone() });
        }
    }
    replace(path, &file::text(spec)?, 0o644)
}

/// Writes a file so that there is always the old one or the new one.
fn replace(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&beside, path)).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::disk::{fixture::machine, plan, steps};

    #[test]
    fn what_was_saved_is_what_is_there() {
        let (dir, _fake, machine) = machine();
        let mut spec = DiskSpec::new("file", "a", Size(3 << 20));
        spec.config = "/srv/a;ro=on".into();
        spec.loopback = true;
        spec.attributes.insert("cmd_time_out".into(), Setting::Number(60));
        let chap =
            ChapWish { user: "u".into(), password_file: PathBuf::new(), password: Some(Secret::new("secret-secret".into())) };
        spec.iscsi.push(IscsiWish { chap: Some(chap), ..IscsiWish::default() });
        let disk = steps::create(&machine, &spec).unwrap();
        let path = dir.path().join("disks.d/a.toml");
        let live = spec_of(&machine, &disk).unwrap();
        write(&live, &mut live.clone(), &path, false).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("secret-secret") && text.contains("password_file = \"a.chap\""), "{text}");
        assert_eq!(fs::metadata(dir.path().join("disks.d/a.chap")).unwrap().mode() & 0o777, 0o600);
        assert!(plan::plan(&machine, &file::load(&path).unwrap()).unwrap().changes.is_empty(), "{text}");
        assert!(write(&live, &mut live.clone(), &path, false).unwrap_err().to_string().contains("--force"));
        // It makes the same disk again.
        steps::delete(&machine, &disk, false).unwrap();
        let again = steps::create(&machine, &file::load(&path).unwrap()).unwrap();
        assert_eq!((again.id(), again.serial()), (disk.id(), live.serial.clone()));
        assert_eq!(again.exports(&machine.roots)[0].chap().unwrap().password, "secret-secret");
    }
}
