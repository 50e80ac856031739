# The kernel's events, when things go wrong: many at a time and more than there is room for, a daemon that does not read them, that is
# killed while tools wait for it, or started twice, a handler that takes long. No tool hangs, and in the end all devices are served or
# gone. NETLINK_DEVICES (in all), NETLINK_SECONDS (how long the daemon is stopped) and NETLINK_OPEN (how long a device takes to open) make it
# larger.
# limit: 400
. ./lib.sh
. ./load.sh
DEVICES=${NETLINK_DEVICES:-24} STOPPED=${NETLINK_SECONDS:-1} OPEN=${NETLINK_OPEN:-3}
AT_ONCE=$((DEVICES < 64 ? DEVICES : 64))
plugins null fault
cat >$W/tcmu.toml <<T
netlink_buffer_kib = 4
open_timeout_seconds = $((OPEN + 60))
T
start() { start_daemon --config $W/tcmu.toml --handler-path $W/plugins; }
# without a word of the shell's
dies() {
    kill -KILL $1
    wait $1 2>/dev/null || true
}
murder() {
    dies $DAEMON
    LOG_SEEN=$(wc -l <$LOG)
}
ms() { echo $(($(date +%s%N) / 1000000)); }
lost() { grep -c "No buffer space" $W/refusals || true; }
served() { [ "$(tcmuctl devices --json | grep -c '"state": "serving"')" = "$1" ]; }
gone() { tcmuctl devices | grep >/dev/null "no devices"; }
waits() { grep -q tcmu_ /proc/"$1"/stack || [[ $(cat /proc/"$1"/stat) == *") D "* ]]; }
# Another attempt for each event that was lost, and for nothing else.
add() {
    mkdir $C/core/user_1/d$1
    for setting in dev_size=1048576 dev_config=null/x cmd_ring_size_mb=1; do echo -n $setting >$C/core/user_1/d$1/control; done
    until echo -n 1 2>>$W/refusals >$C/core/user_1/d$1/enable; do sleep 0.5; done
}
enough() { [ $(($(lost) - before)) -gt $((AT_ONCE / 4)) ]; }
remove() { rmdir $C/core/user_1/d$1; }
all() { # add|remove FIRST LAST [stopped]
    local n jobs=()
    [ "${4:-}" != stopped ] || kill -STOP $DAEMON
    for n in $(seq $2 $3); do
        $1 $n &
        jobs+=($!)
    done
    if [ "${4:-}" = stopped ]; then
        sleep $STOPPED
        # Long enough for most to have tried.
        [ $1 = remove ] || wait_for 30 enough
        kill -CONT $DAEMON
    fi
    for n in "${jobs[@]}"; do wait $n || fail "$1: $(tail -3 $W/refusals)"; done
}

# Many at a time. The daemon reads as fast as they come, or is stopped and has no room for most.
start
mkdir $C/core/user_1
: >$W/refusals
START=$(ms)
for ((first = 1; first <= DEVICES; first += AT_ONCE)); do
    last=$((first + AT_ONCE - 1 > DEVICES ? DEVICES : first + AT_ONCE - 1))
    all add $first $last
    served $((last - first + 1)) || fail "not all are served: $(tcmuctl devices)"
    all remove $first $last
    expect "no devices" tcmuctl devices
done
echo "$DEVICES devices added and removed, $AT_ONCE at a time, with room for 4 KiB of events: $(($(ms) - START)) ms, $(lost) events lost"
for ((first = 1; first <= DEVICES; first += AT_ONCE)); do
    last=$((first + AT_ONCE - 1 > DEVICES ? DEVICES : first + AT_ONCE - 1))
    before=$(lost) START=$(ms)
    all add $first $last stopped
    wait_for 20 served $((last - first + 1))
    echo "$((last - first + 1)) added while the daemon was stopped for $STOPPED s: served after $(($(ms) - START)) ms, $(($(lost) - before)) events lost"
    START=$(ms)
    all remove $first $last stopped
    wait_for 20 gone
    echo "removed in the same way: gone after $(($(ms) - START)) ms"
done
# The kernel gives a UIO device's number to the next one before its name is free (uio_unregister_device of 6.1): EEXIST.
[ -z "$(grep -v "No buffer space\|File exists" $W/refusals)" ] || fail "tools were refused: $(sort $W/refusals | uniq -c)"
grep -q "events of the kernel were lost; looking at all devices anew" $LOG || fail "nobody noticed"
! ls -l /proc/"$(host_pid null)"/fd | grep uio || fail "a host has a device that is gone"

# A device takes long to be opened: no other waits for it, of the same handler or another. Whoever enables it is killed.
python3 clients/listen.py >$W/signals 2>&1 &
LISTENS=$!
wait_for 20 grep -q listening $W/signals
touch $W/slow.wait
backstore 2 slow fault/$W/slow 1048576 &
SLOW=$!
wait_for 10 is_state user_2/slow opening
START=$(ms)
for n in 1 2 3; do
    soon 20 bash -c ". ./lib.sh; backstore 1 d$n null/x 1048576; remove_backstore 1 d$n"
    soon 20 bash -c ". ./lib.sh; backstore 3 quick fault/$W/quick 1048576; remove_backstore 3 quick"
done
echo "six devices added and removed in $(($(ms) - START)) ms while another took $OPEN s to open"
# A second daemon is refused, and disturbs nobody.
expect "another tcmu-runnerd is running" tcmu-runnerd --config $W/tcmu.toml --handler-path $W/plugins
kill -KILL $SLOW
sleep $OPEN
[ "$(cat $C/core/user_2/slow/enable)" = 0 ] || fail "it is enabled before it is open"
# The bus is told of a new device when it is served, but does not wait for that longer than ten seconds.
wait_for 20 grep "^DeviceAdded user_2/slow opening" $W/signals
rm $W/slow.wait
wait_for 10 is_state user_2/slow serving
wait_for 10 grep "^DeviceChanged user_2/slow serving" $W/signals
kill $LISTENS
wait $SLOW 2>/dev/null || true
remove_backstore 2 slow

# The daemon dies while tools wait for it, with and without its host; and they come while nobody is there.
for how in supervisor both nobody; do
    touch $W/slow.wait
    [ $how != nobody ] || murder
    backstore 2 slow fault/$W/slow 1048576 &
    SLOW=$!
    backstore 4 $how null/x 1048576 nl_reply_supported=-1 # asks nobody
    if [ $how != nobody ]; then
        wait_for 10 is_state user_2/slow opening
        murder
    else
        wait_for 10 waits $SLOW
    fi
    [ $how != both ] || kill -KILL "$(host_pid fault)"
    START=$(ms)
    start
    sleep 0.5
    kill -0 $SLOW || fail "$how: it did not wait"
    # Others are kept off only for a moment.
    rm $W/slow.wait
    wait $SLOW || fail "$how: it was refused"
    is_state user_2/slow serving || fail "$how: it is $(state_of user_2/slow)"
    echo "enabled although the daemon was killed ($how): $(($(ms) - START)) ms after the next one was started"
    unblocked() { [ "$(cat /sys/module/target_core_user/parameters/block_netlink)" = unblocked ]; }
    wait_for 10 unblocked
    wait_for 10 is_state user_4/$how serving
    remove_backstore 2 slow
    remove_backstore 4 $how
done
# One that takes too long for that gets EINTR, and so does a change; a removal is done.
backstore 2 slow fault/$W/slow 1048576
backstore 2 size fault/$W/size 1048576
touch $W/late.wait
kill -STOP $DAEMON
(backstore 3 late fault/$W/late 1048576) 2>$W/late.said &
LATE=$!
rmdir $C/core/user_2/slow &
GONE=$!
(echo -n 2097152 >$C/core/user_2/size/attrib/dev_size) 2>$W/size.said &
SIZE=$!
for tool in $LATE $GONE $SIZE; do wait_for 10 waits $tool; done
murder
START=$(ms)
start
wait $GONE || fail "the removal failed"
! wait $LATE || fail "it was enabled without being open"
! wait $SIZE || fail "it was changed, and nobody knew"
grep "Interrupted system call" $W/late.said $W/size.said >/dev/null || fail "$(cat $W/late.said $W/size.said)"
echo "tools that waited for a dead daemon are free $(($(ms) - START)) ms after the next one was started"
[ "$(cat $C/core/user_2/size/attrib/dev_size)" = 1048576 ]
rm $W/late.wait
rmdir $C/core/user_3/late $C/core/user_3
wait_for 10 is_state user_3/late none
# One whose handler was busy with the change: the kernel did not take it, and so it is undone.
echo hang >$W/size.fault
(echo -n 2097152 >$C/core/user_2/size/attrib/dev_size) 2>$W/size.said &
SIZE=$!
half_done() { [ "$(stat -c %s $W/size)" = 2097152 ]; }
wait_for 10 half_done
murder
start
! wait $SIZE || fail "it was changed, and nobody knew"
touch $W/size.go
undone() { [ "$(stat -c %s $W/size)" = 1048576 ]; }
wait_for 10 undone
expect "1.0 MiB" tcmuctl devices
remove_backstore 2 size
rmdir $C/core/user_1 2>/dev/null || true
expect "no devices" tcmuctl devices
! ps -eo state,cmd | grep "^D" || fail "something hangs"
stop_daemon
no_complaints
