# Programs that serve a subtype themselves: listed, asked about config strings, left the kernel's events; refused where a subtype is taken;
# and nothing of them stays when they are gone.
. ./lib.sh
S=org.kernel.TCMUService1 P=/org/kernel/TCMUService1
M=$S.HandlerManager1
echo "check_timeout_seconds = 2" >$W/tcmu.toml
start_daemon --config $W/tcmu.toml
check() { busctl call $S $P/$1 $S CheckConfig s $1/$2; }
listed() { busctl call $S $P org.freedesktop.DBus.ObjectManager GetManagedObjects | grep -o '"/org/[^"]*"' | sort | tr '\n' ' '; }
program() { # SUBTYPE WHAT-IT-SAYS
    : >$W/$1.out
    python3 clients/program.py $1 >>$W/$1.out 2>&1 &
    PROGRAM=$!
    wait_for 30 grep -q "$2" $W/$1.out
}
none='"/org/kernel/TCMUService1/alloc" "/org/kernel/TCMUService1/file" "/org/kernel/TCMUService1/null" '

# Refused in words: who owns no name, a subtype that is taken, one that is no name, and everybody but root.
expect "bs false \"nobody owns the bus name $M.prog\"" busctl call $S $P/HandlerManager1 $M RegisterHandler ss prog x
expect 'bs false "the subtype \"a-b\" cannot be a name' busctl call $S $P/HandlerManager1 $M RegisterHandler ss a-b x
expect "Access denied" su nobody -s /bin/sh -c "busctl --system call $S $P/HandlerManager1 $M RegisterHandler ss prog x"
expect "Access denied" su nobody -s /bin/sh -c "busctl --system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus RequestName su $M.prog 4"
program file "refused the subtype \"file\" is taken by the plugin"
kill $PROGRAM
[ "$(listed)" = "$none" ] || fail "listed: $(listed)"

program prog registered
[ "$(listed)" = "$none\"/org/kernel/TCMUService1/prog\" " ] || fail "listed: $(listed)"
expect 's "prog/good<anything>"' busctl get-property $S $P/prog $S ConfigDesc
expect "the caller does not own the bus name" busctl call $S $P/HandlerManager1 $M RegisterHandler ss prog x
expect 'bs true "fine"' check prog good
expect 'bs false "it is not good"' check prog bad
# One that does not answer keeps nobody else waiting.
check prog slow >$W/slow &
SLOW=$!
expect 'bs true "success"' check file /tmp/x
kill -0 $SLOW 2>/dev/null || fail "the slow one was answered first"
wait $SLOW
expect 'did not answer within 2 s' cat $W/slow
tcmuctl --json handlers >$W/handlers
python3 - $W/handlers $PROGRAM <<'P'
import json, sys
row = next(row for row in json.load(open(sys.argv[1])) if row["subtype"] == "prog")
assert row["external"] and row["running"] and row["pid"] == int(sys.argv[2]), row
P

# The kernel's events are its to answer.
backstore 7 p prog/good $((1 << 20))
grep -q "added tcm-user/7/p/prog/good" $W/prog.out
echo -n $((2 << 20)) >$C/core/user_7/p/attrib/dev_size
grep -q "reconfigured tcm-user/7/p/prog/good" $W/prog.out
expect "no devices" tcmuctl devices
# A daemon that takes over leaves them to it from the start.
tcmuctl reload --exec
remove_backstore 7 p
backstore 7 q prog/good $((1 << 20))
remove_backstore 7 q
grep -q "removed tcm-user/7/p/prog/good" $W/prog.out
wait_for 20 bash -c "[ \$(grep -c registered $W/prog.out) = 2 ]"
expect '"prog"' tcmuctl --json handlers

# Who waits for one that dies waits no longer.
kill -STOP $PROGRAM
(backstore 7 r prog/good $((1 << 20))) >$W/waits 2>&1 &
WAITS=$!
sleep 2
kill -0 $WAITS 2>/dev/null || fail "nobody answered, and still: $(cat $W/waits)"
SECONDS=0
kill -KILL $PROGRAM
wait $WAITS && fail "it was enabled by nobody"
grep -q "No such file or directory" $W/waits || fail "$(cat $W/waits)"
echo "a tool that waited for a program that died: $SECONDS s"
wait_for 10 bash -c "! tcmuctl --json handlers | grep >/dev/null prog"
[ "$(listed)" = "$none" ] || fail "listed: $(listed)"
expect "No such file or directory" bash -c "echo -n 1 >$C/core/user_7/r/enable"
remove_backstore 7 r
stop_daemon
no_complaints
