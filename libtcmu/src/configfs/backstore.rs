//! Backstores of TCMU: `core/user_<hba>/<name>`.
use std::path::{Path, PathBuf};

use crate::{
    configfs::{ConfigfsError, Undo, make_dir, read, read_number, remove_dir, write},
    identity::BackstoreId,
    roots::Roots,
};

/// The longest `dev_config` that the kernel takes (`TCMU_CONFIG_LEN` less the NUL).
const MAX_CONFIG: usize = 255;

/// How a backstore is created.
#[derive(Clone, Debug)]
pub struct BackstoreSpec {
    /// The number of the HBA; `None` takes the first that isn't there.
    pub hba: Option<u32>,
    /// The storage object's name.
    pub name: String,
    /// `<subtype>/<config string>`.
    pub dev_config: String,
    /// Bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Longest transfer, in units of 512 bytes.
    pub hw_max_sectors: u32,
    /// The data area's limit in MiB; `None` leaves the kernel's (1 GiB).
    pub max_data_area_mb: Option<u32>,
    /// Whether the kernel waits for a daemon's answer; `Some(false)` for a program that serves its own device.
    pub wait_for_reply: bool,
    /// The unit serial number; `None` leaves it to others.
    pub serial: Option<String>,
    /// More settings for `control`, such as `("cmd_ring_size_mb", "1")`. Unknown ones are ignored by the kernel.
    pub control: Vec<(String, String)>,
    /// What is written to `attrib/` when the backstore is enabled.
    pub attributes: Vec<(String, String)>,
}

impl BackstoreSpec {
    /// A backstore of `size` bytes in blocks of 512, with transfers of up to 1 MiB: the kernel's own default of 64 KiB cuts larger
    /// requests into many.
    pub fn new(name: impl Into<String>, dev_config: impl Into<String>, size: u64) -> BackstoreSpec {
        BackstoreSpec {
            hba: None,
            name: name.into(),
            dev_config: dev_config.into(),
            size,
            block_size: 512,
            hw_max_sectors: 2048,
            max_data_area_mb: None,
            wait_for_reply: true,
            serial: None,
            control: Vec::new(),
            attributes: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), ConfigfsError> {
        let invalid = |what: String| Err(ConfigfsError::Invalid(what));
        if self.name.is_empty() || self.name.contains(['/', '\0', '\n']) || self.name.starts_with('.') {
            return invalid(format!("{:?} cannot be a backstore's name: no `/`, no leading `.`, not empty", self.name));
        }
        if let Some(bad) = self.dev_config.chars().find(|c| matches!(c, ',' | '\n' | '\0')) {
            return invalid(format!("config string {:?}: the kernel takes no {bad:?} in it", self.dev_config));
        }
        if !self.dev_config.contains('/') {
            return invalid(format!("config string {:?}: <handler>/<config> is needed", self.dev_config));
        }
        if self.dev_config.len() > MAX_CONFIG {
            return invalid(format!("config string of {} bytes: the kernel takes {MAX_CONFIG}", self.dev_config.len()));
        }
        if self.size == 0 || !self.size.is_multiple_of(u64::from(self.block_size.max(1))) {
            return invalid(format!("size {}: a multiple of the block size {} is needed", self.size, self.block_size));
        }
        Ok(())
    }
}

/// What a daemon needs to know of a backstore when it opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackstoreFacts {
    /// Bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// In units of 512 bytes.
    pub hw_max_sectors: u32,
}

/// What becomes of the commands on a ring that is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetRing {
    /// They end with BUSY: initiators send them again.
    Requeue = 1,
    /// They fail.
    Fail = 2,
}

/// A backstore in configfs.
#[derive(Debug)]
pub struct Backstore {
    id: BackstoreId,
    dir: PathBuf,
    undo: Undo,
}

impl Backstore {
    /// A backstore that exists, or existed. Nothing is touched, and dropping it removes nothing.
    pub fn at(roots: &Roots, id: &BackstoreId) -> Backstore {
        Backstore { id: id.clone(), dir: dir_of(roots, id), undo: Undo::default() }
    }

    /// The same backstore as a value that removes nothing when it is dropped.
    pub fn another(&self) -> Backstore {
        Backstore { id: self.id.clone(), dir: self.dir.clone(), undo: Undo::default() }
    }

    /// Creates and enables a backstore. Blocks until a daemon has answered (or for ever, if the kernel waits for one that isn't there).
    /// When a step fails, nothing stays behind. Removed on drop.
    pub fn create(roots: &Roots, spec: &BackstoreSpec) -> Result<Backstore, ConfigfsError> {
        spec.check()?;
        let core = roots.target.join("core");
        let mut undo = Undo::default();
        let hba = match spec.hba {
            Some(hba) => {
                undo.dir(&core.join(format!("user_{hba}")))?;
                hba
            }
            None => free_hba(&core, &mut undo)?,
        };
        let id = BackstoreId { hba, name: spec.name.clone() };
        let dir = dir_of(roots, &id);
        if !make_dir(&dir)? {
            return Err(ConfigfsError::Invalid(format!("backstore {id} exists already")));
        }
        undo.0.push(super::Made::Dir(dir.clone()));
        let control = dir.join("control");
        write(&control, format!("dev_config={}", spec.dev_config))?;
        write(&control, format!("dev_size={}", spec.size))?;
        write(&control, format!("hw_block_size={}", spec.block_size))?;
        write(&control, format!("hw_max_sectors={}", spec.hw_max_sectors))?;
        if let Some(mb) = spec.max_data_area_mb {
            write(&control, format!("max_data_area_mb={mb}"))?;
        }
        if !spec.wait_for_reply {
            write(&control, "nl_reply_supported=-1")?;
        }
        for (name, value) in &spec.control {
            write(&control, format!("{name}={value}"))?;
        }
        if let Some(serial) = &spec.serial {
            write(&dir.join("wwn/vpd_unit_serial"), serial)?;
        }
        write(&dir.join("enable"), 1)?;
        let backstore = Backstore { id, dir, undo };
        for (name, value) in &spec.attributes {
            backstore.set_attribute(name, value)?;
        }
        Ok(backstore)
    }

    /// `user_<hba>/<name>`
    pub fn id(&self) -> &BackstoreId {
        &self.id
    }

    /// The directory in configfs.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Removes what was created. Fails with `EBUSY` as long as something exports it.
    pub fn remove(mut self) -> Result<(), ConfigfsError> {
        self.undo.run()
    }

    /// Leaves the backstore when this value is dropped.
    pub fn keep(&mut self) {
        self.undo.keep();
    }

    /// Removes a backstore whoever made it, and its HBA's directory if that is empty then.
    pub fn delete(&self) -> Result<(), ConfigfsError> {
        remove_dir(&self.dir)?;
        if let Some(hba) = self.dir.parent() {
            let _ = remove_dir(hba); // in use by others is fine
        }
        Ok(())
    }

    /// Size, block size and limits, as the kernel was told.
    pub fn facts(&self) -> Result<BackstoreFacts, ConfigfsError> {
        Ok(BackstoreFacts {
            size: self.size()?,
            block_size: self.attribute("hw_block_size")? as u32,
            hw_max_sectors: self.attribute("hw_max_sectors")? as u32,
        })
    }

    /// The size in bytes, from `info`: `attrib/dev_size` is younger than the kernel we support.
    fn size(&self) -> Result<u64, ConfigfsError> {
        let path = self.dir.join("info");
        let info = read(&path)?;
        // The config string comes first and may hold anything, even " Size: 1 ".
        let size = info.rsplit_once(" Size: ").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        size.ok_or(ConfigfsError::Malformed { path, text: info, what: "description with a size" })
    }

    /// The unit serial number; `None` before it is set.
    pub fn serial(&self) -> Option<String> {
        let text = read(&self.dir.join("wwn/vpd_unit_serial")).ok()?;
        let serial = text.split_once(": ").map_or("", |(_, serial)| serial).trim();
        (!serial.is_empty()).then(|| serial.to_owned())
    }

    /// Whether it was enabled, and a daemon said that it serves it. Blocks while the directory is being removed.
    pub fn is_enabled(&self) -> Result<bool, ConfigfsError> {
        Ok(read_number(&self.dir.join("enable"))? != 0)
    }

    /// The number by which the kernel's events name it, once it is being enabled. Blocks while the directory is being removed.
    pub fn index(&self) -> Result<u32, ConfigfsError> {
        Ok(read_number(&self.dir.join("statistics/scsi_dev/indx"))? as u32)
    }

    /// Reads a number from `attrib/`.
    pub fn attribute(&self, name: &str) -> Result<u64, ConfigfsError> {
        read_number(&self.dir.join("attrib").join(name))
    }

    /// Writes to `attrib/`. For `dev_size`, `dev_config` and `emulate_write_cache` this blocks until a daemon has answered.
    pub fn set_attribute(&self, name: &str, value: impl ToString) -> Result<(), ConfigfsError> {
        write(&self.dir.join("attrib").join(name), value)
    }

    /// Blocks the device (new commands end with BUSY) or lets it go on.
    pub fn block(&self, on: bool) -> Result<(), ConfigfsError> {
        write(&self.dir.join("action/block_dev"), u8::from(on))
    }

    /// Empties the ring. To be done while the device is blocked.
    pub fn reset_ring(&self, how: ResetRing) -> Result<(), ConfigfsError> {
        write(&self.dir.join("action/reset_ring"), how as u8)
    }
}

fn dir_of(roots: &Roots, id: &BackstoreId) -> PathBuf {
    roots.target.join("core").join(format!("user_{}", id.hba)).join(&id.name)
}

fn free_hba(core: &Path, undo: &mut Undo) -> Result<u32, ConfigfsError> {
    for hba in 0..u32::MAX {
        let path = core.join(format!("user_{hba}"));
        if make_dir(&path)? {
            undo.0.push(super::Made::Dir(path));
            return Ok(hba);
        }
    }
    Err(ConfigfsError::Invalid("there is no free HBA number".into()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn spec(dev_config: &str) -> BackstoreSpec {
        BackstoreSpec::new("a", dev_config, 1 << 20)
    }

    #[test]
    fn what_the_kernel_would_mangle_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::under(dir.path());
        let long = format!("file/{}", "x".repeat(251));
        for wrong in ["file//a,b", "file", "file//a\n", &long] {
            assert!(matches!(Backstore::create(&roots, &spec(wrong)), Err(ConfigfsError::Invalid(_))), "{wrong}");
        }
        let wrong_size = BackstoreSpec { size: 1000, ..spec("file//a") };
        assert!(Backstore::create(&roots, &wrong_size).unwrap_err().to_string().contains("multiple of the block size"));
        assert!(!roots.target.exists());
    }

    #[test]
    fn a_failed_step_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::under(dir.path());
        fs::create_dir_all(roots.target.join("core")).unwrap();
        // A plain directory has no `control` file, so the first write fails.
        let error = Backstore::create(&roots, &spec("file//a")).unwrap_err();
        assert!(error.to_string().contains("control"), "{error}");
        assert_eq!(fs::read_dir(roots.target.join("core")).unwrap().count(), 0);
    }

    #[test]
    fn facts_and_serial_are_read_as_the_kernel_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::under(dir.path());
        let id: BackstoreId = "user_0/a".parse().unwrap();
        let path = dir_of(&roots, &id);
        fs::create_dir_all(path.join("attrib")).unwrap();
        fs::create_dir_all(path.join("wwn")).unwrap();
        let info = "Status: ACTIVATED  Max Queue Depth: 128  SectorSize: 512  HwMaxSectors: 128\n        Config: file// Size: 1 /a Size: 1048576 MaxDataAreaMB: 1024\n";
        fs::write(path.join("info"), info).unwrap();
        fs::write(path.join("attrib/hw_block_size"), "512\n").unwrap();
        fs::write(path.join("attrib/hw_max_sectors"), "128\n").unwrap();
        let backstore = Backstore::at(&roots, &id);
        assert_eq!(backstore.facts().unwrap(), BackstoreFacts { size: 1 << 20, block_size: 512, hw_max_sectors: 128 });
        assert_eq!(backstore.serial(), None);
        fs::write(path.join("wwn/vpd_unit_serial"), "T10 VPD Unit Serial Number: 0a-1b\n").unwrap();
        assert_eq!(backstore.serial().as_deref(), Some("0a-1b"));
    }
}
