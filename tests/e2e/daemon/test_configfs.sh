# The configfs way: two backstores of two handlers at once, as disks of this machine, with file systems, verified.
. ./lib.sh
start_daemon
backstore 0 a file/$W/a.img $((512 << 20))
backstore 1 b alloc/b $((512 << 20)) hw_max_sectors=1024
A=$(loopback 1 user_0/a)
B=$(loopback 2 user_1/b)
mkfs.ext4 -q $A
mkfs.xfs -q $B
mkdir -p $W/a $W/b
mount $A $W/a
mount $B $W/b
cp -r /usr/share/perl5 $W/a/tree
cp -r /usr/share/perl5 $W/b/tree
verify $W/a/fio 4 --size=32m &
verify $W/b/fio 4 --size=32m
wait %2
umount $W/a $W/b
echo 3 >/proc/sys/vm/drop_caches
e2fsck -fn $A
xfs_repair -n $B
mount $A $W/a
mount $B $W/b
diff -r /usr/share/perl5 $W/a/tree
diff -r /usr/share/perl5 $W/b/tree
fstrim -v $W/a
fstrim -v $W/b
expect '"serving"' tcmuctl devices --json
expect "devices:  2 serving of 2" tcmuctl status
umount $W/a $W/b
sg_inq $A
sg_vpd -p bl $A
sg_vpd -p lbpv $A
remove_loopback 1
remove_loopback 2
remove_backstore 0 a
remove_backstore 1 b
expect "no devices" tcmuctl devices
stop_daemon
no_complaints
