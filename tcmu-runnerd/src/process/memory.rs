//! What keeps a process going when memory is short. Others wait for its disks to write their memory back, so it must not wait for them.
use std::{fs, io};

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Of this process, for the OOM killer (proc(5)).
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

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

/// Keeps what this process uses of its memory, now and later, in memory: a page of it that was swapped out, or dropped because it can be
/// read again from a program's file, may be on a disk that this very process serves. Pages are locked as they are first used.
///
/// Takes away the limit of locked memory (`RLIMIT_MEMLOCK`); where that cannot be done nothing is locked, since memory could not be had
/// any more beyond the limit. The kernel touches mappings that can't be locked, as rings are: before there is any.
pub fn lock_memory() -> io::Result<()> {
    lift_limit();
    if let Some(limit) = getrlimit(Resource::Memlock).current {
        return Err(io::Error::other(format!("only {limit} bytes may be locked (RLIMIT_MEMLOCK)")));
    }
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}

/// Takes away the limit of locked memory, as far as this process may. What io_uring registers counts against it too, on old kernels.
pub(super) fn lift_limit() {
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

/// Keeps the OOM killer away from this process and those that it starts: killing them frees little, and all that waits for their disks
/// would wait for longer. A score that somebody has set is left as it is.
pub fn spare_from_oom_killer() -> io::Result<()> {
    if fs::read_to_string(OOM_SCORE)?.trim() == "0" {
        fs::write(OOM_SCORE, "-1000")?;
    }
    Ok(())
}
