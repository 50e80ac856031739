# Many devices: few threads, little memory, no processor time without commands, the last as quick to add as the first, and all taken over
# soon by the next daemon. SCALE_DEVICES and SCALE_SECONDS make it larger and longer.
# limit: 900
. ./lib.sh
DEVICES=${SCALE_DEVICES:-60} IDLE=${SCALE_SECONDS:-5}
ms() { echo $(($(date +%s%N) / 1000000)); }
median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
facts() { # THREADS KIB of the host of `null`
    local pid
    pid=$(host_pid null)
    echo "$(ls /proc/$pid/task | wc -l) $(awk '/VmRSS/ { print $2 }' /proc/$pid/status)"
}
ticks() { # of the daemon and its hosts
    cat /proc/$DAEMON/stat $(pgrep -P $DAEMON | sed 's|.*|/proc/&/stat|') | awk '{ sub(/.*\) /, ""); ticks += $12 + $13 } END { print ticks }'
}
serving() { [ "$(tcmuctl devices --json | grep -c '"state": "serving"')" = $DEVICES ]; }

start_daemon
for n in $(seq $DEVICES); do
    start=$(ms)
    backstore 1 d$n null/x $((1 << 20)) cmd_ring_size_mb=1
    echo $(($(ms) - start))
done >$W/times
first=$(head -10 $W/times | median) last=$(tail -10 $W/times | median)
read -r threads kib <<<"$(facts)"
sleep 3
before=$(ticks)
sleep $IDLE
spent=$(($(ticks) - before))
stop_daemon
start=$(ms)
start_daemon
ready=$(($(ms) - start))
wait_for 30 serving
taken=$(($(ms) - start))
echo "$DEVICES devices: the first ten added in $first ms each, the last ten in $last ms (medians); $threads threads, $kib KiB;" \
    "$((spent * 10)) ms of processor time in $IDLE idle s; after a restart ready in $ready ms, all served after $taken ms"
[ $threads -lt 64 ] || fail "$threads threads"
# 200 MiB with 2000 devices; a ring of which each page is touched has 1 MiB here.
[ $kib -lt $((20480 + DEVICES * 90)) ] || fail "$kib KiB"
# A tick is 10 ms, and some always fall on somebody: hosts tell now and then that they are there.
[ $spent -le $((4 + IDLE / 5)) ] || fail "idle devices took $spent ticks"
# A walk over all devices for each would show as a multiple.
[ $last -le $((3 * first + 20)) ] || fail "adding became slower: $first ms, then $last ms"
[ $taken -lt 10000 ] || fail "the devices were taken over after $taken ms"
for n in $(seq $DEVICES); do remove_backstore 1 d$n; done
stop_daemon
no_complaints
