//! A disk as it is wanted.
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tcmu::configfs::{Admit, BackstoreSpec, Chap, IscsiSpec, stable_serial};

use super::{Machine, size::Size};

/// Where iSCSI targets listen if nobody says (RFC 7143, 12.3).
const ISCSI_PORT: u16 = 3260;
/// In the place of initiators' names: all of them.
pub(crate) const ANY: &str = "any";
/// What `control` takes before a device is enabled, and nobody may change later.
pub(crate) const FIXED: [&str; 5] =
    ["hw_block_size", "hw_max_sectors", "max_data_area_mb", "data_pages_per_blk", "cmd_ring_size_mb"];
/// The attribute behind `write_cache`.
pub(crate) const WRITE_CACHE: &str = "emulate_write_cache";

/// A disk as it is wanted. What is not said is left as it is, or as the kernel has it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiskSpec {
    /// The storage object's name; that of the file if it isn't said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The handler's subtype.
    pub handler: String,
    /// The config string behind `<handler>/`; the disk's name if it isn't said.
    #[serde(default)]
    pub config: String,
    /// How large it is.
    pub size: Size,
    /// The number of the HBA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hba: Option<u32>,
    /// Logical block size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u32>,
    /// The unit serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Whether initiators are told that writes are cached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_cache: Option<bool>,
    /// As a disk of this machine.
    #[serde(default, skip_serializing_if = "is_false")]
    pub loopback: bool,
    /// To virtual machines.
    #[serde(default, skip_serializing_if = "is_false")]
    pub vhost: bool,
    /// Everything else that the kernel can be told.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Setting>,
    /// Over the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iscsi: Vec<IscsiWish>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged, expecting = "a number, true, false or text is needed")]
pub(crate) enum Setting {
    /// `true` is 1 to the kernel.
    Flag(bool),
    /// A number.
    Number(i64),
    /// Anything else.
    Text(String),
}

impl Setting {
    /// As the kernel takes it; `on` and `off` are people's words.
    pub(crate) fn for_kernel(&self) -> String {
        match self {
            Setting::Flag(flag) => u8::from(*flag).to_string(),
            Setting::Number(number) => number.to_string(),
            Setting::Text(text) => match text.as_str() {
                "on" | "yes" | "true" => "1".into(),
                "off" | "no" | "false" => "0".into(),
                text => text.to_owned(),
            },
        }
    }
}

/// One export over iSCSI, as it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IscsiWish {
    /// The target; one of the machine's and the disk's name if it isn't said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `ADDRESS` or `ADDRESS:PORT`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub portals: Vec<String>,
    /// Who may log in, or `any`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub initiators: Vec<String>,
    /// The number of the logical unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lun: Option<u32>,
    /// What they need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chap: Option<ChapWish>,
}

/// User name and password of initiators.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChapWish {
    /// The user's name.
    pub user: String,
    /// A file with the password, which root alone may read; beside the disk's file if it is no absolute path.
    pub password_file: PathBuf,
    /// The password, read from wherever it was.
    #[serde(skip)]
    pub password: Option<super::secret::Secret>,
}

impl DiskSpec {
    /// A disk of which only this is known.
    pub(crate) fn new(handler: &str, name: &str, size: Size) -> DiskSpec {
        DiskSpec {
            name: name.into(),
            handler: handler.into(),
            config: String::new(),
            size,
            hba: None,
            block_size: None,
            serial: None,
            write_cache: None,
            loopback: false,
            vhost: false,
            attributes: BTreeMap::new(),
            iscsi: Vec::new(),
        }
    }

    /// `<handler>/<config>`
    pub(crate) fn dev_config(&self) -> String {
        format!("{}/{}", self.handler, self.config)
    }

    /// The attributes that can be changed while the disk is there, as the kernel takes them.
    pub(crate) fn changeable(&self) -> Vec<(String, String)> {
        let cache = self.write_cache.map(|on| (WRITE_CACHE.to_owned(), u8::from(on).to_string()));
        let others = self.attributes.iter().filter(|(name, _)| !FIXED.contains(&name.as_str()));
        others.map(|(name, value)| (name.clone(), value.for_kernel())).chain(cache).collect()
    }

    /// The limits that are fixed when the disk is made.
    pub(crate) fn fixed(&self) -> Vec<(String, String)> {
        let block_size = self.block_size.map(|size| ("hw_block_size".to_owned(), size.to_string()));
        let others = self.attributes.iter().filter(|(name, _)| FIXED.contains(&name.as_str()));
        others.map(|(name, value)| (name.clone(), value.for_kernel())).chain(block_size).collect()
    }

    /// What the library is told. A disk without a serial number gets one that is the same the next time.
    pub(crate) fn backstore(&self, machine: &Machine) -> anyhow::Result<BackstoreSpec> {
        let mut spec = BackstoreSpec::new(&self.name, self.dev_config(), self.size.0);
        spec.hba = self.hba;
        spec.serial = Some(self.serial.clone().unwrap_or_else(|| stable_serial(&machine.id(), &self.dev_config(), &self.name)));
        spec.attributes = self.changeable();
        for (name, value) in self.fixed() {
            let number = || value.parse().with_context(|| format!("{name} = {value:?}: a number is needed"));
            match name.as_str() {
                "hw_block_size" => spec.block_size = number()?,
                "hw_max_sectors" => spec.hw_max_sectors = number()?,
                "max_data_area_mb" => spec.max_data_area_mb = Some(number()?),
                _ => spec.control.push((name, value)),
            }
        }
        Ok(spec)
    }

    /// What can be said to be wrong without asking anybody.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.block_size.is_some_and(|size| !size.is_power_of_two() || !(512..=65_536).contains(&size)) {
            bail!("block_size {}: a power of two from 512 to 65536 is needed", self.block_size.unwrap_or(0));
        }
        if let Some(serial) = &self.serial
            && (serial.is_empty() || serial.len() > 253 || !serial.chars().all(|c| c.is_ascii_graphic()))
        {
            bail!("serial {serial:?}: 1 to 253 printable characters without spaces are needed");
        }
        for (name, instead) in
            [("dev_size", "size"), ("dev_config", "config"), (WRITE_CACHE, "write_cache"), ("hw_block_size", "block_size")]
        {
            if self.attributes.contains_key(name) {
                bail!("attribute {name}: say {instead} instead");
            }
        }
        if let Some(bad) = self.attributes.keys().find(|name| !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) {
            bail!("attribute {bad:?}: letters, digits and _ are needed");
        }
        for wish in &self.iscsi {
            wish.portals()?;
            if wish.initiators.len() > 1 && wish.initiators.iter().any(|name| name == ANY) {
                bail!("initiators: {ANY:?} stands alone");
            }
        }
        Ok(())
    }
}

impl IscsiWish {
    /// The target's name.
    pub(crate) fn target(&self, machine: &Machine, disk: &str) -> String {
        self.target.clone().unwrap_or_else(|| {
            let clean = |text: &str| {
                let letter = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c.to_ascii_lowercase() } else { '-' };
                text.chars().map(letter).collect::<String>()
            };
            format!("iqn.2003-01.org.linux-iscsi.{}:{}", clean(&machine.host_name()), clean(disk))
        })
    }

    pub(crate) fn portals(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let portal = |text: &String| {
            let address = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            let parsed = text.parse().or_else(|_| address.map(|address| SocketAddr::new(address, ISCSI_PORT)));
            parsed.map_err(|_| {
                anyhow::anyhow!("portal {text:?}: ADDRESS or ADDRESS:PORT is needed, as 192.0.2.1 or [2001:db8::1]:3260")
            })
        };
        self.portals.iter().map(portal).collect()
    }

    /// What the library is told. A new target listens everywhere and lets in this machine's own initiator, unless something else was said.
    pub(crate) fn spec(&self, machine: &Machine, disk: &str) -> anyhow::Result<IscsiSpec> {
        let iqn = self.target(machine, disk);
        let is_new = !machine.roots.target.join("iscsi").join(&iqn).join("tpgt_1").exists();
        let mut portals = self.portals()?;
        if portals.is_empty() && is_new {
            portals.push(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), ISCSI_PORT));
        }
        let admit = match &self.initiators[..] {
            [] if !is_new => Admit::AsItIs,
            [] => Admit::Only(vec![machine.initiator().with_context(|| {
                format!("say who may log in to {iqn}: --acl with an initiator's name, or --acl {ANY} (in a file: initiators)")
            })?]),
            [any] if any == ANY => Admit::All,
            names => Admit::Only(names.to_vec()),
        };
        let chap = match &self.chap {
            Some(wish) => Some(Chap { user: wish.user.clone(), password: wish.password()? }),
            None => None,
        };
        Ok(IscsiSpec { iqn, portals, admit, chap, lun: self.lun })
    }
}

impl ChapWish {
    fn password(&self) -> anyhow::Result<String> {
        match &self.password {
            Some(secret) => Ok(secret.reveal().to_owned()),
            None => super::secret::from_file(&self.password_file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};

    #[test]
    fn serial_numbers_stay_and_tell_machines_apart() {
        let (dir, _fake, machine) = fixture::machine();
        let mut spec = DiskSpec::new("file", "a", Size(1 << 20));
        spec.config = "/srv/a".into();
        let first = spec.backstore(&machine).unwrap().serial;
        assert_eq!(spec.backstore(&machine).unwrap().serial, first);
        std::fs::write(dir.path().join("etc/machine-id"), "other\n").unwrap();
        assert_ne!(spec.backstore(&machine).unwrap().serial, first);
        spec.serial = Some("mine".into());
        assert_eq!(spec.backstore(&machine).unwrap().serial.as_deref(), Some("mine"));
    }

    #[test]
    fn a_target_is_named_after_machine_and_disk_and_admits_this_machine_alone() {
        let (dir, _fake, machine) = fixture::machine();
        let spec = IscsiWish::default().spec(&machine, "VM_1").unwrap();
        assert_eq!(spec.iqn, "iqn.2003-01.org.linux-iscsi.store1:vm-1");
        assert_eq!(spec.admit, Admit::Only(vec!["iqn.1993-08.org.debian:01:here".into()]));
        assert_eq!(spec.portals, ["0.0.0.0:3260".parse().unwrap()]);
        std::fs::remove_file(dir.path().join("etc/iscsi/initiatorname.iscsi")).unwrap();
        assert!(IscsiWish::default().spec(&machine, "a").unwrap_err().to_string().contains("--acl"));
    }

    #[test]
    fn portals_come_with_and_without_a_port() {
        let wish = |portal: &str| IscsiWish { portals: vec![portal.into()], ..IscsiWish::default() }.portals();
        for (text, portal) in [
            ("192.0.2.1", "192.0.2.1:3260"),
            ("192.0.2.1:860", "192.0.2.1:860"),
            ("2001:db8::1", "[2001:db8::1]:3260"),
            ("[2001:db8::1]", "[2001:db8::1]:3260"),
            ("[2001:db8::1]:860", "[2001:db8::1]:860"),
        ] {
            assert_eq!(wish(text).unwrap(), [portal.parse().unwrap()], "{text}");
        }
        assert!(wish("host").is_err());
    }
}
