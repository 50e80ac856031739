# A disk grows and its write cache goes off while it is in use; a change that can't be is refused and changes nothing.
. ./lib.sh
start_daemon
backstore 0 a file/$W/s.img $((64 << 20))
A=$(loopback 1 user_0/a)
verify $A 8 --size=32m &
FIO=$!
sleep 2
echo -n $((128 << 20)) >$C/core/user_0/a/attrib/dev_size
[ "$(stat -c %s $W/s.img)" = $((128 << 20)) ]
echo 1 >/sys/block/${A#/dev/}/device/rescan
wait_for 10 test "$(blockdev --getsize64 $A)" = $((128 << 20))
expect "128.0 MiB" tcmuctl devices
echo -n 0 >$C/core/user_0/a/attrib/emulate_write_cache
expect "WCE           0" sdparm --get WCE $A
expect "not supported" bash -c "echo -n file//tmp/other >$C/core/user_0/a/attrib/dev_config"
expect "Invalid argument" bash -c "echo -n alloc/x >$C/core/user_0/a/attrib/dev_config"
wait $FIO
dd if=/dev/urandom of=$A bs=1M seek=100 count=4 oflag=direct status=none
remove_loopback 1
remove_backstore 0 a
stop_daemon
no_complaints
