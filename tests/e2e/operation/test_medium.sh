# The medium of a removable disk is changed: by targetcli, while nobody keeps it in; with the unit attention that is due; and it is the one
# that the next daemon opens.
. ./lib.sh
S=org.kernel.TCMUService1 P=/org/kernel/TCMUService1
start_daemon
change() { busctl call $S $P/alloc $S ChangeMedium sts "$1" "$2" "$3"; }
ready() { sg_raw -v $D 00 00 00 00 00 00 2>&1 || true; }
backstore 0 cd "alloc/one;removable=on" $((64 << 20))
backstore 1 fixed file/$W/f.img $((16 << 20))
D=$(loopback 1 user_0/cd)
grep -q 1 /sys/block/${D#/dev/}/removable || fail "$D is not removable"
dd if=/dev/urandom of=$D bs=1M count=1 oflag=direct status=none
ready >/dev/null

targetcli "/backstores/user:alloc changemedium cd 32M two;removable=on" >$W/targetcli 2>&1 || fail "$(cat $W/targetcli)"
grep -q "Medium Changed" $W/targetcli || fail "$(cat $W/targetcli)"
# Whoever asks first is told: this command, or the kernel when it looks for another medium.
ready >$W/ready
announced() { grep -q "outcome=CHECK CONDITION: UNIT ATTENTION, MEDIUM MAY HAVE CHANGED" $LOG; }
wait_for 10 announced
settle() { udevadm settle -t 20 2>/dev/null || true; }
settle
[ "$(blockdev --getsize64 $D)" = $((32 << 20)) ] || fail "the kernel has $(blockdev --getsize64 $D) bytes"
cmp -n $((1 << 20)) $D /dev/zero || fail "the old medium's data is there"
expect "alloc/two;removable=on" cat $C/core/user_0/cd/info

# Refused in words, and nothing changes: while a disk is in use, or where there is nothing to change.
exec 9<$D
expect "an initiator keeps the medium from being removed" change cd $((8 << 20)) "alloc/three;removable=on"
exec 9<&-
expect 'there is no device \"nothing\" of the handler alloc' change nothing 512 alloc/x
expect "lacks removable=on" change cd 512 alloc/x
expect "a multiple of the block size 512 is needed" change cd 1000 "alloc/x;removable=on"
expect "it is not a removable one" busctl call $S $P/file $S ChangeMedium sts fixed 512 file//tmp/x
expect "does not begin with alloc/" change cd 512 file/x
expect 'there is no device \"fixed\"' change fixed 512 "alloc/x;removable=on"

# Out, and in again.
settle
[ "$(change cd 0 alloc/)" = 'is 0 "done"' ] || fail "it does not come out"
expect "Medium not present" ready
expect 'is 0 "done"' change user_0/cd $((16 << 20)) 'alloc/four;removable=on;ro=on'
ready >/dev/null
is_four() { tcmuctl devices | grep "user_0/cd .* 16.0 MiB .*four;removable=on;ro=on"; }
is_four || fail "$(tcmuctl devices)"
stop_daemon
start_daemon
is_four || fail "$(tcmuctl devices)"

# Files: each medium has what is in it, and one that is taken out is free for others.
backstore 0 dvd "file/$W/one.img;removable=on" $((16 << 20))
F=$(loopback 2 user_0/dvd)
dd if=/dev/urandom of=$W/two.img bs=1M count=8 status=none
insert() { busctl call $S $P/file $S ChangeMedium sts dvd "$1" "file/$2"; }
settle
[ "$(insert $((8 << 20)) "$W/two.img;removable=on;ro=on")" = 'is 0 "done"' ] || fail "no other file comes in"
ready() { sg_raw -v $F 00 00 00 00 00 00 2>&1 || true; }
ready >/dev/null
settle
cmp $F $W/two.img || fail "it reads other data than the file has"
expect "is in the device already" insert $((8 << 20)) "$W/two.img;removable=on;ro=on"
expect "No such file" insert $((8 << 20)) "$W/none.img;removable=on;create=off"
settle
[ "$(insert $((16 << 20)) "$W/one.img;removable=on")" = 'is 0 "done"' ] || fail "the first does not come back"
backstore 0 other "file/$W/two.img" $((8 << 20))
remove_backstore 0 other
remove_loopback 2
remove_backstore 0 dvd
remove_loopback 1
remove_backstore 0 cd
remove_backstore 1 fixed
stop_daemon
no_complaints
