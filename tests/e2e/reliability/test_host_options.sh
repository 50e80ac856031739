# A host for each device, a host that runs as another user, and an operator's limit after which the commands of one device fail while
# those of another wait.
. ./lib.sh
. ./load.sh
cat >$W/tcmu.toml <<T
[handler.file]
host_per_device = true
[handler.alloc]
user = "nobody"
[device."user_0/a"]
give_up_seconds = 3
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
# Their images are gone when their hosts die. The commands of one wait for three seconds, then fail; those of the other wait on.
no_io_errors
for n in a b; do mv $W/$n.img $W/$n.away; done
kill -KILL "$(pid_of file user_0/a)" "$(pid_of file user_1/b)"
failed() { is_state user_0/a "failed: " && is_state user_1/b "failed: "; }
wait_for 30 failed
dd if=$B of=/dev/null bs=4k count=1 iflag=direct 2>$W/patient &
PATIENT=$!
SECONDS=0
fails() { ! timeout 20 dd if=$A of=/dev/null bs=4k count=1 iflag=direct; }
wait_for 60 fails
echo "fails after $SECONDS s"
grep -q "nobody has served it for too long.*user_0/a" $LOG || fail "nothing was said of it"
sleep 8
kill -0 $PATIENT || fail "the command of the other device did not wait: $(cat $W/patient)"
! grep -q "nobody has served it for too long.*user_1/b" $LOG || fail "the other device was given up too"
for n in a b; do mv $W/$n.away $W/$n.img; done
works() { timeout 20 dd if=$A of=/dev/null bs=4k count=1 iflag=direct; }
wait_for 60 works
wait $PATIENT || fail "the command that waited failed: $(cat $W/patient)"
verify $B 2 --size=16m
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
