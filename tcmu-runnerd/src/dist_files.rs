//! Completions and manual pages in `dist/`, made from the command line's own description. `cargo xtask dist-files` writes them; without
//! its variable this says which are stale.
use std::{fs, path::PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

/// Of the manual: programs for administrators.
const SECTION: &str = "8";
/// Set: files are written.
const WRITE: &str = "TCMU_WRITE_DIST_FILES";

/// A program's files: path below `dist/`, content.
fn files(mut command: Command, section: &str, completions: bool) -> Vec<(PathBuf, Vec<u8>)> {
    command.build();
    let name = command.get_name().to_owned();
    let mut files = Vec::new();
    if completions {
        for (shell, file) in
            [(Shell::Bash, name.clone()), (Shell::Zsh, format!("_{name}")), (Shell::Fish, format!("{name}.fish"))]
        {
            let mut text = Vec::new();
            generate(shell, &mut command, &name, &mut text);
            files.push((PathBuf::from("completions").join(shell.to_string()).join(file), text));
        }
    }
    pages(&command, &name, section, &mut files);
    files
}

/// A page for a command, and for each of its subcommands that people may know of.
fn pages(command: &Command, name: &str, section: &str, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    let mut text = Vec::new();
    let called = command.clone().display_name(name.to_owned()).bin_name(name.replace('-', " "));
    // No date: a page is as new as what it describes.
    let man = Man::new(called).section(section).date("").manual("tcmu-runnerd").source("");
    man.render(&mut text).expect("writing to memory");
    files.push((PathBuf::from("man").join(format!("{name}.{section}")), text));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        pages(sub, &format!("{name}-{}", sub.get_name()), section, files);
    }
}

/// Writes or compares them.
fn check(files: &[(PathBuf, Vec<u8>)], prefix: &str) {
    let dist = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dist");
    let write = std::env::var_os(WRITE).is_some();
    let mut stale = Vec::new();
    for (path, text) in files {
        let path = dist.join(path);
        if write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        } else if fs::read(&path).ok().as_ref() != Some(text) {
            stale.push(path.display().to_string());
        }
    }
    // Of commands that are gone.
    for entry in fs::read_dir(dist.join("man")).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let page = PathBuf::from("man").join(&name);
        if name.starts_with(prefix) && !files.iter().any(|(path, _)| *path == page) {
            if write {
                fs::remove_file(entry.path()).unwrap();
            } else {
                stale.push(entry.path().display().to_string());
            }
        }
    }
    assert!(stale.is_empty(), "stale, run `cargo xtask dist-files`: {stale:#?}");
}

#[test]
fn dist_files_are_those_of_the_command_line() {
    let command = super::Arguments::command();
    let name = command.get_name().to_owned();
    check(&files(command, SECTION, name == "tcmuctl"), &name);
}
