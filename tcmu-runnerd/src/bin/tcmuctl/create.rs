//! `tcmuctl create`: a whole disk, and how it is reached, in one line.
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{
    disk::{
        Machine, find,
        size::Size,
        spec::{DiskSpec, Setting},
        steps,
    },
    exports::ExportOptions,
    show,
};

/// The disk.
#[derive(Args)]
pub(crate) struct Create {
    /// The handler's subtype (`tcmuctl handlers`).
    handler: String,
    /// The disk's name.
    name: String,
    /// Its size: bytes, or with K, M, G, T or P behind the number.
    #[arg(long)]
    size: Size,
    /// The config string for the handler (`tcmuctl handler info HANDLER`); the disk's name if neither this nor --path is there.
    #[arg(long, value_name = "STRING", conflicts_with = "path")]
    config: Option<String>,
    /// The file or device for the handler: the config string, made absolute.
    #[arg(long)]
    path: Option<PathBuf>,
    /// Logical block size in bytes; 512 if nothing is said.
    #[arg(long, value_name = "BYTES")]
    block_size: Option<u32>,
    /// Longest transfer, in units of 512 bytes; 2048 (1 MiB) if nothing is said.
    #[arg(long, value_name = "SECTORS")]
    hw_max_sectors: Option<u32>,
    /// Whether initiators are told that writes are cached.
    #[arg(long, value_name = "ON|OFF", value_parser = on_or_off)]
    write_cache: Option<bool>,
    /// The unit serial number; one that stays the same for this machine, handler, config string and name if nothing is said.
    #[arg(long)]
    serial: Option<String>,
    /// The number of the HBA; the first that is free if nothing is said.
    #[arg(long, value_name = "NUMBER")]
    hba: Option<u32>,
    /// More of the kernel's settings, as cmd_time_out=60 or max_data_area_mb=256.
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Don't ask the daemon whether the config string is right: for handlers that another program serves.
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    exports: ExportOptions,
}

/// `NAME=VALUE`, with `-` for `_` in the name.
pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.replace('-', "_"), value.to_owned())),
        _ => Err("NAME=VALUE is needed".into()),
    }
}

/// A switch.
pub(crate) fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" | "1" | "yes" | "true" => Ok(true),
        "off" | "0" | "no" | "false" => Ok(false),
        _ => Err("on or off is needed".into()),
    }
}

impl Create {
    fn spec(&self) -> anyhow::Result<DiskSpec> {
        let mut spec = DiskSpec::new(&self.handler, &self.name, self.size);
        spec.config = match (&self.config, &self.path) {
            (Some(config), _) => config.clone(),
            (None, Some(path)) => {
                let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
                path.into_os_string().into_string().map_err(|path| anyhow::anyhow!("{}: not UTF-8", path.display()))?
            }
            (None, None) => self.name.clone(),
        };
        spec.block_size = self.block_size;
        spec.serial.clone_from(&self.serial);
        spec.hba = self.hba;
        spec.write_cache = self.write_cache;
        for (name, value) in &self.set {
            if name == "write_cache" {
                spec.write_cache = Some(on_or_off(value).map_err(|error| anyhow::anyhow!("--set {name}={value}: {error}"))?);
            } else {
                spec.attributes.insert(name.clone(), Setting::Text(value.clone()));
            }
        }
        if let Some(sectors) = self.hw_max_sectors {
            spec.attributes.insert("hw_max_sectors".into(), Setting::Number(sectors.into()));
        }
        self.exports.add_to(&mut spec)?;
        Ok(spec)
    }
}

/// Makes it.
pub(crate) fn create(create: &Create, json: bool) -> anyhow::Result<()> {
    let machine = Machine::this();
    machine.need_root()?;
    let spec = create.spec()?;
    if let Some(there) = find::find(&machine, &spec.name, spec.hba)? {
        anyhow::bail!("there is a disk {} already", there.id());
    }
    if !create.no_check {
        (machine.check)(&spec.handler, &spec.config)?;
    }
    let disk = steps::create(&machine, &spec)?;
    show::made(&machine, &disk, json)
}
