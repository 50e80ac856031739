# iSCSI on this machine: a target by hand, logged in with open-iscsi, a file system, verified; and libiscsi's basic tests.
. ./lib.sh
modprobe iscsi_tcp
start_daemon
backstore 0 a file/$W/iscsi.img $((256 << 20)) hw_max_sectors=2048
T=iqn.2026-01.org.example:disk
P=$C/iscsi/$T/tpgt_1
mkdir -p $C/iscsi $P/np/127.0.0.1:3260 $P/lun/lun_0
echo 0 >$P/attrib/authentication
echo 1 >$P/attrib/generate_node_acls
echo 0 >$P/attrib/demo_mode_write_protect
ln -s $C/core/user_0/a $P/lun/lun_0/disk
echo 1 >$P/enable
iscsi-ls iscsi://127.0.0.1 | grep >/dev/null $T
for t in Read10.Simple Read10.BeyondEol Read16.Simple Write10.Simple ReadCapacity16.Simple TestUnitReady.Simple; do
    timeout 60 iscsi-test-cu --dataloss -t SCSI.$t iscsi://127.0.0.1/$T/0 >$W/cu.log 2>&1 || true
    # asserts: total, run, passed, failed
    awk '/asserts/ { ran = $3; failed = $5 } END { exit !(ran > 0 && failed == 0) }' $W/cu.log || fail "$t: $(tail -20 $W/cu.log)"
done
mkdir -p /etc/iscsi
echo "InitiatorName=iqn.2026-01.org.example:me" >/etc/iscsi/initiatorname.iscsi
iscsid
iscsiadm -m discovery -t sendtargets -p 127.0.0.1 --login
wait_for 20 bash -c 'lsblk -Sno TRAN | grep >/dev/null iscsi'
D=/dev/$(lsblk -Sno NAME,TRAN | awk '/iscsi/ { print $1; exit }')
mkfs.ext4 -q $D
mkdir -p $W/i
mount $D $W/i
cp -r /usr/share/perl5 $W/i/tree
verify $W/i/fio 5 --size=32m
umount $W/i
e2fsck -fn $D
iscsiadm -m session -u
pkill iscsid
echo 0 >$P/enable
rm $P/lun/lun_0/disk
rmdir $P/lun/lun_0 $P/np/127.0.0.1:3260 $P $C/iscsi/$T
remove_backstore 0 a
stop_daemon
no_complaints
