//! What a handler needs of the system: everyone's share, and what its plugin declares besides (`tcmu_handler.needs`).
use std::collections::BTreeSet;

use rustix::thread::CapabilitySet;
use syscalls::Sysno;

use super::capabilities;

/// Some system calls have their arguments looked at; see [`super::seccomp`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Needs {
    pub(super) calls: BTreeSet<Sysno>,
    pub(super) capabilities: CapabilitySet,
    /// Sockets of every family, not just Unix ones.
    pub(super) network: bool,
    /// Processes, not just threads; and signals to them.
    pub(super) processes: bool,
    /// Words that mean nothing here.
    pub(super) unknown: Vec<String>,
}

/// Something that can be declared.
struct Group {
    name: &'static str,
    capabilities: CapabilitySet,
    calls: &'static str,
}

const GROUPS: &[Group] = &[
    Group { name: "network", capabilities: CapabilitySet::NET_BIND_SERVICE, calls: "" },
    Group {
        name: "processes",
        capabilities: CapabilitySet::empty(),
        calls: "execve execveat fork vfork wait4 waitid tkill pidfd_send_signal setpgid setsid",
    },
    Group {
        name: "mount",
        capabilities: CapabilitySet::SYS_ADMIN,
        calls: "mount umount2 fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr",
    },
    Group { name: "admin", capabilities: CapabilitySet::SYS_ADMIN, calls: "" },
    Group { name: "raw_io", capabilities: CapabilitySet::SYS_RAWIO, calls: "" },
];

/// What every handler may call: files, memory, time, threads, Unix sockets. Names of other architectures are skipped. Without
/// capabilities `setuid` and its like change nothing, but libc makes every thread call them: none of these must have to wait for the
/// listener, since that is one of them.
const EVERYONE: &str = "
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat openat2 creat close close_range lseek
    stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir
    mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat truncate ftruncate fallocate
    fsync fdatasync sync_file_range syncfs fadvise64 readahead copy_file_range sendfile splice tee vmsplice
    chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat umask statfs fstatfs
    getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
    flock fcntl dup dup2 dup3 pipe pipe2 ioctl name_to_handle_at
    inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
    poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd
    signalfd4 timerfd_create timerfd_settime timerfd_gettime
    io_setup io_submit io_getevents io_pgetevents io_cancel io_destroy io_uring_setup io_uring_enter io_uring_register
    mmap munmap mremap mprotect madvise msync mincore brk mlock mlock2 mlockall munlock munlockall memfd_create membarrier
    shmget shmat shmdt shmctl semget semop semtimedop semctl mbind get_mempolicy set_mempolicy pkey_alloc pkey_free pkey_mprotect
    cachestat
    futex futex_waitv futex_wait futex_wake futex_requeue set_robust_list get_robust_list rseq set_tid_address gettid getpid getppid
    pidfd_open
    sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler sched_setscheduler
    sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval
    getpriority setpriority ioprio_get ioprio_set prctl arch_prctl exit exit_group restart_syscall
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigpending rt_sigtimedwait sigaltstack pause alarm getitimer setitimer
    timer_create timer_settime timer_gettime timer_getoverrun timer_delete
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times
    setuid setgid setreuid setregid setresuid setresgid setgroups
    getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getpgrp getsid capget
    getrlimit setrlimit getrusage sysinfo uname getcpu getrandom
    socketpair bind connect listen accept accept4 shutdown getsockname getpeername getsockopt setsockopt sendto recvfrom sendmsg
    recvmsg sendmmsg recvmmsg seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
    clone socket prlimit64 kill tgkill rt_tgsigqueueinfo
";

/// All that can be declared and that only root has: what a host must keep until it knows what its plugin declares.
pub(super) fn declarable() -> CapabilitySet {
    GROUPS.iter().fold(capabilities::KEPT, |all, group| all | group.capabilities)
}

fn calls(names: &str) -> impl Iterator<Item = Sysno> {
    names.split_ascii_whitespace().filter_map(|name| name.parse().ok())
}

impl Needs {
    /// Everyone's, and those that these words name.
    pub(super) fn declared(words: &str) -> Needs {
        let mut needs = Needs {
            calls: calls(EVERYONE).collect(),
            capabilities: capabilities::KEPT,
            network: false,
            processes: false,
            unknown: Vec::new(),
        };
        for word in words.split_ascii_whitespace() {
            if let Some(group) = GROUPS.iter().find(|group| group.name == word) {
                needs.capabilities |= group.capabilities;
                needs.calls.extend(calls(group.calls));
                needs.network |= word == "network";
                needs.processes |= word == "processes";
            } else if let Ok(call) = word.parse() {
                needs.calls.insert(call);
            } else {
                needs.unknown.push(word.to_owned());
            }
        }
        needs
    }

    /// The word that a handler would have to declare for a system call.
    pub(super) fn word_for(call: Sysno) -> &'static str {
        match call {
            Sysno::socket => "network",
            Sysno::clone | Sysno::kill | Sysno::tgkill | Sysno::rt_tgsigqueueinfo => "processes",
            _ => GROUPS.iter().find(|group| calls(group.calls).any(|one| one == call)).map_or(call.name(), |group| group.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_a_system_call() {
        let groups = GROUPS.iter().flat_map(|group| group.calls.split_ascii_whitespace());
        // The only ones that are younger than the table of names.
        let young = ["futex_wait", "futex_wake", "futex_requeue", "fchmodat2", "cachestat"];
        for name in EVERYONE.split_ascii_whitespace().chain(groups) {
            assert!(cfg!(not(target_arch = "x86_64")) || name.parse::<Sysno>().is_ok() || young.contains(&name), "{name}");
        }
    }

    #[test]
    fn without_a_word_nothing_dangerous_is_allowed() {
        let needs = Needs::declared("");
        assert_eq!(needs.capabilities, CapabilitySet::DAC_OVERRIDE);
        assert!(!needs.network && !needs.processes);
        for call in "execve execveat fork vfork mount umount2 ptrace process_vm_writev init_module finit_module delete_module kexec_load \
            bpf perf_event_open unshare setns pivot_root chroot reboot swapon tkill pidfd_getfd open_by_handle_at keyctl userfaultfd \
            personality iopl ioperm mknod quotactl acct syslog settimeofday clock_settime"
            .split_ascii_whitespace()
            .filter_map(|name| name.parse().ok())
        {
            assert!(!needs.calls.contains(&call), "{call}");
        }
    }

    #[test]
    fn words_widen_it_and_those_that_mean_nothing_are_named() {
        let needs = Needs::declared(" network\tmount perf_event_open nonsense ");
        assert!(needs.network && !needs.processes);
        assert!(needs.calls.contains(&Sysno::mount) && needs.calls.contains(&Sysno::perf_event_open));
        assert_eq!(needs.capabilities, CapabilitySet::DAC_OVERRIDE | CapabilitySet::SYS_ADMIN | CapabilitySet::NET_BIND_SERVICE);
        assert_eq!(needs.unknown, ["nonsense"]);
        assert!(declarable().contains(needs.capabilities));
        assert_eq!((Needs::word_for(Sysno::execve), Needs::word_for(Sysno::ptrace)), ("processes", "ptrace"));
    }
}
