# A loopback disk is taken away while nobody serves it. Linux flushes it first, so whoever removes it is in D state until somebody answers:
# for how long, and what ends that. The disk's timeout is 2 s and its cmd_time_out 5 s here, in place of 30 s each.
# limit: 300
. ./lib.sh
. ./load.sh
touch $W/tcmu.toml
L=$C/loopback/naa.5001405000000001/tpgt_1
begin() {
    start_daemon --config $W/tcmu.toml
    rm -f $W/d $W/away
    backstore 0 d file/$W/d $((32 << 20))
    echo 5 >$C/core/user_0/d/attrib/cmd_time_out
    A=$(loopback 1 user_0/d)
    udevadm settle -t 5 2>/dev/null || true
    echo 2 >/sys/block/${A#/dev/}/device/timeout
}
# Linux flushes only disks that have a cache. This tells Linux, and nobody else, that this one has none.
nothing_to_flush() { echo temporary write through >"$(echo /sys/block/${A#/dev/}/device/scsi_disk/*/cache_type)"; }
now() { date +%s%3N; }
in_d() { [[ $(cat /proc/$RM/stat 2>/dev/null) == *") D "* ]]; }
gone() { [ ! -e /proc/$RM ] || [[ $(cat /proc/$RM/stat) == *") Z "* ]]; }
start_rm() {
    rm $L/lun/lun_0/disk &
    RM=$! BEGAN=$(now)
}
# stays SECONDS: it is in D state for that long, at least.
stays() {
    wait_for 10 in_d
    sleep $1
    in_d || fail "the removal did not wait"
}
# ends WHAT LIMIT: it does, within so many seconds; says how long it took from here, and in all.
ends() {
    local from=$(now)
    wait_for $2 gone
    wait $RM || fail "$1: rm failed"
    echo "$1: $(($(now) - BEGAN)) ms in all, $(($(now) - from)) ms of them after that"
}
end() {
    rmdir $L/lun/lun_0 $L ${L%/tpgt_1}
    remove_backstore 0 d
    dmesg -C
}
kill_all() {
    kill -KILL $DAEMON $(pgrep -f handler-host)
    wait $DAEMON || true
    LOG_SEEN=$(wc -l <$LOG)
}

begin
stop_daemon
nothing_to_flush
start_rm
ends "daemon stopped, and Linux told that there is nothing to flush" 15
end

begin
stop_daemon
start_rm
stays 3
start_daemon --config $W/tcmu.toml
ends "daemon stopped, then started" 40
end
stop_daemon

begin
stop_daemon
start_rm
stays 3
# As nobody serves it, its commands fail.
fail_commands() {
    echo 0 >$C/core/user_0/d/action/block_dev
    echo 2 >$C/core/user_0/d/action/reset_ring
    gone
}
wait_for 60 fail_commands
ends "daemon stopped, then its commands failed by hand (block_dev, reset_ring)" 5
end

begin
kill_all
start_rm
ends "daemon and hosts killed" 90
end

# The daemon is there, but the disk's image is not: the operator's limit ends it.
printf '[device."user_0/d"]\ngive_up_seconds = 6\n' >$W/tcmu.toml
begin
mv $W/d $W/away
kill -KILL "$(host_pid file)"
wait_for 20 is_state user_0/d "No such file"
start_rm
ends "image gone, give_up_seconds = 6" 40
end
stop_daemon

if [ -n "${REMOVAL_LONG:-}" ]; then
    for state in running offline; do
        begin
        stop_daemon
        echo $state >/sys/block/${A#/dev/}/device/state
        start_rm
        ends "daemon stopped, disk $state, nobody does anything" 200
        end
    done
fi
no_complaints
