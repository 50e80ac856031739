# limit: 300
# What is forbidden: other users on the bus and on the sockets, files that others may write, and a handler that tries what it may not
# while its disk is used. And what a group is allowed by the example of a policy.
. ./lib.sh
TOP=$(cd ../.. && pwd)
D=$W/plugins S=org.kernel.TCMUService1 P=/org/kernel/TCMUService1
as() { setpriv --reuid="$1" --regid=nogroup --init-groups sh -c "${*:2}"; }
mkdir -p $D
cp $TCMU_HANDLER_PATH/libhandler_file.so $D/
cc -std=c11 -shared -fPIC -pthread -D_GNU_SOURCE -I $TOP/handler-api/include -o $D/handler_forbidden.so $TOP/tests/plugins/forbidden.c
chmod 755 $D $D/*.so

# Files: a plugin that others may write, one in a directory that they may write, and links to both.
mkdir -p $W/open
cp $D/handler_forbidden.so $W/open/handler_other.so
chmod 777 $W/open
chmod 755 $W/open/handler_other.so
ln -sf $W/open/handler_other.so $D/handler_link.so
cp $D/handler_forbidden.so $D/handler_group.so
chgrp nogroup $D/handler_group.so
chmod 775 $D/handler_group.so
cp $D/handler_forbidden.so $D/handler_owner.so
chown nobody $D/handler_owner.so
if tcmu-runnerd --handler-path $D --check >$W/check 2>&1; then fail "--check says all is well"; fi
cat $W/check
grep -q "handler_link.so: not used, since everybody may write $W/open;" $W/check
grep -q "handler_group.so: not used, since its group (gid [0-9]*) may write it;" $W/check
grep -q "handler_owner.so: not used, since its owner (uid 65534) may write it;" $W/check
grep -q "^handler: forbidden" $W/check
expect "handler_other.so: not used, since everybody may write $W/open;" tcmu-runnerd --handler-path $W/open --check
rm $D/handler_link.so $D/handler_group.so $D/handler_owner.so

# The configuration, likewise.
echo 'handler.file.user = "nobody"' >$W/tcmu.toml
chmod 666 $W/tcmu.toml
expect "tcmu.toml: not used, since everybody may write it; only root may" tcmu-runnerd --config $W/tcmu.toml --handler-path $D
cp $W/tcmu.toml $W/open/safe.toml
chmod 644 $W/tcmu.toml $W/open/safe.toml
expect "safe.toml: not used, since everybody may write $W/open;" tcmu-runnerd --config $W/open/safe.toml --check
ln -sf $W/open/safe.toml $W/link.toml
expect "link.toml: not used, since everybody may write $W/open;" tcmu-runnerd --config $W/link.toml --check

start_daemon --handler-path $D --config $W/tcmu.toml
# One that came to be bad while the daemon runs changes nothing, and is named.
chmod 666 $W/tcmu.toml
kill -HUP $DAEMON
told() { grep -q "tcmu.toml: not used, since everybody may write it" $LOG; }
wait_for 10 told
chmod 644 $W/tcmu.toml

# Sockets, the lock and the run directory are root's.
expect "ermission denied" as nobody "flock -n /run/tcmu-runnerd.lock true"
if [ -d /run/tcmu-runnerd ]; then
    [ "$(stat -c '%a %u' /run/tcmu-runnerd)" = "700 0" ] || fail "the run directory is $(stat -c '%a %u' /run/tcmu-runnerd)"
    expect "ermission denied" as nobody "ls /run/tcmu-runnerd"
fi
[ -z "$(ss -Hxlp | grep -E 'tcmu-runnerd|"handler' | grep '@')" ] || fail "a socket in the abstract namespace, which anybody may connect to: $(ss -Hxlp)"

# The bus: nobody but root; then what the example lets a group do, and no more.
call() { as $1 "busctl --system call $S ${*:2}"; }
CHECK="$P/file $S CheckConfig s file//root/.bash_history"
OBJECTS="$P org.freedesktop.DBus.ObjectManager GetManagedObjects"
LISTED="/org/tcmu_runnerd/Control1 org.tcmu_runnerd.Control1 ListDevices"
LEVEL="/org/tcmu_runnerd/Control1 org.tcmu_runnerd.Control1 SetLogLevel s error"
# Not by useradd, whose locks and backups the guest's /etc can't have.
sed -i '/^watcher:/d' /etc/passwd
sed -i '/^tcmu:/d' /etc/group
echo "watcher:x:4242:65534::/tmp:/bin/sh" >>/etc/passwd
echo "tcmu:x:4243:watcher" >>/etc/group
reload_bus() { busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig; }
reload_bus
for what in "$CHECK" "$OBJECTS" "$LISTED" "$LEVEL"; do
    expect "Access denied" call nobody $what
    expect "Access denied" call watcher $what
done
expect "Access denied" as watcher "busctl --system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus RequestName su $S 4"
cp $TOP/dist/dbus/tcmu-runnerd-group.conf.example /etc/dbus-1/system.d/tcmu-runnerd-group.conf
reload_bus
expect "/org/kernel/TCMUService1/file" call watcher $OBJECTS
expect "aa{sv}" call watcher $LISTED
expect 's "file/' as watcher "busctl --system get-property $S $P/file $S ConfigDesc"
for what in "$CHECK" "$LEVEL"; do expect "Access denied" call watcher $what; done
for what in "$CHECK" "$OBJECTS" "$LISTED" "$LEVEL"; do expect "Access denied" call nobody $what; done
rm /etc/dbus-1/system.d/tcmu-runnerd-group.conf
reload_bus

# What hosts are: one capability, or none for one that runs as a user; no new privileges; a filter; of every thread.
capabilities() { of_threads $1 status | awk '/^Cap(Inh|Prm|Eff|Bnd|Amb)|^NoNewPrivs|^Seccomp:/ { print $1 $2 }' | sort | uniq -c; }
echo "of the host of forbidden (root), for each thread:"
capabilities "$(host_pid forbidden)"
for pid in $(host_pid forbidden) $(host_pid file); do
    allowed=2
    [ $pid = "$(host_pid file)" ] && allowed=0
    of_threads $pid status | awk -v allowed=$allowed '/^Cap(Prm|Eff)/ { sub(/^0*/, "", $2); if ($2 != "" && $2 != allowed) bad = 1 }
        /^Cap(Inh|Amb)/ && $2 !~ /^0+$/ { bad = 1 } /^NoNewPrivs/ && $2 != 1 { bad = 1 } /^Seccomp:/ && $2 != 2 { bad = 1 }
        /^Seccomp:/ { threads++ } END { exit bad || !threads }' || fail "a host has more than it needs: $(capabilities $pid)"
done
# PR_SET_IO_FLUSHER was set before the capability for it was dropped, and all threads have it.
for pid in $(host_pid forbidden) $(host_pid file); do io_flushers $pid; done
expect '"io_flusher": true' tcmuctl handlers --json
! grep -q "IO_FLUSHER is not in force" $LOG || fail "a host has no PR_SET_IO_FLUSHER"
# So was the right to come back from the lowest priority to the usual one, and no further.
for pid in $(host_pid forbidden) $(host_pid file); do
    grep -qE "^Max nice priority +20 +20 " /proc/$pid/limits || fail "a host's reactors cannot give way: $(grep nice /proc/$pid/limits)"
done

# A handler that tries is refused, and its disk goes on; so does the other's.
mkdir -m 777 -p $W/images
truncate -s $((64 << 20)) $W/images/f.img
chown nobody $W/images/f.img
backstore 0 a forbidden/x $((64 << 20))
backstore 1 b file/$W/images/f.img $((64 << 20))
A=$(loopback 1 user_0/a)
B=$(loopback 2 user_1/b)
HOST=$(host_pid forbidden)
verify $A 10 --size=32m &
FIO=$!
(verify $B 8 --size=32m) &
OTHER=$!
try() { busctl call $S $P/forbidden $S CheckConfig s "forbidden/$1"; }
for what in thread unix raise; do expect 'bs true "success"' try $what; done
for what in execve fork mount ptrace module inet netlink kill tgkill limits unshare bpf reboot setuid; do
    expect "bs false \"$what: Operation not permitted\"" try $what
done
expect 'bs false "memory: Permission denied"' try memory
expect 'bs false "unknown: Function not implemented"' try unknown
wait $FIO
wait $OTHER
[ "$(host_pid forbidden)" = "$HOST" ] || fail "the host was started again"
for call in execve clone mount ptrace init_module socket kill tgkill prlimit64 unshare bpf reboot; do
    grep -q "\[forbidden\] the handler tried the system call \`$call\`, which was refused (EPERM)" $LOG || fail "nothing was said of $call"
done
echo "refused: $(grep -c 'the handler tried' $LOG) kinds of system calls, each told once"
# What a config string says is opened with the handler's user's rights.
expect 'Permission denied' backstore 2 s file//etc/shadow $((1 << 20))
rmdir $C/core/user_2/s $C/core/user_2
remove_loopback 1
remove_loopback 2
remove_backstore 0 a
remove_backstore 1 b
stop_daemon

# As a user it opens what that user may open; and the switch. (The guest's /etc is the other side's to protect: 9p asks nobody.)
install -m 600 /dev/null $W/shadow
mount --bind $W/shadow /etc/shadow
cat >$W/tcmu.toml <<T
handler.forbidden.user = "nobody"
T
start_daemon --handler-path $D --config $W/tcmu.toml
expect 'bs false "shadow: Permission denied"' try shadow
expect 'bs false "mount: Operation not permitted"' try mount
stop_daemon
umount /etc/shadow
echo 'handler.forbidden.confined = false' >$W/tcmu.toml
start_daemon --handler-path $D --config $W/tcmu.toml
expect 'bs true "success"' try inet
expect 'bs false "mount: No such device"' try mount
stop_daemon
sed -i '/^watcher:/d' /etc/passwd
sed -i '/^tcmu:/d' /etc/group
no_complaints
