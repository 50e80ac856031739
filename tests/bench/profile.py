#!/usr/bin/env python3
"""Where a daemon's processor time goes for each command: samples of all processors while fio runs, sorted by the kernel's call chain.
Prints one JSON object a line, as guest.py does.

profile.py ROUNDS SECONDS [--targets A;B] [--cases A;B]   in the guest, as root, with tcmu-runnerd, `bare` and perf on PATH

With PROFILE_LEAVES=1 in the environment also the functions that take most.
"""
import collections, json, os, re, shlex, signal, subprocess, sys, time

import guest

HERTZ = 499
# The first that a sample's call chain fits. What has none of them was in user mode.
PARTS = [
    ("interrupts", r"asm_sysvec|asm_common_interrupt|irq_exit|do_softirq|asm_exc_nmi"),
    ("page faults", r"exc_page_fault"),
    ("kick: copying to the initiator", r"(memcpy|copy_page).*uio_write"),
    ("kick: waiting for cmdr_lock", r"mutex_lock.*uio_write"),
    ("kick: completing", r"uio_write"),
    ("file I/O: copying", r"(copy_user|copy_page|memcpy|clear_user).*(p?(read|write)v|generic_file|shmem_file|io_uring|pread|pwrite|fsync)"),
    ("file I/O: the rest", r"p?(read|write)v|do_iter|shmem_file|generic_file|io_uring|sys_pread|sys_pwrite|fsync|io_wq"),
    ("sleeping and waking", r"epoll|sys_p?poll|uio_read|sys_read|schedule|futex|ret_from_fork|sched"),
    ("clock", r"clock_gettime|read_hpet|ktime_get"),
    ("other system calls", r"do_syscall_64;.*;|__x64_sys|secure_computing|seccomp"),
    ("into and out of system calls", r"entry_SYSCALL|do_syscall_64|syscall_(enter|exit)|syscall_return|exit_to_user|x64_sys_call|static_call_text"),
]


def part(chain):
    stack = ";".join(chain)
    for name, pattern in PARTS:
        if re.search(pattern, stack):
            return name
    return "user mode" if chain and chain[0].startswith("user ") else "elsewhere in the kernel"


def samples(data):
    """(process, call chain with the innermost first) of each sample."""
    script = ["perf", "script", "-i", data, "-F", "pid,ip,sym,dso"]
    output = subprocess.run(script, capture_output=True, text=True).stdout
    for sample in output.split("\n\n"):
        lines = sample.strip().splitlines()
        if not lines:
            continue
        pid, chain = lines[0].split()[0], []
        for line in lines[1:]:
            fields = line.split()
            kernel = "[kernel" in line or ".ko" in line or "([" in line
            symbol = fields[1] if len(fields) > 1 else "?"
            chain.append(symbol if kernel else f"user {symbol}")
        yield int(pid), chain


def profile(disk, case, seconds, target):
    # perf takes long to begin and to end; fio is told to end then.
    fio = guest.fio(disk, case, seconds + 600)
    load = subprocess.Popen(fio, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stat = f"/sys/block/{os.path.basename(disk)}/stat"
    time.sleep(1)
    # perf takes long to begin: the commands are counted from when it has.
    window = f"cat {stat} && sleep {seconds} && cat {stat}"
    record = ["perf", "record", "-q", "-a", "-e", "cpu-clock", "-F", str(HERTZ), "-g", "-o", "/tmp/perf.data"]
    done = subprocess.run([*record, "--", "sh", "-c", window], capture_output=True, text=True)
    running = load.poll() is None
    load.send_signal(signal.SIGINT)
    load.wait()
    if done.returncode or not running:
        return {"error": f"perf: {done.stderr[-300:]}" if running else "fio ended too early"}
    before, after = ([int(n) for n in line.split()] for line in done.stdout.splitlines()[:2])
    # Reads and writes.
    commands = after[0] - before[0] + after[4] - before[4]
    pids, parts, leaves, others = target.processes(), collections.Counter(), collections.Counter(), 0
    for pid, chain in samples("/tmp/perf.data"):
        if pid in pids:
            name = part(chain)
            parts[name] += 1
            leaves[name, chain[0] if chain else "?"] += 1
        elif pid:
            others += 1
    if os.environ.get("PROFILE_LEAVES"):
        for (name, leaf), count in leaves.most_common(40):
            print(f"    {count * 1e6 / HERTZ / commands:6.2f} {name}: {leaf}", flush=True)
    each = lambda count: count * 1e6 / HERTZ / commands
    return {"iops": commands / seconds, "others_us": each(others), "parts_us": {name: each(count) for name, count in parts.items()}}


def main():
    guest.run(profile)


if __name__ == "__main__":
    main()
