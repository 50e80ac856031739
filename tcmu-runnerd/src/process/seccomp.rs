//! The filter of system calls.
//!
//! A call that is not allowed is not done, and the process goes on: the filter hands it to a thread of ours (`seccomp_unotify(2)`; see
//! [`super::refusals`]), which answers `EPERM`. Kernels that can't do that (before 5.7) answer `ENOSYS` by themselves, and log it as an
//! audit message.
use std::{
    collections::BTreeMap,
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use syscalls::Sysno;

use super::{needs::Needs, refusals::Refusals};

// include/uapi/linux/seccomp.h
const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
const FLAG_TSYNC: libc::c_ulong = 1 << 0;
const FLAG_LOG: libc::c_ulong = 1 << 1;
const FLAG_NEW_LISTENER: libc::c_ulong = 1 << 3;
const FLAG_TSYNC_ESRCH: libc::c_ulong = 1 << 4;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
/// `BPF_RET | BPF_K`
const BPF_RETURN: u16 = 0x06;

/// Flags of clone(2) that make namespaces.
const NEW_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Confines all threads of this process, for good.
pub(super) fn confine(needs: &Needs) -> anyhow::Result<()> {
    // Those who answer have to be there before the filter is: starting a thread is among the calls that they answer.
    let refusals = Refusals::begin()?;
    let told = program(needs, SeccompAction::Trace(0)).map(told_instead_of_traced)?;
    match install(&told, FLAG_TSYNC | FLAG_NEW_LISTENER | FLAG_TSYNC_ESRCH) {
        // SAFETY: a new descriptor that is nobody else's.
        Ok(listener) => Ok(refusals.answer(unsafe { OwnedFd::from_raw_fd(listener) })?),
        Err(_) => {
            // `ENOSYS` makes libraries take the older call: glibc does without clone3 then.
            let refused = program(needs, SeccompAction::Errno(libc::ENOSYS as u32))?;
            match install(&refused, FLAG_TSYNC | FLAG_LOG)? {
                0 => Ok(()),
                thread => anyhow::bail!("thread {thread} has a filter of its own"),
            }
        }
    }
}

fn program(needs: &Needs, otherwise: SeccompAction) -> anyhow::Result<BpfProgram> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let mut rules = BTreeMap::new();
    for call in &needs.calls {
        rules.insert(i64::from(call.id()), conditions(*call, needs)?);
    }
    Ok(SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch)?.try_into()?)
}

/// What the arguments of a call must be like, if that matters.
fn conditions(call: Sysno, needs: &Needs) -> anyhow::Result<Vec<SeccompRule>> {
    let argument = |index, operator, value: u64| {
        SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?])
    };
    let this_process = u64::from(std::process::id());
    let thread = libc::CLONE_THREAD as u64;
    Ok(match call {
        Sysno::socket if !needs.network => vec![argument(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)?],
        Sysno::clone if needs.processes => vec![argument(0, SeccompCmpOp::MaskedEq(NEW_NAMESPACES), 0)?],
        Sysno::clone => vec![argument(0, SeccompCmpOp::MaskedEq(thread), thread)?],
        Sysno::kill | Sysno::tgkill | Sysno::rt_tgsigqueueinfo if !needs.processes => {
            vec![argument(0, SeccompCmpOp::Eq, this_process)?]
        }
        // Limits of others that are root too.
        Sysno::prlimit64 => vec![argument(0, SeccompCmpOp::Eq, 0)?, argument(0, SeccompCmpOp::Eq, this_process)?],
        _ => Vec::new(),
    })
}

/// The library knows no action that tells a listener: the place of one that it knows is taken.
fn told_instead_of_traced(mut program: BpfProgram) -> BpfProgram {
    for instruction in &mut program {
        if instruction.code == BPF_RETURN && instruction.k == RET_TRACE {
            instruction.k = RET_USER_NOTIF;
        }
    }
    program
}

fn install(program: &BpfProgram, flags: libc::c_ulong) -> io::Result<i32> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: a program of as many instructions, in the kernel's layout (`seccompiler::sock_filter` has it too), which is only read.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as i32) }
}
