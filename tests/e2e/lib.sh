# What the end-to-end tests share. Runs in the guest, as root, with tcmu-runnerd and tcmuctl on PATH.
set -euo pipefail
C=/sys/kernel/config/target
LOG=/tmp/tcmu-runnerd.log
W=/tmp/e2e/$(basename "$0" .sh) # a directory of the test's own
mkdir -p $W

# In a pipe `grep -q` would end what it reads from, which pipefail takes for a failure: `grep >/dev/null` reads all.
fail() { echo "FAILED: $*" >&2; exit 1; }

# expect WHAT IS WANTED -- COMMAND: the command's output contains it
expect() {
    local wanted=$1 output
    shift
    output=$("$@" 2>&1) || true
    grep -qF -- "$wanted" <<<"$output" || fail "$* said: $output; wanted: $wanted"
}

# wait_for SECONDS COMMAND
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "did not happen in time: $*"
        sleep 0.1
    done
}

is_ready() {
    kill -0 "$DAEMON" || fail "the daemon ended: $(tail -3 $LOG)"
    tail -n +$((${LOG_SEEN:-0} + 1)) $LOG | grep >/dev/null "ready$"
}

start_daemon() {
    tcmu-runnerd --log-level debug "$@" >>$LOG 2>&1 &
    DAEMON=$!
    wait_for 20 is_ready
    LOG_SEEN=$(wc -l <$LOG)
}

stop_daemon() {
    kill -TERM "$DAEMON"
    wait "$DAEMON" || fail "the daemon ended with status $?"
    LOG_SEEN=$(wc -l <$LOG)
}

host_pid() { pgrep -f "handler-host $1 " | head -1; }

# of_threads PID FILE: what /proc has under that name for each thread of the process. A thread may end while it is read, the process may not.
of_threads() {
    # shellcheck disable=SC2086
    cat /proc/$1/task/*/$2 2>/dev/null || true
    [ -e /proc/"$1"/fd ] || fail "process $1 is gone"
}

# io_flushers PID: each of its threads has what PR_SET_IO_FLUSHER gives, PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE
io_flushers() {
    local all flags
    all=$(of_threads "$1" stat | sed 's/.*) //' | cut -d' ' -f7)
    [ -n "$all" ] || fail "process $1 has no threads"
    for flags in $all; do
        [ $((flags & 0x180000)) -eq $((0x180000)) ] || fail "a thread of process $1 is no IO_FLUSHER: flags $flags"
    done
}

# backstore HBA NAME CONFIG BYTES [control settings...]
backstore() {
    local dir=$C/core/user_$1/$2
    mkdir -p "$dir"
    echo -n "dev_size=$4" >"$dir/control"
    echo -n "dev_config=$3" >"$dir/control"
    local setting
    for setting in "${@:5}"; do echo -n "$setting" >"$dir/control"; done
    echo -n 1 >"$dir/enable"
}

remove_backstore() {
    rmdir "$C/core/user_$1/$2"
    rmdir "$C/core/user_$1" 2>/dev/null || true
}

# loopback NUMBER HBA/NAME: prints the disk
loopback() {
    local tpg=$C/loopback/naa.500140500000000$1/tpgt_1
    mkdir -p "$tpg/lun/lun_0"
    echo "naa.500140510000000$1" >"$tpg/nexus"
    ln -s "$C/core/$2" "$tpg/lun/lun_0/disk"
    local address end=$((SECONDS + 20))
    address=$(cat "$tpg/address")
    until ls /sys/bus/scsi/devices/"$address":0/block/* >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "no disk at $address"
        sleep 0.1
    done
    local disk
    disk=$(ls "/sys/bus/scsi/devices/$address:0/block")
    unread "$disk"
    echo "/dev/$disk"
}

# unread DISK: waits until nobody reads it any more, as udev does when it comes; the first command is the test's then. Not for long: one that
# nobody serves is never read.
unread() {
    local before="" now end=$((SECONDS + 5))
    udevadm settle -t 5 >/dev/null 2>&1 || true
    while now=$(awk '{ print $1, $5, $9 }' "/sys/block/$1/stat") && [ "$now" != "$before" ] && [ $SECONDS -lt $end ]; do
        before=$now
        sleep 0.3
    done
}

remove_loopback() {
    no_io_errors
    udevadm settle -t 5 2>/dev/null || true
    local target=$C/loopback/naa.500140500000000$1
    rm "$target/tpgt_1/lun/lun_0/disk"
    rmdir "$target/tpgt_1/lun/lun_0" "$target/tpgt_1" "$target"
}

# verify DEVICE-OR-FILE SECONDS [fio options...]: random writes, each read back and compared
verify() {
    fio --name=verify --filename="$1" --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 --direct=1 --verify=crc32c \
        --verify_fatal=1 --verify_backlog=256 --time_based --runtime="$2" --output-format=terse --minimal "${@:3}" >/tmp/fio.out 2>&1 ||
        fail "fio: $(tail -5 /tmp/fio.out)"
}

# io_errors: those lines of the kernel's log, and whether there are any. Reading ahead (REQ_RAHEAD, 0x80000 in the flags) is not among them: Linux
# gives it up with the first abort or reset, nobody is told, and udev does it when it likes.
io_errors() { grep "I/O error" | grep -vE "\(READ\) flags 0x8[0-9a-f]{4} "; }

# Before a disk is taken away: what udev reads of it afterwards fails, and should.
no_io_errors() {
    ! dmesg | io_errors || fail "the kernel saw I/O errors"
}

# At the end.
no_complaints() {
    ! dmesg | grep -E "ring is broken|blocked for more than|WARNING:|BUG:" || fail "the kernel complained"
}
