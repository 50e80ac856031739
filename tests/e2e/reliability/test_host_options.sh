# A host for each device, a host that runs as another user, and an operator's limit after which commands fail.
. ./lib.sh
cat >$W/tcmu.toml <<T
give_up_seconds = 3
[handler.file]
host_per_device = true
[handler.alloc]
user = "nobody"
T
start_daemon --config $W/tcmu.toml
backstore 0 a file/$W/a.img $((64 << 20))
backstore 1 b file/$W/b.img $((64 << 20))
backstore 2 c alloc/c $((64 << 20))
A=$(loopback 1 user_0/a)
B=$(loopback 2 user_1/b)
D=$(loopback 3 user_2/c)
pid_of() { pgrep -f "handler-host $1 .*--device $2" | head -1; }
PA=$(pid_of file user_0/a) PB=$(pid_of file user_1/b)
[ -n "$PA" ] && [ -n "$PB" ] && [ "$PA" != "$PB" ] || fail "the devices do not have hosts of their own: $PA $PB"
verify $A 8 --size=32m &
FIO=$!
(verify $B 6 --size=32m) &
OTHER=$!
sleep 3
kill -KILL "$PA"
wait $FIO
wait $OTHER
[ "$(pid_of file user_1/b)" = "$PB" ] || fail "the other device's host changed"
awk '/^Uid:/ { exit !($2 == 65534 && $3 == 65534 && $4 == 65534) } ' /proc/"$(host_pid alloc)"/status || fail "alloc does not run as nobody"
awk '/^Cap(Eff|Prm):/ && $2 !~ /^0+$/ { exit 1 }' /proc/"$(host_pid alloc)"/status || fail "alloc has capabilities"
expect '"io_flusher": true' tcmuctl handlers --json
verify $D 2 --size=16m
# Its image is gone when its host dies: commands wait, then fail; and come back with the image.
mv $W/a.img $W/a.away
kill -KILL "$(pid_of file user_0/a)"
no_io_errors
fails() { ! timeout 20 dd if=$A of=/dev/null bs=4k count=1 iflag=direct; }
wait_for 60 fails
grep -q "nobody has served it for too long" $LOG || fail "nothing was said of it"
mv $W/a.away $W/a.img
works() { timeout 20 dd if=$A of=/dev/null bs=4k count=1 iflag=direct; }
wait_for 60 works
verify $A 2 --size=16m
dmesg -C
remove_loopback 1
remove_loopback 2
remove_loopback 3
remove_backstore 0 a
remove_backstore 1 b
remove_backstore 2 c
[ -z "$(pid_of file user_)" ] || fail "a host is left"
stop_daemon
