# The kernel's limits are told with what they cost, and many devices without commands cost no processor time.
. ./lib.sh
start_daemon
backstore 0 slow null/x $((1 << 20))
backstore 0 quick null/y $((1 << 20)) hw_max_sectors=2048
tcmuctl tune >$W/out
grep -qE "^user_0/slow +hw_max_sectors +128 \(64 KiB\) +2048 +a request of 1 MiB becomes 16 commands" $W/out || fail "$(cat $W/out)"
expect "create ... hw_max_sectors=2048" cat $W/out
expect "Nothing to change." tcmuctl tune user_0/quick
expect "there is no device user_0/none" tcmuctl tune user_0/none
expect "user_<number>/<name> is needed" tcmuctl tune none
tcmuctl --json tune | python3 -c '
import json, sys
rows = json.load(sys.stdin)
assert {row["device"] for row in rows} == {"user_0/slow", "user_0/quick"}, rows
assert all(isinstance(row["value"], int) and row["how"] for row in rows), rows'
DEVICES=${IDLE_DEVICES:-40} SECONDS_IDLE=${IDLE_SECONDS:-5}
for n in $(seq $DEVICES); do backstore 1 d$n null/x $((1 << 20)) cmd_ring_size_mb=1; done
sleep 3
ticks() { # of the daemon and its hosts
    cat /proc/$DAEMON/stat $(pgrep -P $DAEMON | sed 's|.*|/proc/&/stat|') | awk '{ sub(/.*\) /, ""); ticks += $12 + $13 } END { print ticks }'
}
before=$(ticks)
sleep $SECONDS_IDLE
spent=$(($(ticks) - before))
echo "$DEVICES idle devices: $((spent * 10)) ms of processor time in $SECONDS_IDLE s; $(ls /proc/$(host_pid null)/task | wc -l) threads," \
    "$(awk '/VmRSS/ { print $2 }' /proc/$(host_pid null)/status) KiB"
[ $spent -le 2 ] || fail "idle devices took $spent ticks"
for n in $(seq $DEVICES); do remove_backstore 1 d$n; done
remove_backstore 0 slow
remove_backstore 0 quick
stop_daemon
no_complaints
