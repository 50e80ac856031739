#!/usr/bin/env python3
"""SCSI commands to a disk as they are, without anybody's retries (SG_IO). sg.py DISK COMMAND [ARGUMENTS]:

    read LBA BLOCKS         also says which byte all of the data is, or `mixed`
    write LBA BLOCKS BYTE   or `fua` in place of `write`
    unmap LBA BLOCKS, zero LBA BLOCKS, sync, ready

Prints `good`, `busy` (or another status) or KEY/ASC/ASCQ in hexadecimal. With `-` it reads DISK COMMAND [ARGUMENTS] from each line of the
standard input. Also a module."""
import ctypes, fcntl, os, sys

SG_IO = 0x2285
NONE, TO_DISK, FROM_DISK = -1, -2, -3
STATUS = {0x00: "good", 0x08: "busy", 0x18: "reservation conflict", 0x28: "task set full", 0x40: "task aborted"}


class Header(ctypes.Structure):
    """struct sg_io_hdr (include/scsi/sg.h)"""

    _fields_ = (
        [(name, ctypes.c_int) for name in ("interface_id", "direction")]
        + [("cdb_length", ctypes.c_ubyte), ("sense_length", ctypes.c_ubyte), ("iovec_count", ctypes.c_ushort)]
        + [("data_length", ctypes.c_uint)]
        + [(name, ctypes.c_void_p) for name in ("data", "cdb", "sense")]
        + [("timeout", ctypes.c_uint), ("flags", ctypes.c_uint), ("pack_id", ctypes.c_int), ("user", ctypes.c_void_p)]
        + [(name, ctypes.c_ubyte) for name in ("status", "masked_status", "message_status", "sense_written")]
        + [("host_status", ctypes.c_ushort), ("driver_status", ctypes.c_ushort), ("residual", ctypes.c_int)]
        + [("duration", ctypes.c_uint), ("info", ctypes.c_uint)]
    )


class Disk:
    """An open disk. Several threads may use it at the same time."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def command(self, cdb, out=b"", room=0, seconds=120):
        """Sends a command; its status in words, and its data."""
        data = ctypes.create_string_buffer(bytes(out), len(out)) if out else ctypes.create_string_buffer(max(room, 1))
        length = len(out) or room
        cdb_buffer, sense = ctypes.create_string_buffer(bytes(cdb), len(cdb)), ctypes.create_string_buffer(96)
        header = Header(interface_id=ord("S"), direction=TO_DISK if out else FROM_DISK if room else NONE)
        header.cdb_length, header.sense_length, header.data_length = len(cdb), 96, length
        header.data, header.cdb, header.sense = map(ctypes.addressof, (data, cdb_buffer, sense))
        header.timeout = seconds * 1000
        fcntl.ioctl(self.fd, SG_IO, header)
        if header.host_status:
            return f"host status {header.host_status}", b""
        if header.status != 0x02:
            return STATUS.get(header.status, f"status {header.status:#x}"), data.raw[:room]
        told = sense.raw
        key, asc, ascq = (told[1] & 15, told[2], told[3]) if told[0] & 0x7E == 0x72 else (told[2] & 15, told[12], told[13])
        return f"{key:x}/{asc:02x}/{ascq:02x}", b""

    @staticmethod
    def cdb10(code, flags, lba, blocks):
        return bytes([code, flags]) + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"

    def read(self, lba, blocks, block=512):
        return self.command(self.cdb10(0x28, 0, lba, blocks), room=blocks * block)

    def write(self, lba, data, fua=False, block=512):
        return self.command(self.cdb10(0x2A, 8 if fua else 0, lba, len(data) // block), out=data)[0]

    def sync(self):
        return self.command(self.cdb10(0x35, 0, 0, 0))[0]

    def unmap(self, lba, blocks):
        ranges = b"\0\x16\0\x10\0\0\0\0" + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(4)
        return self.command(bytes([0x42, 0, 0, 0, 0, 0, 0, 0, len(ranges), 0]), out=ranges)[0]

    def zero(self, lba, blocks):
        """WRITE SAME(16) with NDOB"""
        return self.command(bytes([0x93, 1]) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + b"\0\0")[0]

    def caching_page(self, changeable=False):
        """The caching mode page, and the device-specific parameter before it."""
        control = 0x48 if changeable else 0x08
        status, data = self.command(bytes([0x1A, 8, control, 0, 64, 0]), room=64)
        if status != "good":
            sys.exit(f"MODE SENSE: {status}")
        return data[4:24], data[2]

    def write_cache(self, on):
        """MODE SELECT of WCE."""
        page, _ = self.caching_page()
        page = bytes([page[0] & 0x3F, page[1], page[2] & ~4 | (4 if on else 0)]) + page[3:]
        return self.command(bytes([0x15, 0x10, 0, 0, 24, 0]), out=bytes(4) + page)[0]


def run(path, what, *numbers):
    """What is to be printed."""
    disk = Disk(path)
    try:
        numbers = [int(number, 0) for number in numbers]
        if what == "read":
            status, data = disk.read(*numbers)
            if status == "good":
                status += f" {data[0]}" if data == data[:1] * len(data) else " mixed"
            return status
        if what in ("write", "fua"):
            lba, blocks, byte = numbers
            return disk.write(lba, bytes([byte]) * (512 * blocks), fua=what == "fua")
        if what == "ready":
            return disk.command(bytes(6))[0]
        return {"unmap": disk.unmap, "zero": disk.zero, "sync": disk.sync}[what](*numbers)
    finally:
        os.close(disk.fd)


def serve():
    """As many lines as there are on the standard input: starting Python for each takes its time in a virtual machine."""
    for line in sys.stdin:
        try:
            print(run(*line.split()), flush=True)
        except OSError as error:
            print(error, flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["-"] else print(run(*sys.argv[1:]))
