#!/bin/bash
# Runs end-to-end tests one after the other: run.sh GROUP [NAME...], all of a group's or those named. Prints `ok NAME` or `FAIL NAME` with
# the daemon's log, and a summary. A group is a directory here; each gets a boot of its own.
cd "$(dirname "$0")" || exit 1
group=$1
shift
passed=0 failed=0
for test in "$group"/test_*.sh; do
    name=${test#*/test_} name=${name%.sh}
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    : >/tmp/tcmu-runnerd.log
    dmesg -C
    start=$SECONDS
    # `# limit: SECONDS` in a test that needs longer, on a machine that is not too slow.
    limit=$(sed -n 's/^# limit: //p' "$test")
    # A test that hangs in the kernel can't be killed; the next ones then fail too, and say so.
    if timeout -k 5 "$((${limit:-240} * 2))" bash "$test" >/tmp/out 2>&1; then
        echo "ok $name ($((SECONDS - start)) s)"
        # Its figures.
        tail -12 /tmp/out | sed 's/^/    /'
        passed=$((passed + 1))
    else
        echo "FAIL $name (status $?, $((SECONDS - start)) s)"
        sed 's/^/    /' /tmp/out | tail -40
        echo "  daemon:"
        grep -v "] failed " /tmp/tcmu-runnerd.log | tail -40 | sed "s/^/    /"
        echo "  kernel:"
        dmesg | tail -10 | sed 's/^/    /'
        failed=$((failed + 1))
        # Whatever it left behind is taken away, so that the next one starts clean.
        timeout -k 5 90 bash ./clean.sh >/dev/null 2>&1
    fi
done
echo "end-to-end, $group: $passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
