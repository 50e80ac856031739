#!/usr/bin/env python3
"""What survives a power cut, by dm-log-writes: the kernel records what reaches a device and in which order, and keeps out of the log what
no flush made stable. So each beginning of the log is what the device holds if the power fails there.

    power_cut.py write DISK DM_NAME RECORD SECONDS   writes to a disk whose image is on the device, and notes what has to be stable when
    power_cut.py check LOG RECORD                    looks at every beginning of the log; the image is the device itself
    power_cut.py cut LOG RECORD OUT FS DIR CUTS SEED  puts what is left after each of some random cuts on the device OUT, mounts it (as FS, on
                                                     DIR), and looks at the image that is the file a.img there

What has to be stable is known as promises: at a mark in the log, each block is of this version or a later one."""
import fcntl, json, os, random, struct, subprocess, sys, threading, time

from sg import Disk

SECTOR, BLOCK, BLOCKS = 512, 4096, 2048
STAMP = struct.Struct("<8sIIQ")  # magic, block, sector in it, version


def data_of(block, version):
    return b"".join(STAMP.pack(b"powercut", block, sector, version).ljust(SECTOR, b"\xa5") for sector in range(8))


def version_of(sector, block, at):
    """The version of a sector; 0 if nothing was written there."""
    magic, of_block, of_sector, version = STAMP.unpack_from(sector)
    if magic != b"powercut":
        return 0
    if (of_block, of_sector) != (block, at):
        sys.exit(f"block {block} sector {at} holds block {of_block} sector {of_sector}")
    return version


def mark(name, text):
    """`dmsetup message NAME 0 mark TEXT`, without starting a program."""
    message = struct.pack("<Q", 0) + b"mark " + text.encode() + b"\0"
    header = struct.pack("<3I7IQ128s129s7s", 4, 0, 0, 312 + len(message), 312, 0, 0, 0, 0, 0, 0, name.encode(), b"", b"")
    with open("/dev/mapper/control", "rb+", buffering=0) as control:
        fcntl.ioctl(control, 3 << 30 | 312 << 16 | 0xFD << 8 | 14, bytearray(header + message))


class Writer:
    """Writes, and notes promises."""

    def __init__(self, path, name):
        self.disk, self.name = Disk(path), name
        self.completed = [0] * BLOCKS  # versions; each block is written by one thread
        self.counter, self.lock = 0, threading.Lock()
        self.promises, self.running, self.failure = [], True, None
        self.random = random.Random(time.time_ns())

    def version(self):
        with self.lock:
            self.counter += 1
            return self.counter

    def write(self, block, count, fua=False):
        version = self.version()
        data = b"".join(data_of(block + n, version) for n in range(count))
        status = self.disk.write(block * 8, data, fua=fua)
        if status != "good":
            raise RuntimeError(f"write: {status}")
        self.completed[block : block + count] = [version] * count
        return version

    def promise(self, kind, stable):
        """All of this is stable by now."""
        text = f"{kind}{len(self.promises)}"
        mark(self.name, text)
        self.promises.append((text, stable))

    def load(self, first, blocks, pause):
        """Writes without FUA to some of the blocks, until it is told to stop."""
        pick = random.Random(first)
        try:
            while self.running:
                count = pick.choice((1, 1, 1, 2, 8))
                self.write(first + pick.randrange(blocks - count), count)
                time.sleep(pick.random() * pause)
        except Exception as error:
            self.failure = error

    def during(self, seconds, threads, step):
        """Calls `step` again and again while threads write to the first half of the blocks."""
        self.running = True
        share = BLOCKS // 2 // 3
        load = [threading.Thread(target=self.load, args=(n * share, share, 0.005)) for n in range(threads)]
        for thread in load:
            thread.start()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end and not self.failure:
                step()
        finally:
            self.running = False
            for thread in load:
                thread.join()
        if self.failure:
            raise self.failure

    def flush(self):
        time.sleep(self.random.random() * 0.05)
        # Completed before the flush is sent: that is what it promises.
        stable = list(self.completed)
        status = self.disk.sync()
        if status != "good":
            raise RuntimeError(f"flush: {status}")
        self.promise("flush", stable)

    def single(self, kind, fua):
        """A write that is stable when it is done, and nothing else is."""
        block = BLOCKS // 2 + self.random.randrange(BLOCKS // 4 - 8)
        count = self.random.choice((1, 2, 8))
        version = self.write(block, count, fua=fua)
        self.promise(kind, {block + n: version for n in range(count)})

    def run(self, seconds):
        page, device = self.disk.caching_page()
        changeable, _ = self.disk.caching_page(changeable=True)
        if not page[2] & 4 or not changeable[2] & 4 or not device & 0x10:
            sys.exit("the mode page does not say: write cache on, changeable, DPO and FUA")
        self.during(seconds, 3, self.flush)
        self.during(seconds, 3, lambda: self.single("fua", True))
        if self.disk.write_cache(False) != "good" or self.disk.caching_page()[0][2] & 4:
            sys.exit("the write cache cannot be switched off")
        self.during(seconds / 2, 0, lambda: self.single("through", False))
        if self.disk.write_cache(True) != "good" or not self.disk.caching_page()[0][2] & 4:
            sys.exit("the write cache cannot be switched on")
        # And what nobody flushed: to know that the log keeps it out.
        for n in range(64):
            self.write(BLOCKS * 3 // 4 + n * 8, 8)
        mark(self.name, "control")
        return {"promises": self.promises, "control": self.completed[BLOCKS * 3 // 4 :]}


def entries(log):
    """The log's entries (drivers/md/dm-log-writes.c): kind, first sector, data or the mark's text."""
    with open(log, "rb") as file:
        magic, version, count, size = struct.unpack("<3QI", file.read(28))
        if magic != 0x6A736677736872 or version != 1:
            sys.exit(f"{log} is no log of dm-log-writes")
        at = size
        for _ in range(count):
            file.seek(at)
            sector, sectors, flags, length = struct.unpack("<4Q", file.read(32))
            at += size
            if flags & 8:
                yield "mark", 0, file.read(length).rstrip(b"\0").decode()
            elif flags & 4:
                yield "discard", sector * (size // SECTOR), sectors * size
            else:
                file.seek(at)
                yield "write", sector * (size // SECTOR), file.read(sectors * size)
                at += sectors * size


def check(log, record):
    promises = dict(record["promises"])
    versions = [0] * (BLOCKS * 8)  # of each sector
    least = [0] * BLOCKS  # what was promised so far, and holds for ever
    found, points, lost = {}, 0, None

    def judge(block, where):
        for at in range(8):
            if versions[block * 8 + at] < least[block]:
                sys.exit(f"{where}: block {block} is of version {versions[block * 8 + at]}, {least[block]} was stable")

    for kind, sector, value in entries(log):
        points += 1
        if kind == "mark" and value == "control":
            first = BLOCKS * 3 // 4
            lost = sum(versions[(first + n) * 8] < version for n, version in enumerate(record["control"]))
        elif kind == "mark" and value in promises:
            promised = promises[value]
            changed = ((int(block), version) for block, version in promised.items()) if isinstance(promised, dict) else enumerate(promised)
            for block, version in changed:
                if version > least[block]:
                    least[block] = version
                    judge(block, f"at {value}")
            name = value.rstrip("0123456789")
            found[name] = found.get(name, 0) + 1
        elif kind == "write":
            touched = set()
            for n in range(len(value) // SECTOR):
                block, at = divmod(sector + n, 8)
                versions[block * 8 + at] = version_of(value[n * SECTOR : (n + 1) * SECTOR], block, at)
                touched.add(block)
            for block in touched:
                judge(block, f"entry {points}")
    if sum(found.values()) != len(promises) or lost is None:
        sys.exit(f"{len(promises)} promises, {sum(found.values())} in the log; control: {lost}")
    if not lost:
        sys.exit("what nobody flushed survived too: the log shows nothing")
    kinds = ", ".join(f"{count} {name}" for name, count in found.items())
    print(f"{points} power cuts, {kinds}: all promises held; of {len(record['control'])} blocks that nobody flushed {lost} were lost")


def cut(log, record, out, fs, directory, cuts, seed):
    """Cuts at random entries, of those from the first promise on."""
    promises = dict(record["promises"])
    kinds = [kind == "mark" and value in promises for kind, _, value in entries(log)]
    places = sorted(random.Random(seed).sample(range(kinds.index(True) + 1, len(kinds)), cuts))
    device, last = bytearray(), None
    for n, (kind, sector, value) in enumerate(entries(log)):
        if n in places:
            with open(out, "wb") as file:
                file.write(device)
            subprocess.run(["mount", "-t", fs, out, directory], check=True)
            image(f"{directory}/a.img", record, last)
            subprocess.run(["umount", directory], check=True)
        if kind == "mark":
            last = value if value in promises else last
            continue
        at, length = sector * SECTOR, value if kind == "discard" else len(value)
        device.extend(bytes(max(0, at + length - len(device))))
        device[at : at + length] = bytes(length) if kind == "discard" else value
    print(f"{cuts} random power cuts of {len(kinds)} (seed {seed}), recovered by {fs}: all promises held")


def image(path, record, name):
    """Of promises of single writes all that came before hold as well."""
    least = [0] * BLOCKS
    for text, promised in record["promises"]:
        pairs = ((int(block), version) for block, version in promised.items()) if isinstance(promised, dict) else enumerate(promised)
        for block, version in pairs:
            least[block] = max(least[block], version)
        if text == name:
            break
    with open(path, "rb") as file:
        for block in range(BLOCKS):
            data = file.read(BLOCK).ljust(BLOCK, b"\0")
            for at in range(8):
                version = version_of(data[at * SECTOR : (at + 1) * SECTOR], block, at)
                if version < least[block]:
                    sys.exit(f"after {name}: block {block} is of version {version}, {least[block]} was stable")


def main(what, *arguments):
    record = lambda path: json.load(open(path))
    if what == "write":
        disk, name, path, seconds = arguments
        with open(path, "w") as file:
            json.dump(Writer(disk, name).run(float(seconds)), file)
    elif what == "check":
        check(arguments[0], record(arguments[1]))
    elif what == "cut":
        log, path, out, fs, directory, cuts, seed = arguments
        cut(log, record(path), out, fs, directory, int(cuts), int(seed))


if __name__ == "__main__":
    main(*sys.argv[1:])
