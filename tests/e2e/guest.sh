#!/bin/bash
# Makes the guest a machine that tcmu-runnerd can run on, then runs a command. Arguments: the project, the build, the command.
set -eu
project=$1 build=$2
shift 2
export HOME=/tmp PATH="$build:$build/examples:$PATH" TCMU_HANDLER_PATH="$build"
cd /tmp
ip link set lo up
modprobe -a target_core_user tcm_loop target_core_file iscsi_target_mod
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
# Without pr/ and alua/ there the kernel cannot keep reservations and access states, and refuses them.
mkdir -p /run/dbus /run/lock /var/lock /etc/target/pr /etc/target/alua /var/target/pr /var/target/alua
# tcmu-runner, where it is installed as a peer, must not be started by the bus in our place.
rm -f /etc/dbus-1/system.d/tcmu-runner.conf /usr/share/dbus-1/system-services/org.kernel.TCMUService1.service
cp "$project/dist/dbus/tcmu-runnerd.conf" /etc/dbus-1/system.d/
dbus-daemon --system --fork
exec "$@"
