//! `cargo xtask package`: Debian packages, and RPMs where they are asked for.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::{packages, progress::quietly, root, vm};

/// The crates that become packages, and where they are.
const CRATES: &[(&str, &str)] = &[
    ("tcmu-runnerd", "tcmu-runnerd"),
    ("tcmu-handler-api", "handler-api"),
    ("tcmu-handler-alloc", "handlers/alloc"),
    ("tcmu-handler-file", "handlers/file"),
    ("tcmu-handler-null", "handlers/null"),
];

/// Where packages are put.
pub fn directory() -> PathBuf {
    root().join("target/packages")
}

/// Builds what is packed, and the packages.
pub fn run(rpm: bool) -> anyhow::Result<()> {
    vm::build()?;
    debian(false)?;
    if rpm {
        rpms()?;
    }
    println!("\n{}", directory().display());
    let mut names: Vec<_> = fs::read_dir(directory())?.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    names.iter().for_each(|name| println!("  {}", name.to_string_lossy()));
    Ok(())
}

/// Packs what is built as Debian packages; `quick`: larger ones, for tests. Earlier ones are removed.
pub fn debian(quick: bool) -> anyhow::Result<()> {
    packages::ensure_packing()?;
    let deb = tool("cargo-deb")?;
    let _ = fs::remove_dir_all(directory());
    fs::create_dir_all(directory())?;
    for (name, _) in CRATES {
        let mut command = Command::new(&deb);
        command.args(["--no-build", "--locked", "--strip", "-p", name, "-o"]).arg(directory()).current_dir(root());
        if quick {
            command.arg("--fast");
        }
        quietly(&format!("packing {name}"), &mut command)?;
    }
    Ok(())
}

fn rpms() -> anyhow::Result<()> {
    let rpm = tool("cargo-generate-rpm")?;
    let stripped = stripped()?;
    for (name, dir) in CRATES {
        // Needs of libraries are found by `rpm`'s own tools, which a Debian machine need not have.
        let mut command = Command::new(&rpm);
        command.args(["--auto-req", "disabled", "-p", dir, "--target-dir"]).arg(&stripped);
        command.arg("-o").arg(directory()).current_dir(root());
        quietly(&format!("packing {name} as an RPM"), &mut command)?;
    }
    Ok(())
}

/// A directory like `target` with what is built, without symbols: cargo-generate-rpm takes it as it is.
fn stripped() -> anyhow::Result<PathBuf> {
    let (built, dir) = (root().join("target/release"), root().join("target/rpm"));
    fs::create_dir_all(dir.join("release"))?;
    let is_packed = |name: &str| ["tcmu-runnerd", "tcmuctl"].contains(&name) || name.ends_with(".so");
    let names = fs::read_dir(&built)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    for name in names.filter(|name| is_packed(name)) {
        let mut strip = Command::new("strip");
        strip.args(["--strip-unneeded", "-o"]).arg(dir.join("release").join(&name)).arg(built.join(&name));
        quietly(&format!("stripping {name}"), &mut strip)?;
    }
    Ok(dir)
}

/// How a tool is built: for one run of it, building it well takes longer than it saves.
const QUICKLY: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
];

/// A tool of cargo's, built once.
pub fn tool(name: &str) -> anyhow::Result<PathBuf> {
    let tools = root().join("target/tools");
    let path = tools.join("bin").join(name);
    if !path.exists() {
        let mut install = Command::new("cargo");
        install.args(["install", name, "--locked", "--quiet", "--root"]).arg(&tools).envs(QUICKLY.iter().copied());
        quietly(&format!("installing {name} (this takes some minutes)"), &mut install)?;
    }
    Ok(path)
}

/// The Debian packages that were built.
pub fn built() -> anyhow::Result<Vec<PathBuf>> {
    let is_deb = |path: &Path| path.extension().is_some_and(|extension| extension == "deb");
    let found = fs::read_dir(directory()).context("there are no packages")?.flatten().map(|entry| entry.path());
    Ok(found.filter(|path| is_deb(path)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(dir: &str) -> String {
        fs::read_to_string(root().join(dir).join("Cargo.toml")).unwrap()
    }

    #[test]
    fn the_pkg_config_file_has_the_version_of_the_workspace() {
        let file = fs::read_to_string(root().join("dist/pkgconfig/tcmu-handler.pc")).unwrap();
        assert!(file.lines().any(|line| line == format!("Version: {}", env!("CARGO_PKG_VERSION"))), "{file}");
    }

    #[test]
    fn every_handler_has_a_package_of_its_own() {
        for entry in fs::read_dir(root().join("handlers")).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let known = CRATES.iter().any(|(_, dir)| *dir == format!("handlers/{name}"));
            assert!(known, "handlers/{name} is in no package");
            let text = manifest(&format!("handlers/{name}"));
            assert!(text.contains(&format!("name = \"tcmu-runnerd-handler-{name}\"")), "{text}");
        }
    }

    #[test]
    fn packages_of_both_kinds_have_the_same_files() {
        for (_, dir) in CRATES {
            let text = manifest(dir);
            let (debian, rpm) = text.split_once("[package.metadata.generate-rpm]").unwrap();
            let debian = debian.lines().filter(|line| line.contains("44\"]") || line.contains("755\"]"));
            let quoted = |line: &str| line.split('"').nth(1).unwrap().to_owned();
            let debian: Vec<String> = debian.map(&quoted).collect();
            let rpm = rpm.split("source = ").skip(1).map(&quoted).filter(|file| file != "../LICENSE");
            let (mut debian, mut rpm): (Vec<String>, Vec<String>) = (debian, rpm.collect());
            debian.sort();
            rpm.sort();
            assert_eq!(debian, rpm, "{dir}");
            rpm.dedup();
            assert_eq!(debian.len(), rpm.len(), "{dir}: a file is there twice");
        }
    }

    #[test]
    fn what_is_packed_is_there() {
        for (_, dir) in CRATES {
            for line in manifest(dir).lines().filter(|line| line.contains("644\"]") && !line.contains("target/release")) {
                let source = line.trim().trim_start_matches('[').split('"').nth(1).unwrap();
                let path = root().join(dir).join(source);
                let found = if source.contains('*') { path.parent().is_some_and(Path::exists) } else { path.exists() };
                assert!(found, "{dir}: {source}");
            }
        }
    }
}
