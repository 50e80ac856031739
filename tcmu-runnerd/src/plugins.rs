//! Finding plugins.
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Whether a plugin can be trusted.
pub use crate::trust::check;

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

#[cfg(test)]
mod tests {
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
}
