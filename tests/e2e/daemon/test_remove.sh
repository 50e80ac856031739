# A disk is taken away under I/O: nothing hangs, the daemon goes on, and the name can be used again.
. ./lib.sh
start_daemon
for round in 1 2 3; do
    backstore 0 a alloc/a $((64 << 20))
    A=$(loopback 1 user_0/a)
    fio --name=load --filename=$A --rw=randrw --bs=4k --ioengine=libaio --iodepth=16 --direct=1 --time_based --runtime=20 >/dev/null 2>&1 &
    sleep 2
    remove_loopback 1
    remove_backstore 0 a
    wait $! || true
    expect "no devices" tcmuctl devices
done
! ps -eo state,cmd | grep "^D" || fail "something hangs"
stop_daemon
