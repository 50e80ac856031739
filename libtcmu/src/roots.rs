//! Where the kernel's file systems are mounted.
use std::path::{Path, PathBuf};

/// The roots of `/sys`, `/dev` and configfs: the usual ones, others in containers and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/sys`
    pub sys: PathBuf,
    /// `/dev`
    pub dev: PathBuf,
    /// The configfs directory of the kernel's target, `/sys/kernel/config/target`.
    pub target: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots { sys: "/sys".into(), dev: "/dev".into(), target: "/sys/kernel/config/target".into() }
    }
}

impl Roots {
    /// All of them under one directory, as tests have it.
    pub fn under(root: &Path) -> Roots {
        Roots { sys: root.join("sys"), dev: root.join("dev"), target: root.join("sys/kernel/config/target") }
    }
}
