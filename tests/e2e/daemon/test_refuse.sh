# A handler that refuses makes `enable` fail at once with its errno, and nothing is left; so does a handler that isn't there.
. ./lib.sh
start_daemon
refused() { # CONFIG ERROR
    local dir=$C/core/user_0/x start=$SECONDS
    mkdir -p $dir
    echo -n dev_size=1048576 >$dir/control
    echo -n "dev_config=$1" >$dir/control
    expect "$2" bash -c "echo -n 1 >$dir/enable"
    [ $((SECONDS - start)) -le 5 ] || fail "it took $((SECONDS - start)) s"
    rmdir $dir
}
refused file/relative "Invalid argument"
refused file//nonexistent/dir/x "No such file or directory"
refused "file/$W/x;nonsense=1" "Invalid argument"
refused nobody/x "No such file or directory"
mkdir -p $W/dir
refused file/$W/dir "Is a directory"
[ ! -e $W/x ]
grep -q 'option "nonsense" is not known; there are: ro, create' $LOG
grep -q 'there is no handler "nobody"' $LOG
expect "no devices" tcmuctl devices
# The kernel tells tools an errno; the words are on the bus.
why() { busctl call org.kernel.TCMUService1 /org/tcmu_runnerd/Control1 org.tcmu_runnerd.Control1 GetRefusal s "$1"; }
expect "cannot open $W/dir: Is a directory" why user_0/x
# A file that another disk uses.
backstore 0 a file/$W/shared.img $((16 << 20))
refused file/$W/shared.img "Device or resource busy"
remove_backstore 0 a
rmdir $C/core/user_0 2>/dev/null || true
stop_daemon
