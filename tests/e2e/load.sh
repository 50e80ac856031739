# Verified load in the background, and how long its commands took. For tests of what a failure costs.

# load NAME DISK [fio options...]: random writes, each read back and compared, until loads_end
load() {
    fio --name="$1" --filename="$2" --rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 --direct=1 --size=32m --verify=crc32c \
        --verify_fatal=1 --verify_backlog=64 --time_based --runtime=3600 --output-format=json --output=$W/"$1".json "${@:3}" \
        >$W/"$1".err 2>&1 &
    LOADS+=("$!:$1")
    # It takes no notice of a signal before it has begun.
    wait_for 60 writes_more "${2##*/}" "$(writes "${2##*/}")"
}

writes() { awk '{ print $5 }' /sys/block/"$1"/stat; }
writes_more() { [ "$(writes "$1")" -gt "$2" ]; }

# All loads still ran, none with an error.
loads_end() {
    local load status
    for load in "${LOADS[@]}"; do kill -INT "${load%:*}" || fail "${load#*:} had ended: $(cat $W/"${load#*:}".err)"; done
    for load in "${LOADS[@]}"; do
        status=0
        wait "${load%:*}" || status=$?
        # 128: it was interrupted, which it was.
        [ $status = 0 ] || [ $status = 128 ] || fail "fio: ${load#*:}: status $status: $(cat $W/"${load#*:}".err)"
        longest "${load#*:}" >/dev/null
    done
    LOADS=()
}

# longest NAME: the longest that a command took, in ms
longest() {
    python3 -c 'import json, sys
text = open(sys.argv[1]).read()
job = json.loads(text[text.index("{"):])["jobs"][0]
if job["error"] or not job["write"]["total_ios"] or not job["read"]["total_ios"]:
    sys.exit("fio: error %d, %d writes, %d reads" % (job["error"], job["write"]["total_ios"], job["read"]["total_ios"]))
print(round(max(job[way]["clat_ns"]["max"] for way in ("read", "write")) / 1e6))' $W/"$1".json
}

# probe DISK LIMIT_MS: looks at the gaps between completions, until probe_end sets GAP to the longest and GAPS to all above the limit
probe() {
    rm -f $W/probing
    python3 ./probe.py "$1" "$2" $W/probing >$W/gaps &
    PROBE=$!
    wait_for 60 test -e $W/probing
}

probe_end() {
    kill "$PROBE"
    wait "$PROBE" || fail "the prober saw an error"
    read -r GAP GAPS <$W/gaps
}

# plugins NAME...: a directory with these plugins only, which may be exchanged
plugins() {
    local name
    mkdir -p $W/plugins
    for name in "$@"; do
        if [ -e $TCMU_HANDLER_PATH/libhandler_$name.so ]; then
            cp $TCMU_HANDLER_PATH/libhandler_$name.so $W/plugins/handler_$name.so
        else
            cp $TCMU_HANDLER_PATH/examples/lib$name.so $W/plugins/handler_$name.so
        fi
    done
    chmod 755 $W/plugins $W/plugins/*
}

# soon SECONDS COMMAND...: the command succeeds within that time
soon() { timeout "$1" "${@:2}" >$W/soon 2>&1 || fail "not within $1 s: ${*:2}: $(cat $W/soon)"; }

state_of() { tcmuctl devices --json | python3 -c 'import json, sys
print(next((d["state"] for d in json.load(sys.stdin) if d["device"] == sys.argv[1]), "none"))' "$1"; }

# is_state DEVICE WORDS: its state contains these words
is_state() { [[ $(state_of "$1") == *"$2"* ]]; }
