//! A file that describes a disk, as `/etc/tcmu/disks.d/vm1.toml`.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::spec::DiskSpec;

/// Where they are if nobody says.
pub(crate) const DIRECTORY: &str = "/etc/tcmu/disks.d";

/// The files of a directory in order of their names, or the one file.
pub(crate) fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    let is_ours = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        path.extension().is_some_and(|extension| extension == "toml") && !hidden
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_ours).collect();
    files.sort();
    Ok(files)
}

/// Reads one. What is wrong is said with its line.
pub(crate) fn load(path: &Path) -> anyhow::Result<DiskSpec> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> anyhow::Result<DiskSpec> {
    let at = |line: usize| format!("{}:{line}", path.display());
    let mut spec: DiskSpec = match toml::from_str(text) {
        Ok(spec) => spec,
        Err(error) => {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            bail!("{}: {}", at(line), error.message().replace('\n', " "));
        }
    };
    if spec.name.is_empty() {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).with_context(|| format!("{}: no name", path.display()))?;
        stem.clone_into(&mut spec.name);
    }
    if spec.config.is_empty() {
        spec.config.clone_from(&spec.name);
    }
    // Errors begin with the key that they are about.
    let line_of = |message: &str| {
        let key = message.trim_start_matches("attribute ").split([' ', ':']).next().unwrap_or_default().trim_matches('"');
        let find = |key: &str| text.lines().position(|line| line.trim_start().starts_with(key));
        find(key).or_else(|| find(&format!("{key}s"))).map_or(1, |line| line + 1)
    };
    spec.check().map_err(|error| anyhow::anyhow!("{}: {error}", at(line_of(&error.to_string()))))?;
    for chap in spec.iscsi.iter_mut().filter_map(|wish| wish.chap.as_mut()) {
        if let Some(dir) = path.parent() {
            chap.password_file = dir.join(&chap.password_file);
        }
    }
    Ok(spec)
}

/// The text of such a file.
pub(crate) fn text(spec: &DiskSpec) -> anyhow::Result<String> {
    Ok(toml::to_string(spec)?)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{size::Size, spec::Setting},
        *,
    };

    fn wrong(text: &str) -> String {
        parse(text, Path::new("/d/vm1.toml")).unwrap_err().to_string()
    }

    #[test]
    fn a_file_says_all_that_the_command_line_can() {
        let text = r#"
            handler = "file"
            config = "/srv/vm1.img"
            size = "20G"
            write_cache = false
            loopback = true

            [attributes]
            cmd_time_out = 60
            hw_max_sectors = 4096

            [[iscsi]]
            target = "iqn.2026-01.org.example:vm1"
            portals = ["192.0.2.1"]
            initiators = ["iqn.1993-08.org.debian:01:a"]
            chap = { user = "u", password_file = "vm1.chap" }
        "#;
        let spec = parse(text, Path::new("/d/vm1.toml")).unwrap();
        assert_eq!((spec.name.as_str(), spec.size), ("vm1", Size(20 << 30)));
        assert_eq!(spec.attributes["cmd_time_out"], Setting::Number(60));
        assert_eq!(spec.changeable(), [("cmd_time_out".into(), "60".into()), ("emulate_write_cache".into(), "0".into())]);
        assert_eq!(spec.fixed(), [("hw_max_sectors".into(), "4096".into())]);
        assert_eq!(spec.iscsi[0].chap.as_ref().unwrap().password_file, Path::new("/d/vm1.chap"));
        assert_eq!(parse(&super::text(&spec).unwrap(), Path::new("/d/vm1.toml")).unwrap(), spec, "it reads back");
    }

    #[test]
    fn mistakes_are_told_with_file_and_line() {
        assert!(wrong("handler = \"file\"\nsize = \"20G\"\nsise = 1\n").starts_with("/d/vm1.toml:3: unknown field `sise`"));
        assert!(wrong("handler = \"file\"\nsize = \"20X\"\n").starts_with("/d/vm1.toml:2: \"20X\" is no size"));
        assert!(wrong("handler = \"file\"\n").contains("missing field `size`"));
        let portal = wrong("handler = \"a\"\nsize = 512\n[[iscsi]]\nportals = [\"nowhere\"]\n");
        assert!(portal.starts_with("/d/vm1.toml:4: portal \"nowhere\""), "{portal}");
        let attribute = wrong("handler = \"a\"\nsize = 512\n[attributes]\ndev_size = 5\n");
        assert!(attribute.starts_with("/d/vm1.toml:4: attribute dev_size: say size instead"), "{attribute}");
        let block = wrong("handler = \"a\"\nsize = 512\nblock_size = 500\n");
        assert!(block.starts_with("/d/vm1.toml:3: block_size 500"), "{block}");
    }
}
