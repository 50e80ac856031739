# limit: 400
# Memory pressure on the disks of the daemon itself: swap, and more dirty pages than fit, with the daemon in a tight memory cgroup of its
# own. No deadlock, and what makes that true: PR_SET_IO_FLUSHER of every thread, locked memory, an OOM score. (That nothing is allocated
# on the way of a command is libtcmu/tests/no_allocation.rs.) PRESSURE_MIB: how much is swapped and written; 48.
. ./lib.sh
. ./load.sh
MIB=${PRESSURE_MIB:-48}
CG=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
if [ -z "$CG" ]; then
    CG=$W/cgroup
    mkdir -p $CG
    mount -t cgroup2 none $CG
fi
grep -qw memory $CG/cgroup.controllers || fail "no memory controller in $CG: $(cat $CG/cgroup.controllers)"
echo +memory >$CG/cgroup.subtree_control
mkdir -p $CG/e2e-{daemon,swaps,writes}
OWN=$CG$(sed -n 's/^0:://p' /proc/self/cgroup)
HUNG=$(cat /proc/sys/kernel/hung_task_timeout_secs)
echo 30 >/proc/sys/kernel/hung_task_timeout_secs
[ ! -e /sys/module/brd ] || rmmod brd
modprobe brd rd_nr=1 rd_size=$(((4 * MIB + 64) << 10))

echo $((72 << 20)) >$CG/e2e-daemon/memory.max
for group in swaps writes; do echo $((24 << 20)) >$CG/e2e-$group/memory.max; done
plugins file
echo $BASHPID >$CG/e2e-daemon/cgroup.procs
start_daemon --handler-path $W/plugins
echo $BASHPID >"$OWN/cgroup.procs"
mkfs.ext4 -q -F /dev/ram0
mkdir -p $W/store $W/m
mount /dev/ram0 $W/store
backstore 0 swap file/$W/store/swap.img $((2 * MIB << 20))
backstore 1 fs file/$W/store/fs.img $((2 * MIB << 20))
SWAP=$(loopback 1 user_0/swap)
FS=$(loopback 2 user_1/fs)
mkswap $SWAP >/dev/null
swapon $SWAP
mkfs.ext4 -q -F $FS
mount $FS $W/m

cat >$W/swaps.py <<'P'
# Uses memory, page by page, again and again, and finds in it what was there.
import sys
pages = int(sys.argv[1]) << 8
memory = bytearray(pages << 12)
for turn in range(1, 4):
    for page in range(pages):
        stamp = (page * 3 + turn).to_bytes(8, "little")
        if turn > 1 and memory[page << 12 : (page << 12) + 8] != (page * 3 + turn - 1).to_bytes(8, "little"):
            sys.exit(f"page {page} is not what it was")
        memory[page << 12 : (page << 12) + 8] = stamp
P
in_group() { sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' $CG/e2e-"$@"; }
hosts() { pgrep -f "handler-host file "; }
# What can be taken from the daemon is taken, all the time.
squeeze() {
    while sleep 0.3; do
        echo 48M >$CG/e2e-daemon/memory.reclaim || true
        echo 1 >/proc/sys/vm/drop_caches
    done 2>/dev/null
}
squeeze &
SQUEEZE=$!
START=$SECONDS
(in_group swaps timeout 200 python3 $W/swaps.py $MIB || fail "swapping: status $?") &
SWAPS=$!
(
    # shellcheck disable=SC2016
    in_group writes timeout 200 sh -c 'yes "$1" | head -c $(($2 << 20)) >$0/data && sync -f $0/data' $W/m "pressure $RANDOM" $MIB ||
        fail "writing: status $?"
) &
WRITES=$!
SWAPPED=0
while kill -0 $SWAPS 2>/dev/null || kill -0 $WRITES 2>/dev/null; do
    used=$(awk -v disk=$SWAP '$1 == disk { print $4 }' /proc/swaps)
    [ "${used:-0}" -le $SWAPPED ] || SWAPPED=$used
    [ $((SECONDS - START)) -lt 210 ] || fail "a deadlock: $(ps -eo pid,stat,wchan:32,args | awk '$2 ~ /D/')"
    sleep 0.2
done
wait $SWAPS
wait $WRITES
kill $SQUEEZE
[ $SWAPPED -gt $((MIB << 9)) ] || fail "only $SWAPPED KiB were swapped"
DATA=$(sha256sum <$W/m/data)
umount $W/m
mount $FS $W/m
[ "$(sha256sum <$W/m/data)" = "$DATA" ] || fail "not what was written"
echo "$SWAPPED KiB swapped to, and $MIB MiB written to a file system on, disks of a daemon in 72 MiB: $((SECONDS - START)) s"

# What is in memory and could be taken away. Rings, which the kernel keeps, and its own pages are no part of that.
unlocked() {
    awk '/^[0-9a-f]+-/ { what = $0 } $1 == "Rss:" { kib = $2 }
        $1 == "VmFlags:" && kib && !/ lo / && what !~ /uio|io_uring|\[v/ { print what }' /proc/$1/smaps
}
field() { awk -v name="$1:" '$1 == name { print $2 }' /proc/"$2"/status; }
for pid in $DAEMON $(hosts); do
    io_flushers $pid
    [ "$(field VmLck $pid)" -gt 0 ] || fail "process $pid has no locked memory"
    [ -z "$(unlocked $pid)" ] || fail "not locked in process $pid: $(unlocked $pid)"
    [ "$(field VmSwap $pid)" = 0 ] || fail "$(field VmSwap $pid) KiB of process $pid were swapped"
    [ "$(cat /proc/$pid/oom_score_adj)" = -1000 ] || fail "process $pid: OOM score $(cat /proc/$pid/oom_score_adj)"
    echo "process $pid ($(tr '\0' ' ' </proc/$pid/cmdline | cut -d' ' -f1-3)): $(ls /proc/$pid/task | wc -l) threads," \
        "$(field VmRSS $pid) KiB resident, $(field VmLck $pid) KiB of address space locked, $(field VmSwap $pid) KiB swapped"
done
grep -E "^(oom|oom_kill|max) " $CG/e2e-daemon/memory.events | tr '\n' ' '
echo
umount $W/m
swapoff $SWAP
remove_loopback 1
remove_loopback 2
remove_backstore 0 swap
remove_backstore 1 fs
stop_daemon
umount $W/store
rmmod brd
rmdir $CG/e2e-{daemon,swaps,writes}
echo $HUNG >/proc/sys/kernel/hung_task_timeout_secs
no_complaints
