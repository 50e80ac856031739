#!/bin/bash
# The demo: a disk in a file and a disk in memory, file systems on both, a file tree copied and compared after a remount. Takes
# everything away again, also when it fails.
set -euo pipefail
C=/sys/kernel/config/target
W=$(mktemp -d)
TREE=/usr/share/perl5
[ -d $TREE ] || TREE=/usr/share/doc
HBA=9

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() {
    printf '  $ %s\n' "$*"
    bash -c "$*" 2>&1 | sed 's/^/    /'
}

clean() {
    say "Taking everything away"
    umount "$W/file" "$W/memory" 2>/dev/null || true
    for n in 1 2; do
        T=$C/loopback/naa.50014055000000${HBA}$n
        [ ! -e "$T" ] || { rm -f "$T/tpgt_1/lun/lun_0/disk"; rmdir "$T/tpgt_1/lun/lun_0" "$T/tpgt_1" "$T"; }
    done
    for name in file memory; do [ ! -e "$C/core/user_$HBA/$name" ] || rmdir "$C/core/user_$HBA/$name"; done
    [ ! -e "$C/core/user_$HBA" ] || rmdir "$C/core/user_$HBA"
    [ -z "${DAEMON:-}" ] || { kill "$DAEMON"; wait "$DAEMON" || true; }
    rm -rf "$W"
}
trap clean EXIT

say "The daemon"
echo "  $ tcmu-runnerd --handler-path $TCMU_HANDLER_PATH &"
tcmu-runnerd 2>"$W/log" &
DAEMON=$!
for _ in $(seq 100); do
    ! grep -q "ready$" "$W/log" || break
    kill -0 "$DAEMON" 2>/dev/null || { cat "$W/log"; exit 1; }
    sleep 0.1
done
sed 's/^/    /' "$W/log"

say "Two backstores in configfs: one in a file, one in memory"
for disk in "file file/$W/disk.img" "memory alloc/demo"; do
    set -- $disk
    run "mkdir -p $C/core/user_$HBA/$1"
    run "echo -n dev_size=$((256 << 20)) > $C/core/user_$HBA/$1/control"
    run "echo -n dev_config=$2 > $C/core/user_$HBA/$1/control"
    run "echo -n 1 > $C/core/user_$HBA/$1/enable"
done

say "Each becomes a disk of this machine"
n=0
for name in file memory; do
    n=$((n + 1))
    T=$C/loopback/naa.50014055000000${HBA}$n/tpgt_1
    run "mkdir -p $T/lun/lun_0"
    run "echo naa.50014056000000${HBA}$n > $T/nexus"
    run "ln -s $C/core/user_$HBA/$name $T/lun/lun_0/disk"
    address=$(cat "$T/address")
    for _ in $(seq 100); do
        ! ls /sys/bus/scsi/devices/"$address":0/block/* >/dev/null 2>&1 || break
        sleep 0.1
    done
    disk=/dev/$(ls "/sys/bus/scsi/devices/$address:0/block")
    declare "DISK_$name=$disk"
done
run "lsblk -o NAME,SIZE,VENDOR,MODEL $DISK_file $DISK_memory"

say "File systems, and a file tree on each"
run "mkfs.ext4 -q $DISK_file && mkfs.ext4 -q $DISK_memory"
run "mkdir -p $W/file $W/memory && mount $DISK_file $W/file && mount $DISK_memory $W/memory"
run "cp -r $TREE $W/file/tree && cp -r $TREE $W/memory/tree"
(cd $TREE && find . -type f -exec sha256sum {} + | sort -k2) >"$W/sums"
run "wc -l < $W/sums"

say "The same after a remount, with nothing cached"
run "umount $W/file $W/memory && echo 3 > /proc/sys/vm/drop_caches && mount $DISK_file $W/file && mount $DISK_memory $W/memory"
for name in file memory; do run "cd $W/$name/tree && sha256sum --quiet -c $W/sums && echo all checksums are right"; done

say "What tcmuctl says"
run "tcmuctl status"
run "tcmuctl handlers"
run "tcmuctl devices"
