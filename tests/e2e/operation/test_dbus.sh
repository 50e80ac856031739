# The bus: handlers and nothing else under the object manager, CheckConfig, control and its signals, the name not taken, and nobody but root
# let in; and the daemon started by the bus.
. ./lib.sh
start_daemon
S=org.kernel.TCMUService1 P=/org/kernel/TCMUService1
T=org.tcmu_runnerd.Control1 R=/org/tcmu_runnerd/Control1
python3 clients/listen.py >$W/signals 2>&1 &
LISTENS=$!
setpriv --reuid=nobody --regid=nogroup --clear-groups python3 clients/listen.py >$W/nobody 2>&1 &
OTHER=$!
busctl --no-pager introspect $S $P/file | grep >/dev/null "^.ConfigDesc .*property .*s"
busctl --no-pager call $S $P org.freedesktop.DBus.ObjectManager GetManagedObjects >$W/objects
[ "$(grep -o '"/org/[^"]*"' $W/objects | sort | tr '\n' ' ')" = '"/org/kernel/TCMUService1/alloc" "/org/kernel/TCMUService1/file" "/org/kernel/TCMUService1/null" ' ] ||
    fail "$(cat $W/objects)"
expect 'bs true "success"' busctl call $S $P/file $S CheckConfig s file//tmp/x
expect 'bs false "the path is missing' busctl call $S $P/file $S CheckConfig s file/
expect 'bs false "\"alloc/x\" does not begin with file/"' busctl call $S $P/file $S CheckConfig s alloc/x
expect "Access denied" su nobody -s /bin/sh -c "busctl --system call $S $P/file $S CheckConfig s file//root/.bash_history"
expect "Access denied" su nobody -s /bin/sh -c "busctl --system call $S $P org.freedesktop.DBus.ObjectManager GetManagedObjects"

# Control, and the signals of what happens.
wait_for 20 grep -q listening $W/signals
wait_for 20 grep -q listening $W/nobody
backstore 0 a alloc/x $((1 << 20))
# What follows at once is told together with it.
wait_for 10 grep -q "^DeviceAdded user_0/a serving 1048576" $W/signals
echo -n $((2 << 20)) >$C/core/user_0/a/attrib/dev_size
expect '"block_size" t 512' busctl call $S $R $T GetDevice s a
expect 'there is no device "b"' busctl call $S $R $T GetDevice s b
expect '"external" b false' busctl call $S $R $T GetHandler s alloc
wait_for 10 grep -q "^DeviceChanged user_0/a serving 2097152" $W/signals
HOST=$(host_pid alloc)
kill -KILL $HOST
wait_for 20 grep -qE "^HandlerChanged alloc .*1$" $W/signals
wait_for 20 grep -qE "^DeviceChanged user_0/a serving 2097152 x $(host_pid alloc)" $W/signals
tcmuctl log-level warn
wait_for 10 grep -q "^PropertiesChanged org.tcmu_runnerd.Control1 warn" $W/signals
[ "$(busctl get-property $S $R $T LogLevel)" = 's "warn"' ]
expect "error, warn, info, debug or trace is needed" tcmuctl log-level loud
remove_backstore 0 a
wait_for 10 grep -q "^DeviceRemoved user_0/a" $W/signals
# What comes and goes at once costs little: none for many.
for n in $(seq 40); do backstore 0 churn alloc/x $((1 << 20)) && remove_backstore 0 churn; done
backstore 0 last alloc/x $((1 << 20))
wait_for 10 grep -q "user_0/last serving" $W/signals
remove_backstore 0 last
echo "signals of 40 devices that came and went: $(grep -c churn $W/signals); of all else: $(grep -vc churn $W/signals)"
kill $LISTENS $OTHER
[ "$(cat $W/nobody)" = listening ] || fail "others hear what the daemon tells: $(cat $W/nobody)"
stop_daemon
expect "tcmu-runnerd is not running" tcmuctl status

# The bus starts it, for targetcli and all others: here without systemd.
sed "s|^Exec=.*|Exec=$(command -v tcmu-runnerd) --handler-path $TCMU_HANDLER_PATH|" ../../dist/dbus/$S.service \
    >/usr/share/dbus-1/system-services/$S.service
busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig
expect 'bs true "success"' busctl call $S $P/file $S CheckConfig s file//tmp/x
DAEMON=$(busctl get-property $S $R $T Pid | cut -d' ' -f2)
kill -TERM $DAEMON
wait_for 20 bash -c "! kill -0 $DAEMON"
rm /usr/share/dbus-1/system-services/$S.service
busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig
no_complaints
