"""What the soak works with: the daemon, disks, verified load, and a look at the gaps between completions. Runs in the guest, as root."""
import errno, glob, json, mmap, os, shutil, signal, subprocess, threading, time
from gi.repository import Gio, GLib

CONFIG = "/sys/kernel/config/target"
MIB = 1 << 20


class Failed(Exception):
    """Something that must not happen."""


def put(path, text):
    """Writes a value as the kernel wants it: in one go."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, str(text).encode())
    finally:
        os.close(fd)


def wait_for(what, seconds, words):
    end = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        if time.monotonic() > end:
            raise Failed(f"did not happen within {seconds} s: {words}")
        time.sleep(0.05)


class Daemon:
    """tcmu-runnerd with plugins of its own to exchange."""

    def __init__(self, directory, plugins):
        self.directory, self.log, self.process = directory, f"{directory}/daemon.log", None
        # A program that is exchanged gets another number for each that ran before it.
        self.epoch = 0
        self.plugins = f"{directory}/plugins"
        os.makedirs(self.plugins, exist_ok=True)
        build = os.environ["TCMU_HANDLER_PATH"]
        for name in plugins:
            found = [path for path in (f"{build}/libhandler_{name}.so", f"{build}/examples/lib{name}.so") if os.path.exists(path)]
            shutil.copy(found[0], f"{self.plugins}/handler_{name}.so")
            os.chmod(f"{self.plugins}/handler_{name}.so", 0o755)
        self.config = f"{directory}/tcmu.toml"
        # A host that hangs is killed, also one that a machine without processor time keeps silent: but not what has its disks in memory.
        with open(self.config, "w") as file:
            file.write('hang_seconds = 2\nhang_action = "restart"\n[handler.alloc]\nhang_action = "report"\n')

    def start(self):
        self.epoch += 1
        with open(self.log, "a") as log:
            said = log.tell()
            command = ["tcmu-runnerd", "--config", self.config, "--handler-path", self.plugins]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

        def ready():
            if self.process.poll() is not None:
                raise Failed(f"the daemon ended: {self.last_words()}")
            with open(self.log) as log:
                log.seek(said)
                return any(line.endswith("ready\n") for line in log)

        wait_for(ready, 30, "the daemon is ready")

    def words(self, since):
        """What it said since its log was so long."""
        with open(self.log) as log:
            log.seek(since)
            return log.read()

    def last_words(self):
        return open(self.log).read()[-2000:]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        if self.process.wait(60):
            raise Failed(f"the daemon ended with status {self.process.returncode}: {self.last_words()}")

    def call(self, method, kinds=None, *values, interface="org.tcmu_runnerd.Control1", path="/org/tcmu_runnerd/Control1",
             name="org.kernel.TCMUService1", seconds=120):
        """Over the bus, as tcmuctl does; a process for each question would take most of the time here."""
        try:
            bus = Gio.bus_get_sync(Gio.BusType.SYSTEM)
            arguments = GLib.Variant(kinds, values) if kinds else None
            flags = Gio.DBusCallFlags.NO_AUTO_START
            return bus.call_sync(name, path, interface, method, arguments, None, flags, seconds * 1000).unpack()
        except GLib.Error as error:
            raise Failed(f"{method}{values}: {error.message}") from error

    def owner(self):
        """The daemon as the bus knows it, if it does."""
        bus = "org.freedesktop.DBus"
        try:
            return self.call("GetNameOwner", "(s)", "org.kernel.TCMUService1", interface=bus, path="/org/freedesktop/DBus", name=bus)
        except Failed:
            return None

    def exchange(self):
        """The program at its path becomes the daemon."""
        before = self.owner()
        self.call("Reload", "(b)", True)
        wait_for(lambda: self.owner() not in (None, before), 90, "another program is the daemon")
        self.epoch += 1

    def devices(self):
        return {row["device"]: row for row in self.call("ListDevices")[0]}

    def handlers(self):
        return {row["subtype"]: row for row in self.call("ListHandlers")[0] if "subtype" in row}

    def pid_of(self, subtype):
        return self.handlers()[subtype]["pid"]


class Disk:
    """A backstore, and the disk that a loopback target makes of it."""

    def __init__(self, number, config, size=64 * MIB):
        self.number, self.config, self.size = number, config, size
        self.id = f"user_{number}/s{number}"
        self.path = f"{CONFIG}/core/{self.id}"
        self.target = f"{CONFIG}/loopback/naa.50014050000{number:05x}"
        self.node = None

    def create(self):
        os.makedirs(self.path)
        put(f"{self.path}/control", f"dev_size={self.size}")
        put(f"{self.path}/control", f"dev_config={self.config}")
        put(f"{self.path}/enable", 1)

    def attach(self):
        tpg = f"{self.target}/tpgt_1"
        os.makedirs(f"{tpg}/lun/lun_0")
        put(f"{tpg}/nexus", f"naa.50014051000{self.number:05x}")
        os.symlink(self.path, f"{tpg}/lun/lun_0/disk")
        address = open(f"{tpg}/address").read().strip()
        found = lambda: glob.glob(f"/sys/bus/scsi/devices/{address}:0/block/*")
        self.node = "/dev/" + os.path.basename(wait_for(found, 60, f"{self.id} is a disk")[0])
        return self.node

    def open(self, flags):
        """The disk; its node comes a moment after it, and may be that of another one before."""
        fd = None

        def opened():
            nonlocal fd
            try:
                fd = os.open(self.node, flags)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENXIO):
                    raise
            return fd is not None

        wait_for(opened, 60, f"{self.node} is there")
        return fd

    def detach(self):
        tpg = f"{self.target}/tpgt_1"
        os.unlink(f"{tpg}/lun/lun_0/disk")
        for directory in (f"{tpg}/lun/lun_0", tpg, self.target):
            os.rmdir(directory)
        self.node = None

    def remove(self):
        """Whoever is interrupted, since the daemon died, tries again."""
        os.rmdir(self.path)
        os.rmdir(os.path.dirname(self.path))

    def resize(self, size):
        put(f"{self.path}/attrib/dev_size", size)
        self.size = size
        block = f"/sys/block/{os.path.basename(self.node)}"
        put(f"{block}/device/rescan", 1)
        wait_for(lambda: int(open(f"{block}/size").read()) * 512 == size, 30, f"{self.id} has {size} bytes")


class Load:
    """Random writes, each read back and compared, until it is told to end."""

    def __init__(self, disk, directory, rate):
        self.disk, self.output = disk, f"{directory}/load-{disk.number}"
        command = ["fio", f"--name=s{disk.number}", f"--filename={disk.node}", "--rw=randwrite", "--bs=4k", "--ioengine=libaio",
                   "--iodepth=8", "--direct=1", "--size=16m", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=64",
                   f"--rate_iops={rate}", "--time_based", "--runtime=86400", "--output-format=json", f"--output={self.output}.json"]
        with open(f"{self.output}.err", "w") as errors:
            self.process = subprocess.Popen(command, stdout=errors, stderr=errors)

    def check(self):
        if self.process.poll() is not None:
            raise Failed(f"the load on {self.disk.id} ended: {open(self.output + '.err').read()[-1000:]}")

    def end(self):
        """What it measured: percentiles of reads and writes, in ms."""
        self.check()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(120)
        text = open(f"{self.output}.json").read()
        job = json.loads(text[text.index("{"):])["jobs"][0]
        if job["error"] or not job["read"]["total_ios"]:
            raise Failed(f"the load on {self.disk.id}: error {job['error']}, {job['read']['total_ios']} blocks compared")
        latency = lambda way: {key[:4]: ns / 1e6 for key, ns in job[way]["clat_ns"]["percentile"].items()}
        return {"compared": job["read"]["total_ios"], "longest": max(job[way]["clat_ns"]["max"] for way in ("read", "write")) / 1e6,
                "read": latency("read"), "write": latency("write")}


class Probe(threading.Thread):
    """Reads a disk's first block again and again. `gaps`: those between completions that were long, as (begin, end)."""

    LONG = 0.1

    def __init__(self, disk):
        super().__init__(daemon=True)
        self.disk, self.gaps, self.error, self.running = disk, [], None, True
        self.start()

    def run(self):
        fd = self.disk.open(os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, 4096)
        last = time.monotonic()
        while self.running:
            try:
                os.preadv(fd, [buffer], 0)
            except OSError as error:
                self.error = f"the prober of {self.disk.id}: {error}"
                break
            now = time.monotonic()
            if now - last > self.LONG:
                self.gaps.append((last, now))
            time.sleep(0.03)
            last = time.monotonic()
        os.close(fd)

    def end(self):
        self.running = False
        self.join(60)
        if self.error or self.is_alive():
            raise Failed(self.error or f"the prober of {self.disk.id} hangs")
