#!/bin/bash
# Takes everything away that a failed test left behind.
C=/sys/kernel/config/target
pkill -KILL fio
iscsiadm -m session -u
mount | awk '/\/tmp\/work/ { print $3 }' | xargs -r umount -l
targetcli clearconfig confirm=True
pkill -KILL -f tcmu-runnerd
sleep 1
for device in $C/core/user_*/*/; do [ -e "$device/action/reset_ring" ] && { echo 2 >"$device/action/reset_ring"; echo 0 >"$device/action/block_dev"; }; done
for link in $C/loopback/*/tpgt_1/lun/lun_*/*; do [ -L "$link" ] && rm "$link"; done
find $C/loopback -mindepth 1 -depth -type d -exec rmdir {} \;
echo 1 >/sys/module/target_core_user/parameters/block_netlink
echo 1 >/sys/module/target_core_user/parameters/reset_netlink
echo 0 >/sys/module/target_core_user/parameters/block_netlink
for device in $C/core/user_*/*/; do timeout 5 rmdir "$device"; done
true
