# limit: 400
# A power cut at any moment: what was flushed, written with FUA, or written with the write cache off is there afterwards. dm-log-writes
# below the image records what reaches the disk, and in which order; each beginning of that record is a power cut (power_cut.py).
# POWER_CUT_SECONDS: how long each kind of writes goes on; 1. POWER_CUTS: how many cuts with a file system below the image; 3.
. ./lib.sh
SECONDS_EACH=${POWER_CUT_SECONDS:-1} CUTS=${POWER_CUTS:-3} SEED=${POWER_CUT_SEED:-$RANDOM}
[ ! -e /sys/module/brd ] || rmmod brd
modprobe brd rd_nr=3 rd_size=$((256 << 10))
modprobe -a dm-mod dm-log-writes
start_daemon

# logged SECTORS: a device whose writes are recorded, as DM
logged() {
    dd if=/dev/zero of=/dev/ram1 bs=64k count=1 oflag=direct 2>/dev/null
    dmsetup --noudevsync create e2e --table "0 $1 log-writes /dev/ram0 /dev/ram1"
    DM=/dev/$(dmsetup info -c --noheadings -o blkdevname e2e)
}
ends() { wait_for 10 dmsetup --noudevsync remove e2e; }
IMAGE=$((8 << 20))

for config in "" ";direct=on"; do
    logged $((IMAGE / 512))
    backstore 0 a "file/$DM$config" $IMAGE
    A=$(loopback 1 user_0/a)
    [ "$(cat /sys/block/"${A#/dev/}"/queue/write_cache)" = "write back" ] || fail "no write cache"
    [ "$(cat /sys/block/"${A#/dev/}"/queue/fua)" = 1 ] || fail "no FUA"
    python3 ./power_cut.py write "$A" e2e $W/record "$SECONDS_EACH"
    remove_loopback 1
    remove_backstore 0 a
    ends
    python3 ./power_cut.py check /dev/ram1 $W/record >$W/found || fail "on a block device$config: see above"
    echo "on a block device$config: $(cat $W/found)"
done

# The image in a file: what has to be stable includes where its blocks are.
logged $((64 << 11))
mkfs.ext4 -q -F $DM
mkdir -p $W/m
mount $DM $W/m
backstore 0 a file/$W/m/a.img $IMAGE
A=$(loopback 1 user_0/a)
python3 ./power_cut.py write "$A" e2e $W/record "$SECONDS_EACH"
remove_loopback 1
remove_backstore 0 a
umount $W/m
ends
python3 ./power_cut.py cut /dev/ram1 $W/record /dev/ram2 ext4 $W/m "$CUTS" "$SEED" >$W/found || fail "seed $SEED: see above"
echo "in a file: $(cat $W/found)"
stop_daemon
rmmod brd
no_complaints
