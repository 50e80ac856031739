# limit: 300
# Clients that know nothing of us: rtslib as ceph-iscsi and gluster-block use it, and targetcli's saveconfig and restore, after a restart of
# the daemon and when everything is gone.
. ./lib.sh
start_daemon
disk() { echo "/dev/$(lsblk -Sno NAME,MODEL | awk '/TCMU/ { print $1; exit }')"; }
have_disk() { lsblk -Sno MODEL | grep >/dev/null TCMU; }
python3 clients/gateways.py $W/gateway.img
[ "$(stat -c %s $W/gateway.img)" = $((96 << 20)) ]
wait_for 20 have_disk
D=$(disk)
dd if=/dev/urandom of=$W/data bs=1M count=4 status=none
dd if=$W/data of=$D bs=1M seek=80 oflag=direct status=none
sg_vpd -p sn $D | grep >/dev/null "36001405a-0000-4000-8000-000000000001" || fail "$(sg_vpd -p sn $D)"

# gluster-block drives targetcli.
targetcli >$W/targetcli 2>&1 <<CLI
set global auto_save_on_exit=false
/backstores/user:file create name=block1 size=32M cfgstring=$W/block1.img hw_max_sectors=2048 wwn=0f2ba3e4-0000-4000-8000-000000000002 control=max_data_area_mb=16
/backstores/user:file/block1 set attribute cmd_time_out=130
ls /backstores
saveconfig $W/saveconfig.json
CLI
cat $W/targetcli
grep -q "Created user-backed storage object block1" $W/targetcli
grep -q "block1 .*deactivated" $W/targetcli
grep -q "pool.image .*activated" $W/targetcli
tcmuctl --json devices | python3 -c '
import json, sys
sizes = {row["device"].split("/")[1]: (row["size"], row["state"]) for row in json.load(sys.stdin)}
assert sizes == {"pool.image": (96 << 20, "serving"), "block1": (32 << 20, "serving")}, sizes'

# A restart of the daemon is nothing to them; then everything goes and comes back.
stop_daemon
start_daemon
cmp -n $((4 << 20)) -i $((80 << 20)):0 $D $W/data
no_io_errors
udevadm settle -t 5 2>/dev/null || true
targetctl clear
expect "no devices" tcmuctl devices
[ -z "$(ls -d $C/core/user_*/* 2>/dev/null)" ] || fail "targetctl clear left $(ls -d $C/core/user_*/*)"
stop_daemon
start_daemon
targetctl restore $W/saveconfig.json >$W/restored 2>&1
cat $W/restored
[ ! -s $W/restored ] || fail "the restore complained"
wait_for 20 have_disk
D=$(disk)
cmp -n $((4 << 20)) -i $((80 << 20)):0 $D $W/data
[ "$(cat $C/core/user_*/pool.image/attrib/cmd_time_out)" = 130 ]
[ "$(cat $C/core/user_*/block1/attrib/cmd_time_out)" = 130 ]
grep -q "MaxDataAreaMB: 16" $C/core/user_*/block1/info
no_io_errors
udevadm settle -t 5 2>/dev/null || true
targetctl clear
expect "no devices" tcmuctl devices
stop_daemon
no_complaints
