#!/usr/bin/python3
"""Mixed verified load on several disks while hosts and the supervisor are killed, handlers hang and are restarted, the program is exchanged,
disks are resized, and others come and go, in an order that a seed decides; then a calm while, in which nobody's memory, descriptors and
threads may grow. Ends with a summary. Runs in the guest, as root: `cargo xtask soak`, and for a minute in the end-to-end tests."""
import argparse, collections, errno, os, random, re, shutil, subprocess, sys, threading, time
from parts import MIB, Daemon, Disk, Failed, Load, Probe, wait_for
from usage import Usage, hosts

# What a tool may be told while the daemon or a host is away: it was interrupted, is to try again, or its handler died of something else.
REFUSED = {errno.EINTR, errno.EAGAIN, errno.EIO, errno.ETIMEDOUT}
# How often each happens, once all have happened.
WEIGHTS = {"host killed": 4, "plugin crashed": 2, "plugin aborted": 1, "handler hung": 1, "supervisor killed": 2, "handler restarted": 2,
           "reload": 1, "program exchanged": 2, "resized": 3, "nothing": 1}
# An event after which all is well so late, in seconds, is shown with what the daemon said meanwhile.
LONG = 20
# Where nothing breaks.
CALM = ["resized", "reload", "nothing"]
# No disk that is looked at becomes smaller, and the loads stay below.
SMALLEST = 48 * MIB


class Churn(threading.Thread):
    """Other disks that come and go meanwhile; some are written and read. `pause` holds it between two."""

    def __init__(self, directory, seed):
        super().__init__(daemon=True)
        self.directory, self.random = directory, random.Random(seed)
        self.pause, self.counts, self.error, self.running = threading.Lock(), collections.Counter(), None, True

    def run(self):
        number = 100
        try:
            while self.running:
                number += 1
                with self.pause:
                    self.one(number)
                time.sleep(self.random.uniform(0.05, 0.5))
        except (Failed, OSError) as error:
            self.error = f"device churn, disk {number}: {error}"

    def one(self, number):
        handler = self.random.choice(["file", "fault", "alloc"])
        image = f"{self.directory}/churn-{number}"
        disk = Disk(number, f"{handler}/{image}", 8 * MIB)
        try:
            disk.create()
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            self.counts["refused"] += 1
        else:
            self.counts["added"] += 1
            if self.random.random() < 0.3:
                self.use(disk)
        disk.remove()
        if os.path.exists(image):
            os.unlink(image)

    def use(self, disk):
        disk.attach()
        text = self.random.randbytes(256 << 10)
        fd = disk.open(os.O_RDWR)
        try:
            os.pwrite(fd, text, 2 * MIB)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if os.pread(fd, len(text), 2 * MIB) != text:
                raise Failed("what was read is not what was written")
        finally:
            os.close(fd)
        disk.detach()
        self.counts["used"] += 1

    def end(self):
        self.running = False
        self.join(120)
        if self.error or self.is_alive():
            raise Failed(self.error or "device churn hangs")


def complaints(disks):
    """What the kernel must not say."""
    said = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    bad = re.findall("^.*(?:ring is broken|blocked for more than|WARNING:|BUG:).*$", said, re.M)
    # Other disks are read by udev up to their end, and so are these beyond the end that they have by then: what fails there is no fault.
    nodes = [os.path.basename(disk.node) for disk in disks]
    for error in re.finditer(r"^.*error, dev (\w+), sector (\d+) .*$", said, re.M):
        if error[1] in nodes and int(error[2]) * 512 < SMALLEST:
            bad.append(error[0])
    if bad:
        raise Failed(f"the kernel complained: {bad[:3]}")


class Soak:
    """Events, one after the other; each ends when all disks are served again."""

    def __init__(self, directory, seed, rate):
        self.random, self.directory, self.rate = random.Random(seed), directory, rate
        self.daemon = Daemon(directory, ["file", "alloc", "fault"])
        configs = [f"file/{directory}/a", f"file/{directory}/b", "alloc/c", f"fault/{directory}/d"]
        self.disks = [Disk(number + 1, config) for number, config in enumerate(configs)]
        self.churn, self.usage = Churn(directory, seed + 1), Usage(self.daemon, handlers=3)
        self.events, self.deck, self.measured = [], [], []

    def start(self):
        self.daemon.start()
        for disk in self.disks:
            disk.create()
            disk.attach()
            os.close(disk.open(os.O_RDONLY))
        self.loads = [Load(disk, self.directory, self.rate) for disk in self.disks]
        self.probes = [Probe(disk) for disk in self.disks]

    def end(self):
        """All loads ran to here, and nothing is left behind."""
        self.churn.end()
        for probe in self.probes:
            probe.end()
        self.measured = [load.end() for load in self.loads]
        complaints(self.disks)
        for disk in self.disks:
            disk.detach()
            disk.remove()
        self.daemon.stop()
        if hosts():
            raise Failed(f"hosts are left behind: {hosts()}")
        left = os.listdir("/run/tcmu-runnerd")
        if left != ["lock"]:
            raise Failed(f"left in the run directory: {left}")

    def settled(self):
        """Waits until all disks are served."""

        def serving():
            try:
                devices = self.daemon.devices()
            except Failed:
                return False  # the bus may not have heard of the next daemon yet
            return all(devices.get(disk.id, {}).get("state") == "serving" for disk in self.disks)

        wait_for(serving, 90, "all disks are served")
        for load in self.loads:
            load.check()
        if self.churn.error:
            raise Failed(self.churn.error)

    def step(self, kinds):
        if not self.deck:
            # All of them once, then as often as they weigh.
            weights = WEIGHTS if self.events else dict.fromkeys(WEIGHTS, 1)
            self.deck = [kind for kind in kinds for _ in range(weights[kind])]
            self.random.shuffle(self.deck)
        kind = self.deck.pop()
        begin, said = time.monotonic(), os.path.getsize(self.daemon.log)
        getattr(self, kind.replace(" ", "_"))()
        self.settled()
        if time.monotonic() - begin > LONG:
            print(self.daemon.words(said), flush=True)
        self.events.append((kind, begin, time.monotonic()))
        print(f"{begin - self.begin:7.1f} s: {kind}; all is well after {time.monotonic() - begin:.1f} s", flush=True)
        time.sleep(self.random.uniform(0.1, 1.5))

    def ends(self, subtype, do):
        """The host of a handler ends by this."""
        pid = wait_for(lambda: self.daemon.pid_of(subtype), 30, f"{subtype} has a host")
        do(pid)
        wait_for(lambda: self.daemon.pid_of(subtype) not in (0, pid), 60, f"the host {pid} of {subtype} ended")

    def say(self, word):
        with open(f"{self.directory}/d.next", "w") as file:
            file.write(word)
        os.rename(f"{self.directory}/d.next", f"{self.directory}/d.fault")

    def host_killed(self):
        self.ends(self.random.choice(["file", "fault"]), lambda pid: os.kill(pid, 9))

    def plugin_crashed(self):
        self.ends("fault", lambda _: self.say("segv"))

    def plugin_aborted(self):
        self.ends("fault", lambda _: self.say("abort"))

    def handler_hung(self):
        self.ends("fault", lambda _: self.say(self.random.choice(["hang", "keep"])))

    def supervisor_killed(self):
        self.daemon.kill()
        time.sleep(self.random.uniform(0, 1))
        self.daemon.start()

    def handler_restarted(self):
        self.daemon.call("RestartHandler", "(s)", self.random.choice(["file", "fault"]))

    def reload(self):
        self.daemon.call("Reload", "(b)", False)

    def program_exchanged(self):
        self.daemon.exchange()

    def resized(self):
        disk = self.random.choice([disk for disk in self.disks if not disk.config.startswith("fault")])
        disk.resize(self.random.randrange(SMALLEST // MIB, 128) * MIB)

    def nothing(self):
        time.sleep(1)

    def look(self):
        """Takes a sample of what everybody uses, while no other disk is there."""
        with self.churn.pause:
            self.usage.sample()

    def run(self, seconds):
        self.begin = time.monotonic()
        passed = lambda: (time.monotonic() - self.begin) / seconds
        self.start()
        self.settled()
        self.quiet = (time.monotonic(), time.monotonic() + 5)
        time.sleep(5)
        self.churn.start()
        while passed() < 0.75 or len(self.events) < len(WEIGHTS):
            self.step(WEIGHTS)
            # Often enough for a trend in a long run; a sample waits until all is as it should be.
            if len(self.events) % 6 == 0 and seconds > 300:
                self.look()
        self.deck = []
        self.look()
        # At least a few rounds, however long the others took.
        rounds = 0
        while passed() < 1 or rounds < 4:
            self.step(CALM)
            rounds += 1
            if rounds % 6 == 0:
                self.look()
        self.look()
        self.end()

    def gaps(self):
        """The gaps between completions, in ms, by what happened then; and those when nothing did and nobody churned."""
        found = collections.defaultdict(list)
        for begin, end in (gap for probe in self.probes for gap in probe.gaps):
            overlap = lambda event: min(end, event[2]) - max(begin, event[1])
            kind = "quiet" if end <= self.quiet[1] else max(self.events, key=overlap)[0]
            found[kind].append((end - begin) * 1000)
        return {kind: sorted(gaps, reverse=True) for kind, gaps in found.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--rate", type=int, default=100, help="reads and writes a second, each, of each disk")
    parser.add_argument("--directory", default="/tmp/soak")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    shutil.rmtree(arguments.directory, ignore_errors=True)
    os.makedirs(arguments.directory)
    print(f"soak: {arguments.seconds} s, seed {seed}", flush=True)
    soak = Soak(arguments.directory, seed, arguments.rate)
    try:
        soak.run(arguments.seconds)
    except (Failed, OSError, subprocess.SubprocessError) as failure:
        done = ", ".join(kind for kind, _, _ in soak.events)
        print(f"events so far: {done}\nthe daemon's last words:\n{soak.daemon.last_words()}")
        if soak.measured:
            summary(soak)
        sys.exit(f"soak: seed {seed}: FAILED: {failure}")
    summary(soak)
    if leaks := soak.usage.leaks():
        sys.exit(f"soak: seed {seed}: FAILED: grew: {'; '.join(leaks)}")


def summary(soak):
    counts, gaps, churn = collections.Counter(kind for kind, _, _ in soak.events), soak.gaps(), soak.churn.counts
    print(f"events: {', '.join(f'{count} {kind}' for kind, count in sorted(counts.items()))}")
    print(f"other disks: {churn['added']} added and removed, {churn['used']} of them used, {churn['refused']} refused meanwhile")
    worst = lambda kind: f"{kind} {gaps[kind][0]:.0f}" if kind in gaps else f"{kind} <100"
    kinds = ["quiet", *sorted(counts)]
    print(f"longest pause of any disk in ms, by event: {', '.join(map(worst, kinds))}")
    for disk, load in zip(soak.disks, soak.measured):
        figures = lambda way: " ".join(f"{load[way][p]:.1f}" for p in ("50.0", "99.0", "99.9"))
        print(f"{disk.config.split('/')[0]} disk {disk.number}: {load['compared']} blocks compared; ms at 50, 99, 99.9 %: "
              f"read {figures('read')}, write {figures('write')}; longest {load['longest']:.0f}")
    print(soak.usage.summary(), flush=True)


main()
