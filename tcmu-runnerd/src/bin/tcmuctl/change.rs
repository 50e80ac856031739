//! `tcmuctl delete`, `resize`, `set`: disks that are there.
use anyhow::bail;
use clap::Args;

use super::{
    create::{on_or_off, setting},
    disk::{
        Machine, find,
        size::Size,
        spec::{Setting, WRITE_CACHE},
        steps,
    },
};

/// Which disks go.
#[derive(Args)]
pub(crate) struct Delete {
    /// The disks: their names, or user_<number>/<name>.
    #[arg(required = true)]
    names: Vec<String>,
    /// Also those that are in use: mounted, or logged in to.
    #[arg(long)]
    force: bool,
}

/// Takes disks away with all their exports.
pub(crate) fn delete(delete: &Delete, json: bool) -> anyhow::Result<()> {
    let machine = Machine::this();
    machine.need_root()?;
    let disks = delete.names.iter().map(|name| find::disk(&machine, name)).collect::<anyhow::Result<Vec<_>>>()?;
    for disk in &disks {
        steps::delete(&machine, disk, delete.force)?;
        if !json {
            outln!("{} is gone; what its handler keeps the data in stays", disk.id());
        }
    }
    if json {
        let gone: Vec<String> = disks.iter().map(|disk| disk.id().to_string()).collect();
        outln!("{}", serde_json::json!({ "deleted": gone }));
    }
    Ok(())
}

/// How large a disk becomes.
#[derive(Args)]
pub(crate) struct Resize {
    /// The disk: its name, or user_<number>/<name>.
    name: String,
    /// Its size: bytes, or with K, M, G, T or P behind the number.
    size: Size,
    /// It may become smaller: what is beyond is lost.
    #[arg(long)]
    shrink: bool,
}

/// Makes a disk larger or smaller.
pub(crate) fn resize(resize: &Resize, json: bool) -> anyhow::Result<()> {
    let machine = Machine::this();
    machine.need_root()?;
    let disk = find::disk(&machine, &resize.name)?;
    let from = Size(disk.facts()?.size);
    if resize.size < from && !resize.shrink {
        bail!("{} has {from}: with {} what is beyond is lost; --shrink does it all the same", disk.id(), resize.size);
    }
    if resize.size != from {
        steps::resize(&machine, &disk, resize.size)?;
    }
    if json {
        outln!("{}", serde_json::json!({ "device": disk.id().to_string(), "from": from.0, "size": resize.size.0 }));
    } else {
        outln!("{}: {from} → {}", disk.id(), resize.size);
    }
    Ok(())
}

/// What is set.
#[derive(Args)]
pub(crate) struct Set {
    /// The disk: its name, or user_<number>/<name>.
    name: String,
    /// write-cache=on|off, or an attribute of the kernel's (`tcmuctl device show`), as cmd_time_out=60.
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

/// Changes switches and limits, all or none.
pub(crate) fn set(set: &Set, json: bool) -> anyhow::Result<()> {
    let machine = Machine::this();
    machine.need_root()?;
    let disk = find::disk(&machine, &set.name)?;
    let mut settings = Vec::new();
    for (name, value) in &set.settings {
        settings.push(match name.as_str() {
            "write_cache" => {
                let on = on_or_off(value).map_err(|error| anyhow::anyhow!("write-cache={value}: {error}"))?;
                (WRITE_CACHE.to_owned(), u8::from(on).to_string())
            }
            "dev_size" | "size" => bail!("{name}: `tcmuctl resize` changes the size"),
            _ => (name.clone(), Setting::Text(value.clone()).for_kernel()),
        });
    }
    steps::set_all(&machine, &disk, &settings)?;
    if json {
        let settings: serde_json::Map<String, serde_json::Value> =
            settings.into_iter().map(|(name, value)| (name, value.into())).collect();
        outln!("{}", serde_json::json!({ "device": disk.id().to_string(), "set": settings }));
    } else {
        settings.iter().for_each(|(name, value)| outln!("{}: {name} = {value}", disk.id()));
    }
    Ok(())
}
