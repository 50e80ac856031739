//! What a process is allowed, and how it is treated under memory pressure.
#![allow(unsafe_code)]

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

/// Gives up gaining privileges by running other programs.
pub fn no_new_privileges() {
    let _ = rustix::thread::set_no_new_privs(true);
}

/// Capabilities that a handler host keeps: opening files of any owner, what `PR_SET_IO_FLUSHER` and large locks ask for, and network and
/// block device administration, which backing stores may need.
const KEPT: &[u32] = &[
    1,  // CAP_DAC_OVERRIDE
    2,  // CAP_DAC_READ_SEARCH
    14, // CAP_IPC_LOCK
    24, // CAP_SYS_RESOURCE
    12, // CAP_NET_ADMIN
    21, // CAP_SYS_ADMIN: BLKDISCARD-like ioctls and O_DIRECT on some devices
];

/// Drops every capability that a host doesn't need from the bounding set, so that nothing it does can bring it back.
pub fn drop_capabilities() {
    for capability in 0..64 {
        if !KEPT.contains(&capability) {
            // SAFETY: prctl with these arguments touches no memory. It fails for capabilities that don't exist or without the right to.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
        }
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
