# Thin provisioning by those who use it: file systems that discard, blkdiscard, and a backing file that grows and shrinks.
. ./lib.sh
start_daemon
backstore 0 a file/$W/thin.img $((512 << 20))
A=$(loopback 1 user_0/a)
used() { du -k $W/thin.img | cut -f1; }
less() { [ "$(used)" -lt "$1" ] || fail "$2: the file takes $(used) KiB, wanted less than $1"; }
more() { [ "$(used)" -gt "$1" ] || fail "$2: the file takes $(used) KiB, wanted more than $1"; }
[ "$(cat /sys/block/${A#/dev/}/queue/discard_max_bytes)" -gt 0 ] || fail "no discard"
less 1024 "a new disk"
mkfs.xfs -q $A
mkdir -p $W/m
mount $A $W/m
head -c $((64 << 20)) /dev/urandom >$W/m/data
sync
more 65000 "after 64 MiB"
rm $W/m/data
sync
fstrim $W/m
less 50000 "after fstrim"
umount $W/m
mkfs.ext4 -q -F $A
mount -o discard $A $W/m
head -c $((64 << 20)) /dev/urandom >$W/m/data
sync
more 65000 "after 64 MiB on ext4"
rm $W/m/data
sync
shrunk() { [ "$(used)" -lt 50000 ]; }
wait_for 30 shrunk
umount $W/m
blkdiscard $A
less 1024 "after blkdiscard"
cmp -n $((8 << 20)) $A /dev/zero || fail "discarded blocks do not read as zeros"
# The backing file system is full: space allocation failed, and the disk goes on when there is room again.
mkdir -p $W/small
mount -t tmpfs -o size=24m tmpfs $W/small
backstore 1 b file/$W/small/full.img $((64 << 20))
B=$(loopback 2 user_1/b)
! dd if=/dev/urandom of=$B bs=1M count=40 oflag=direct 2>/dev/null || fail "40 MiB fit into 24"
grep -q "0x27, 0x07\|27, 07\|39, 7" $LOG || dmesg | grep >/dev/null -i "space allocation failed" || fail "not reported as space allocation failed"
blkdiscard $B
dd if=/dev/urandom of=$B bs=1M count=8 oflag=direct 2>/dev/null || fail "it does not go on"
dmesg -C
remove_loopback 1
remove_loopback 2
remove_backstore 0 a
remove_backstore 1 b
umount $W/small
stop_daemon
no_complaints
