# The kernel's limits are told with what they cost.
. ./lib.sh
start_daemon
backstore 0 slow null/x $((1 << 20))
backstore 0 quick null/y $((1 << 20)) hw_max_sectors=2048
tcmuctl tune >$W/out
grep -qE "^user_0/slow +hw_max_sectors +128 \(64 KiB\) +2048 +a request of 1 MiB becomes 16 commands" $W/out || fail "$(cat $W/out)"
expect "create ... hw_max_sectors=2048" cat $W/out
expect "Nothing to change." tcmuctl tune user_0/quick
expect "there is no device user_0/none" tcmuctl tune user_0/none
expect "user_<number>/<name> is needed" tcmuctl tune none
tcmuctl --json tune | python3 -c '
import json, sys
rows = json.load(sys.stdin)
assert {row["device"] for row in rows} == {"user_0/slow", "user_0/quick"}, rows
assert all(isinstance(row["value"], int) and row["how"] for row in rows), rows'
remove_backstore 0 slow
remove_backstore 0 quick
stop_daemon
no_complaints
