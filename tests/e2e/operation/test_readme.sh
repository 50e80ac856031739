# The commands of the README's walk-through, as they stand there.
. ./lib.sh
modprobe iscsi_tcp
mkdir -p /etc/iscsi
echo "InitiatorName=iqn.2026-01.org.example:me" >/etc/iscsi/initiatorname.iscsi
start_daemon
iscsid
sed -n '/test_readme.sh runs these/,/^```$/ { /^```/d; /^<!--/d; p }' ../../README.md >$W/commands
grep -q "tcmuctl create alloc" $W/commands && grep -q "iscsiadm -m session -u" $W/commands || fail "not found in the README: $(cat $W/commands)"
bash -eux $W/commands 2>&1 | tee $W/out
grep -q "what was written is read" $W/out
grep -E "256M +iscsi +TCMU device" $W/out
pkill iscsid
expect "no devices" tcmuctl devices
stop_daemon
no_complaints
