# Counters agree with what was done, and outlive the handler's process; metrics are valid OpenMetrics; slow and failing commands are in the
# log in words; a trace has every command.
. ./lib.sh
. ./load.sh
COMMANDS=${COMMANDS:-200}
plugins alloc delay
cat >$W/tcmu.toml <<T
metrics = "127.0.0.1:9899"
[handler.delay]
slow_command_ms = 50
T
start_daemon --config $W/tcmu.toml --handler-path $W/plugins
backstore 0 a alloc/x $((64 << 20))
A=$(loopback 1 user_0/a)
udevadm settle -t 20 2>/dev/null || true

# figure DEVICE PATH: from tcmuctl stats, such as latency.read.commands
figure() { tcmuctl stats --json | python3 -c 'import json, sys
value = next(d for d in json.load(sys.stdin)["devices"] if d["device"] == sys.argv[1])
for name in sys.argv[2].split("."): value = value.get(name, 0) if value else 0
print(value or 0)' "$1" "$2"; }
# metrics: the page, as the strict parser of Prometheus' own client understands it: a sample in each line
metrics() { python3 -c 'import urllib.request as http
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
answer = http.urlopen("http://127.0.0.1:9899/metrics", timeout=20)
assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0"), answer.headers
for family in parse(answer.read().decode()):
    for s in family.samples:
        labels = ",".join(f"{k}={v}" for k, v in sorted(s.labels.items()))
        print(s.name + "{" + labels + "}", s.value)'; }
read_metrics() { metrics >$W/metrics || fail "no valid metrics"; }
# metric NAME LABELS: its value when they were read last, as a whole number; 0 if it is not there
metric() { awk -v name="$1{$2}" '$1 == name { printf "%d\n", $2; found = 1 } END { if (!found) print 0 }' $W/metrics; }

# A READ(10) beyond the end.
beyond_the_end() { expect "out of range" sg_raw -r 512 $A 28 00 7f ff ff ff 00 00 01 00; }

# Exactly so many reads of 4 KiB, then writes; a command beyond the end.
before() { R=$(figure user_0/a reads) B=$(figure user_0/a bytes_read) E=$(figure user_0/a errors.illegal_request); }
before
dd if=$A of=/dev/null bs=4k count=$COMMANDS iflag=direct 2>/dev/null
[ $(($(figure user_0/a reads) - R)) = $COMMANDS ] || fail "$COMMANDS reads were counted as $(($(figure user_0/a reads) - R))"
[ $(($(figure user_0/a bytes_read) - B)) = $((COMMANDS * 4096)) ] || fail "bytes: $B, then $(figure user_0/a bytes_read)"
beyond_the_end
[ $(($(figure user_0/a errors.illegal_request) - E)) = 1 ] || fail "an error was counted as $(($(figure user_0/a errors.illegal_request) - E))"
grep -q 'failed device="user_0/a" command=READ(10) lba 2147483647 blocks 1 .*outcome=CHECK CONDITION: ILLEGAL REQUEST, LBA OUT OF RANGE' $LOG ||
    fail "the error is not in the log: $(grep failed $LOG | tail -2)"
WRITES=$(figure user_0/a latency.write.commands)
dd if=/dev/zero of=$A bs=4k count=$COMMANDS oflag=direct 2>/dev/null
[ $(($(figure user_0/a latency.write.commands) - WRITES)) = $COMMANDS ] || fail "writes"
udevadm settle -t 20 2>/dev/null || true
D=device=user_0/a,handler=alloc
read_metrics
[ "$(metric tcmu_device_latency_seconds_count $D,operation=read)" = "$(figure user_0/a latency.read.commands)" ] || fail "$(grep latency_seconds_count $W/metrics)"
[ "$(metric tcmu_device_read_bytes_total $D)" = "$(figure user_0/a bytes_read)" ] || fail "$(grep bytes $W/metrics)"
[ "$(metric tcmu_device_size_bytes $D)" = $((64 << 20)) ] || fail "$(grep size $W/metrics)"
expect "user_0/a" tcmuctl top --once --interval 0.2
expect "there is no device user_9/none" tcmuctl stats user_9/none

# They outlive the handler's process, and so do they when a handler is restarted; the pause is counted.
R=$(figure user_0/a reads)
kill -KILL "$(host_pid alloc)"
served_again() { [ "$(figure user_0/a takeovers)" -ge "$1" ] && [ "$(figure user_0/a serving)" = True ]; }
wait_for 60 served_again 1
[ "$(figure user_0/a reads)" -ge "$R" ] || fail "reads were $R, and are $(figure user_0/a reads)"
read_metrics
[ "$(metric tcmu_handler_restarts_total handler=alloc)" = 1 ] || fail "$(grep restarts $W/metrics)"
BLOCKED=$(figure user_0/a blocked_seconds)
# And the daemon.
tcmuctl reload --exec
again() { [ "$(figure user_0/a serving)" = True ] && [ "$(figure user_0/a takeovers)" = 0 ]; }
wait_for 60 again
[ "$(figure user_0/a reads)" -ge "$R" ] || fail "reads were $R before the daemon's exchange, and are $(figure user_0/a reads)"
wait_for 20 metrics

# A trace has every command, and print says them in words.
tcmuctl trace start user_0/a $W/trace
expect "a trace of this device is being written" tcmuctl trace start user_0/a $W/other
[ ! -e $W/other ] || fail "the file of a trace that did not begin is left"
expect "File exists" tcmuctl trace start user_0/a $W/trace
dd if=$A of=/dev/null bs=4k count=$COMMANDS iflag=direct skip=8 2>/dev/null
beyond_the_end
tcmuctl trace stop user_0/a
expect "no trace of this device is being written" tcmuctl trace stop user_0/a
tcmuctl trace print $W/trace >$W/trace.txt
[ "$(grep -cE ' READ\((10|16)\) lba [0-9]+ blocks 8, 4096 bytes, [0-9]+ µs: GOOD$' $W/trace.txt)" -ge $COMMANDS ] || fail "$(tail -5 $W/trace.txt)"
grep -q ' lba 64 blocks 8, ' $W/trace.txt || fail "not what was read: $(head -3 $W/trace.txt)"
grep -q 'READ(10) lba 2147483647 blocks 1, 512 bytes, .*: CHECK CONDITION: ILLEGAL REQUEST, LBA OUT OF RANGE$' $W/trace.txt || fail "$(tail -3 $W/trace.txt)"
grep -q ' commands, 0 missing$' $W/trace.txt || fail "$(tail -1 $W/trace.txt)"
tcmuctl trace print --json $W/trace | python3 -c '
import json, sys
rows = [json.loads(line) for line in sys.stdin]
assert all(row["device"] == "user_0/a" and row["latency_nanoseconds"] > 0 for row in rows), rows[0]
assert any(row["sense_key"] == "ILLEGAL REQUEST" for row in rows), rows[-1]'
# One with a limit ends at it, and the device goes on.
tcmuctl trace start user_0/a $W/short --limit 1K
dd if=$A of=/dev/null bs=4k count=100 iflag=direct 2>/dev/null
is_short() { tcmuctl trace print $W/short | grep >/dev/null "^20 commands"; }
wait_for 10 is_short
expect "there is no such device" tcmuctl trace start user_9/none $W/none

# A slow handler: its commands are in the log, by a limit of its own.
backstore 1 s delay/100 $((1 << 20))
S=$(loopback 2 user_1/s)
dd if=$S of=/dev/null bs=4k count=4 iflag=direct 2>/dev/null
wait_for 20 grep -qE 'slow device="user_1/s" command="READ\([0-9]+\) lba [0-9]+ blocks [0-9]+" milliseconds=1[0-9][0-9] commands=[1-9]' $LOG
! grep 'slow device="user_0/a"' $LOG || echo "the quick device was slow as well: a busy machine"
read_metrics
[ "$(metric tcmu_device_slow_commands_total device=user_1/s,handler=delay)" -ge 4 ] || fail "$(grep slow $W/metrics)"
# One that changes at run time.
sed -i 's/= 50/= 60000/' $W/tcmu.toml
udevadm settle -t 20 2>/dev/null || true
tcmuctl reload
sleep 1
SLOW=$(figure user_1/s slow)
dd if=$S of=/dev/null bs=4k count=4 iflag=direct skip=4 2>/dev/null
[ "$(figure user_1/s slow)" = "$SLOW" ] || fail "slow commands are counted by the old limit"

# What was done for a device stays with its handler.
read_metrics
H=$(metric tcmu_handler_commands_total handler=alloc)
remove_loopback 1
remove_loopback 2
remove_backstore 0 a
remove_backstore 1 s
read_metrics
[ "$(metric tcmu_handler_commands_total handler=alloc)" -ge "$H" ] || fail "the handler's counters went back"
! grep -q "device=user_0/a" $W/metrics || fail "metrics of a device that is gone"
tcmuctl stats | tail -4
stop_daemon
echo "blocked by the death of its handler: $BLOCKED s; metrics: $(wc -l <$W/metrics) samples without devices; a trace of $(tail -1 $W/trace.txt)"
no_complaints
