# The bus: handlers and nothing else under the object manager, CheckConfig, the name not taken, and nobody but root let in.
. ./lib.sh
start_daemon
S=org.kernel.TCMUService1 P=/org/kernel/TCMUService1
busctl --no-pager introspect $S $P/file | grep -q "^.ConfigDesc .*property .*s"
busctl --no-pager call $S $P org.freedesktop.DBus.ObjectManager GetManagedObjects >$W/objects
[ "$(grep -o '"/org/[^"]*"' $W/objects | sort | tr '\n' ' ')" = '"/org/kernel/TCMUService1/alloc" "/org/kernel/TCMUService1/file" "/org/kernel/TCMUService1/null" ' ] ||
    fail "$(cat $W/objects)"
expect 'bs true "success"' busctl call $S $P/file $S CheckConfig s file//tmp/x
expect 'bs false "the path is missing' busctl call $S $P/file $S CheckConfig s file/
expect 'bs false "\"alloc/x\" does not begin with file/"' busctl call $S $P/file $S CheckConfig s alloc/x
expect "Access denied" su nobody -s /bin/sh -c "busctl --system call $S $P/file $S CheckConfig s file//root/.bash_history"
expect "Access denied" su nobody -s /bin/sh -c "busctl --system call $S $P org.freedesktop.DBus.ObjectManager GetManagedObjects"
tcmuctl log-level warn
expect "error, warn, info, debug or trace is needed" tcmuctl log-level loud
stop_daemon
expect "tcmu-runnerd is not running" tcmuctl status
