#!/bin/bash
# Runs a command with a build on PATH, on this machine's own kernel. Arguments: the build, the command.
set -eu
build=$1
shift
export PATH="$build:$build/examples:$PATH" TCMU_HANDLER_PATH="$build"
modprobe -a target_core_user tcm_loop
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
exec "$@"
