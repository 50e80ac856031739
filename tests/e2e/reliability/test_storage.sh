# Storage that is full, fails, cannot be written, or loses the image: the right sense for each, no data silently wrong, and all goes on
# when the cause is gone.
# limit: 300
. ./lib.sh
. ./load.sh
[ ! -e /sys/module/brd ] || rmmod brd
modprobe brd rd_nr=1 rd_size=$((64 << 10))
modprobe dm-mod
start_daemon
coproc SG { exec python3 ./sg.py -; }
# sg DISK COMMAND...: sets FOUND to what comes of it
sg() {
    echo "$*" >&"${SG[1]}"
    read -r FOUND <&"${SG[0]}"
}
# says DISK COMMAND... = STATUS
says() {
    local words=("$@") n=$#
    local wanted=${words[n - 1]}
    sg "${words[@]:0:n-2}"
    local found=$FOUND
    [ "$found" = "$wanted" ] || fail "${words[*]:1:n-3}: $found; wanted: $wanted"
    echo "  ${words[*]:1:n-3}: $found"
}
logged() { grep -q "$1" $LOG || fail "the log does not say: $1"; }

# A block device that fails where and when it is told to, 64 MiB of memory.
SECTORS=131072
dm() { dmsetup --noudevsync "$@"; }
table() { # lines of a table on the standard input
    cat >$W/table
    dm load e2e $W/table
    # Not --noflush: what is on its way to the old table gets there.
    dm suspend --nolockfs e2e
    dm resume e2e
}
well() { table <<<"0 $SECTORS linear /dev/ram0 0"; }
broken() { table <<<"0 $SECTORS error"; }
bad_blocks() { # FIRST COUNT
    table <<T
0 $1 linear /dev/ram0 0
$1 $2 error
$(($1 + $2)) $((SECTORS - $1 - $2)) linear /dev/ram0 $(($1 + $2))
T
}
drop_caches() { echo 3 >/proc/sys/vm/drop_caches; }
on_medium() { dd if=/dev/ram0 bs=512 skip=$1 count=1 iflag=direct 2>/dev/null | od -An -tu1 -N1 | tr -d ' '; }
dm create e2e --table "0 $SECTORS linear /dev/ram0 0"
DM=/dev/$(dm info -c --noheadings -o blkdevname e2e)
[ -b $DM ] || fail "no $DM"

echo "a full file system"
mkfs.ext4 -q -F -m 0 $DM 48m
mkdir -p $W/m
mount $DM $W/m
backstore 0 a file/$W/m/a.img $((64 << 20))
A=$(loopback 1 user_0/a)
says $A write 0 8 1 = good
head -c $((30 << 20)) /dev/zero >$W/m/ballast
# Different data in each MiB; what was acknowledged must be there afterwards.
cat >$W/fill.py <<'P'
import sys; sys.path.insert(0, "."); from sg import Disk
disk, done, status = Disk(sys.argv[1]), [], "good"
for n in range(1, 64):
    for at in range(n * 2048, n * 2048 + 2048, 128):
        status = disk.write(at, bytes([n]) * 65536)
        if status != "good": break
        done.append((at, n))
    if status != "good": break
print(status, len(done))
flushed = disk.sync()
open("/proc/sys/vm/drop_caches", "w").write("3")
for at, n in done:
    found = disk.read(at, 128)
    if found != ("good", bytes([n]) * 65536): sys.exit(f"LBA {at} was written, and reads {found[0]}")
if flushed != "good": sys.exit(f"flush: {flushed}")
P
python3 $W/fill.py $A >$W/fill || fail "full: $(cat $W/fill)"
read -r STATUS WRITTEN <$W/fill
[ "$STATUS" = 7/27/07 ] || fail "a full file system: $STATUS, wanted 7/27/07 (space allocation failed)"
echo "  write: $STATUS after $((WRITTEN / 16)) MiB, all of which is there"
says $A fua 129024 128 9 = 7/27/07
says $A read 0 8 = "good 1"
says $A write 0 8 2 = good
dd if=/dev/zero of=$A bs=1M seek=60 count=2 oflag=direct 2>$W/dd && fail "2 MiB fit into a full file system"
grep -q "No space left" $W/dd || fail "dd: $(cat $W/dd)"
rm $W/m/ballast
sync -f $W/m
roomy() { sg $A write 129024 128 9 && [ "$FOUND" = good ]; }
wait_for 20 roomy
says $A sync = good
says $A read 129024 128 = "good 9"
dmesg -C

echo "no name any more, another name, another place"
rm $W/m/a.img
says $A write 8 8 3 = good
says $A sync = good
says $A read 8 8 = "good 3"
logged "a.img was deleted.*user_0/a"
remove_loopback 1
remove_backstore 0 a
truncate -s $((32 << 20)) $W/m/a.img
backstore 0 a file/$W/m/a.img $((32 << 20))
A=$(loopback 1 user_0/a)
says $A write 0 8 4 = good
says $A sync = good
mv $W/m/a.img $W/m/b.img
kill -KILL "$(host_pid file)"
dd if=$A of=$W/dd bs=4k count=1 iflag=direct 2>/dev/null &
DD=$!
wait_for 20 is_state user_0/a "No such file"
kill -0 $DD 2>/dev/null || fail "the read did not wait for its image"
mv $W/m/b.img $W/m/a.img
wait_for 30 is_state user_0/a serving
wait $DD || fail "the read failed"
[ "$(od -An -tu1 -N1 $W/dd | tr -d ' ')" = 4 ] || fail "something else was read"
echo "  an image that was away: the read waited, and was right"
umount -l $W/m
says $A write 16 8 5 = good
says $A sync = good
mount $DM $W/m
cmp -s -i $((16 * 512)):0 -n 4096 $W/m/a.img <(head -c 4096 /dev/zero | tr '\0' '\5') || fail "what was written after umount -l is not there"
echo "  after umount -l: served and written on"

echo "an image that is cut off while it is served"
says $A write 60000 8 6 = good
says $A sync = good
truncate -s $((16 << 20)) $W/m/a.img
says $A read 0 8 = "good 4"
says $A read 32764 8 = 3/11/00
says $A read 60000 8 = 3/11/00
says $A sync = 3/0c/00
logged "a.img has 16777216 bytes of 33554432.*user_0/a"
# Or the file would grow again, and what is missing would read as zeros.
says $A write 65000 8 7 = 3/0c/00
says $A read 60000 8 = 3/11/00
truncate -s $((32 << 20)) $W/m/a.img
says $A sync = good
says $A write 65000 8 7 = good
says $A read 65000 8 = "good 7"

echo "a file system that goes read-only"
says $A write 0 8 8 = good
says $A sync = good
mount -o remount,errors=remount-ro $W/m
echo 1 >/sys/fs/ext4/"${DM#/dev/}"/trigger_fs_error
readonly_now() { dmesg | grep >/dev/null "Remounting filesystem read-only"; }
wait_for 10 readonly_now
# What goes into its page cache it takes; but whoever wants it to be stable is told.
says $A fua 20000 8 9 = 7/27/00
says $A sync = 7/27/00
says $A sync = 7/27/00
says $A read 0 8 = "good 8"
dmesg -C
remove_loopback 1
remove_backstore 0 a
umount $W/m
e2fsck -fy $DM >$W/fsck 2>&1 || [ $? -le 2 ] || fail "e2fsck: $(cat $W/fsck)"
mount $DM $W/m
backstore 0 a file/$W/m/a.img $((32 << 20))
A=$(loopback 1 user_0/a)
says $A read 0 8 = "good 8"
says $A write 20000 8 9 = good
says $A sync = good
remove_loopback 1
remove_backstore 0 a
umount $W/m

echo "a block device that cannot be written for a while"
backstore 0 a file/$DM $((64 << 20))
A=$(loopback 1 user_0/a)
says $A write 0 8 1 = good
says $A sync = good
blockdev --setro $DM
says $A write 0 8 2 = 7/27/00
says $A read 0 8 = "good 1"
blockdev --setrw $DM
says $A write 0 8 2 = good
says $A sync = good

echo "blocks that cannot be read"
says $A write 4000 128 3 = good
says $A sync = good
bad_blocks 4032 8
drop_caches
says $A read 4032 8 = 3/11/00
says $A read 4000 32 = "good 3"
says $A read 4000 128 = 3/11/00
well
says $A read 4000 128 = "good 3"

echo "writes that fail behind the page cache"
says $A write 8000 8 1 = good
says $A sync = good
broken
# Whoever waits for a flush must be told, whatever its kernel's retries: the page cache forgets a failed write, and the next flush succeeds.
! head -c 4096 /dev/zero | tr '\0' '\2' | dd of=$A bs=4k seek=1000 conv=fsync,notrunc 2>/dev/null || fail "fsync succeeded, and the data is lost"
says $A sync = 3/0c/00
well
says $A sync = 3/0c/00
logged "writes since the last one may be lost.*user_0/a"
[ "$(on_medium 8000)" = 1 ] || fail "something was written to a broken disk"
# What is lost is not there: not until the cache is dropped, either.
says $A read 8000 8 = "good 1"
says $A write 8000 8 3 = good
# Writes with FUA ask the kernel as well, which tells them once.
says $A fua 8008 8 3 = 3/0c/00
dmesg -C
remove_loopback 1
remove_backstore 0 a
wait_for 10 dm remove e2e
rmmod brd
stop_daemon
no_complaints
