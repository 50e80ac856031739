//! The names of a TCMU device.
use std::{fmt, str::FromStr};

/// A backstore's place in configfs: `user_<hba>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackstoreId {
    /// The number of the virtual host bus adapter.
    pub hba: u32,
    /// The name of the storage object in it.
    pub name: String,
}

impl fmt::Display for BackstoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user_{}/{}", self.hba, self.name)
    }
}

impl FromStr for BackstoreId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<BackstoreId, NameError> {
        let wrong = || NameError(text.to_owned());
        let (hba, name) = text.strip_prefix("user_").and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(wrong());
        }
        Ok(BackstoreId { hba: hba.parse().map_err(|_| wrong())?, name: name.to_owned() })
    }
}

/// A name that is no backstore's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form user_<number>/<name>")]
pub struct NameError(String);

/// What the kernel calls a TCMU device: `tcm-user/<hba>/<name>/<subtype>/<config>` (`tcmu_uio_name`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName {
    /// Where it is in configfs.
    pub id: BackstoreId,
    /// What it is routed by; empty if no `dev_config` was set.
    pub subtype: String,
    /// The config string behind the subtype, for the handler.
    pub config: String,
}

impl DeviceName {
    /// Parses a UIO name; `None` if it isn't a TCMU device's.
    pub fn parse(name: &str) -> Option<DeviceName> {
        let rest = name.trim_end_matches(['\n', '\0']).strip_prefix("tcm-user/")?;
        let (hba, rest) = rest.split_once('/')?;
        let (name, dev_config) = rest.split_once('/').unwrap_or((rest, ""));
        if name.is_empty() || name == "." || name == ".." {
            return None;
        }
        let (subtype, config) = dev_config.split_once('/').unwrap_or((dev_config, ""));
        Some(DeviceName {
            id: BackstoreId { hba: hba.parse().ok()?, name: name.to_owned() },
            subtype: subtype.to_owned(),
            config: config.to_owned(),
        })
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcm-user/{}/{}/{}/{}", self.id.hba, self.id.name, self.subtype, self.config)
    }
}

/// Splits `dev_config` into subtype and the handler's config string.
pub fn split_config(dev_config: &str) -> (&str, &str) {
    dev_config.split_once('/').unwrap_or((dev_config, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_taken_apart() {
        let device = DeviceName::parse("tcm-user/3/vm1/file//srv/vm1.img;ro=on\n").unwrap();
        assert_eq!(device.id.to_string(), "user_3/vm1");
        assert_eq!((device.subtype.as_str(), device.config.as_str()), ("file", "/srv/vm1.img;ro=on"));
        assert_eq!(device.to_string(), "tcm-user/3/vm1/file//srv/vm1.img;ro=on");
        let bare = DeviceName::parse("tcm-user/0/x").unwrap();
        assert_eq!((bare.subtype.as_str(), bare.config.as_str()), ("", ""));
    }

    #[test]
    fn other_names_are_nobodys() {
        for name in
            ["", "uio_pci_generic", "tcm-user/", "tcm-user/x/y", "tcm-user/-1/y/f/", "tcm-user/1//f/", "tcm-user/99999999999/y"]
        {
            assert_eq!(DeviceName::parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn backstore_ids_read_back() {
        let id: BackstoreId = "user_7/a.b".parse().unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["a", "user_/a", "user_1", "user_1/", "user_1/..", "user_1/a/b", "iblock_1/a"] {
            assert!(wrong.parse::<BackstoreId>().is_err(), "{wrong}");
        }
    }
}
