# The library creates a backstore and an iSCSI target for it, and takes both away again; a refusal leaves nothing behind.
. ./lib.sh
start_daemon
BUILD_EXPORT=$TCMU_HANDLER_PATH/examples/export
mkfifo $W/stop
T=iqn.2026-01.org.example:library
$BUILD_EXPORT alloc/x $((64 << 20)) $T 127.0.0.1:3261 <$W/stop >$W/out 2>&1 &
P=$!
exec 9>$W/stop
wait_for 20 grep -q user_ $W/out
expect "alloc" tcmuctl devices
iscsi-ls iscsi://127.0.0.1:3261 | grep >/dev/null $T
timeout 60 iscsi-test-cu --dataloss -t SCSI.Write10.Simple iscsi://127.0.0.1:3261/$T/0 >$W/cu.log 2>&1 || true
awk '/asserts/ { ran = $3; failed = $5 } END { exit !(ran > 0 && failed == 0) }' $W/cu.log || fail "$(tail $W/cu.log)"
exec 9>&-
wait $P || fail "$(cat $W/out)"
[ ! -e $C/iscsi/$T ] && [ -z "$(ls $C/core | grep user_ || true)" ] || fail "something is left"
expect "No such file or directory" $BUILD_EXPORT nobody/x 1048576 $T 127.0.0.1:3261
[ -z "$(ls $C/core | grep user_ || true)" ] || fail "something is left after a refusal"
stop_daemon
no_complaints
