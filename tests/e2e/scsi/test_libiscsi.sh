# libiscsi's SCSI suite against our disk in four shapes. What each test says is compared with the table that is checked in; a difference is
# a failure until somebody has looked at it and changed the table. LIO's fileio takes, in the same boot, those tests of which we want to know
# what it says; with LIBISCSI_PEER=all, for a new table, all of them.
# limit: 600
. ./lib.sh
. scsi/libiscsi.sh
TABLE=$PWD/scsi/libiscsi.table
start_daemon
disk() { # NUMBER CONFIG MIB
    backstore "$1" d "alloc/$2" $(($3 << 20)) hw_max_sectors=2048
    echo "0a1b2c3d-000$1" >$C/core/user_$1/d/wwn/vpd_unit_serial
}
disk 0 disk 64
disk 1 'physical;physical=4096' 64
disk 2 'removable;removable=on' 64
disk 3 'protected;ro=on' 64
disk 4 large 2048
mkdir -p $C/core/fileio_0/f
echo "fd_dev_name=$W/f.img,fd_dev_size=$((64 << 20))" >$C/core/fileio_0/f/control
echo 1 >$C/core/fileio_0/f/enable
echo 1 >$C/core/fileio_0/f/attrib/emulate_tpu
libiscsi_suite user_0/d $W/disk
# What the plain disk has no opportunity to show.
for suite in CompareAndWrite WriteSame10 WriteSame16; do
    libiscsi_suite user_1/d $W/$suite SCSI.$suite
    cat $W/$suite >>$W/physical
done
for suite in PreventAllow StartStopUnit; do
    libiscsi_suite user_2/d $W/$suite SCSI.$suite
    cat $W/$suite >>$W/removable
done
libiscsi_suite user_3/d $W/protected SCSI.ReadOnly
libiscsi_suite user_0/d $W/paths SCSI.MultipathIO
# Long enough to be reset on the way.
libiscsi_suite user_4/d $W/large SCSI.Sanitize.Reset
# Reservations are the kernel's, and not always released in time when a session ends: what failed and passes for fileio, or failed for
# that as well, is tried again.
for test in $(awk '/^(Prin|Prout|Reserve)/ && $2 == "failed" { print $1 }' $W/disk); do
    for _ in 1 2 3 4 5 6; do
        libiscsi_suite user_0/d $W/again SCSI.$test
        if grep -q " passed$" $W/again; then
            sed -i "s/^$test failed/$test passed/" $W/disk
            break
        fi
    done
done
: >$W/peer
if [ "${LIBISCSI_PEER:-}" = all ]; then
    libiscsi_suite fileio_0/f $W/peer
else
    for test in $(awk '/^(Prin|Prout|Reserve)/ && $2 == "failed" { print $1 }' $W/disk); do
        libiscsi_suite fileio_0/f $W/again SCSI.$test
        cat $W/again >>$W/peer
    done
fi
rmdir $C/core/fileio_0/f $C/core/fileio_0
for n in 0 1 2 3 4; do remove_backstore $n d; done
stop_daemon
# A line for each test: what it says of us (of the first shape that does not make it skip), in which shape, and what it says of fileio.
awk '
    { test = $1; result = $0; sub(/^[^ ]+ /, "", result); shape = FILENAME; sub(/.*\//, "", shape) }
    shape == "peer" { peer[test] = result; sub(/:.*/, "", peer[test]); next }
    !(test in ours) { order[++count] = test; ours[test] = result; shapes[test] = shape; next }
    (ours[test] ~ /^skipped/ && result !~ /^skipped/) || shape == "large" { ours[test] = result; shapes[test] = shape }
    END { for (i = 1; i <= count; i++) { test = order[i]; printf "%-36s %-10s %-9s %s\n", test, shapes[test], (test in peer) ? peer[test] : "-", ours[test] } }
' $W/disk $W/physical $W/removable $W/protected $W/paths $W/large $W/peer >$W/table
passed=$(awk '$4 == "passed"' $W/table | wc -l)
echo "$passed of $(wc -l <$W/table) passed$([ "${LIBISCSI_PEER:-}" != all ] || echo ", fileio $(awk '$3 == "passed"' $W/table | wc -l)")"
# Whether a session's reservations are gone in time depends on the kernel's load: where both fail, ours is not worse than fileio, which is
# what is asked of commands that the kernel answers. What fileio says otherwise is for information.
compared() {
    awk -v table="$W/table" '
        BEGIN { while ((getline < table) > 0) if ($1 ~ /^(Prin|Prout|Reserve)/ && $3 == "failed" && $4 == "failed") both[$1] }
        /^#/ { next }
        { $3 = ""; if ($1 in both) $4 = "failed, as for fileio"; print }' "$1"
}
if ! diff <(compared $TABLE) <(compared $W/table) >$W/changes; then
    cat $W/table >/tmp/libiscsi.table
    # What the suite says of those that fail, from the shape that they fail in.
    awk '/^> / && $4 == "failed" { print $2, $3 }' $W/changes | while read -r test shape; do
        for log in $W/$shape.log $W/${test%%.*}.log; do
            awk -v suite="Suite: ${test%%.*}" -v test="  Test: ${test#*.} " \
                '$0 ~ /^Suite/ { in_suite = $0 == suite } /^  Test/ { on = in_suite && index($0, test) == 1 } on' $log 2>/dev/null | head -15
        done
    done || true
    cat $W/changes
    fail "the results differ from libiscsi.table"
fi
[ "$passed" -ge 165 ] || fail "only $passed passed"
no_complaints
