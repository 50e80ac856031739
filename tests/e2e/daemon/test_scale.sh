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
tasks() { # FILE of all threads of the daemon and its hosts
    local pid
    for pid in $DAEMON $(pgrep -P $DAEMON); do of_threads $pid $1; done
}
# Nanoseconds on a processor, exact, where clock ticks count whoever they hit; and how often a thread was woken.
busy() { tasks schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'; }
woken() { tasks status | awk '/^voluntary/ { sum += $2 } END { printf "%.0f", sum }'; }
# MICROSECONDS WAKES in $IDLE seconds: the least of up to three times, since on a slow machine hosts that stand by are still being started.
idle() {
    local busy woken spent wakes least=999999999 fewest=999999999
    for _ in 1 2 3; do
        sleep 3
        busy=$(busy) woken=$(woken)
        sleep $IDLE
        spent=$((($(busy) - busy) / 1000)) wakes=$(($(woken) - woken))
        [ $spent -ge $least ] || least=$spent
        [ $wakes -ge $fewest ] || fewest=$wakes
        # So little that it matters no more.
        [ $least -ge $((IDLE * 5000)) ] || [ $fewest -ge $((IDLE * 20)) ] || break
    done
    echo $least $fewest
}
serving() { [ "$(tcmuctl devices --json | grep -c '"state": "serving"')" = $DEVICES ]; }

# Fewer than the devices need: the daemon must see to that itself.
ulimit -n 100
start=$(ms)
start_daemon
empty=$(($(ms) - start))
read -r none none_woken <<<"$(idle)"
for n in $(seq $DEVICES); do
    start=$(ms)
    backstore 1 d$n null/x $((1 << 20)) cmd_ring_size_mb=1
    echo $(($(ms) - start))
done >$W/times
first=$(head -10 $W/times | median) last=$(tail -10 $W/times | median)
read -r threads kib <<<"$(facts)"
read -r spent spent_woken <<<"$(idle)"
stop_daemon
seen=$LOG_SEEN start=$(ms)
start_daemon
ready=$(($(ms) - start))
# By the log: to ask the daemon for so many devices again and again would take as long as what is measured.
until [ "$(tail -n +$seen $LOG | grep -c "served by null")" -ge $DEVICES ]; do
    [ $(($(ms) - start)) -lt $((30000 + DEVICES * 100)) ] || fail "not all devices are served: $(tcmuctl status)"
    sleep 0.3
done
taken=$(($(ms) - start))
serving || fail "$(tcmuctl devices)"
echo "$DEVICES devices: the first ten added in $first ms each, the last ten in $last ms (medians); $threads threads, $kib KiB;" \
    "$spent us of processor time and $spent_woken wakes in $IDLE idle s, $none us and $none_woken without devices;" \
    "after a restart ready in $ready ms, all served after $taken ms; without devices ready in $empty ms"
[ $threads -lt 64 ] || fail "$threads threads"
# 200 MiB with 2000 devices; a ring of which each page is touched has 1 MiB here.
[ $kib -lt $((20480 + DEVICES * 90)) ] || fail "$kib KiB"
# Hosts tell now and then that they are there, with or without devices; with them there is one host more, that stands by. What a device
# adds may be a glance at it each time.
[ $spent_woken -le $((IDLE * 40)) ] || fail "$spent_woken wakes in $IDLE idle s"
# A wake took up to 3.7 ms on a machine that did three other things, and 1.4 ms in the same boot before; who polls takes seconds.
[ $spent -le $((4 * none + 50000 + IDLE * DEVICES * 20)) ] || fail "idle devices took $spent us, none took $none us"
# A walk over all devices for each would show as a multiple.
[ $last -le $((3 * first + 20)) ] || fail "adding became slower: $first ms, then $last ms"
# What a start takes by itself is the machine's, and no part of this.
[ $((taken - empty)) -lt 10000 ] || fail "the devices were taken over after $taken ms, where a start without any takes $empty ms"
for n in $(seq $DEVICES); do remove_backstore 1 d$n; done
stop_daemon
no_complaints
