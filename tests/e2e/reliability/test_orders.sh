# The target goes, the daemon stops, the backing file system goes: in every order (ORDERS=all; else in three), with I/O running over loopback
# and over iSCSI. Then all of them at once, as in a machine that is shut down. I/O may fail, but no step hangs, no task is left in D state,
# and the kernel complains of nothing. The last thing is always that a disk is made and used, so that nothing is left behind either.
# limit: 400
. ./lib.sh
modprobe -a iscsi_tcp loop ext4
mkdir -p /etc/iscsi $W/store
echo "InitiatorName=iqn.2026-01.org.example:me" >/etc/iscsi/initiatorname.iscsi
pgrep -x iscsid >/dev/null || iscsid
T=iqn.2026-01.org.example:orders
P=$C/iscsi/$T/tpgt_1
L=$C/loopback/naa.5001405000000001/tpgt_1
STEPS=0 LONGEST=0

iscsi_disk() { basename "$(ls -d /sys/class/iscsi_session/session*/device/target*/*/block/* 2>/dev/null | head -1)" 2>/dev/null; }
logged_in() { [ -n "$(iscsi_disk)" ]; }
# A file system that can be made to fail.
setup() {
    truncate -s 200M $W/store.img
    mkfs.ext4 -q -F $W/store.img
    LOOP=$(losetup -f --show $W/store.img)
    mount $LOOP $W/store
    start_daemon
    for n in 0 1; do
        backstore $n d file/$W/store/d$n $((32 << 20))
        # What is on the ring of a daemon that was killed is the kernel's to fail.
        echo 5 >$C/core/user_$n/d/attrib/cmd_time_out
    done
    A=$(loopback 1 user_0/d)
    mkdir -p $C/iscsi $P/np/127.0.0.1:3260 $P/lun/lun_0
    echo 0 >$P/attrib/authentication
    echo 1 >$P/attrib/generate_node_acls
    echo 0 >$P/attrib/demo_mode_write_protect
    ln -s $C/core/user_1/d $P/lun/lun_0/disk
    echo 1 >$P/enable
    iscsiadm -m discovery -t sendtargets -p 127.0.0.1 >/dev/null
    # An initiator that is patient waits for two minutes for its target to come back.
    for setting in session.timeo.replacement_timeout=2 conn[0].timeo.noop_out_interval=1 conn[0].timeo.noop_out_timeout=1; do
        iscsiadm -m node -T $T -o update -n node.${setting%=*} -v ${setting#*=}
    done
    iscsiadm -m node -T $T --login >/dev/null
    wait_for 20 logged_in
    B=/dev/$(iscsi_disk)
    LOADS=()
    for disk in $A $B; do
        # Linux sends a command that gets BUSY again for six times as long.
        echo 2 >/sys/block/${disk#/dev/}/device/timeout
        # Slowly enough that errors, of which there will be many, don't keep the processors from all else.
        fio --name=load --filename=$disk --rw=randrw --bs=4k --ioengine=libaio --iodepth=16 --direct=1 --size=16m --time_based \
            --rate_iops=300 --runtime=3600 --continue_on_error=all --output=/dev/null >/dev/null 2>&1 &
        LOADS+=($!)
    done
    busy() { [ "$(cat /sys/block/{${A#/dev/},${B#/dev/}}/stat | awk '$5 > 20' | wc -l)" = 2 ]; }
    wait_for 30 busy
}
target() {
    # Linux flushes a disk that goes, patiently: one that nobody serves keeps it for as long as 36 times its timeout. The operator says that
    # there is nothing to flush.
    kill -0 $DAEMON 2>/dev/null || echo temporary write through >"$(echo /sys/block/${A#/dev/}/device/scsi_disk/*/cache_type)"
    rm $L/lun/lun_0/disk
    rmdir $L/lun/lun_0 $L ${L%/tpgt_1}
    echo 0 >$P/enable
    rm $P/lun/lun_0/disk
    rmdir $P/lun/lun_0 $P/np/127.0.0.1:3260 $P $C/iscsi/$T
    for n in 0 1; do remove_backstore $n d; done
}
daemon() { stop_daemon; }
# Whatever is read or written fails from now on (EXT4_IOC_SHUTDOWN), and it is not to be found any more.
store() {
    python3 -c 'import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack("I", 2))' $W/store
    umount -l $W/store
}
# As the end of a shutdown: everybody is killed, then file systems go, then the kernel's configuration.
shutdown() {
    kill -KILL $DAEMON $(pgrep -f handler-host) "${LOADS[@]}"
    wait $DAEMON || true
    LOG_SEEN=$(wc -l <$LOG)
    umount $W/store
    target
}
step() {
    local before=$SECONDS
    timeout_after 60 "$1" &
    GUARD=$!
    "$1"
    kill $GUARD 2>/dev/null || true
    STEPS=$((STEPS + 1))
    [ $((SECONDS - before)) -le $LONGEST ] || LONGEST=$((SECONDS - before))
    [ $LONGEST -le 60 ] || fail "$1 took $LONGEST s"
}
# Says where it hangs, since the test itself may not come to that.
timeout_after() {
    sleep "$1"
    echo "FAILED: $2 takes more than $1 s" >&2
    echo w >/proc/sysrq-trigger
}
stuck() { grep -lE '^[0-9]+ \(.*\) D ' /proc/[0-9]*/stat 2>/dev/null | while read -r stat; do cat "${stat%/stat}/comm" "${stat%/stat}/stack" 2>/dev/null || true; done; }
nobody_stuck() { [ -z "$(stuck)" ]; }
after() {
    kill -KILL "${LOADS[@]}" 2>/dev/null || true
    for load in "${LOADS[@]}"; do wait $load 2>/dev/null || true; done
    timeout 30 iscsiadm -m session -u >/dev/null 2>&1 || true
    iscsiadm -m node -T $T -o delete >/dev/null 2>&1 || true
    logged_out() { ! logged_in; }
    wait_for 30 logged_out
    wait_for 20 nobody_stuck || { stuck; fail "$1: a task is left in D state"; }
    [ -z "$(pgrep -f handler-host)" ] || fail "$1: a host is left: $(pgrep -fa handler-host)"
    [ ! -e $C/core/user_0 ] && [ ! -e $C/core/user_1 ] || fail "$1: a backstore is left"
    no_complaints
    dmesg -C
    losetup -d $LOOP
}
# Each of them first, second and last; the other three with ORDERS=all.
ORDERS_SHORT=("target store daemon" "store daemon target" "daemon target store" shutdown)
ORDERS_LONG=("target daemon store" "store target daemon" "daemon store target")
case ${ORDERS:-} in
"") CHOSEN=("${ORDERS_SHORT[@]}") ;;
all) CHOSEN=("${ORDERS_SHORT[@]}" "${ORDERS_LONG[@]}") ;;
*) CHOSEN=("$ORDERS") ;;
esac
for order in "${CHOSEN[@]}"; do
    echo "== $order"
    setup
    for what in $order; do
        step $what
        sleep 0.5
    done
    after "$order"
done
pkill iscsid || true
# All is as before.
start_daemon
backstore 0 d alloc/x $((32 << 20))
A=$(loopback 1 user_0/d)
verify $A 1 --size=16m
remove_loopback 1
remove_backstore 0 d
stop_daemon
no_complaints
echo "${#CHOSEN[@]} orders of target, daemon and store: $STEPS steps, the longest took $LONGEST s; no task in D state"
