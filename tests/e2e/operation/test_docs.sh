# limit: 480
# The manual's commands, as they stand in its pages: every block that is marked `sh test=NAME` is run, a page's blocks one after the other in
# one shell. Needs the page's own words to be right, so nothing is filled in.
. ./lib.sh
DOCS=$(cd ../.. && pwd)/docs
modprobe iscsi_tcp
start_daemon
for page in "$DOCS"/*.md; do
    name=$(basename "$page" .md)
    awk -v fence="^\`\`\`sh test=$name\$" '$0 ~ fence { inside = 1; next } /^```/ { inside = 0 } inside' "$page" >$W/$name.sh
    [ -s $W/$name.sh ] || { rm $W/$name.sh; continue; }
    START=$SECONDS
    (cd /tmp && bash -euxo pipefail $W/$name.sh >$W/$name.out 2>&1 </dev/null) || fail "$name: $(tail -25 $W/$name.out)"
    expect "no devices" tcmuctl devices
    echo "$name: $(grep -c . $W/$name.sh) lines in $((SECONDS - START)) s"
done
! grep -hE '^```sh test=' "$DOCS"/*.md | sort -u | sed 's/.*test=//' | while read -r name; do [ -s $W/$name.sh ] || echo $name; done | grep . ||
    fail "a block's name is not its page's"
[ -s $W/quick-start.sh ] && [ -s $W/tutorial.sh ] || fail "no commands were found"
pkill iscsid || true
stop_daemon
no_complaints
