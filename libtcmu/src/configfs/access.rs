//! What configfs knows of the ways to a backstore: its ports and target port groups (drivers/target/target_core_configfs.c,
//! target_core_alua.c).
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tcmu_handler_api::scsi::{
    alua::{AccessState, PortGroup},
    facts::Port,
};

use super::{Backstore, read, write};
use crate::engine::Target;

/// The group that the kernel puts ports into that nobody put elsewhere. Who has no other groups did not set up asymmetric access.
const DEFAULT: &str = "default_tg_pt_gp";
/// Names of the states that a group may support, with their bits in byte 1 of the descriptor (SPC-6 table 285).
const SUPPORTED: [(&str, u8); 7] = [
    ("transitioning", 0x80),
    ("offline", 0x40),
    ("lba_dependent", 0x10),
    ("unavailable", 0x08),
    ("standby", 0x04),
    ("active_nonoptimized", 0x02),
    ("active_optimized", 0x01),
];

impl Target for Backstore {
    fn serial(&self) -> Option<String> {
        Backstore::serial(self)
    }

    fn ports(&self) -> Vec<Port> {
        let groups = fs::read_dir(self.path().join("alua")).into_iter().flatten().flatten();
        groups.flat_map(|group| self.ports_of(&group.path())).collect()
    }

    fn asymmetric_access(&self) -> u8 {
        self.groups().iter().fold(0, |all, dir| {
            let kind = text(&dir.join("alua_access_type"));
            all | u8::from(kind.contains("Implicit")) | u8::from(kind.contains("Explicit")) << 1
        })
    }

    fn port_groups(&self) -> io::Result<Vec<PortGroup>> {
        Ok(self.groups().iter().filter_map(|dir| self.group(dir)).collect())
    }

    fn set_access_state(&self, group: u16, state: AccessState) -> io::Result<()> {
        let dirs = self.groups();
        let dir = dirs.iter().find(|dir| number(&dir.join("tg_pt_gp_id")) == Some(u64::from(group)));
        let dir = dir.ok_or(io::ErrorKind::NotFound)?;
        write(&dir.join("alua_access_state"), state as u8).map_err(io::Error::other)?;
        // "by a command"; old kernels don't let it be written
        let _ = write(&dir.join("alua_access_status"), 1);
        Ok(())
    }
}

impl Backstore {
    /// The groups that somebody made and put ports into.
    fn groups(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path().join("alua")).into_iter().flatten().flatten();
        let mut groups: Vec<_> = entries
            .filter(|entry| entry.file_name() != DEFAULT)
            .map(|entry| entry.path())
            .filter(|dir| number(&dir.join("tg_pt_gp_id")).is_some() && !text(&dir.join("members")).is_empty())
            .collect();
        groups.sort();
        groups
    }

    fn group(&self, dir: &Path) -> Option<PortGroup> {
        let kind = text(&dir.join("alua_access_type"));
        let supported = SUPPORTED
            .iter()
            .filter(|(name, _)| number(&dir.join(format!("alua_support_{name}"))) == Some(1))
            .fold(0, |all, (_, bit)| all | bit);
        Some(PortGroup {
            id: number(&dir.join("tg_pt_gp_id"))? as u16,
            state: AccessState::from_code(number(&dir.join("alua_access_state"))? as u8)?,
            preferred: number(&dir.join("preferred")) == Some(1),
            supported,
            status: match text(&dir.join("alua_access_status")).as_str() {
                status if status.contains("Explicit") => 1,
                status if status.contains("Implicit") => 2,
                _ => 0,
            },
            explicit: kind.contains("Explicit"),
            implicit: kind.contains("Implicit"),
            transition_time: number(&dir.join("implicit_trans_secs")).unwrap_or(0) as u8,
            ports: self.ports_of(dir).iter().map(|port| port.relative_id).collect(),
        })
    }

    /// The ports of a group: lines of `<fabric>/<wwn>/tpgt_<tag>/lun_<n>`.
    fn ports_of(&self, group: &Path) -> Vec<Port> {
        let id = number(&group.join("tg_pt_gp_id")).unwrap_or(0) as u16;
        text(&group.join("members")).lines().filter_map(|line| self.port(id, line.trim())).collect()
    }

    fn port(&self, group: u16, member: &str) -> Option<Port> {
        let mut parts = member.rsplitn(3, '/');
        let (lun, tpgt) = (parts.next()?, parts.next()?);
        let (fabric, device) = parts.next()?.split_once('/')?;
        let fabric = if fabric == "iSCSI" { "iscsi" } else { fabric };
        let tag: u16 = tpgt.strip_prefix("tpgt_")?.parse().ok()?;
        // <target>/core/user_<n>/<name>
        let root = self.path().ancestors().nth(3)?;
        let statistics = root.join(fabric).join(device).join(tpgt).join("lun").join(lun).join("statistics");
        let name = if fabric == "iscsi" { format!("{device},t,{tag:#06x}") } else { device.to_owned() };
        Some(Port {
            relative_id: number(&statistics.join("scsi_port/indx"))? as u16,
            protocol: number(&statistics.join("scsi_transport/proto_id")).unwrap_or(0) as u8 & 0x0f,
            group,
            name,
            device: device.to_owned(),
        })
    }
}

fn text(path: &Path) -> String {
    read(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn number(path: &Path) -> Option<u64> {
    text(path).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Roots;

    fn put(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn groups_and_ports_are_read_as_the_kernel_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::under(dir.path());
        let backstore = Backstore::at(&roots, &"user_0/a".parse().unwrap());
        let alua = backstore.path().join("alua");
        put(alua.join("default_tg_pt_gp/tg_pt_gp_id"), "0\n");
        put(alua.join("default_tg_pt_gp/members"), "");
        assert_eq!((backstore.asymmetric_access(), backstore.port_groups().unwrap().len()), (0, 0));
        for (file, text) in [
            ("tg_pt_gp_id", "16\n"),
            ("members", "iSCSI/iqn.x:y/tpgt_1/lun_0\n"),
            ("alua_access_type", "Explicit\n"),
            ("alua_access_state", "2\n"),
            ("alua_access_status", "Altered by Explicit STPG\n"),
            ("preferred", "1\n"),
            ("implicit_trans_secs", "5\n"),
            ("alua_support_standby", "1\n"),
            ("alua_support_offline", "0\n"),
        ] {
            put(alua.join("glob").join(file), text);
        }
        let lun = roots.target.join("iscsi/iqn.x:y/tpgt_1/lun/lun_0/statistics");
        put(lun.join("scsi_port/indx"), "3\n");
        put(lun.join("scsi_transport/proto_id"), "5\n");
        assert_eq!(backstore.asymmetric_access(), 0x02);
        let group = backstore.port_groups().unwrap().remove(0);
        assert_eq!((group.id, group.state, group.preferred), (16, AccessState::Standby, true));
        assert_eq!((group.supported, group.status, group.explicit, group.implicit), (0x04, 1, true, false));
        assert_eq!((group.transition_time, group.ports), (5, vec![3]));
        let port = backstore.ports().remove(0);
        assert_eq!((port.relative_id, port.protocol, port.group), (3, 5, 16));
        assert_eq!((port.name.as_str(), port.device.as_str()), ("iqn.x:y,t,0x0001", "iqn.x:y"));
        backstore.set_access_state(16, AccessState::ActiveOptimized).unwrap();
        assert_eq!(text(&alua.join("glob/alua_access_state")), "0");
        assert!(backstore.set_access_state(17, AccessState::Standby).is_err());
    }
}
