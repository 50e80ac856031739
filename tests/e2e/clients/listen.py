#!/usr/bin/env python3
"""Tells the signals of the daemon, one a line, until it is killed: the member, what it is about, and its state and size."""
import gi

gi.require_version("Gio", "2.0")
from gi.repository import Gio, GLib


def signal(_connection, _sender, _path, interface, member, arguments):
    name, *rest = arguments.unpack()
    properties = rest[0] if rest and isinstance(rest[0], dict) else {}
    told = [str(properties[key]) for key in ("stage", "size", "config", "pid", "restarts", "LogLevel") if key in properties]
    print(member, name, *told, flush=True)


bus = Gio.bus_get_sync(Gio.BusType.SYSTEM, None)
for path in "/org/tcmu_runnerd/Control1", "/org/kernel/TCMUService1":
    bus.signal_subscribe("org.kernel.TCMUService1", None, None, path, None, 0, signal)
print("listening", flush=True)
GLib.MainLoop().run()
