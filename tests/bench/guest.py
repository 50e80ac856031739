#!/usr/bin/env python3
"""Measures disks of several makers in turn, in one boot, and prints one JSON object a line.

guest.py ROUNDS SECONDS [--targets A,B] [--cases A,B]   in the guest, as root, with tcmu-runnerd and `bare` on PATH
"""
import argparse, glob, json, os, re, shutil, signal, statistics, subprocess, sys, threading, time

CONFIG = "/sys/kernel/config/target"
SIZE = 256 << 20
WWN = "naa.5001405000000001"
IMAGE = "/dev/shm/bench.img"

# name: fio's options
CASES = {
    "4k randread, depth 1": "rw=randread bs=4k iodepth=1",
    "4k randread, depth 4": "rw=randread bs=4k iodepth=4",
    "4k randread, depth 32": "rw=randread bs=4k iodepth=32",
    "4k randread, depth 32, 4 jobs": "rw=randread bs=4k iodepth=32 numjobs=4",
    "4k randwrite, depth 1": "rw=randwrite bs=4k iodepth=1",
    "4k randwrite, depth 4": "rw=randwrite bs=4k iodepth=4",
    "4k randwrite, depth 32": "rw=randwrite bs=4k iodepth=32",
    "4k randwrite, depth 32, 4 jobs": "rw=randwrite bs=4k iodepth=32 numjobs=4",
    "128k read, depth 8": "rw=read bs=128k iodepth=8",
    "128k write, depth 8": "rw=write bs=128k iodepth=8",
    "1M read, depth 8": "rw=read bs=1M iodepth=8",
    "1M write, depth 8": "rw=write bs=1M iodepth=8",
    "4k 70/30 with fsync, depth 8": "rw=randrw rwmixread=70 bs=4k iodepth=8 fsync=32",
}


def put(path, text):
    with open(path, "w") as file:
        file.write(text)


def wait_for(what, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    sys.exit("did not happen in time")


def backstore(plugin, name, settings):
    path = f"{CONFIG}/core/{plugin}/{name}"
    os.makedirs(path)
    for setting in settings:
        put(f"{path}/control", setting)
    wait_for(lambda: is_enabled(path))
    return path


def is_enabled(path):
    try:
        put(f"{path}/enable", "1")
    except BlockingIOError:
        # A daemon that has just been started keeps the kernel's events back for a moment.
        return False
    return True


def loopback(path):
    before = set(glob.glob("/sys/block/sd*"))
    tpg = f"{CONFIG}/loopback/{WWN}/tpgt_1"
    os.makedirs(f"{tpg}/lun/lun_0")
    put(f"{tpg}/nexus", "naa.5001405000000002")
    os.symlink(path, f"{tpg}/lun/lun_0/disk")
    disk = wait_for(lambda: set(glob.glob("/sys/block/sd*")) - before).pop()
    wait_for(lambda: int(open(f"{disk}/size").read()) * 512 == SIZE)
    subprocess.run(["udevadm", "settle", "-t", "10"])
    put(f"{disk}/queue/scheduler", "none")
    return "/dev/" + os.path.basename(disk)


def remove(path):
    tpg = f"{CONFIG}/loopback/{WWN}/tpgt_1"
    os.unlink(f"{tpg}/lun/lun_0/disk")
    for directory in (f"{tpg}/lun/lun_0", tpg, os.path.dirname(tpg), path):
        os.rmdir(directory)


class Tcmu:
    """A user: backstore, and the process behind it."""

    def __init__(self, config, *limits, only="", filled=False):
        self.config, self.limits, self.only, self.filled, self.process = config, limits, only, filled, None

    def start(self):
        self.daemon()
        self.path = backstore("user_0", "b", [f"dev_size={SIZE}", f"dev_config={self.config}", *self.limits])
        disk = loopback(self.path)
        if self.filled:
            # As the files are: the first touch of each page is not what is measured.
            subprocess.run(["dd", f"if={IMAGE}", f"of={disk}", "bs=1M", "oflag=direct", "status=none"], check=True)
        return disk

    def stop(self):
        remove(self.path)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def processes(self):
        """The process and its children."""
        found = [self.process.pid]
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1]) in found:
                    found.append(int(pid))
            except OSError:
                pass
        return found


class Ours(Tcmu):
    def daemon(self):
        log = open("/tmp/bench-daemon.log", "w")
        self.process = subprocess.Popen(["tcmu-runnerd"], stderr=log, stdout=log)
        wait_for(lambda: "ready" in open("/tmp/bench-daemon.log").read())


class Runner(Tcmu):
    def daemon(self):
        self.process = subprocess.Popen(["/usr/bin/tcmu-runner"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(2)


class Bare(Tcmu):
    def __init__(self, poll, *image, only=""):
        super().__init__("bare/bare", only=only)
        self.poll, self.image = poll, image

    def daemon(self):
        # Nobody listens to netlink: the kernel must not wait for an answer.
        pass

    def start(self):
        self.path = backstore("user_0", "b", [f"dev_size={SIZE}", f"dev_config={self.config}", "nl_reply_supported=-1"])
        uio = wait_for(lambda: [u for u in glob.glob("/sys/class/uio/uio*") if "bare/bare" in open(u + "/name").read()])[0]
        size = open(uio + "/maps/map0/size").read().strip()
        arguments = ["bare", "/dev/" + os.path.basename(uio), size, str(SIZE), str(self.poll), *self.image]
        self.process = subprocess.Popen(arguments)
        return loopback(self.path)


class Kernel:
    def __init__(self, plugin, settings):
        self.plugin, self.settings = plugin, settings

    def start(self):
        self.path = backstore(self.plugin, "b", self.settings)
        return loopback(self.path)

    def stop(self):
        remove(self.path)

    def processes(self):
        return []


TARGETS = {
    # As targetcli makes them.
    "tcmu-runner qcow": Runner(f"qcow/{IMAGE}"),
    "bare loop": Bare(0),
    "bare loop, polling 20 us": Bare(20, only="4k rand"),
    "bare loop, polling 100 us": Bare(100, only="4k rand"),
    "bare loop, polling 1 ms": Bare(1000, only="depth 1$"),
    "bare loop on a file": Bare(0, IMAGE),
    "bare loop on a file, polling 1 ms": Bare(1000, IMAGE, only="depth 1$"),
    "LIO fileio": Kernel("fileio_0", [f"fd_dev_name={IMAGE},fd_dev_size={SIZE},fd_buffered_io=1"]),
    "LIO ramdisk": Kernel("rd_mcp_0", [f"rd_pages={SIZE // 4096}"]),
    # As tcmuctl makes them.
    "null": Ours("null/x;fill=off", "hw_max_sectors=2048"),
    "alloc": Ours("alloc/x", "hw_max_sectors=2048", filled=True),
    "file": Ours(f"file/{IMAGE}", "hw_max_sectors=2048"),
    # The other way round.
    "file, 128 sectors": Ours(f"file/{IMAGE}", only="128k|1M"),
    "tcmu-runner qcow, 2048 sectors": Runner(f"qcow/{IMAGE}", "hw_max_sectors=2048", only="128k|1M"),
}

LARGE, SMALL = "128k|1M", "4k rand.*, depth 32"
KNOBS = {
    "as the kernel has them": Ours(f"file/{IMAGE}", only=f"{LARGE}|{SMALL}"),
    "hw_max_sectors 512": Ours(f"file/{IMAGE}", "hw_max_sectors=512", only=LARGE),
    "hw_max_sectors 2048": Ours(f"file/{IMAGE}", "hw_max_sectors=2048", only=LARGE),
    "hw_max_sectors 8192": Ours(f"file/{IMAGE}", "hw_max_sectors=8192", only=LARGE),
    "max_data_area_mb 1": Ours(f"file/{IMAGE}", "max_data_area_mb=1", only=f"{LARGE}|{SMALL}"),
    "max_data_area_mb 8": Ours(f"file/{IMAGE}", "max_data_area_mb=8", only=f"{LARGE}|{SMALL}"),
    "data_pages_per_blk 16": Ours(f"file/{IMAGE}", "data_pages_per_blk=16", only=f"{LARGE}|{SMALL}"),
    "cmd_ring_size_mb 1": Ours(f"file/{IMAGE}", "cmd_ring_size_mb=1", only=SMALL),
}


def usage(pids):
    """CPU time in seconds, context switches and page faults of all their threads. The time is exact, where clock ticks would count whoever
    runs when they come, which is those that timers and interrupts wake."""
    busy = switches = faults = 0
    for pid in pids:
        try:
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
            faults += int(fields[7]) + int(fields[9])
            for task in glob.glob(f"/proc/{pid}/task/*"):
                busy += int(open(f"{task}/schedstat").read().split()[0])
                switches += sum(int(n) for n in re.findall(r"ctxt_switches:\s+(\d+)", open(f"{task}/status").read()))
        except OSError:
            pass
    return busy / 1e9, switches, faults


class Idle(threading.Thread):
    """Looks which part of this machine's processors' time is idle, a few times a second, until it is stopped."""

    def __init__(self):
        super().__init__()
        self.parts, self.over = [], threading.Event()
        self.start()

    def run(self):
        before = self.ticks()
        while not self.over.wait(0.2):
            now = self.ticks()
            spent, idle = (now - before for now, before in zip(now, before))
            self.parts.append(idle / max(spent, 1))
            before = now

    def ticks(self):
        fields = [int(n) for n in open("/proc/stat").readline().split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    def stop(self):
        """The median: of the load, whatever fio does before it and after it. None if it was over before anything was seen."""
        self.over.set()
        self.join()
        return statistics.median(self.parts) if self.parts else None


# Seconds before fio measures: what adapts to the load has done so then.
RAMP = 2


def system_calls(pids, fio):
    """System calls of the processes while fio runs, and its result."""
    events = ["-e", "raw_syscalls:sys_enter", "-p", ",".join(map(str, pids)), "-x", ","]
    done = subprocess.run(["perf", "stat", "-o", "/tmp/perf.out", *events, "--", *fio], capture_output=True, text=True)
    count = re.search(r"^(\d+),", open("/tmp/perf.out").read(), re.M)
    return int(count[1]) if count else None, done


def fio(disk, case, seconds):
    """The command that measures a case."""
    options = dict(option.split("=") for option in CASES[case].split())
    command = ["fio", "--name=b", f"--filename={disk}", "--direct=1", "--ioengine=libaio", "--output-format=json", "--group_reporting",
               "--time_based", f"--runtime={seconds}", f"--ramp_time={RAMP * 1000:.0f}ms", "--norandommap", "--randrepeat=0"]
    return command + [f"--{name}={value}" for name, value in options.items()]


def measure(disk, case, seconds, target, round):
    command = fio(disk, case, seconds)
    pids = target.processes()
    before, idle = usage(pids), Idle()
    # To count calls takes time, and they are the same each time.
    if round == 0 and pids and shutil.which("perf"):
        calls, done = system_calls(pids, command)
    else:
        calls, done = None, subprocess.run(command, capture_output=True, text=True)
    after, idle = usage(pids), idle.stop()
    if done.returncode:
        return {"error": (done.stderr or done.stdout)[-300:]}
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    ios = iops = 0
    latency = {}
    for way in ("read", "write"):
        if job[way]["total_ios"]:
            iops += job[way]["iops"]
            ios += job[way]["total_ios"]
            percentiles = job[way]["clat_ns"].get("percentile", {})
            latency[way] = {p.rstrip("0").rstrip("."): ns / 1000 for p, ns in percentiles.items() if p[:4] in ("50.0", "99.0", "99.9")}
    # The ramp counts for the process, not for fio.
    scale = ios * (seconds + RAMP) / seconds
    result = {"iops": iops, "latency_us": latency, "idle": idle}
    if pids and scale:
        result["cpu_us_per_io"] = (after[0] - before[0]) * 1e6 / scale
        result["switches_per_io"] = (after[1] - before[1]) / scale
        result["faults_per_io"] = (after[2] - before[2]) / scale
        if calls is not None:
            result["calls_per_io"] = calls / scale
    return result


def run(measured):
    """Has all that was chosen measured, in turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int)
    parser.add_argument("seconds", type=int)
    parser.add_argument("--set", choices=["peers", "knobs"], default="peers")
    parser.add_argument("--targets")
    parser.add_argument("--cases")
    arguments = parser.parse_args()
    chosen = lambda all, names: [n for n in all if not names or any(re.search(w, n) for w in names.split(";"))]
    all_targets = KNOBS if arguments.set == "knobs" else TARGETS
    targets, cases = chosen(all_targets, arguments.targets), chosen(CASES, arguments.cases)
    with open(IMAGE, "wb") as image:
        for _ in range(SIZE >> 20):
            image.write(os.urandom(1 << 10) * 1024)
    measurements = 0
    for round in range(arguments.rounds):
        # Another order each time, so that nobody is always the first.
        order = targets[round % len(targets):] + targets[:round % len(targets)]
        for name in order:
            target = all_targets[name]
            disk = target.start()
            for case in [case for case in cases if re.search(getattr(target, "only", ""), case)]:
                found = measured(disk, case, arguments.seconds, target, round)
                print(json.dumps({"round": round, "target": name, "case": case, **found}), flush=True)
                measurements += 1
            target.stop()
    # One that got lost on the way must not go unnoticed.
    print(json.dumps({"measurements": measurements}), flush=True)


if __name__ == "__main__":
    run(measure)
