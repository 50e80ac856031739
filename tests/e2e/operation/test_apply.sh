# Disks from files: shown first, made once, changed as the files change, never harmed without a word; saved again from what is there; and
# targetcli's own save and restore goes on beside it.
. ./lib.sh
start_daemon
DISKS=$W/disks.d
mkdir -p $DISKS
apply() { tcmuctl apply $DISKS --yes "$@"; }
said() { [ "$(cat $W/out)" = "$1" ] || fail "it said: $(cat $W/out)"; }
cat >$DISKS/vm1.toml <<T
handler = "file"
config = "$W/vm1.img"
size = "64M"
write_cache = true
loopback = true
T
cat >$DISKS/ram.toml <<T
handler = "alloc"
size = "32M"

[[iscsi]]
target = "iqn.2026-01.org.example:ram"
portals = ["127.0.0.1"]
initiators = ["any"]
T
tcmuctl apply $DISKS --dry-run | tee $W/out
said "+ ram: create: alloc ram, 32M, iscsi iqn.2026-01.org.example:ram
+ vm1: create: file $W/vm1.img, 64M, loopback"
[ -z "$(ls $C/core | grep user_ || true)" ] || fail "a dry run made something"
expect "say --yes" bash -c "tcmuctl apply $DISKS </dev/null"
apply
apply >$W/out
said "Nothing to change."
iscsi-ls -s iscsi://127.0.0.1 | grep -E "Size:3[123]M"
D=/dev/$(lsblk -Sno NAME,MODEL | awk '/TCMU/ { print $1; exit }')
verify $D 2 --size=16m

# Grown and changed while it is used; shrunk only when that is allowed.
sed -i 's/size = "64M"/size = "96M"/; s/write_cache = true/write_cache = false/' $DISKS/vm1.toml
apply | tee $W/out
said "~ vm1: write_cache on → off
~ vm1: size 64M → 96M"
wait_for 10 test "$(blockdev --getsize64 $D)" = $((96 << 20))
expect "WCE           0" sdparm --get WCE $D
sed -i 's/size = "96M"/size = "32M"/' $DISKS/vm1.toml
! apply >$W/out || fail "it shrank"
grep -F "size 96M → 32M   (not done without --allow shrink)" $W/out
[ "$(blockdev --getsize64 $D)" = $((96 << 20)) ]
sed -i 's/size = "32M"/size = "96M"/' $DISKS/vm1.toml

# A file that is wrong is told with its line, and keeps no other disk away.
printf 'handler = "alloc"\nsize = "1M"\nlun = 5\n' >$DISKS/bad.toml
printf 'handler = "null"\nsize = "1M"\n' >$DISKS/zero.toml
! apply >$W/out 2>&1 || fail "a wrong file is no failure"
grep -F "bad.toml:3: unknown field \`lun\`" $W/out
expect "user_2/zero" tcmuctl devices
rm $DISKS/bad.toml $DISKS/zero.toml
! apply >$W/out || fail "a disk was removed"
grep -F -- "- zero: remove: its file is gone   (not done without --allow remove)" $W/out
apply --allow remove

# What is saved makes the same disk.
tcmuctl save vm1 --output $W/saved.toml
cat $W/saved.toml
BEFORE=$(tcmuctl device show vm1 --json | python3 -c 'import json, sys; f = json.load(sys.stdin); print(f["device"], f["serial"], f["size"])')
tcmuctl delete vm1
tcmuctl apply $W/saved.toml --yes
AFTER=$(tcmuctl device show vm1 --json | python3 -c 'import json, sys; f = json.load(sys.stdin); print(f["device"], f["serial"], f["size"])')
[ "$BEFORE" = "$AFTER" ] || fail "$BEFORE became $AFTER"

# targetcli saves and restores all of it, whoever made it; then the files have nothing to add.
targetctl save $W/saveconfig.json
targetctl clear
[ -z "$(ls $C/core | grep user_ || true)" ] || fail "targetctl left $(ls $C/core)"
targetctl restore $W/saveconfig.json
apply >$W/out
said "Nothing to change."
expect "user_" tcmuctl devices
tcmuctl delete vm1 ram
stop_daemon
no_complaints
