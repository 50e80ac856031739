# libiscsi's SCSI suite against our disk in four shapes, and LIO's fileio in the same boot. What each test says is compared with the
# table that is checked in; a difference is a failure until somebody has looked at it and changed the table.
# limit: 600
. ./lib.sh
. ./libiscsi.sh
TABLE=$PWD/libiscsi.table
start_daemon
disk() { # NUMBER CONFIG
    backstore "$1" d "alloc/$2" $((256 << 20)) hw_max_sectors=2048
    echo "0a1b2c3d-000$1" >$C/core/user_$1/d/wwn/vpd_unit_serial
}
disk 0 disk
disk 1 'physical;physical=4096'
disk 2 'removable;removable=on'
disk 3 'protected;ro=on'
mkdir -p $C/core/fileio_0/f
echo "fd_dev_name=$W/f.img,fd_dev_size=$((256 << 20))" >$C/core/fileio_0/f/control
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
libiscsi_suite fileio_0/f $W/peer
rmdir $C/core/fileio_0/f $C/core/fileio_0
for n in 0 1 2 3; do remove_backstore $n d; done
stop_daemon
# A line for each test: what it says of us (of the first shape that does not make it skip), in which shape, and what it says of fileio.
awk '
    { test = $1; result = $0; sub(/^[^ ]+ /, "", result); shape = FILENAME; sub(/.*\//, "", shape) }
    shape == "peer" { peer[test] = result; sub(/:.*/, "", peer[test]); next }
    !(test in ours) { order[++count] = test; ours[test] = result; shapes[test] = shape; next }
    ours[test] ~ /^skipped/ && result !~ /^skipped/ { ours[test] = result; shapes[test] = shape }
    END { for (i = 1; i <= count; i++) { test = order[i]; printf "%-36s %-10s %-9s %s\n", test, shapes[test], peer[test], ours[test] } }
' $W/disk $W/physical $W/removable $W/protected $W/peer >$W/table
passed=$(awk '$4 == "passed"' $W/table | wc -l)
echo "$passed of $(wc -l <$W/table) passed, fileio $(awk '$3 == "passed"' $W/table | wc -l)"
if ! diff <(grep -v '^#' $TABLE) $W/table >$W/changes; then
    cat $W/table >/tmp/libiscsi.table
    while read -r test; do grep -h -A12 "Test: ${test#*.} " $W/disk.log | head -14; done < <(awk '/^> / && $5 == "failed" { print $2 }' $W/changes)
    cat $W/changes
    [ -z "${SHOW_TABLE:-}" ] || cat $W/table
    fail "the results differ from libiscsi.table"
fi
[ "$passed" -ge 165 ] || fail "only $passed passed"
no_complaints
