# A handler is restarted with another plugin file under verified I/O: no error; a plugin that cannot be loaded changes nothing.
# limit: 400
. ./lib.sh
. ./load.sh
plugins file alloc
start_daemon --handler-path $W/plugins
backstore 0 a file/$W/a $((64 << 20))
backstore 1 b file/$W/b $((64 << 20))
backstore 2 c alloc/c $((64 << 20))
A=$(loopback 1 user_0/a)
B=$(loopback 2 user_1/b)
D=$(loopback 3 user_2/c)
outdated() { tcmuctl handlers --json | python3 -c 'import json, sys; print(next(h["outdated"] for h in json.load(sys.stdin) if h.get("subtype") == "file"))'; }
load quieta $A
load quietb $B
load quietc $D
sleep 5
loads_end
ALLOC=$(host_pid alloc)
load restarta $A
load restartb $B
load restartc $D
probe $A 60
for _ in 1 2; do
    sleep 1.$((RANDOM % 10))
    OLD=$(host_pid file)
    cp $W/plugins/handler_file.so $W/next.so
    mv $W/next.so $W/plugins/handler_file.so
    [ "$(outdated)" = True ] || fail "nobody saw the new plugin"
    soon 60 tcmuctl handler restart file
    [ "$(outdated)" = False ] || fail "the old plugin is still there"
    [ "$(host_pid file)" != "$OLD" ] || fail "the old process is still there"
done
# A plugin that cannot be loaded, one that is another's, and a handler that isn't there.
NEW=$(host_pid file)
cp $W/plugins/handler_file.so $W/good.so
echo nonsense >$W/bad.so
mv $W/bad.so $W/plugins/handler_file.so
expect "handler_file.so: cannot be loaded" tcmuctl handler restart file
cp $W/plugins/handler_alloc.so $W/bad.so
mv $W/bad.so $W/plugins/handler_file.so
expect 'the plugin is a handler "alloc" now, not "file"' tcmuctl handler restart file
chmod 666 $W/plugins/handler_file.so
expect "handler_file.so: not used, since everybody may write it" tcmuctl handler restart file
mv $W/good.so $W/plugins/handler_file.so
expect 'there is no handler "nobody"' tcmuctl handler restart nobody
only_one() { [ "$(pgrep -fc "handler-host file ")" = 1 ]; }
wait_for 10 only_one
[ "$(host_pid file)" = "$NEW" ] || fail "the process that served is gone"
probe_end
loads_end
[ "$(host_pid alloc)" = "$ALLOC" ] || fail "the other handler's host changed"
echo "2 restarts. Longest gap between completions $GAP ms; those over 60 ms: $GAPS"
for n in a b; do echo "$n: longest command $(longest restart$n) ms (quiet: $(longest quiet$n) ms)"; done
echo "other handler's device: longest command $(longest restartc) ms (quiet: $(longest quietc) ms)"
for n in 1 2 3; do remove_loopback $n; done
remove_backstore 0 a
remove_backstore 1 b
remove_backstore 2 c
stop_daemon
no_complaints
