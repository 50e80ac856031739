//! A directory that behaves like the target's configfs, for tests without a kernel: directories come with their files and default
//! groups, values that are written show up where the kernel shows them, and what is in use cannot be removed.
//!
//! It holds for the thread that made it.
use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
};

use super::names_in;
use crate::roots::Roots;

thread_local! {
    static FAKE: RefCell<Option<State>> = const { RefCell::new(None) };
}

struct State {
    target: PathBuf,
    /// What the kernel refuses: paths that end so.
    missing: Vec<String>,
}

/// The fake, for as long as it lives.
#[derive(Debug)]
pub struct FakeConfigfs {
    roots: Roots,
}

/// Files of a directory, with their first contents; those that end with `/` are directories.
type Files = &'static [(&'static str, &'static str)];

const BACKSTORE: Files = &[
    ("control", ""),
    ("enable", "0\n"),
    ("info", ""),
    ("attrib/", ""),
    ("attrib/cmd_time_out", "30\n"),
    ("attrib/dev_size", "0\n"),
    ("attrib/emulate_write_cache", "0\n"),
    ("attrib/hw_block_size", "512\n"),
    ("attrib/hw_max_sectors", "128\n"),
    ("attrib/max_data_area_mb", "1024\n"),
    ("attrib/qfull_time_out", "-1\n"),
    ("alua/", ""),
    ("wwn/", ""),
    ("wwn/vpd_unit_serial", "T10 VPD Unit Serial Number: \n"),
];
const LOOPBACK: Files = &[("nexus", ""), ("address", "0:0:1\n"), ("lun/", "")];
const VHOST: Files = &[("nexus", ""), ("lun/", "")];
const ISCSI: Files = &[
    ("enable", "0\n"),
    ("dynamic_sessions", ""),
    ("attrib/", ""),
    ("attrib/authentication", "0\n"),
    ("attrib/generate_node_acls", "0\n"),
    ("attrib/cache_dynamic_acls", "0\n"),
    ("attrib/demo_mode_write_protect", "1\n"),
    ("auth/", ""),
    ("auth/userid", ""),
    ("auth/password", ""),
    ("acls/", ""),
    ("lun/", ""),
    ("np/", ""),
];
const ACL: Files = &[("auth/", ""), ("auth/userid", ""), ("auth/password", ""), ("info", "No active iSCSI Session\n")];

/// What comes with a directory of configfs, by its path below `target`.
fn files_of(parts: &[&str]) -> Files {
    match parts {
        ["core", _, _] => BACKSTORE,
        ["loopback", _, _] => LOOPBACK,
        ["vhost", _, _] => VHOST,
        ["iscsi", _, _] => ISCSI,
        ["iscsi", _, _, "acls", _] => ACL,
        _ => &[],
    }
}

impl FakeConfigfs {
    /// Makes one below a directory.
    ///
    /// # Panics
    ///
    /// If the directory can't be written.
    pub fn start(dir: &Path) -> FakeConfigfs {
        let roots = Roots::under(dir);
        fs::create_dir_all(roots.target.join("core")).expect("a directory for the fake");
        FAKE.with_borrow_mut(|fake| *fake = Some(State { target: roots.target.clone(), missing: Vec::new() }));
        FakeConfigfs { roots }
    }

    /// Where it is.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// From now on, files whose paths end so are not there, so that writing to them fails.
    pub fn without(&self, end: &str) {
        FAKE.with_borrow_mut(|fake| fake.iter_mut().for_each(|fake| fake.missing.push(end.to_owned())));
    }

    /// Everything below a directory of the target, as lines; files and default groups left out.
    pub fn made(&self) -> Vec<String> {
        let mut lines = Vec::new();
        list(&self.roots.target, &self.roots.target, &mut lines);
        lines
    }
}

impl Drop for FakeConfigfs {
    fn drop(&mut self) {
        FAKE.with_borrow_mut(Option::take);
    }
}

fn list(target: &Path, dir: &Path, lines: &mut Vec<String>) {
    let defaults = defaults(&parts(target, dir).unwrap_or_default());
    for path in names_in(dir).iter().map(|name| dir.join(name)) {
        let shown = path.strip_prefix(target).unwrap_or(&path).display().to_string();
        if path.is_symlink() {
            lines.push(shown);
        } else if path.is_dir() {
            if !defaults.contains(&path.file_name().and_then(|name| name.to_str()).unwrap_or_default()) {
                lines.push(shown);
            }
            list(target, &path, lines);
        }
    }
}

/// The default groups of a directory.
fn defaults(parts: &[&str]) -> Vec<&'static str> {
    files_of(parts).iter().filter_map(|(name, _)| name.strip_suffix('/')).collect()
}

fn parts<'a>(target: &Path, path: &'a Path) -> Option<Vec<&'a str>> {
    path.strip_prefix(target).ok()?.iter().map(|part| part.to_str()).collect()
}

fn with_fake(path: &Path, act: impl FnOnce(&State, &[&str])) {
    FAKE.with_borrow(|fake| {
        if let Some(fake) = fake
            && let Some(parts) = parts(&fake.target, path)
        {
            act(fake, &parts);
        }
    });
}

/// A directory was made: the kernel puts its files there.
pub(super) fn made(path: &Path) {
    with_fake(path, |fake, parts| {
        for (name, content) in files_of(parts) {
            let file = path.join(name);
            if fake.missing.iter().any(|end| file.to_string_lossy().ends_with(end)) {
                continue;
            }
            let _ = if name.ends_with('/') { fs::create_dir(&file) } else { fs::write(&file, content) };
        }
        if let ["loopback", _, _] = parts {
            let root = fake.target.ancestors().nth(3).unwrap_or(Path::new("/nonexistent"));
            let _ = fs::create_dir_all(root.join("bus/scsi/devices/0:0:1:0/block/sdz"));
        }
    });
}

/// A value was written: it shows up elsewhere too.
pub(super) fn wrote(path: &Path, value: &str) {
    with_fake(path, |_, parts| {
        // A value takes the place of the one before it, whatever their lengths.
        let _ = fs::write(path, format!("{value}\n"));
        shows_up(path, value, parts);
    });
}

fn shows_up(path: &Path, value: &str, parts: &[&str]) {
    match parts {
        ["core", _, _, "control"] => {
            let Some(dir) = path.parent() else { return };
            let Some((key, value)) = value.split_once('=') else { return };
            let settings = dir.join(".settings");
            let mut all = fs::read_to_string(&settings).unwrap_or_default();
            all.push_str(&format!("{key}={value}\n"));
            let _ = fs::write(&settings, &all);
            let of = |key: &str| {
                all.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or("0").to_owned()
            };
            let info = format!(
                "Status: ACTIVATED  Max Queue Depth: 128  SectorSize: 512  HwMaxSectors: 128\n        Config: {} Size: {} MaxDataAreaMB: 1024\n",
                of("dev_config"),
                of("dev_size")
            );
            let _ = fs::write(dir.join("info"), info);
            let attribute = dir.join("attrib").join(key);
            if attribute.exists() {
                let _ = fs::write(attribute, format!("{value}\n"));
            }
        }
        ["core", .., "attrib", "dev_size"] => {
            let Some(dir) = path.ancestors().nth(2) else { return };
            wrote(&dir.join("control"), &format!("dev_size={value}"));
        }
        ["core", .., "vpd_unit_serial"] => {
            let _ = fs::write(path, format!("T10 VPD Unit Serial Number: {value}\n"));
        }
        _ => {}
    }
}

/// A directory is about to be removed: what came with it goes, if nothing was made in it.
pub(super) fn removing(path: &Path) {
    with_fake(path, |fake, parts| {
        let mut inside = Vec::new();
        list(&fake.target, path, &mut inside);
        if !inside.is_empty() || is_linked_to(&fake.target, path) {
            // As the kernel: it stays, and its removal fails.
            return;
        }
        for group in defaults(parts) {
            let _ = fs::remove_dir_all(path.join(group));
        }
        for name in names_in(path) {
            let _ = fs::remove_file(path.join(name));
        }
    });
}

fn is_linked_to(target: &Path, path: &Path) -> bool {
    fn any_link(dir: &Path, to: &Path) -> bool {
        names_in(dir).iter().map(|name| dir.join(name)).any(|path| {
            if path.is_symlink() {
                path.canonicalize().is_ok_and(|path| path == to)
            } else {
                path.is_dir() && any_link(&path, to)
            }
        })
    }
    path.canonicalize().is_ok_and(|to| any_link(target, &to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configfs::{Admit, Backstore, BackstoreSpec, Chap, ConfigfsError, Fabric, Iscsi, IscsiSpec, Loopback, Vhost};

    fn fake() -> (tempfile::TempDir, FakeConfigfs) {
        let dir = tempfile::tempdir().unwrap();
        let fake = FakeConfigfs::start(dir.path());
        (dir, fake)
    }

    fn backstore(fake: &FakeConfigfs, name: &str) -> Backstore {
        let spec = BackstoreSpec {
            serial: Some(format!("serial-of-{name}")),
            attributes: vec![("emulate_write_cache".into(), "1".into())],
            ..BackstoreSpec::new(name, format!("file//srv/{name}"), 1 << 20)
        };
        Backstore::create(fake.roots(), &spec).unwrap()
    }

    fn target(initiators: &[&str]) -> IscsiSpec {
        IscsiSpec {
            portals: vec!["0.0.0.0:3260".parse().unwrap()],
            admit: Admit::Only(initiators.iter().map(ToString::to_string).collect()),
            ..IscsiSpec::new("iqn.2026-01.org.example:a")
        }
    }

    #[test]
    fn a_backstore_is_found_as_it_was_made() {
        let (_dir, fake) = fake();
        let made = backstore(&fake, "a");
        let found = Backstore::all(fake.roots());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].id(), found[0].is_enabled().unwrap()), (made.id(), true));
        assert_eq!(found[0].dev_config().unwrap(), "file//srv/a");
        assert_eq!(found[0].serial().as_deref(), Some("serial-of-a"));
        assert_eq!(found[0].attribute_text("emulate_write_cache").unwrap(), "1");
        assert_eq!(found[0].facts().unwrap().hw_max_sectors, 2048);
        assert!(found[0].attributes().contains(&"cmd_time_out".to_owned()));
        drop(made);
        assert!(Backstore::all(fake.roots()).is_empty());
        assert_eq!(fake.made(), ["core"]);
    }

    #[test]
    fn an_attribute_that_is_refused_leaves_no_backstore() {
        let (_dir, fake) = fake();
        let spec = BackstoreSpec {
            attributes: vec![("no_such_thing".into(), "1".into())],
            ..BackstoreSpec::new("a", "file//srv/a", 1 << 20)
        };
        let error = Backstore::create(fake.roots(), &spec).unwrap_err();
        assert!(error.to_string().contains("no_such_thing"), "{error}");
        assert_eq!(fake.made(), ["core"]);
    }

    #[test]
    fn two_backstores_share_a_target_and_leave_it_one_by_one() {
        let (_dir, fake) = fake();
        let (a, b) = (backstore(&fake, "a"), backstore(&fake, "b"));
        let mut first = Iscsi::attach(fake.roots(), &a, &target(&["iqn.x:me"])).unwrap();
        let mut second = Iscsi::attach(fake.roots(), &b, &IscsiSpec::new("iqn.2026-01.org.example:a")).unwrap();
        assert_eq!((first.lun(), second.lun()), (0, 1));
        let tpg = "iscsi/iqn.2026-01.org.example:a/tpgt_1";
        let made = fake.made();
        for wanted in ["acls/iqn.x:me/lun_1/storage", "lun/lun_1/storage", "np/0.0.0.0:3260"] {
            assert!(made.contains(&format!("{tpg}/{wanted}")), "{wanted} in {made:#?}");
        }
        first.keep();
        second.keep();
        let export = &a.exports(fake.roots())[0];
        assert_eq!((&export.fabric, export.lun, export.initiators()), (&Fabric::Iscsi, 0, vec!["iqn.x:me".to_owned()]));
        assert!(matches!(a.delete(), Err(ConfigfsError::Change { .. })), "it is exported");
        export.remove().unwrap();
        assert!(a.exports(fake.roots()).is_empty());
        b.exports(fake.roots())[0].remove().unwrap();
        assert!(!fake.made().iter().any(|path| path.contains("iqn.")), "{:#?}", fake.made());
    }

    #[test]
    fn a_late_step_that_fails_takes_the_early_ones_back() {
        let (_dir, fake) = fake();
        let a = backstore(&fake, "a");
        let before = fake.made();
        fake.without("auth/password");
        let chap = Some(Chap { user: "u".into(), password: "secret-secret".into() });
        let spec = IscsiSpec { chap, ..target(&["iqn.x:me"]) };
        let error = Iscsi::attach(fake.roots(), &a, &spec).unwrap_err().to_string();
        assert!(error.contains("auth/password") && !error.contains("secret-secret"), "{error}");
        let after: Vec<String> = fake.made().into_iter().filter(|path| path != "iscsi").collect();
        assert_eq!(after, before);
    }

    #[test]
    fn what_others_may_on_a_target_is_not_changed_by_another_disk() {
        let (_dir, fake) = fake();
        let (a, b) = (backstore(&fake, "a"), backstore(&fake, "b"));
        let _first = Iscsi::attach(fake.roots(), &a, &target(&["iqn.x:me"])).unwrap();
        let open = IscsiSpec { admit: Admit::All, ..target(&[]) };
        assert!(Iscsi::attach(fake.roots(), &b, &open).unwrap_err().to_string().contains("named initiators only"));
        let chap = Some(Chap { user: "u".into(), password: "p".into() });
        let secret = IscsiSpec { chap, ..target(&["iqn.x:you"]) };
        assert!(Iscsi::attach(fake.roots(), &b, &secret).unwrap_err().to_string().contains("wants no password"));
        let taken = IscsiSpec { lun: Some(0), ..target(&["iqn.x:you"]) };
        assert!(Iscsi::attach(fake.roots(), &b, &taken).unwrap_err().to_string().contains("LUN 0"));
        assert!(b.exports(fake.roots()).is_empty());
        let second = Iscsi::attach(fake.roots(), &b, &target(&["iqn.x:you"])).unwrap();
        assert!(fake.made().iter().any(|path| path.ends_with("acls/iqn.x:you/lun_0/storage")), "a new initiator sees all");
        drop(second);
        assert!(!fake.made().iter().any(|path| path.contains("iqn.x:you")), "{:#?}", fake.made());
    }

    #[test]
    fn names_of_targets_are_checked() {
        let (_dir, fake) = fake();
        let a = backstore(&fake, "a");
        for wrong in ["disk", "iqn.2026-01.org.example:UPPER", "iqn.a/../b", "iqn.a b"] {
            let refused = Iscsi::attach(fake.roots(), &a, &IscsiSpec::new(wrong)).unwrap_err().to_string();
            assert!(refused.contains("is no iSCSI name"), "{refused}");
        }
        assert!(a.exports(fake.roots()).is_empty());
    }

    #[test]
    fn loopback_and_vhost_go_by_the_serial_number() {
        let (_dir, fake) = fake();
        let a = backstore(&fake, "a");
        let loopback = Loopback::attach(fake.roots(), &a).unwrap();
        let vhost = Vhost::attach(fake.roots(), &a).unwrap();
        assert_eq!(loopback.block_device(fake.roots(), std::time::Duration::from_secs(1)).unwrap(), "sdz");
        assert!(Loopback::attach(fake.roots(), &a).unwrap_err().to_string().contains("already"));
        let exports = a.exports(fake.roots());
        assert_eq!(exports.iter().map(|export| export.fabric.to_string()).collect::<Vec<_>>(), ["loopback", "vhost"]);
        assert_eq!((exports[0].block_device(fake.roots()).as_deref(), vhost.wwpn()), (Some("sdz"), exports[1].target.as_str()));
        drop((loopback, vhost));
        assert!(a.exports(fake.roots()).is_empty());
    }
}
