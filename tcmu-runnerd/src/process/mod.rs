//! What a process is allowed, and how it is treated under memory pressure.
//!
//! | module | subject |
//! |---|---|
//! | [`confinement`] | the order in which a handler host gives its rights up |
//! | `capabilities` | what only root may do, and a host doesn't need |
//! | `needs` | what a handler declares that it needs: system calls and capabilities |
//! | `seccomp` | the filter of system calls, and what becomes of those that are refused |
#![allow(unsafe_code)]

mod capabilities;
pub mod confinement;
mod needs;
mod seccomp;

pub use confinement::Confinement;

/// Tells the kernel that this process writes back other processes' memory (`PR_SET_IO_FLUSHER`): its own allocations then never wait
/// for a write-back that waits for it. Threads inherit it, so it comes before any is started. Whether it is in force.
pub fn set_io_flusher() -> bool {
    // include/uapi/linux/prctl.h
    const PR_SET_IO_FLUSHER: libc::c_int = 57;
    const PR_GET_IO_FLUSHER: libc::c_int = 58;
    // SAFETY: prctl with these arguments touches no memory.
    unsafe {
        libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
        libc::prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1
    }
}

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
