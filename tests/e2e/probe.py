#!/usr/bin/env python3
"""Reads a disk's first block again and again, O_DIRECT, until it is told to stop (SIGTERM). Prints the gaps between completions above a
limit, in milliseconds, longest first, after the longest one of all: probe.py DISK LIMIT_MS BEGUN, a file that it makes when it has begun."""
import mmap, os, signal, sys, time

disk, limit = sys.argv[1], float(sys.argv[2])
fd = os.open(disk, os.O_RDONLY | os.O_DIRECT)
buffer = mmap.mmap(-1, 4096)
running = True


def stop(*_):
    global running
    running = False


signal.signal(signal.SIGTERM, stop)
open(sys.argv[3], "w").close()
longest, gaps = 0, []
last = time.monotonic()
while running:
    if os.preadv(fd, [buffer], 0) != 4096:
        sys.exit("short read")
    now = time.monotonic()
    gap = (now - last) * 1000
    longest = max(longest, gap)
    if gap > limit:
        gaps.append(gap)
    time.sleep(0.005)
    last = now
gaps.sort(reverse=True)
print(" ".join(f"{gap:.0f}" for gap in [longest] + gaps))
