//! Finding plugins, and judging whether their files can be trusted.
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Why a plugin's file isn't loaded.
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
    /// Others could replace it with what they like to run.
    #[error("{}: {who} may write it; only root may, for a plugin to be loaded (chown root, chmod go-w)", path.display())]
    Writable {
        /// The file or directory.
        path: PathBuf,
        /// Who could.
        who: String,
    },
}

/// The plugins of a handler path in the order in which they count: by directory, then by name. Directories that aren't there are left out.
pub fn find(handler_path: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in handler_path {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_plugin(path)).collect();
        files.sort();
        found.extend(files);
    }
    found
}

fn is_plugin(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    (name.starts_with("handler_") || name.starts_with("libhandler_")) && name.ends_with(".so") && path.is_file()
}

/// Whether nobody but root (and ourselves) could have put something else there: judges the file, behind links, and its directory.
pub fn check(path: &Path) -> Result<(), Distrust> {
    let look = |path: &Path| {
        let path = path.to_owned();
        move |error| Distrust::Look { path, error }
    };
    let real = fs::canonicalize(path).map_err(look(path))?;
    check_one(&real)?;
    let dir = real.parent().unwrap_or(Path::new("/"));
    check_one(dir)
}

fn check_one(path: &Path) -> Result<(), Distrust> {
    let metadata = fs::metadata(path).map_err(|error| Distrust::Look { path: path.to_owned(), error })?;
    let writable = |who: String| Err(Distrust::Writable { path: path.to_owned(), who });
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != me {
        return writable(format!("its owner (uid {})", metadata.uid()));
    }
    // In a sticky directory others can't replace what isn't theirs.
    let sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
    if metadata.mode() & 0o002 != 0 && !sticky {
        return writable("everybody".into());
    }
    if metadata.mode() & 0o020 != 0 && metadata.gid() != 0 && !sticky {
        return writable(format!("its group (gid {})", metadata.gid()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn plugins_are_found_by_name_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["libhandler_b.so", "handler_a.so", "handler_c.so.1", "other.so", "handler_d.txt"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("handler_dir.so")).unwrap();
        let names: Vec<_> = find(&["/nonexistent".into(), dir.path().into()])
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["handler_a.so", "libhandler_b.so"]);
    }

    #[test]
    fn files_that_others_may_write_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("handler_a.so");
        fs::write(&file, "").unwrap();
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        check(&file).unwrap();
        mode(0o646);
        let refused = check(&file).unwrap_err().to_string();
        assert!(refused.contains("handler_a.so: everybody may write it"), "{refused}");
        mode(0o644);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(check(&file).is_err(), "whoever may write the directory may replace the file");
        let link = dir.path().join("handler_b.so");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(check(&link).is_err(), "links are followed");
    }
}
