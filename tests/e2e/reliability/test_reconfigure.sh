# A disk is changed while it is in use: size, write cache, config string; through configfs and targetcli, while its host dies, and after
# half of it was done already. Verified I/O goes on, initiators are told, and what is refused changes nothing. RECONFIGURE_ROUNDS makes
# it longer.
# limit: 400
. ./lib.sh
. ./load.sh
ROUNDS=${RECONFIGURE_ROUNDS:-1} MIB=$((1 << 20))
plugins file fault
start() { start_daemon --handler-path $W/plugins; }
attrib() { echo $C/core/$1/attrib/$2; }
change() { echo -n "$3" >"$(attrib $1 $2)" || fail "$1: $2=$3"; }
# size DISK BYTES, as its initiator sees it now
size() {
    echo 1 >/sys/block/${1#/dev/}/device/rescan
    wait_for 10 test "$(blockdev --getsize64 $1)" = $2
    # It reads the disk again, and would be told what others are to be told.
    udevadm settle -t 10
}
wce() { expect "WCE           $2" sdparm --get WCE $1; }
# What the disk's initiator was told, as the log has it: udev asks as well, and whoever asks first hears it.
declare -A HEARD
attentions() { grep -c "failed device=\"$1\" .*UNIT ATTENTION, $2" $LOG || true; }
heard() { [ "$(attentions "$1" "$2")" -gt "${HEARD[$1 $2]:-0}" ]; }
told() { # DEVICE WORDS: once more, and not twice
    local disk=$B
    [ $1 != user_0/a ] || disk=$A
    sg_raw "$(generic $disk)" 00 00 00 00 00 00 >$W/ready 2>&1 || true
    wait_for 20 heard "$1" "$2"
    HEARD[$1 $2]=$((${HEARD[$1 $2]:-0} + 1))
    ready $disk
    [ "$(attentions "$1" "$2")" = ${HEARD[$1 $2]} ] || fail "$1 was told more than once: $2"
}
generic() { echo /dev/"$(ls /sys/block/${1#/dev/}/device/scsi_generic)"; }
ready() { soon 10 sg_raw "$(generic $1)" 00 00 00 00 00 00; }
changes() { grep -c "UNIT ATTENTION, .* CHANGED" $LOG || true; }
refused() { # DEVICE ATTRIBUTE VALUE WORDS
    local before
    before=$(cat "$(attrib $1 $2)")
    expect "$4" bash -c "echo -n '$3' >$(attrib $1 $2)"
    [ "$(cat "$(attrib $1 $2)")" = "$before" ] || fail "$2 became $(cat "$(attrib $1 $2)")"
}
modprobe sg
start
backstore 0 a file/$W/a $((64 * MIB))
backstore 1 b fault/$W/b $((64 * MIB))
A=$(loopback 1 user_0/a)
B=$(loopback 2 user_1/b)
[ "$(cat "$(attrib user_0/a emulate_write_cache)")" = 1 ] || fail "a tool that saves the configuration sees no write cache"
# No faster than this, or it leaves nothing of a slow machine to all the rest.
load io $A --rate_iops=100

# Under I/O: larger, smaller, the write cache, the same file by another name.
for round in $(seq $ROUNDS); do
    change user_0/a dev_size $((128 * MIB))
    told user_0/a "CAPACITY DATA HAS CHANGED"
    size $A $((128 * MIB))
    [ "$(stat -c %s $W/a)" = $((128 * MIB)) ] || fail "the file has $(stat -c %s $W/a) bytes"
    dd if=/dev/urandom of=$A bs=1M seek=100 count=2 oflag=direct status=none
    change user_0/a dev_size $((48 * MIB))
    told user_0/a "CAPACITY DATA HAS CHANGED"
    size $A $((48 * MIB))
    expect "48.0 MiB" tcmuctl devices
    expect "Logical block address out of range" sg_raw -r 512 $A 28 00 00 01 80 00 00 00 01 00
    change user_0/a emulate_write_cache 0
    told user_0/a "MODE PARAMETERS CHANGED"
    wce $A 0
    change user_0/a emulate_write_cache 1
    told user_0/a "MODE PARAMETERS CHANGED"
    wce $A 1
    change user_0/a dev_size $((64 * MIB))
    told user_0/a "CAPACITY DATA HAS CHANGED"
    mv $W/a $W/moved
    change user_0/a dev_config file/$W/moved
    expect "$W/moved" tcmuctl devices
    mv $W/moved $W/a
    change user_0/a dev_config file/$W/a
done
size $A $((64 * MIB))

# What tools write when they restore a configuration is what is there already.
sleep 1
BEFORE=$(changes)
for attribute in dev_size dev_config emulate_write_cache; do
    change user_0/a $attribute "$(cat "$(attrib user_0/a $attribute)")"
done

# What is refused leaves all as it was, and initiators hear nothing.
refused user_0/a dev_size 1000 "Invalid argument"
refused user_0/a dev_size 0 "Invalid argument"
refused user_0/a dev_size 9223372036854775808 "Invalid argument"
refused user_0/a dev_config file//tmp/other "No such file"
refused user_0/a dev_config "file/$W/a;ro=on" "not supported"
refused user_0/a dev_config file/relative "Invalid argument"
refused user_0/a dev_config alloc/x "Invalid argument"
echo "refuse always" >$W/b.fault
refused user_1/b dev_size $((96 * MIB)) "No space left on device"
rm $W/b.fault
ready $B
size $B $((64 * MIB))
sleep 1
ready $A
[ "$(changes)" = "$BEFORE" ] || fail "initiators were told of a change that was none"
# The handler dies of it: the disk goes on as it was, and can be changed then.
echo abort >$W/b.fault
refused user_1/b dev_size $((96 * MIB)) "Input/output error"
wait_for 20 is_state user_1/b serving
size $B $((64 * MIB))
change user_1/b dev_size $((96 * MIB))
told user_1/b "CAPACITY DATA HAS CHANGED"
size $B $((96 * MIB))
change user_1/b emulate_write_cache 0
told user_1/b "MODE PARAMETERS CHANGED"
wce $B 0

# While its host dies: the change waits for the next one. What was changed before stays so, also when the supervisor died in between.
change user_0/a emulate_write_cache 0
wce $A 0
for round in $(seq $ROUNDS); do
    kill -KILL "$(host_pid file)"
    START=$(date +%s%N)
    change user_0/a dev_size $(((64 + 16 * round) * MIB))
    echo "its size changed $((($(date +%s%N) - START) / 1000000)) ms after its host was killed"
    size $A $(((64 + 16 * round) * MIB))
    wce $A 0
done
kill -KILL $DAEMON
wait $DAEMON 2>/dev/null || true
LOG_SEEN=$(wc -l <$LOG)
start
kill -KILL "$(host_pid file)"
wait_for 20 is_state user_0/a serving
wce $A 0
stop_daemon
start
wait_for 20 is_state user_0/a serving
wce $A 0
change user_0/a emulate_write_cache 1
wce $A 1

# Left half done: the image is smaller than its disk. The disk opens with what there is, initiators are told, and it can be finished.
change user_0/a dev_size $((64 * MIB))
size $A $((64 * MIB))
stop_daemon
truncate -s $((40 * MIB + 100)) $W/a
HEARD["user_0/a CAPACITY DATA HAS CHANGED"]=$(attentions user_0/a "CAPACITY DATA HAS CHANGED")
start
wait_for 20 is_state user_0/a serving
told user_0/a "CAPACITY DATA HAS CHANGED"
expect "40.0 MiB" tcmuctl devices
grep -q "a resize was left half done, or the file was truncated; serving $((40 * MIB))" $LOG || fail "no word of it"
size $A $((40 * MIB))
change user_0/a dev_size $((64 * MIB))
size $A $((64 * MIB))
[ "$(stat -c %s $W/a)" = $((64 * MIB)) ] || fail "the file has $(stat -c %s $W/a) bytes"

# The same by targetcli.
targetcli >$W/targetcli 2>&1 <<CLI || fail "$(cat $W/targetcli)"
set global auto_save_on_exit=false
/backstores/user:file/a set attribute dev_size=$((128 * MIB))
/backstores/user:file/a set attribute emulate_write_cache=0
/backstores/user:file/a get attribute dev_size emulate_write_cache
CLI
size $A $((128 * MIB))
wce $A 0
ln $W/a $W/link
# The last of it is refused.
targetcli >>$W/targetcli 2>&1 <<CLI || true
set global auto_save_on_exit=false
/backstores/user:file/a set attribute emulate_write_cache=1 dev_config=file/$W/link
/backstores/user:file/a set attribute dev_size=1000
CLI
wce $A 1
expect "$W/link" tcmuctl devices
size $A $((128 * MIB))
loads_end
echo "longest command of verified I/O through all of this: $(longest io) ms"
no_complaints
# udev reads a disk up to the end that it had, and is told that it is not there; where there was a disk all the time nothing failed.
failed() { dmesg | sed -n 's/.*error, dev .*, sector \([0-9]*\) .*/\1/p' | awk '$1 < 40 * 2048'; }
[ -z "$(failed)" ] || fail "the kernel saw I/O errors: $(dmesg | grep "error, dev")"
dmesg -C
remove_loopback 1
remove_loopback 2
remove_backstore 0 a
remove_backstore 1 b
stop_daemon
no_complaints
