# The screen of `tcmuctl top`: keys work, a daemon that goes away is told and does not end it, and the terminal is left as it was, also by a
# signal.
. ./lib.sh
start_daemon
backstore 0 a alloc/x $((64 << 20))
backstore 0 b alloc/y $((64 << 20))
A=$(loopback 1 user_0/a)
udevadm settle -t 20 2>/dev/null || true
(while dd if=$A of=/dev/null bs=4k count=50 iflag=direct 2>/dev/null; do :; done) &
READER=$!
top() { python3 clients/terminal.py "$@"; }
# The busiest is the first, and the one whose details are shown.
top "tcmuctl top --interval 0.3" "user_0/a" "\r" "OPERATION" " " "PAUSED" " s" "DEVICE" "q" || fail "keys"
top "tcmuctl top --interval 0.3 user_0/b" "1 device," "\x03" || fail "control C"
shown() { grep "^seen user_0/" $W/shown; }
top "tcmuctl top" "user_0/b" "" >$W/shown &
TOP=$!
wait_for 60 shown
pkill -TERM -x tcmuctl
wait $TOP || fail "a signal: $(cat $W/shown)"
expect "there is no device user_9/none" tcmuctl top user_9/none
kill $READER
wait $READER 2>/dev/null || true

rm $W/shown
# What the screen shows already is not written again.
top "tcmuctl top --interval 0.5" "user_0/a" "" "running (systemctl" "q" >$W/shown &
TOP=$!
wait_for 60 shown
stop_daemon
wait $TOP || fail "without a daemon"
start_daemon
remove_loopback 1
remove_backstore 0 a
remove_backstore 0 b
stop_daemon
no_complaints
