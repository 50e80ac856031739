#!/usr/bin/env python3
"""A program that serves a subtype itself, as far as the bus and the kernel's events go: program.py SUBTYPE.

Config strings that begin with "good" are right; "slow" gets no answer. The kernel's events about devices of the subtype are answered with
success. What it does is told on stdout. It registers again with each daemon that comes."""
import socket, struct, sys

import gi

gi.require_version("Gio", "2.0")
from gi.repository import Gio, GLib

SUBTYPE = sys.argv[1]
SERVICE = "org.kernel.TCMUService1"
MANAGER = SERVICE + ".HandlerManager1"
MANAGER_PATH = "/org/kernel/TCMUService1/HandlerManager1"
INTERFACE = """<node><interface name="org.kernel.TCMUService1">
<method name="CheckConfig"><arg type="s" direction="in"/><arg type="b" direction="out"/><arg type="s" direction="out"/></method>
</interface></node>"""


def tell(*words):
    print(*words, flush=True)


# Generic netlink, as far as TCMU's events need it.
DONE = {1: 4, 2: 5, 3: 6}
NAMES = {1: "added", 2: "removed", 3: "reconfigured"}


def attribute(kind, payload):
    return struct.pack("HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def attributes(data):
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def message(family, command, version, payload):
    body = struct.pack("BBH", command, version, 0) + payload
    return struct.pack("IHHII", 16 + len(body), family, 1, 0, 0) + body


netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
netlink.bind((0, 0))
netlink.send(message(16, 3, 1, attribute(2, b"TCM-USER\0")))
about = attributes(netlink.recv(65536)[20:])
FAMILY = struct.unpack("H", about[1])[0]
for group in attributes(about[7]).values():
    netlink.setsockopt(270, 1, struct.unpack("I", attributes(group)[2])[0])


def event(*_):
    data = netlink.recv(65536)
    if struct.unpack_from("IH", data)[1] != FAMILY:
        return True
    command, found = data[16], attributes(data[20:])
    device = found[1].rstrip(b"\0").decode()
    if device.split("/")[3] == SUBTYPE:
        tell(NAMES[command], device)
        answer = attribute(7, struct.pack("i", 0)) + attribute(8, found[8])
        netlink.send(message(FAMILY, DONE[command], 2, answer))
    return True


def call(_connection, _sender, _path, _interface, _method, arguments, invocation):
    config = arguments.unpack()[0]
    tell("asked", config)
    if config == SUBTYPE + "/slow":
        return
    right = config.startswith(SUBTYPE + "/good")
    invocation.return_value(GLib.Variant("(bs)", (right, "fine" if right else "it is not good")))


def appeared(connection, *_):
    arguments = GLib.Variant("(ss)", (SUBTYPE, f"{SUBTYPE}/good<anything>"))
    kind = GLib.VariantType("(bs)")
    answer = connection.call_sync(SERVICE, MANAGER_PATH, MANAGER, "RegisterHandler", arguments, kind, 0, 30000, None)
    done, why = answer.unpack()
    tell("registered" if done else "refused", why)


def acquired(connection, _name):
    Gio.bus_watch_name_on_connection(connection, SERVICE, Gio.BusNameWatcherFlags.NONE, appeared, None)


def lost(_connection, name):
    sys.exit(f"cannot own {name}")


bus = Gio.bus_get_sync(Gio.BusType.SYSTEM, None)
description = Gio.DBusNodeInfo.new_for_xml(INTERFACE).interfaces[0]
bus.register_object(f"{MANAGER_PATH}/{SUBTYPE}", description, call, None, None)
Gio.bus_own_name_on_connection(bus, f"{MANAGER}.{SUBTYPE}", Gio.BusNameOwnerFlags.NONE, acquired, lost)
GLib.io_add_watch(netlink.fileno(), GLib.IO_IN, event)
GLib.MainLoop().run()
