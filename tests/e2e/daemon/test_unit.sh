# What the systemd unit leaves to the daemon is enough: with its capabilities and no others, devices are served, hosts run as a user, are
# killed and started again, and the daemon stops and starts. (The guest has no systemd; `systemd-analyze` judges the unit itself.)
. ./lib.sh
UNIT=$(cd ../.. && pwd)/dist/systemd/tcmu-runnerd.service
systemd-analyze security --offline=true "$UNIT" 2>/dev/null | tail -1 || echo "no systemd-analyze here"
! grep -E '^(Protect(System|Home|KernelTunables|KernelModules|KernelLogs|ControlGroups|Proc|Hostname|Clock)|Private[A-Za-z]*|ProcSubset|MountFlags|[A-Za-z]*Paths|Device[A-Za-z]*|RootDirectory)=' "$UNIT" ||
    fail "the unit makes a private mount namespace, or closes /dev"
kept=$(sed -n 's/^CapabilityBoundingSet=//p' "$UNIT" | tr 'A-Z\n' 'a-z ' | sed 's/cap_/+/g; s/ *$//; s/ /,/g')
[ -n "$kept" ] || fail "the unit keeps all capabilities"
cat >$W/tcmu.toml <<T
[handler.alloc]
user = "nobody"
T
start_as_unit() {
    setpriv --bounding-set="-all,$kept" --no-new-privs tcmu-runnerd --log-level debug --config $W/tcmu.toml >>$LOG 2>&1 &
    DAEMON=$!
    wait_for 20 is_ready
    LOG_SEEN=$(wc -l <$LOG)
}
start_as_unit
grep CapEff /proc/$DAEMON/status
backstore 0 a file/$W/u.img $((64 << 20))
backstore 1 b alloc/b $((64 << 20))
A=$(loopback 1 user_0/a)
B=$(loopback 2 user_1/b)
verify $A 9 --size=32m &
FIO=$!
sleep 2
kill -KILL "$(host_pid file)" "$(host_pid alloc)"
sleep 3
stop_daemon
start_as_unit
wait $FIO
# What is in memory dies with its host; the disk goes on.
verify $B 2 --size=16m
expect '"io_flusher": true' tcmuctl handlers --json
awk '/^Uid:/ { exit !($2 == 65534) }' /proc/"$(host_pid alloc)"/status || fail "alloc does not run as nobody"
remove_loopback 1
remove_loopback 2
remove_backstore 0 a
remove_backstore 1 b
stop_daemon
[ -z "$(pgrep -f handler-host)" ] || fail "a handler host was left behind"
no_complaints
