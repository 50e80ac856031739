# sg3_utils, sdparm and ddpt against a live disk: what people use to look at a disk and to change it must understand what it says.
# limit: 400
. ./lib.sh
modprobe sg
start_daemon
backstore 0 a file/$W/a.img $((64 << 20)) hw_max_sectors=2048
backstore 1 b 'alloc/b;physical=4096' $((64 << 20)) hw_block_size=4096
echo 0a1b2c3d-4e5f >$C/core/user_0/a/wwn/vpd_unit_serial
echo 0b1b2c3d-4e5f >$C/core/user_1/b/wwn/vpd_unit_serial
A=$(loopback 1 user_0/a)
B=$(loopback 2 user_1/b)
# The generic device of a disk: the block device cannot be opened for writing while SWP is set.
generic() { echo "/dev/$(ls "/sys/block/${1#/dev/}/device/scsi_generic")"; }

# good COMMAND...: it succeeds.   bad WANTED COMMAND...: it fails and says so.
good() { "$@" >$W/out 2>&1 || fail "$(cat $W/out); $* ended with $?"; }
bad() {
    local wanted=$1
    shift
    ! "$@" >$W/out 2>&1 || fail "$* succeeded"
    grep -qi -- "$wanted" $W/out || fail "$*: $(cat $W/out); wanted: $wanted"
}
says() { grep -q -- "$1" $W/out || fail "$1 is missing in: $(cat $W/out)"; }
block() { dd if=/dev/zero bs="$1" count=1 2>/dev/null | tr '\0' "$2"; }

for D in $(generic $A) $(generic $B); do
    good sg_inq $D
    says "TCMU device"
    good sg_vpd -a $D
    says "naa.6001405"
    says "Maximum compare and write length: 255"
    ! grep -qi "invalid\|malformed\|unexpected\|too short" $W/out || fail "sg_vpd -a: $(cat $W/out)"
    good sg_modes -a $D
    says "Caching"
    good sg_modes -a --six $D
    good sg_opcodes $D
    says "Compare and write"
    says "Extended copy"
    good sg_opcodes --rctd --tmf $D
    good sg_readcap $D
    good sg_readcap --16 $D
    says "lbpme=1, lbprz=1"
    good sg_luns $D
    good sg_turs -n 5 $D
    good sg_requests $D
    good sg_logs -a $D
    good sg_start --start $D
    good sg_sync $D
    good sg_senddiag --test $D
    good sg_rbuf --buffer=4096 --size=8192 $D
    good sg_get_lba_status --lba=0 $D
    good sg_verify --lba=0 --count=16 $D
    # It also asks for saved values, which there are none of, and counts that as illegal request (5).
    sdparm -a $D >$W/out 2>&1 || [ $? -eq 5 ] || fail "sdparm -a: $(cat $W/out)"
    says "WCE"
    good sdparm --inquiry --all $D
    good sdparm --set=SWP $D
    bad "write protected\|data protect" sg_unmap --lba=0 --num=8 --force $D
    good sdparm --clear=SWP $D
    good sdparm --set=D_SENSE $D
    bad "invalid field\|illegal request" sg_raw $D 28 20 00 00 00 00 00 00 01 00
    good sdparm --clear=D_SENSE $D
done

# Data, byte by byte, on blocks of both lengths.
for pair in $A:512 $B:4096; do
    D=${pair%:*} size=${pair#*:} G=$(generic ${pair%:*})
    block $size A >$W/A
    block $size B >$W/B
    good sg_write_same --in=$W/A --lba=100 --num=200 --xferlen=$size $D
    cat $W/A $W/A $W/A $W/A >$W/AAAA
    good sg_verify --lba=100 --count=4 --in=$W/AAAA --ndo=$((4 * size)) $D
    good sg_verify --16 --lba=100 --count=100 --ebytchk=3 --in=$W/A --ndo=$size $D
    bad "miscompare" sg_verify --lba=100 --count=1 --in=$W/B --ndo=$size $D
    cat $W/A $W/B >$W/AB
    good sg_compare_and_write --in=$W/AB --lba=150 --num=1 --xferlen=$((2 * size)) $D
    bad "miscompare" sg_compare_and_write --in=$W/AB --lba=150 --num=1 --xferlen=$((2 * size)) $D
    good sg_verify --lba=150 --count=1 --in=$W/B --ndo=$size $D
    good sg_write_x --or --lba=151 --num=1 --in=$W/B --16 --bs=$size $D
    dd if=$D bs=$size skip=151 count=1 iflag=direct of=$W/got 2>/dev/null
    cmp -s $W/got <(block $size C) || fail "A or B is $(head -c1 $W/got)" # 41h | 42h is 43h
    good sg_write_verify --lba=152 --num=1 --ilen=$size --in=$W/B --bytchk=1 $D
    # Unmap: the edges stay, the inside is zero.
    good sg_unmap --lba=160 --num=40 $D --force
    cmp -s <(dd if=$D bs=$size skip=159 count=1 iflag=direct 2>/dev/null) $W/A || fail "the block before"
    cmp -s <(dd if=$D bs=$size skip=200 count=1 iflag=direct 2>/dev/null) $W/A || fail "the block behind"
    cmp -s <(dd if=$D bs=$size skip=160 count=40 iflag=direct 2>/dev/null) <(head -c $((40 * size)) /dev/zero) || fail "not zero"
    # WRITE SAME with UNMAP, unaligned head and tail (tcmu-runner 650)
    good sg_write_same --in=$W/A --lba=100 --num=200 --xferlen=$size $D
    good sg_write_same --unmap --lba=101 --num=197 --xferlen=$size $D
    cmp -s <(dd if=$D bs=$size skip=101 count=197 iflag=direct 2>/dev/null) <(head -c $((197 * size)) /dev/zero) || fail "old data"
    cmp -s <(dd if=$D bs=$size skip=100 count=1 iflag=direct 2>/dev/null) $W/A || fail "the block before"
    cmp -s <(dd if=$D bs=$size skip=298 count=1 iflag=direct 2>/dev/null) $W/A || fail "the block behind"
    # Out of range, and a command that is not there.
    last=$(blockdev --getsize64 $D)
    bad "out of range" sg_verify --lba=$((last / size)) --count=1 $D
    bad "invalid command operation\|illegal request" sg_raw $D c5 00 00 00 00 00 00 00 00 00
done

# Copies within the disk, by EXTENDED COPY and by token; not to another disk (CVE-2021-3139: an initiator gets no other way to a disk
# than its ACL).
head -c $((1 << 20)) /dev/urandom >$W/random
dd if=$W/random of=$A bs=64k oflag=direct 2>/dev/null
G=$(generic $A)
good sg_xcopy if=$G of=$G bs=512 count=2048 skip=0 seek=8192
cmp -s -n $((1 << 20)) <(dd if=$A bs=512 skip=8192 count=2048 iflag=direct 2>/dev/null) $W/random || fail "the copy differs"
good ddpt --xcopy if=$G of=$G bs=512 count=2048 skip=0 seek=10240
cmp -s -n $((1 << 20)) <(dd if=$A bs=512 skip=10240 count=2048 iflag=direct 2>/dev/null) $W/random || fail "ddpt's copy differs"
# POPULATE TOKEN of 2048 blocks at 0, RECEIVE ROD TOKEN INFORMATION, WRITE USING TOKEN to 16384. (ddpt 0.97's --odx counts wrong itself.)
printf '\x00\x1e\0\0\0\0\0\0\0\0\0\0\0\0\x00\x10\0\0\0\0\0\0\0\0\x00\x00\x08\x00\0\0\0\0' >$W/populate
good sg_raw -s 32 -i $W/populate $G 83 10 00 00 00 00 00 00 00 01 00 00 00 20 00 00
good sg_raw -r 550 -o $W/info -b $G 84 07 00 00 00 01 00 00 00 00 00 00 02 26 00 00
{
    printf '\x02\x26\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
    tail -c +39 $W/info
    printf '\0\0\0\0\0\0\x00\x10\0\0\0\0\0\0\x40\x00\x00\x00\x08\x00\0\0\0\0'
} >$W/use
good sg_raw -s 552 -i $W/use $G 83 11 00 00 00 00 00 00 00 02 00 00 02 28 00 00
cmp -s -n $((1 << 20)) <(dd if=$A bs=512 skip=16384 count=2048 iflag=direct 2>/dev/null) $W/random || fail "the copy by token differs"
backstore 2 c file/$W/c.img $((64 << 20))
echo 0c1b2c3d-4e5f >$C/core/user_2/c/wwn/vpd_unit_serial
D=$(loopback 3 user_2/c)
! sg_xcopy if=$G of=$(generic $D) bs=512 count=8 >$W/out 2>&1 || fail "CVE-2021-3139: a copy to another disk"
cmp -s -n 4096 $W/c.img /dev/zero || fail "CVE-2021-3139: data on another disk"
no_io_errors

# FORMAT UNIT and SANITIZE
good sg_format --format --quick $G
cmp -s -n $((1 << 20)) $A <(head -c $((1 << 20)) /dev/zero) || fail "not formatted"
dd if=$W/random of=$A bs=64k oflag=direct 2>/dev/null
good sg_sanitize --block --quick --wait $G
cmp -s -n $((1 << 20)) $A <(head -c $((1 << 20)) /dev/zero) || fail "not erased"
printf Z >$W/z
good sg_sanitize --overwrite --pattern=$W/z --quick --wait $(generic $B)
cmp -s <(dd if=$B bs=4096 skip=7 count=1 iflag=direct 2>/dev/null) <(block 4096 Z) || fail "not overwritten"

dmesg -C
for n in 1 2 3; do remove_loopback $n; done
remove_backstore 0 a
remove_backstore 1 b
remove_backstore 2 c
stop_daemon
no_complaints
