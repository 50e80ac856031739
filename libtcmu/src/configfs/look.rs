//! Backstores that are there, whoever made them, and what they are set to.
use crate::{
    configfs::{Backstore, ConfigfsError, dirs_in, names_in, read},
    identity::BackstoreId,
    roots::Roots,
};

impl Backstore {
    /// All of TCMU's backstores, in order of their numbers and names.
    pub fn all(roots: &Roots) -> Vec<Backstore> {
        let mut ids = Vec::new();
        for hba in dirs_in(&roots.target.join("core")) {
            let Some(hba_name) = hba.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with("user_")) else {
                continue;
            };
            let names = dirs_in(&hba).into_iter().filter_map(|dir| dir.file_name()?.to_str().map(str::to_owned));
            ids.extend(names.filter_map(|name| format!("{hba_name}/{name}").parse::<BackstoreId>().ok()));
        }
        ids.sort();
        ids.iter().map(|id| Backstore::at(roots, id)).collect()
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.path().is_dir()
    }

    /// `<subtype>/<config string>`; empty if none was set.
    pub fn dev_config(&self) -> Result<String, ConfigfsError> {
        let path = self.path().join("info");
        let info = read(&path)?;
        // The string itself may hold anything, even " Size: 1 "; what is before and behind it is the kernel's.
        let config = info.split_once("Config: ").and_then(|(_, rest)| Some(rest.rsplit_once(" Size: ")?.0.to_owned()));
        let config = config.ok_or(ConfigfsError::Malformed { path, text: info, what: "description with a config string" })?;
        Ok(if config == "NULL" { String::new() } else { config })
    }

    /// The names of what is in `attrib/`.
    pub fn attributes(&self) -> Vec<String> {
        names_in(&self.path().join("attrib"))
    }

    /// What an attribute is set to, as the kernel writes it.
    pub fn attribute_text(&self, name: &str) -> Result<String, ConfigfsError> {
        read(&self.path().join("attrib").join(name)).map(|text| text.trim().to_owned())
    }
}
