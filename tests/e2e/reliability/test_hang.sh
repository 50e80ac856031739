# A handler hangs: it is noticed and shown, the daemon and other devices go on, and its host is killed where the operator wants that. A
# command that the kernel gave up is completed late without harm.
# limit: 400
. ./lib.sh
. ./load.sh
plugins file fault
cat >$W/tcmu.toml <<T
hang_seconds = 2
check_timeout_seconds = 3
open_timeout_seconds = 5
drain_timeout_seconds = 2
T
start_daemon --config $W/tcmu.toml --handler-path $W/plugins
backstore 0 a fault/$W/a $((64 << 20))
backstore 1 b file/$W/b $((64 << 20))
# Before it is exported, or the kernel refuses it.
echo 4 >$C/core/user_0/a/attrib/cmd_time_out
A=$(loopback 1 user_0/a)
B=$(loopback 2 user_1/b)
again() { rm -f $W/a.go; }
read_a() { dd if=$A of=/dev/null bs=4k count=1 iflag=direct skip=$((RANDOM % 1000)) 2>/dev/null; }
check_config() {
    soon 10 busctl --system call org.kernel.TCMUService1 /org/kernel/TCMUService1/$1 org.kernel.TCMUService1 CheckConfig s $1/$2
}
load otherb $B

# It keeps the thread that serves. One command only, and less than the kernel's limit: nothing fails.
echo hang >$W/a.fault
read_a &
READ=$!
wait_for 20 is_state user_0/a hangs
SECONDS=0
soon 10 tcmuctl devices
soon 10 tcmuctl handlers
check_config file $W/x
check_config fault $W/x
backstore 2 c file/$W/c $((16 << 20))
remove_backstore 2 c
echo "while it hangs: devices, handlers, two config checks, a device added and removed in $SECONDS s"
grep -q "hangs: its oldest command has been with its handler for" $LOG
touch $W/a.go
wait $READ || true
wait_for 10 is_state user_0/a serving
not_hanging() { ! is_state user_0/a hangs; }
wait_for 10 not_hanging
grep -q "goes on device=user_0/a" $LOG
again

# One command stays while others come and go. The kernel gives it up; it is completed late.
echo keep >$W/a.fault
read_a &
READ=$!
consumed() { [ ! -e $W/a.fault ]; }
wait_for 10 consumed
for _ in $(seq 20); do dd if=$A of=/dev/null bs=4k count=1 iflag=direct skip=$((RANDOM % 1000)) 2>/dev/null; sleep 0.1; done
wait_for 20 is_state user_0/a hangs
is_state user_1/b serving || fail "user_1/b: $(state_of user_1/b)"
sleep 4
touch $W/a.go
wait $READ || true
wait_for 20 not_hanging
! dmesg | grep "ring is broken" || fail "a late completion broke the ring"
dmesg -C # the kernel's own limit made errors, as it should
loads_end
echo "other handler's device: longest command $(longest otherb) ms"
again
read_a || fail "the device does not go on"

# A config string that is judged for ever: who asked is answered, and others are not kept waiting.
touch $W/slow.check
busctl --system call org.kernel.TCMUService1 /org/kernel/TCMUService1/fault org.kernel.TCMUService1 CheckConfig s fault/$W/slow >$W/slow.out &
SLOW=$!
check_config fault $W/x
check_config file $W/x
wait $SLOW || fail "a config string was never judged"
grep -q 'false "the handler did not answer within 3 s"' $W/slow.out || fail "it was judged: $(cat $W/slow.out)"
touch $W/slow.go

# A device is removed while its handler keeps a command that the kernel gave up: whoever removes it gets away, and what comes late does
# no harm.
backstore 4 r fault/$W/r $((16 << 20))
echo 4 >$C/core/user_4/r/attrib/cmd_time_out
R=$(loopback 3 user_4/r)
echo keep >$W/r.fault
dd if=$R of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null &
READ=$!
kept() { [ ! -e $W/r.fault ]; }
wait_for 10 kept
wait $READ || true
dmesg -C
remove_loopback 3
SECONDS=0
soon 20 rmdir $C/core/user_4/r $C/core/user_4
echo "a device whose handler kept a command was removed in $SECONDS s (limit: 5)"
is_state user_1/b serving || fail "user_1/b: $(state_of user_1/b)"
touch $W/r.go
wait_for 20 is_state user_4/r none
read_a || fail "the device does not go on"

# A host that is stopped as a whole.
kill -STOP "$(host_pid fault)"
wait_for 20 is_state user_0/a hangs
soon 5 tcmuctl devices
kill -CONT "$(host_pid fault)"
wait_for 10 not_hanging

# The same, where the operator wants the host killed: no command fails.
echo 'hang_seconds = 2' >$W/tcmu.toml
echo 'device."user_0/a".hang_action = "restart"' >>$W/tcmu.toml
tcmuctl reload
for how in hang keep; do
    OLD=$(host_pid fault)
    echo $how >$W/a.fault
    read_a || fail "$how: the read failed"
    [ "$(host_pid fault)" != "$OLD" ] || fail "$how: nobody was killed"
done
grep -q "its host is killed: a command takes too long" $LOG
verify $A 2 --size=16m
remove_loopback 1
remove_loopback 2
remove_backstore 0 a
remove_backstore 1 b
stop_daemon
no_complaints
