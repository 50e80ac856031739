# The configuration, read again when its file changes: what is in force at once, what waits for a handler's or the daemon's restart, and a
# mistake that changes nothing. tcmu-runner's configuration converted, and its options.
. ./lib.sh
said() { tail -n +$((LOG_SEEN + 1)) $LOG | grep -F -- "$1"; }
host_line() { tr '\0' ' ' </proc/"$(host_pid $1)"/cmdline; }
printf 'log_level = "debug"\nstandby = false\n' >$W/tcmu.toml
tcmu-runnerd --config $W/tcmu.toml >>$LOG 2>&1 &
DAEMON=$!
wait_for 20 is_ready
LOG_SEEN=$(wc -l <$LOG)
backstore 0 a file/$W/a.img $((64 << 20))
A=$(loopback 1 user_0/a)
OLD=$(host_pid file)

# Written in place.
cat >$W/tcmu.toml <<T
log_level = "debug"
standby = false
hang_seconds = 7
[handler.file]
workers = 3
[handler.null]
enabled = false
T
wait_for 10 said "in force: hang_seconds; with \`tcmuctl handler restart NAME\`: handler.file.workers; with \`tcmuctl reload --exec\`: handler.null.enabled"
[ "$(host_pid file)" = "$OLD" ] || fail "the host was restarted"
tcmuctl handler restart file
[[ $(host_line file) == *"--workers 3 "* ]] || fail "the new host was not told: $(host_line file)"
[[ $(host_line alloc) == *"--workers 0 "* ]] || fail "the other handler's host was: $(host_line alloc)"
tcmuctl handlers | grep ^null || fail "null is gone too early"
tcmuctl reload --exec
wait_for 20 is_ready
expect "disabled by the configuration" cat $LOG
[[ $(host_line file) == *"--workers 3 "* ]] || fail "$(host_line file)"
LOG_SEEN=$(wc -l <$LOG)

# Replaced by one with a mistake: what was, holds, and it is known why.
printf 'log_level = "debug"\n[handler.file]\nworkers = "many"\n' >$W/new
mv $W/new $W/tcmu.toml
wait_for 10 said "the configuration stays as it was: $W/tcmu.toml:3:"
expect "configuration: not in force, what was read before is: $W/tcmu.toml:3: invalid type" tcmuctl status
expect "$W/tcmu.toml:3: invalid type" tcmuctl reload
[ "$(said "stays as it was" | wc -l)" = 1 ] || fail "it was read more than once: $(said "stays as it was")"
LOG_SEEN=$(wc -l <$LOG)
rm $W/tcmu.toml
wait_for 10 said "the configuration stays as it was"
printf 'log_level = "debug"\nstandby = true\n' >$W/tcmu.toml
wait_for 10 said "in force: hang_seconds, standby; with \`tcmuctl handler restart NAME\`: handler.file.workers; with \`tcmuctl reload --exec\`: handler.null.enabled"
! tcmuctl status | grep configuration: || fail "the mistake is still shown"
two() { [ "$(pgrep -fc "handler-host file ")" = 2 ]; }
one() { [ "$(pgrep -fc "handler-host file ")" = 1 ]; }
wait_for 20 two
printf 'log_level = "debug"\nstandby = false\n' >$W/tcmu.toml
wait_for 20 one
verify $A 2 --size=16m
remove_loopback 1
remove_backstore 0 a
stop_daemon

# What tcmu-runner's users bring along.
printf '# comment\nlog_level = 5\nlog_dir = "/var/log"\n' >$W/tcmu.conf
expect "log_dir = \"/var/log\": log lines go to the journal" tcmuctl migrate --from $W/tcmu.conf --to $W/migrated.toml
grep -qx 'log_level = "trace"' $W/migrated.toml
expect "configuration: valid" tcmu-runnerd --config $W/migrated.toml --check
expect "is there already" tcmuctl migrate --from $W/tcmu.conf --to $W/migrated.toml
tcmu-runnerd -d -f 65536 -l /var/log --config $W/migrated.toml >>$LOG 2>&1 &
DAEMON=$!
wait_for 20 is_ready
for line in "-d is accepted; it is --log-level debug here" "-f 65536 is accepted" "-l /var/log is ignored"; do
    said "tcmu-runnerd: $line" || fail "not answered: $line"
done
grep -qE "^Max open files +65536 " /proc/$DAEMON/limits || fail "$(grep open /proc/$DAEMON/limits)"
stop_daemon
no_complaints
