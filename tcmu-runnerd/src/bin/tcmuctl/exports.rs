//! The options that say how a disk is exported, and `tcmuctl attach` and `detach`.
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use tcmu::configfs::{Export, Fabric};

use super::{
    disk::{
        Machine, find, secret,
        size::Size,
        spec::{ChapWish, DiskSpec, IscsiWish},
        steps,
    },
    show,
};

/// How a disk is exported.
#[derive(Args, Default)]
pub(crate) struct ExportOptions {
    /// As a SCSI disk of this machine.
    #[arg(long)]
    loopback: bool,
    /// To virtual machines (vhost-scsi).
    #[arg(long)]
    vhost: bool,
    /// Over iSCSI, by a target of this name, or of the machine's and the disk's name. One that is there gets another LUN.
    #[arg(long, value_name = "IQN", num_args = 0..=1)]
    iscsi: Option<Option<String>>,
    /// Where the iSCSI target listens: ADDRESS or ADDRESS:PORT. A new target listens on 0.0.0.0:3260 if nothing is said.
    #[arg(long, value_name = "ADDRESS", requires = "iscsi")]
    portal: Vec<String>,
    /// An initiator that may log in, or `any`. A new target lets in this machine's own initiator if nothing is said.
    #[arg(long, value_name = "IQN", requires = "iscsi")]
    acl: Vec<String>,
    /// A user name that initiators need. The password comes from --chap-password-file, $TCMUCTL_CHAP_PASSWORD or the terminal.
    #[arg(long, value_name = "USER", requires = "iscsi")]
    chap: Option<String>,
    /// A file with the CHAP password, which only its owner may read.
    #[arg(long, value_name = "FILE", requires = "chap")]
    chap_password_file: Option<PathBuf>,
    /// The number of the iSCSI LUN; the first that is free if nothing is said.
    #[arg(long, value_name = "NUMBER", requires = "iscsi")]
    lun: Option<u32>,
}

impl ExportOptions {
    /// Adds the exports to a disk.
    pub(crate) fn add_to(&self, spec: &mut DiskSpec) -> anyhow::Result<()> {
        spec.loopback |= self.loopback;
        spec.vhost |= self.vhost;
        if let Some(target) = &self.iscsi {
            let chap = match &self.chap {
                Some(user) => Some(ChapWish {
                    user: user.clone(),
                    password_file: self.chap_password_file.clone().unwrap_or_default(),
                    password: Some(secret::ask(user, self.chap_password_file.as_deref())?),
                }),
                None => None,
            };
            spec.iscsi.push(IscsiWish {
                target: target.clone(),
                portals: self.portal.clone(),
                initiators: self.acl.clone(),
                lun: self.lun,
                chap,
            });
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        !self.loopback && !self.vhost && self.iscsi.is_none()
    }
}

/// What is exported.
#[derive(Args)]
pub(crate) struct Attach {
    /// The disk: its name, or user_<number>/<name>.
    name: String,
    #[command(flatten)]
    options: ExportOptions,
}

/// Exports a disk that is there.
pub(crate) fn attach(attach: &Attach, json: bool) -> anyhow::Result<()> {
    let machine = Machine::this();
    machine.need_root()?;
    if attach.options.is_empty() {
        super::usage("say how: --loopback, --iscsi or --vhost");
    }
    let disk = find::disk(&machine, &attach.name)?;
    let mut spec = DiskSpec::new("", &disk.id().name, Size(1));
    attach.options.add_to(&mut spec)?;
    steps::attach(&machine, &disk, &spec)?;
    show::made(&machine, &disk, json)
}

/// What is taken away.
#[derive(Args)]
pub(crate) struct Detach {
    /// The disk: its name, or user_<number>/<name>.
    name: String,
    /// The disk of this machine.
    #[arg(long)]
    loopback: bool,
    /// The one for virtual machines.
    #[arg(long)]
    vhost: bool,
    /// The LUN of this iSCSI target, or of all. A target goes with its last LUN.
    #[arg(long, value_name = "IQN", num_args = 0..=1)]
    iscsi: Option<Option<String>>,
    /// Everything.
    #[arg(long, conflicts_with_all = ["loopback", "vhost", "iscsi"])]
    all: bool,
    /// Also what is in use: mounted, or logged in to.
    #[arg(long)]
    force: bool,
}

/// Takes exports away.
pub(crate) fn detach(detach: &Detach, json: bool) -> anyhow::Result<()> {
    let machine = Machine::this();
    machine.need_root()?;
    if !detach.all && !detach.loopback && !detach.vhost && detach.iscsi.is_none() {
        super::usage("say what: --loopback, --iscsi, --vhost or --all");
    }
    let disk = find::disk(&machine, &detach.name)?;
    let meant = |export: &Export| {
        detach.all
            || match &export.fabric {
                Fabric::Loopback => detach.loopback,
                Fabric::Vhost => detach.vhost,
                Fabric::Iscsi => match &detach.iscsi {
                    Some(Some(iqn)) => *iqn == export.target,
                    Some(None) => true,
                    None => false,
                },
                Fabric::Other(_) => false,
            }
    };
    let exports: Vec<Export> = disk.exports(&machine.roots).into_iter().filter(meant).collect();
    if exports.is_empty() {
        bail!("{} has no such export", disk.id());
    }
    for export in &exports {
        steps::detach(&machine, &disk, export, detach.force)?;
    }
    if json {
        let gone: Vec<String> = exports.iter().map(ToString::to_string).collect();
        outln!("{}", serde_json::json!({ "device": disk.id().to_string(), "detached": gone }));
    } else {
        exports.iter().for_each(|export| outln!("{}: {export} is gone", disk.id()));
    }
    Ok(())
}
