# A handler host is killed under verified I/O, three times: no error, nothing lost, another handler's disk is not touched.
. ./lib.sh
start_daemon
backstore 0 a file/$W/k.img $((128 << 20))
backstore 1 b alloc/b $((64 << 20))
A=$(loopback 1 user_0/a)
B=$(loopback 2 user_1/b)
verify $A 15 --size=64m &
FIO=$!
(verify $B 12 --size=32m) &
OTHER=$!
HOST_B=$(host_pid alloc)
for _ in 1 2 3; do
    sleep 3
    kill -KILL "$(host_pid file)"
done
wait $FIO
wait $OTHER
[ "$(host_pid alloc)" = "$HOST_B" ] || fail "the other handler's host changed"
expect '"restarts": 3' tcmuctl handlers --json
remove_loopback 1
remove_loopback 2
remove_backstore 0 a
remove_backstore 1 b
stop_daemon
no_complaints
