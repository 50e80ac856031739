# The daemon stops and starts with its devices present and under verified I/O: no error, nothing lost.
. ./lib.sh
start_daemon
backstore 0 a file/$W/r.img $((128 << 20))
backstore 1 idle file/$W/r2.img $((64 << 20))
A=$(loopback 1 user_0/a)
verify $A 14 --size=64m &
FIO=$!
sleep 3
stop_daemon
[ -z "$(pgrep -f handler-host)" ] || fail "a handler host was left behind"
expect "blocked" cat $C/core/user_0/a/action/block_dev
# Other tools must not hang on a daemon that isn't there.
timeout 10 rmdir $C/core/user_1/idle
start_daemon
expect "unblocked" cat $C/core/user_0/a/action/block_dev
wait $FIO
remove_loopback 1
remove_backstore 0 a
stop_daemon
no_complaints
