#!/bin/bash
# Takes everything away that a failed test left behind.
C=/sys/kernel/config/target
M=/sys/module/target_core_user/parameters
# It kills by name: nothing for a machine where no test ran.
[ -d $C ] || exit 1
pkill -KILL fio
pkill -KILL -f tcmu-runnerd
pkill -KILL own_loop
pkill -KILL -f e2e/clients
pkill -KILL disk
modprobe -r scsi_debug
# Whoever waits for the dead daemon waits no more, and nothing that comes now waits.
echo 1 >$M/block_netlink
echo 1 >$M/reset_netlink
# Commands that nobody will answer fail, as long as they come.
fail_commands() {
    while sleep 0.5; do
        for device in $C/core/user_*/*/; do echo 2 >"$device/action/reset_ring"; done
    done
}
fail_commands &
trap 'kill %1' EXIT
timeout 20 iscsiadm -m session -u
pkill -KILL -x iscsid
mount | awk '/\/tmp\/e2e/ { print $3 }' | xargs -r timeout 10 umount -l
for portal in $C/iscsi/*/tpgt_1; do
    echo 0 >"$portal/enable"
    for link in "$portal"/acls/*/lun_*/* "$portal"/lun/lun_*/*; do [ -L "$link" ] && timeout 10 rm "$link"; done
    timeout 10 rmdir "$portal"/acls/*/lun_* "$portal"/acls/* "$portal"/lun/lun_* "$portal"/np/* "$portal" "${portal%/tpgt_1}"
done
for link in $C/loopback/*/tpgt_1/lun/lun_*/*; do [ -L "$link" ] && timeout 10 rm "$link"; done
for target in $C/loopback/naa.*; do timeout 10 rmdir "$target"/tpgt_1/lun/lun_* "$target/tpgt_1" "$target"; done
for group in $C/core/user_*/*/alua/*/; do [[ $group == */default_tg_pt_gp/ ]] || timeout 5 rmdir "$group"; done
for device in $C/core/user_*/*/; do timeout 5 rmdir "$device"; done
for hba in $C/core/user_*; do timeout 5 rmdir "$hba"; done
dmsetup --noudevsync remove -f e2e
rmmod brd
echo 0 >$M/block_netlink
true
