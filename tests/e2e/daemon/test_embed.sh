# Programs that serve disks of their own, with no daemon: a disk in one call, and a device in the program's own loop.
. ./lib.sh
truncate -s 64M $W/e.img
mkfifo $W/stop
disk $W/e.img <$W/stop >$W/out &
P=$!
exec 9>$W/stop
wait_for 20 grep -q /dev/tcmufile/e.img $W/out
mkfs.ext4 -q /dev/tcmufile/e.img
verify /dev/tcmufile/e.img 3 --size=16m
exec 9>&-
wait $P
[ ! -e /dev/tcmufile/e.img ] || fail "the node is still there"
[ -z "$(ls $C/core | grep user_ || true)" ] || fail "the backstore is still there"
backstore 5 own embedded/own $((32 << 20)) nl_reply_supported=-1
own_loop user_5/own >$W/own &
P=$!
wait_for 10 grep -q serving $W/own
A=$(loopback 3 user_5/own)
verify $A 3 --size=16m
remove_loopback 3
remove_backstore 5 own
wait $P
grep -q "gone" $W/own
no_complaints
