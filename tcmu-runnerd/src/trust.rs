//! Whether a file can be trusted: nobody but root (and who runs us) could have put something else in its place.
use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

/// Links that are followed on the way to a file, as the kernel does (`MAXSYMLINKS`).
const LINKS: usize = 40;

/// Why a file isn't used.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// It can't be looked at.
    #[error("{}: {error}", path.display())]
    Look {
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Others could replace it with what they like.
    #[error("{}: not used, since {who} may write {}; only root may (chown root, chmod go-w)", file.display(), if file == path { "it".into() } else { path.display().to_string() })]
    Writable {
        /// What was asked for.
        file: PathBuf,
        /// The file, link or directory on the way to it that is not safe.
        path: PathBuf,
        /// Who could.
        who: String,
    },
}

/// Walks to a file as the kernel does and judges all that it meets: every directory from the root on, every link, and the file. Whoever
/// may write one of them decides what we get.
pub fn check(file: &Path) -> Result<(), Distrust> {
    let absolute = std::path::absolute(file).map_err(|error| Distrust::Look { path: file.to_owned(), error })?;
    let mut ahead = steps(&absolute);
    let mut here = PathBuf::new();
    let mut links = 0;
    while let Some(step) = ahead.pop_front() {
        if step == ".." {
            here.pop();
            continue;
        }
        // A step that is absolute, the root, begins anew.
        let next = here.join(step);
        let look = |error| Distrust::Look { path: next.clone(), error };
        let metadata = fs::symlink_metadata(&next).map_err(look)?;
        if let Some(who) = who_may_write(&metadata) {
            return Err(Distrust::Writable {
                file: file.to_owned(),
                path: if ahead.is_empty() { file.to_owned() } else { next },
                who,
            });
        }
        if !metadata.is_symlink() {
            here = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(look(rustix::io::Errno::LOOP.into()));
        }
        let mut target = steps(&fs::read_link(&next).map_err(look)?);
        target.append(&mut ahead);
        ahead = target;
    }
    Ok(())
}

fn steps(path: &Path) -> VecDeque<OsString> {
    path.components().filter(|step| *step != Component::CurDir).map(|step| AsRef::<OsStr>::as_ref(&step).to_owned()).collect()
}

/// Somebody else who may change this file, or what a directory or link leads to.
fn who_may_write(metadata: &Metadata) -> Option<String> {
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != me {
        return Some(format!("its owner (uid {})", metadata.uid()));
    }
    // A link's mode says nothing; and in a sticky directory others can't replace what isn't theirs.
    if metadata.is_symlink() || (metadata.is_dir() && metadata.mode() & 0o1000 != 0) {
        return None;
    }
    if metadata.mode() & 0o002 != 0 {
        return Some("everybody".into());
    }
    (metadata.mode() & 0o020 != 0 && metadata.gid() != 0).then(|| format!("its group (gid {})", metadata.gid()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refusal(path: &Path) -> String {
        check(path).expect_err("it must be refused").to_string()
    }

    #[test]
    fn a_file_that_others_may_write_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "").unwrap();
        mode(&file, 0o644);
        check(&file).unwrap();
        mode(&file, 0o646);
        let path = file.display();
        assert_eq!(
            refusal(&file),
            format!("{path}: not used, since everybody may write it; only root may (chown root, chmod go-w)")
        );
    }

    #[test]
    fn so_is_one_below_a_directory_that_others_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b/f");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        mode(&dir.path().join("a"), 0o777);
        assert!(refusal(&file).contains(&format!("everybody may write {}", dir.path().join("a").display())));
        // /tmp itself is such a directory, and sticky.
        mode(&dir.path().join("a"), 0o1777);
        check(&file).unwrap();
    }

    #[test]
    fn links_are_judged_by_all_places_that_they_lead_through() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["safe", "open"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("safe/f"), "").unwrap();
        fs::write(at("open/f"), "").unwrap();
        mode(&at("open"), 0o777);
        symlink("safe/f", at("good")).unwrap();
        check(&at("good")).unwrap();
        symlink("safe/../open/f", at("bad")).unwrap();
        assert!(refusal(&at("bad")).contains("everybody may write"));
        // The file is safe, and so is the first link, but not the place of the second.
        symlink("../safe/f", at("open/hop")).unwrap();
        symlink("open/hop", at("chain")).unwrap();
        assert!(refusal(&at("chain")).contains("everybody may write"));
        symlink("loop", at("loop")).unwrap();
        assert!(refusal(&at("loop")).contains("symbolic links"));
        assert!(refusal(&at("nothing")).contains("No such file"));
    }
}
