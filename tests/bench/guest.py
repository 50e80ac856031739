#!/usr/bin/env python3
"""Measures disks of several makers in turn, in one boot, and prints one JSON object a line. All of them are there all the time, and idle
while it is another's turn: so those that are compared with each other are measured within a minute or two, since on a machine that others
share everything may be twice as slow a minute later.

guest.py ROUNDS SECONDS [--set knobs] [--targets 'A;B'] [--cases 'A;B']   in the guest, as root, with tcmu-runnerd and `bare` on PATH
"""
import argparse, glob, json, os, re, shutil, signal, statistics, subprocess, sys, threading, time

CONFIG = "/sys/kernel/config/target"
SIZE = 256 << 20
IMAGES = "/tmp/bench-images"
IMAGE = f"{IMAGES}/image"

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


def loopback(number, path):
    before = set(glob.glob("/sys/block/sd*"))
    tpg = f"{CONFIG}/loopback/naa.50014050000001{number:02x}/tpgt_1"
    os.makedirs(f"{tpg}/lun/lun_0")
    put(f"{tpg}/nexus", f"naa.50014050000002{number:02x}")
    os.symlink(path, f"{tpg}/lun/lun_0/disk")
    disk = wait_for(lambda: set(glob.glob("/sys/block/sd*")) - before).pop()
    wait_for(lambda: int(open(f"{disk}/size").read()) * 512 == SIZE)
    subprocess.run(["udevadm", "settle", "-t", "10"])
    put(f"{disk}/queue/scheduler", "none")
    return "/dev/" + os.path.basename(disk)


class Tcmu:
    """A user: backstore, and the process behind it."""

    process = None

    def __init__(self, config, *limits, only="", filled=False):
        self.config, self.limits, self.only, self.filled = config, limits, only, filled

    def make(self, number):
        self.number = number
        self.path = backstore(f"user_{number}", "b", [f"dev_size={SIZE}", f"dev_config={self.config}", *self.limits])

    def start(self):
        disk = loopback(self.number, self.path)
        if self.filled:
            # As the files are: the first touch of each page is not what is measured.
            subprocess.run(["dd", f"if={image('image')}", f"of={disk}", "bs=1M", "oflag=direct", "status=none"], check=True)
        return disk

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
    """By one daemon, all of them."""

    def make(self, number):
        if not Ours.process:
            log = open("/tmp/bench-daemon.log", "w")
            Ours.process = subprocess.Popen(["tcmu-runnerd"], stderr=log, stdout=log)
            wait_for(lambda: "ready" in open("/tmp/bench-daemon.log").read())
        super().make(number)


class Unasked(Tcmu):
    """By a process that is there only after the device: the kernel must not wait for its answer, nor take another's."""

    def make(self, number):
        self.limits = (*self.limits, "nl_reply_supported=-1")
        super().make(number)


class Runner(Unasked):
    """By one daemon, all of them. It would refuse what others serve, and they what it does."""

    def start(self):
        if not Runner.process:
            Runner.process = subprocess.Popen(["/usr/bin/tcmu-runner"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(2)
        return super().start()


class Bare(Unasked):
    def __init__(self, poll, *image, only=""):
        super().__init__("bare/bare", only=only)
        self.poll, self.image = poll, image

    def start(self):
        name = f"tcm-user/{self.number}/"
        uio = wait_for(lambda: [u for u in glob.glob("/sys/class/uio/uio*") if open(u + "/name").read().startswith(name)])[0]
        size = open(uio + "/maps/map0/size").read().strip()
        arguments = ["bare", "/dev/" + os.path.basename(uio), size, str(SIZE), str(self.poll), *self.image]
        self.process = subprocess.Popen(arguments)
        return super().start()


class Kernel:
    def __init__(self, plugin, settings):
        self.plugin, self.settings = plugin, settings

    def make(self, number):
        self.number, self.path = number, backstore(f"{self.plugin}_{number}", "b", self.settings)

    def start(self):
        return loopback(self.number, self.path)

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
    "LIO fileio": Kernel("fileio", [f"fd_dev_name={IMAGE},fd_dev_size={SIZE},fd_buffered_io=1"]),
    "LIO ramdisk": Kernel("rd_mcp", [f"rd_pages={SIZE // 4096}"]),
    # As tcmuctl makes them.
    "null": Ours("null/x;fill=off", "hw_max_sectors=2048"),
    "alloc": Ours("alloc/x", "hw_max_sectors=2048", filled=True),
    "file": Ours(f"file/{IMAGE}", "hw_max_sectors=2048"),
    # The other way round.
    "file, 128 sectors": Ours(f"file/{IMAGE}-128", only="128k|1M"),
    "tcmu-runner qcow, 2048 sectors": Runner(f"qcow/{IMAGE}", "hw_max_sectors=2048", only="128k|1M"),
}

LARGE, SMALL = "128k|1M", "4k rand.*, depth 32"
# name: limits of the kernel, and the cases in which they matter
LIMITS = {
    "as the kernel has them": ([], f"{LARGE}|{SMALL}"),
    "hw_max_sectors 512": (["hw_max_sectors=512"], LARGE),
    "hw_max_sectors 2048": (["hw_max_sectors=2048"], LARGE),
    "hw_max_sectors 8192": (["hw_max_sectors=8192"], LARGE),
    "max_data_area_mb 1": (["max_data_area_mb=1"], f"{LARGE}|{SMALL}"),
    "max_data_area_mb 8": (["max_data_area_mb=8"], f"{LARGE}|{SMALL}"),
    "data_pages_per_blk 16": (["data_pages_per_blk=16"], f"{LARGE}|{SMALL}"),
    "cmd_ring_size_mb 1": (["cmd_ring_size_mb=1"], SMALL),
}
# Each with an image of its own, since `file` locks them.
KNOBS = {name: Ours(f"file/{IMAGE}-{n}", *limits, only=only) for n, (name, (limits, only)) in enumerate(LIMITS.items())}


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


def options_of(case):
    return dict(option.split("=") for option in CASES[case].split())


def done_on(disk, case):
    """How many of its I/Os a disk has done, as a program counts them: the kernel may divide them, or join some."""
    fields = open(f"/sys/block/{os.path.basename(disk)}/stat").read().split()
    size, unit = re.match(r"(\d+)(.)", options_of(case)["bs"]).groups()
    return (int(fields[2]) + int(fields[6])) * 512 / (int(size) << {"k": 10, "M": 20}[unit])


def fio(disk, case, seconds, ramp=RAMP):
    """The command that measures a case."""
    options = options_of(case)
    command = ["fio", "--name=b", f"--filename={disk}", "--direct=1", "--ioengine=libaio", "--output-format=json", "--group_reporting",
               "--time_based", f"--runtime={seconds}", f"--ramp_time={ramp * 1000:.0f}ms", "--norandommap", "--randrepeat=0"]
    return command + [f"--{name}={value}" for name, value in options.items()]


def measure(disk, case, seconds, target):
    pids, first, idle = target.processes(), done_on(disk, case), Idle()
    load = subprocess.Popen(fio(disk, case, seconds), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: done_on(disk, case) > first or load.poll() is not None)
    # What I/Os cost is counted when fio counts them.
    time.sleep(RAMP)
    before, first = usage(pids), done_on(disk, case)
    output, errors = load.communicate()
    after, ios, idle = usage(pids), done_on(disk, case) - first, idle.stop()
    if load.returncode:
        return {"error": (errors or output)[-300:]}
    job = json.loads(output[output.index("{"):])["jobs"][0]
    iops, latency = 0, {}
    for way in ("read", "write"):
        if job[way]["total_ios"]:
            iops += job[way]["iops"]
            percentiles = job[way]["clat_ns"].get("percentile", {})
            latency[way] = {p.rstrip("0").rstrip("."): ns / 1000 for p, ns in percentiles.items() if p[:4] in ("50.0", "99.0", "99.9")}
    result = {"iops": iops, "latency_us": latency, "idle": idle}
    if pids and ios:
        result["cpu_us_per_io"] = (after[0] - before[0]) * 1e6 / ios
        result["switches_per_io"] = (after[1] - before[1]) / ios
        result["faults_per_io"] = (after[2] - before[2]) / ios
    return result


class Calls:
    """Counts system calls, in a pass of its own: it costs everybody something. The kernel changes its own code when the first begins to count
    and when the last ends, which an emulator may not survive while others run it; so that is done once, while nobody does anything."""

    EVENTS = ["-e", "raw_syscalls:sys_enter", "-x", ","]

    def __enter__(self):
        held = ["perf", "stat", *self.EVENTS, "-o", "/tmp/perf-held.out", "-p", str(os.getpid())]
        self.held = subprocess.Popen(held)
        time.sleep(3)
        return self

    def __exit__(self, *_):
        self.held.send_signal(signal.SIGINT)
        self.held.wait()
        time.sleep(1)

    def measure(self, disk, case, target):
        pids, first = target.processes(), done_on(disk, case)
        counting = ["perf", "stat", *self.EVENTS, "-o", "/tmp/perf.out", "-p", ",".join(map(str, pids)), "--"]
        done = subprocess.run([*counting, *fio(disk, case, 1, ramp=1)], capture_output=True, text=True)
        count = re.search(r"^(\d+),", open("/tmp/perf.out").read(), re.M)
        if done.returncode or not count:
            return {"error": f"calls: {done.stderr[-300:]}"}
        return {"calls_per_io": int(count[1]) / (done_on(disk, case) - first)}


def image(name):
    """The path of an image, which is made if it is not there."""
    path = f"{IMAGES}/{name}"
    if not os.path.exists(path):
        with open(path, "wb") as file:
            for _ in range(SIZE >> 20):
                file.write(os.urandom(1 << 10) * 1024)
    return path


def make_images(target):
    for setting in [getattr(target, "config", ""), *getattr(target, "settings", []), *getattr(target, "image", [])]:
        for name in re.findall(f"{IMAGES}/([-0-9a-z]+)", setting):
            image(name)


def run(measured, calls=None):
    """Has all that was chosen measured, in turns; and before that system calls counted."""
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
    os.makedirs(IMAGES)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3g", "tmpfs", IMAGES], check=True)
    for number, name in enumerate(targets):
        make_images(all_targets[name])
        all_targets[name].make(number)
    disks = {name: all_targets[name].start() for name in targets}
    # Whenever fio has opened one for writing it would be read, to see what is on it now.
    subprocess.run(["udevadm", "control", "--stop-exec-queue"], check=True)
    measurements = 0

    def turns(number, measured):
        nonlocal measurements
        for at, case in enumerate(cases):
            # Another order each time, so that nobody is always the first.
            first = (5 * number + at) % len(targets)
            for name in targets[first:] + targets[:first]:
                target = all_targets[name]
                if re.search(getattr(target, "only", ""), case) and (found := measured(disks[name], case, target)):
                    print(json.dumps({"round": number, "target": name, "case": case, **found}), flush=True)
                    measurements += 1

    if calls and shutil.which("perf"):
        with calls:
            turns(0, lambda disk, case, target: target.processes() and calls.measure(disk, case, target))
    for round in range(arguments.rounds):
        turns(round, lambda disk, case, target: measured(disk, case, arguments.seconds, target))
    # One that got lost on the way must not go unnoticed.
    print(json.dumps({"measurements": measurements}), flush=True)
    # The machine is thrown away, with everything in it.
    os._exit(0)


if __name__ == "__main__":
    run(measure, Calls())
