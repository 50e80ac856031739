# The supervisor is killed, and replaced by a newer program, under verified I/O: its hosts serve on, and the next supervisor finds all as it is.
# limit: 400
. ./lib.sh
. ./load.sh
plugins file alloc
mkdir -p $W/bin
cp "$(command -v tcmu-runnerd)" $W/bin/
PATH=$W/bin:$PATH
start() { start_daemon --handler-path $W/plugins; }
murder() {
    kill -KILL $DAEMON
    wait $DAEMON || true
    LOG_SEEN=$(wc -l <$LOG)
}
hosts() { echo "$(host_pid file) $(host_pid alloc)"; }
start
backstore 0 a file/$W/a $((64 << 20))
backstore 1 b alloc/b $((64 << 20))
backstore 2 gone file/$W/gone $((16 << 20))
A=$(loopback 1 user_0/a)
B=$(loopback 2 user_1/b)
HOSTS=$(hosts)
load quieta $A
load quietb $B
sleep 5
loads_end

load killeda $A
load killedb $B
for _ in 1 2 3; do
    sleep 1.$((RANDOM % 10))
    murder
    sleep 1
    start
done
[ "$(hosts)" = "$HOSTS" ] || fail "other hosts: $(hosts), not $HOSTS"
grep -q "its host goes on handler=\"file\"" $LOG || fail "nothing was said of it"
expect '"restarts": 0' tcmuctl handlers --json
! grep -q "taking over" $LOG || fail "a device was taken over that had a host"

# While nobody is there: a device goes, one comes, one is to come.
murder
remove_backstore 2 gone &
REMOVE=$!
truncate -s 16M $W/new # a handler does not make up the file of a device that was there before it
backstore 3 new file/$W/new $((16 << 20)) nl_reply_supported=-1
backstore 4 asked file/$W/asked $((16 << 20)) &
ASKED=$!
sleep 1
start
wait $REMOVE || fail "the removal failed"
wait $ASKED || fail "a device was refused that nobody had heard of"
is_state user_4/asked serving || fail "it is enabled, and $(state_of user_4/asked)"
remove_backstore 4 asked
wait_for 10 is_state user_3/new serving
wait_for 10 is_state user_2/gone none

# Another daemon is refused; a host that speaks another language is ended, and so is a socket that nobody has.
if tcmu-runnerd --handler-path $W/plugins >$W/second 2>&1; then fail "a second daemon ran"; fi
grep "another tcmu-runnerd is running" $W/second
[ "$(stat -c %a /run/tcmu-runnerd)" = 700 ] || fail "the run directory is open"
murder
python3 - <<'P' &
import socket
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind("/run/tcmu-runnerd/host-99")
listener.listen()
connection, _ = listener.accept()
connection.recv(1000)
connection.send(b'{"Hello":{"protocol":99,"version":"9.9"}}')
connection.recv(1000)
connection.recv(1000)
P
STRANGER=$!
python3 -c 'import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).bind("/run/tcmu-runnerd/host-98")'
listens() { [ -e /run/tcmu-runnerd/host-99 ]; }
wait_for 10 listens
start
! wait $STRANGER || fail "the stranger lives"
grep -q "a host of an earlier daemon is ended, its devices are taken over: it is of version 9.9 and speaks protocol 99" $LOG
[ ! -e /run/tcmu-runnerd/host-98 ] && [ ! -e /run/tcmu-runnerd/host-99 ] || fail "dead sockets are left"
loads_end
[ "$(hosts)" = "$HOSTS" ] || fail "other hosts: $(hosts), not $HOSTS"
# No pause, but the processors are shared with those that start.
for n in a b; do
    echo "supervisor killed 5 times: $n: longest command $(longest killed$n) ms (quiet: $(longest quiet$n) ms)"
    [ "$(longest killed$n)" -lt $(($(longest quiet$n) * 5 + 500)) ] || fail "I/O waited for the supervisor"
done

# A newer program takes over; one that cannot run does not.
load upgradea $A
load upgradeb $B
sleep 1
cp $W/bin/tcmu-runnerd $W/bin/next
mv $W/bin/next $W/bin/tcmu-runnerd
[[ $(readlink /proc/$DAEMON/exe) == *deleted* ]] || fail "the program was not exchanged"
tcmuctl reload --exec
[[ $(readlink /proc/$DAEMON/exe) == $W/bin/tcmu-runnerd ]] || fail "the daemon runs $(readlink /proc/$DAEMON/exe)"
[ "$(hosts)" = "$HOSTS" ] || fail "other hosts: $(hosts), not $HOSTS"
wait_for 20 is_state user_0/a serving
mv $W/bin/tcmu-runnerd $W/bin/good
printf '#!/bin/sh\necho no such library >&2; exit 127\n' >$W/bin/tcmu-runnerd
chmod 755 $W/bin/tcmu-runnerd
expect "$W/bin/tcmu-runnerd: no such library" tcmuctl reload --exec
mv $W/bin/good $W/bin/tcmu-runnerd
tcmuctl reload
loads_end
for n in a b; do
    echo "program exchanged: $n: longest command $(longest upgrade$n) ms (quiet: $(longest quiet$n) ms)"
    [ "$(longest upgrade$n)" -lt $(($(longest quiet$n) * 5 + 500)) ] || fail "I/O waited for the next program"
done
! dmesg | grep >/dev/null "I/O error" || fail "the kernel saw I/O errors"

# Host and supervisor both: the devices are taken over.
murder
kill -KILL "$(host_pid file)"
start
wait_for 20 is_state user_0/a serving
verify $A 2 --size=16m
remove_loopback 1
remove_loopback 2
remove_backstore 0 a
remove_backstore 1 b
remove_backstore 3 new
stop_daemon
[ -z "$(pgrep -f handler-host)" ] || fail "a handler host was left behind"
[ "$(ls /run/tcmu-runnerd)" = lock ] || fail "left behind: $(ls /run/tcmu-runnerd)"
no_complaints
