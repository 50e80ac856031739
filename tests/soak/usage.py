"""What the daemon's processes use: anonymous memory, descriptors, threads. The kernel's slabs are not looked at."""
import os, time
from parts import Failed

# How much more may be in use at the end than at the beginning: memory of the allocator's arenas comes late; the others are counted.
MEMORY_KIB, MEMORY_PART = 2048, 0.25


def processes():
    """All processes, as (pid, words of the command line)."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield int(pid), open(f"/proc/{pid}/cmdline").read().split("\0")
        except OSError:
            pass


def hosts():
    """Of handler hosts: their processes by subtype, those that are kept ready as well."""
    found = {}
    for pid, words in processes():
        if words[1:2] == ["handler-host"]:
            found.setdefault(words[2], []).append(pid)
    return found


def usage(pid):
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
    return int(status["RssAnon"].split()[0]), len(os.listdir(f"/proc/{pid}/fd")), threads(pid)


def threads(pid):
    """How many there are, but for io_uring's own, which the kernel makes as I/O blocks and ends when there is none."""
    names = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            names.append(open(f"/proc/{pid}/task/{task}/comm").read())
        except OSError:
            pass
    return sum(not name.startswith("iou-") for name in names)


def zombies(parent):
    """Children that ended and were not waited for."""
    count = 0
    for pid, _ in processes():
        try:
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        count += fields[0] == "Z" and int(fields[1]) == parent
    return count


class Usage:
    """Samples of each process's life."""

    def __init__(self, daemon, handlers):
        self.daemon, self.handlers, self.lives, self.zombies = daemon, handlers, {}, 0

    def sample(self):
        # Each handler has a process that serves and one that is ready. One that could not be started is tried again after a minute.
        end = time.monotonic() + 75
        while sorted(map(len, hosts().values())) != [2] * self.handlers:
            if time.monotonic() > end:
                raise Failed(f"hosts are not two for each handler: {hosts()}")
            time.sleep(0.2)
        time.sleep(1)
        serving = {name: row["pid"] for name, row in self.daemon.handlers().items()}
        supervisor = self.daemon.process.pid
        names = {("supervisor", supervisor, self.daemon.epoch): supervisor}
        names |= {(f"host of {name}", pid, 0): pid for name, pid in serving.items()}
        for key, pid in names.items():
            # Threads come and go with requests: what is always there counts.
            rows = []
            for _ in range(4):
                rows.append(usage(pid))
                time.sleep(0.1)
            self.lives.setdefault(key, []).append(tuple(map(min, zip(*rows))))
        self.zombies = max(self.zombies, zombies(supervisor))

    def ends(self):
        """The beginning and the end of each life that was seen more than once: the least of the first and the last third."""
        for (name, _, _), samples in self.lives.items():
            if len(samples) > 1:
                third = -(-len(samples) // 3)
                least = lambda part: tuple(map(min, zip(*part)))
                yield name, len(samples), least(samples[:third]), least(samples[-third:])

    def leaks(self):
        """What grew by more than it may."""
        grown = [f"{self.zombies} processes were not waited for"] if self.zombies else []
        for name, _, first, last in self.ends():
            limits = (first[0] + MEMORY_KIB + first[0] * MEMORY_PART, first[1], first[2])
            for what, before, after, limit in zip(("KiB of memory", "descriptors", "threads"), first, last, limits):
                if after > limit:
                    grown.append(f"{name}: from {before} to {after} {what}")
        return grown

    def summary(self):
        longest = {}
        for name, count, first, last in self.ends():
            if count >= longest.get(name, (0,))[0]:
                longest[name] = count, first, last
        words = lambda first, last: ", ".join(f"{a}-{b} {what}" for a, b, what in zip(first, last, ("KiB", "fds", "threads")))
        return "; ".join(f"{name}: {words(first, last)}" for name, (_, first, last) in sorted(longest.items()))
