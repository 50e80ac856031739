//! What a process is allowed, and how it is treated under memory pressure.
//!
//! | module | subject |
//! |---|---|
//! | [`confinement`] | the order in which a handler host gives its rights up |
//! | `memory` | what keeps it going when memory is short |
//! | `priority` | whether a thread that gave way may come back |
//! | `files` | how many files it may have open |
//! | `capabilities` | what only root may do, and a host doesn't need |
//! | `needs` | what a handler declares that it needs: system calls and capabilities |
//! | `seccomp` | the filter of system calls |
//! | `refusals` | what becomes of those that are refused |
#![allow(unsafe_code)]

mod capabilities;
pub mod confinement;
mod files;
mod memory;
mod needs;
mod priority;
mod refusals;
mod seccomp;

pub use confinement::Confinement;
pub use files::raise_open_files;
pub use memory::{lock_memory, set_io_flusher, spare_from_oom_killer};

/// Becomes a user, with the groups that user is in and without any capability. For good.
pub fn become_user(name: &str) -> anyhow::Result<()> {
    use std::ffi::CString;

    use nix::unistd::{User, initgroups, setgid, setuid};
    let user = User::from_name(name)?.ok_or_else(|| anyhow::anyhow!("there is no user {name:?}"))?;
    initgroups(&CString::new(name)?, user.gid)?;
    setgid(user.gid)?;
    setuid(user.uid)?;
    Ok(())
}
