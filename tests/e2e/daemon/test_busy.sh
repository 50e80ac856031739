# limit: 180
# Other work comes and takes all processors while a disk is used: reactors that may give way, and stay where they are, are not starved by it.
# Held against reactors that may do neither, in the same boot. What is done without other work is told beside it.
. ./lib.sh

done_on() { awk '{ print $1 + $5 }' "/sys/block/$(basename "$1")/stat"; }

# during SECONDS DISK: I/Os meanwhile
during() {
    local before
    before=$(done_on "$2")
    sleep "$1"
    echo $(($(done_on "$2") - before))
}

# beside_work CONFIG DEPTH: what is done before other work comes, and from two seconds after
beside_work() {
    local disk fio loops="" before beside
    echo "$1" >$W/tcmu.toml
    start_daemon --config $W/tcmu.toml
    backstore 0 busy "null/busy" $((64 << 20))
    disk=$(loopback 1 user_0/busy)
    fio --name=busy --filename="$disk" --rw=randread --bs=4k --ioengine=libaio --iodepth="$2" --direct=1 --time_based --runtime=60 >/dev/null &
    fio=$!
    # Until it knows what is best.
    sleep 3
    before=$(during 2 "$disk")
    for _ in $(seq "$(nproc)"); do
        sh -c 'while :; do :; done' &
        loops="$loops $!"
    done
    sleep 2
    beside=$(during 4 "$disk")
    # shellcheck disable=SC2086
    kill $loops
    kill -INT $fio
    wait $fio || true
    remove_loopback 1
    remove_backstore 0 busy
    stop_daemon
    echo "$((before / 2)) $((beside / 4))"
}

for depth in 1 32; do
    read -r alone usual <<<"$(beside_work $'give_way = false\nstay_put = false' $depth)"
    read -r gives stays <<<"$(beside_work "" $depth)"
    echo "depth $depth: $alone I/Os a second alone, $usual beside other work; where it may give way and stay $gives and $stays"
    [ "$usual" -gt 0 ] || fail "nothing was done beside other work at depth $depth"
    # What starves gets a tenth or less.
    [ $((stays * 4)) -ge "$usual" ] || fail "starved at depth $depth: $stays I/Os a second of $usual"
done
no_complaints
