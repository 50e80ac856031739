# tcmuctl makes a whole disk in one line, changes it, exports it, and takes it away; what fails leaves nothing behind; CHAP keeps others out.
. ./lib.sh
modprobe iscsi_tcp
start_daemon
mkdir -p /etc/iscsi
ME=iqn.2026-01.org.example:me
echo "InitiatorName=$ME" >/etc/iscsi/initiatorname.iscsi
status() { # WANTED COMMAND...
    local wanted=$1 got=0
    shift
    "$@" </dev/null >$W/status 2>&1 || got=$?
    [ $got = "$wanted" ] || fail "$*: status $got, wanted $wanted: $(cat $W/status)"
}

# One line, and the disk is there; the serial number is the same the next time.
tcmuctl create file vm1 --size 64M --path $W/vm1.img --loopback >$W/created
cat $W/created
D=$(grep -o '/dev/sd.*' $W/created)
SERIAL=$(sed -n 's/.*serial //p' $W/created)
expect "$SERIAL" sg_vpd -p sn $D
[ "$(cat $C/core/user_0/vm1/attrib/hw_max_sectors)" = 2048 ] || fail "the kernel's own limit"
verify $D 3 --size=16m
tcmuctl resize vm1 128M
wait_for 10 test "$(blockdev --getsize64 $D)" = $((128 << 20))
status 1 tcmuctl resize vm1 64M
expect "what is beyond is lost; --shrink" cat $W/status
tcmuctl set vm1 write-cache=off qfull_time_out=7
# The first command after it is told that the mode parameters changed.
sg_turs $D >/dev/null 2>&1 || true
sdparm --get WCE $D >$W/wce 2>&1 || true
grep -qE "^ *WCE +0" $W/wce || fail "$(cat $W/wce)"
status 1 tcmuctl set vm1 qfull_time_out=9 no_such=1
expect "no attribute \"no_such\"; there are:" cat $W/status
[ "$(cat $C/core/user_0/vm1/attrib/qfull_time_out)" = 7 ] || fail "half of it was set"
tcmuctl device show vm1 >$W/show
head -12 $W/show
for wanted in "$SERIAL" serving "loopback $D" "qfull_time_out = 7"; do expect "$wanted" cat $W/show; done
tcmuctl device show vm1 --json | python3 -c '
import json, sys
facts = json.load(sys.stdin)
assert facts["size"] == 128 << 20 and facts["exports"][0]["fabric"] == "loopback", facts'

# What is mounted stays.
mkfs.ext4 -q $D
mkdir -p $W/m
mount $D $W/m
status 1 tcmuctl delete vm1
expect "is mounted on $W/m; --force" cat $W/status
umount $W/m

# Mistakes, in one line each; nothing is made.
status 2 tcmuctl create file x --size 5X --path /tmp/x
status 2 tcmuctl attach vm1
status 1 tcmuctl create nobody x --size 1M
expect 'there is no handler "nobody"; there are: alloc, file, null' cat $W/status
status 1 tcmuctl create file x --size 1M --config relative
expect 'refuses the config string "relative": the path "relative" is relative' cat $W/status
status 1 tcmuctl create file x --size 1M --path /nonexistent/x
expect 'user_1/x: the handler did not open it: cannot open /nonexistent/x: No such file or directory' cat $W/status
status 1 tcmuctl create file vm1 --size 1M --path $W/other
expect "there is a disk user_0/vm1 already" cat $W/status
# A late step fails: somebody else listens at the portal's address. Backstore and loopback are taken back.
python3 -c 'import socket, time
s = socket.create_server(("127.0.0.1", 3261))
print("listening", flush=True)
time.sleep(600)' >$W/listener &
LISTENER=$!
wait_for 20 grep -q listening $W/listener
status 1 tcmuctl create alloc late --size 16M --loopback --iscsi --portal 127.0.0.1:3261
expect "np/127.0.0.1:3261" cat $W/status
kill $LISTENER
[ -z "$(find $C/core $C/loopback $C/iscsi -name late -o -name '*:late')" ] || fail "the disk is still there"
[ "$(ls -d $C/loopback/naa.* | wc -l)" = 1 ] || fail "the loopback is still there"
[ -z "$(ls $C/iscsi 2>/dev/null | grep iqn)" ] || fail "the target is still there"

# iSCSI with CHAP: who has no password is kept out.
T=iqn.2026-01.org.example:t
status 1 tcmuctl attach vm1 --iscsi $T --portal 127.0.0.1 --chap joe
expect "TCMUCTL_CHAP_PASSWORD" cat $W/status
TCMUCTL_CHAP_PASSWORD=twelve-chars-1 tcmuctl attach vm1 --iscsi $T --portal 127.0.0.1 --chap joe
tcmuctl create alloc ram --size 32M --iscsi $T
iscsid
iscsiadm -m node -o new -T $T -p 127.0.0.1:3260 >/dev/null
chap() { for setting in "$@"; do iscsiadm -m node -T $T -p 127.0.0.1:3260 -o update -n "node.session.auth.${setting%%=*}" -v "${setting#*=}"; done; }
! iscsiadm -m node -T $T -p 127.0.0.1:3260 --login >$W/login 2>&1 || fail "it lets in who has no password"
chap authmethod=CHAP username=joe password=wrong-password
! iscsiadm -m node -T $T -p 127.0.0.1:3260 --login >>$W/login 2>&1 || fail "it lets in who has a wrong password"
chap password=twelve-chars-1
iscsiadm -m node -T $T -p 127.0.0.1:3260 --login
wait_for 20 bash -c '[ $(lsblk -Sno TRAN | grep -c iscsi) = 2 ]'
expect "128M" bash -c 'lsblk -Sno NAME,TRAN,SIZE | grep iscsi'
expect "32M" bash -c 'lsblk -Sno NAME,TRAN,SIZE | grep iscsi'
status 1 tcmuctl detach vm1 --iscsi
expect "$ME is logged in to $T; --force" cat $W/status
iscsiadm -m session -u
pkill iscsid
tcmuctl detach vm1 --iscsi $T
tcmuctl delete ram
[ ! -e $C/iscsi/$T ] || fail "a target without LUNs stays"

# Virtual machines, where the kernel can.
if modprobe vhost_scsi 2>/dev/null; then
    tcmuctl attach vm1 --vhost
    expect "vhost-scsi-pci,wwpn=naa.5001405" tcmuctl device show vm1
fi
no_io_errors
tcmuctl delete vm1
[ -s $W/vm1.img ] || fail "the image is gone"
[ -z "$(find $C -name 'naa.*' -o -name 'user_*')" ] || fail "left: $(find $C -name 'naa.*' -o -name 'user_*')"
expect "$SERIAL" tcmuctl create file vm1 --size 128M --path $W/vm1.img
tcmuctl delete vm1
expect "no devices" tcmuctl devices
expect "config_desc" tcmuctl handler info file
expect "every handler runs the plugin that is on disk" tcmuctl handler reload
stop_daemon
# Nobody would answer the kernel now: this must not wait.
status 1 tcmuctl create alloc x --size 1M
expect "tcmu-runnerd is not running" cat $W/status
no_complaints
