# The doctor finds what was broken on purpose, and what it says mends it.
. ./lib.sh
mkdir -p /run/dbus
# Another test's targetcli may have moved it.
mkdir -p "$(cat $C/dbroot)/pr" "$(cat $C/dbroot)/alua"
wrong() { # WHAT MEND
    ! tcmuctl doctor >$W/out 2>&1 || fail "nothing is wrong, it says: $(cat $W/out)"
    grep -A1 -F -- "$1" $W/out >$W/found || fail "no $1 in $(cat $W/out)"
    grep -F -- "→ $2" $W/found || fail "it would mend $1 so: $(cat $W/found)"
}
wrong "daemon: it is not running" "systemctl start tcmu-runnerd"
wrong "D-Bus: nobody owns org.kernel.TCMUService1" "systemctl restart tcmu-runnerd"
start_daemon
tcmuctl doctor | tee $W/well | tail -12
expect "0 wrong," tail -1 $W/well

DBROOT=$(cat $C/dbroot)
mv $DBROOT/pr $DBROOT/pr.away
wrong "reservations: $DBROOT/pr is missing" "mkdir -p $DBROOT/pr"
sh -c "$(sed -n 's/.*→ //p' $W/found)"
tcmuctl doctor >/dev/null

mv /etc/dbus-1/system.d/tcmu-runnerd.conf $W
wrong "D-Bus policy: no policy lets root own" "install dist/dbus/tcmu-runnerd.conf"
mv $W/tcmu-runnerd.conf /etc/dbus-1/system.d

mkdir -p /etc/tcmu/disks.d
printf 'handler = "file"\nsize = "20X"\n' >/etc/tcmu/disks.d/a.toml
wrong "disks.d: /etc/tcmu/disks.d/a.toml:2: \"20X\" is no size" "correct the line"
rm /etc/tcmu/disks.d/a.toml

# A plugin that is none.
mkdir -p $W/plugins
echo nonsense >$W/plugins/handler_bad.so
TCMU_HANDLER_PATH=$W/plugins wrong "plugins:" "mend or remove the file"

backstore 0 slow null/x $((1 << 20))
tcmuctl doctor | grep -A1 "limits: user_0/slow: hw_max_sectors 128"
tcmuctl doctor --json | python3 -c '
import json, sys
rows = json.load(sys.stdin)
assert {row["level"] for row in rows} == {"fine", "hint"}, rows
assert all(row["mend"] for row in rows if row["level"] != "fine"), rows'
remove_backstore 0 slow

chmod 755 /run/tcmu-runnerd
wrong "run directory: others than root may look into" "chown root /run/tcmu-runnerd && chmod 700 /run/tcmu-runnerd"
chmod 700 /run/tcmu-runnerd
stop_daemon
no_complaints
