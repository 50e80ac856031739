# A handler scribbles over the ring of its device, as a wild pointer would: that device stops with a clear word and is taken over anew, with
# its ring emptied; the same host's other device goes on. What cannot be put right by that is said, and waits for the operator.
# limit: 240
. ./lib.sh
. ./load.sh
mkdir -p $W/plugins
cc -std=c11 -shared -fPIC -D_GNU_SOURCE -I ../../handler-api/include -o $W/plugins/handler_scribble.so ../plugins/scribble.c
chmod 755 $W/plugins $W/plugins/*
touch $W/tcmu.toml
start_daemon --config $W/tcmu.toml --handler-path $W/plugins
for n in 0 1; do
    truncate -s 64M $W/d$n
    backstore $n d$n scribble/$W/d$n $((64 << 20))
done
A=$(loopback 1 user_0/d0)
B=$(loopback 2 user_1/d1)
HOST=$(host_pid scribble)
write_a() { dd if=/dev/zero of=$A bs=4k count=1 seek=$((RANDOM % 1000)) oflag=direct conv=notrunc 2>$W/dd; }
said() { tail -n +$((SEEN + 1)) $LOG | grep "$@"; }
again() { said -q "served again after.*user_0/d0"; }
load other $B
for how in head tail entries; do
    SEEN=$(wc -l <$LOG)
    echo $how >$W/d0.scribble
    # It is sent again when the ring was emptied: nobody sees an error.
    write_a || fail "$how: the write failed: $(cat $W/dd)"
    wait_for 30 again
    wait_for 20 is_state user_0/d0 serving
    said -q "the device cannot be served any more.*user_0/d0" || fail "$how: nothing was said of it"
    echo "$how: $(said -o 'error=.*' | head -1); $(said -o 'served again after.*' | tail -1)"
    verify $A 1 --size=16m
done
loads_end
echo "other device of that host: longest command $(longest other) ms"
[ "$(host_pid scribble)" = "$HOST" ] || fail "the host was exchanged"

# What the kernel wrote when it made the device, and won't write again.
SEEN=$(wc -l <$LOG)
load other2 $B
echo mailbox >$W/d0.scribble
(write_a) &
DD=$!
wait_for 30 is_state user_0/d0 "failed: the command ring makes no sense"
tcmuctl devices | grep user_0/d0
sleep 2
is_state user_1/d1 serving || fail "user_1/d1: $(state_of user_1/d1)"
loads_end
# The operator lets its commands fail, and makes the device anew.
no_io_errors
printf '[device."user_0/d0"]\ngive_up_seconds = 1\n' >$W/tcmu.toml
tcmuctl reload
! wait $DD || fail "the write did not fail"
dmesg -C
remove_loopback 1
remove_backstore 0 d0
backstore 0 d0 scribble/$W/d0 $((64 << 20))
A=$(loopback 1 user_0/d0)
verify $A 1 --size=16m
[ "$(host_pid scribble)" = "$HOST" ] || fail "the host was exchanged"
remove_loopback 1
remove_loopback 2
remove_backstore 0 d0
remove_backstore 1 d1
stop_daemon
no_complaints
