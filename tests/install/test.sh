#!/bin/bash
# What an operator does on a clean Debian, run by systemd at each boot of the test of installation: the packages are installed, targetcli makes
# a disk, the daemon is upgraded under it and found by the watchdog when it is stuck; the machine goes down in several ways, and each time the
# disks are back with their contents.
# The machine ends with a status that says how it went.
set -uo pipefail
cd /opt/test
export HOME=/root
STATE=/var/lib/install-test
C=/sys/kernel/config/target

end() { printf "\\x$1" | dd of=/dev/port bs=1 seek=$((0xf4)) status=none; }
say() { echo "[$(cut -d. -f1 /proc/uptime) s] $*"; }
fail() {
    say "FAILED: $*"
    systemctl --no-pager status tcmu-runnerd rtslib-fb-targetctl | tail -40
    journalctl --no-pager -b -u tcmu-runnerd -u tcmu-disks -u rtslib-fb-targetctl -u install-test | tail -60
    dmesg | tail -20
    end 01
}
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "did not happen in time: $*"
        sleep 0.5
    done
}
CONTROL="/org/tcmu_runnerd/Control1 org.tcmu_runnerd.Control1"
# bus call|get-property OBJECT-AND-INTERFACE MORE...
bus() { busctl "$1" org.kernel.TCMUService1 $2 "${@:3}"; }
main_pid() { systemctl show -p MainPID --value tcmu-runnerd; }
# A clean Debian has no pgrep.
processes() {
    local pid
    for pid in $(cd /proc && echo [0-9]*); do
        tr '\0' ' ' <"/proc/$pid/cmdline" | grep >/dev/null -E '^(/usr/sbin/)?tcmu-runnerd ' && echo "$pid"
    done 2>/dev/null
}
host_pid() { tcmuctl handlers | awk '$1 == "file" { print $4 }'; }
# Disks are told apart by their sizes, in MiB: 64 that of targetcli, 32 that of disks.d, 16 that of the other handler.
disk() {
    local size
    size=$(grep -lx $((${1:-64} * 2048)) /sys/block/sd*/size 2>/dev/null) || return
    echo "/dev/$(basename "${size%/size}")"
}
has_disk() { grep -q LIO-ORG "/sys/block/$(basename "$(disk "$@")")/device/vendor"; }
sum() { dd if="$(disk "$@")" bs=1M count=4 iflag=direct status=none | sha256sum; }
targets() { targetcli "$@" || fail "targetcli $*"; }

install_() {
    say "installing on a clean system"
    dpkg -i ./*.deb >/tmp/dpkg 2>&1 || fail "dpkg: $(cat /tmp/dpkg)"
    systemctl start tcmu-runnerd || fail "it does not start"
    systemctl is-enabled --quiet tcmu-runnerd || fail "it is not enabled"
    tcmuctl status || fail "tcmuctl status"
    for handler in file alloc null; do tcmuctl handlers | grep "^$handler " || fail "no handler $handler: $(tcmuctl handlers)"; done
    [ "$(stat -c '%a' /run/tcmu-runnerd)" = 700 ] || fail "the run directory is not root's alone"

    say "a disk by targetcli"
    mkdir -p /srv
    targets <<T
set global auto_save_on_exit=false
/backstores/user:file create vm1 64M /srv/vm1.img
/loopback create naa.5001405aaaaaaaaa
/loopback/naa.5001405aaaaaaaaa/luns create /backstores/user:file/vm1
saveconfig
T
    wait_for 30 has_disk
    dd if=/dev/urandom of="$(disk)" bs=1M count=4 oflag=direct status=none || fail "the disk cannot be written"
    sum >$STATE/sum

    say "a disk by a file in disks.d"
    mkdir -p /etc/tcmu/disks.d
    cat >/etc/tcmu/disks.d/vm2.toml <<T
handler = "file"
config = "/srv/vm2.img"
size = "32M"
loopback = true
T
    systemctl enable --now tcmu-disks || fail "systemctl enable --now tcmu-disks"
    wait_for 30 has_disk 32
    dd if=/dev/urandom of="$(disk 32)" bs=1M count=4 oflag=direct status=none || fail "the disk of disks.d cannot be written"
    sum 32 >$STATE/sum.32

    say "a handler that was built against the -dev package"
    install -m 644 handler_ramc.so /usr/lib/tcmu-runnerd/
    tcmuctl handler test /usr/lib/tcmu-runnerd/handler_ramc.so >/tmp/tested 2>&1 || fail "tcmuctl handler test: $(cat /tmp/tested)"
    tail -1 /tmp/tested
    tcmuctl reload --exec || fail "tcmuctl reload --exec"
    has_handler() { tcmuctl handlers | grep "^ramc "; }
    wait_for 20 has_handler
    tcmuctl create ramc other --size 16M --loopback || fail "tcmuctl create"
    wait_for 30 has_disk 16
    dd if=/dev/urandom of="$(disk 16)" bs=1M count=4 oflag=direct status=none || fail "its disk cannot be written"
    sum 16 >/dev/null || fail "its disk cannot be read"
    tcmuctl delete other || fail "tcmuctl delete"
    [ "$(sum) $(sum 32)" = "$(cat $STATE/sum) $(cat $STATE/sum.32)" ] || fail "other data after another handler came"

    say "the journal, the level, the configuration"
    journalctl -b -u tcmu-runnerd -o json | python3 -c '
import json, sys
lines = [json.loads(line) for line in sys.stdin]
served = [line for line in lines if "served by file" in line["MESSAGE"]]
assert served and served[0]["TCMU_DEVICE"] == "user_0/vm1" and served[0]["PRIORITY"] == "6", [line["MESSAGE"] for line in lines]
assert served[0]["TCMU_CONFIG"] == "/srv/vm1.img", served[0]' || fail "the journal has not the fields of a log line"
    bus call "$CONTROL" SetLogLevel s debug || fail "SetLogLevel"
    [ "$(bus get-property "$CONTROL" LogLevel)" = 's "debug"' ] || fail "the level is $(bus get-property "$CONTROL" LogLevel)"
    mkdir -p /etc/tcmu
    echo 'log_level = "warn"' >/etc/tcmu/tcmu.toml
    systemctl reload tcmu-runnerd || fail "systemctl reload"
    level_is() { [ "$(bus get-property "$CONTROL" LogLevel)" = "s \"$1\"" ]; }
    wait_for 20 level_is warn
    echo 'log_level = "info"' >/etc/tcmu/tcmu.toml
    wait_for 20 level_is info
    echo 'no_such = 1' >/etc/tcmu/tcmu.toml
    said() { tcmuctl status | grep "tcmu.toml"; }
    wait_for 20 said
    ! systemctl reload tcmu-runnerd 2>/dev/null || fail "systemctl reload takes a mistake"
    journalctl --no-pager -b -u tcmu-runnerd | grep >/dev/null "tcmuctl.*tcmu.toml:1: unknown field" || fail "the journal does not say what is wrong"
    rm /etc/tcmu/tcmu.toml
    systemctl is-active --quiet tcmu-runnerd || fail "a mistake in the configuration ended it"

    say "stopped and started with a read on its way"
    systemctl stop tcmu-runnerd || fail "systemctl stop"
    [ -z "$(processes)" ] || fail "it or a host of it still runs"
    sum >$STATE/sum.again &
    local reader=$!
    sleep 3
    kill -0 $reader || fail "the read came back while nobody served the disk"
    systemctl start tcmu-runnerd || fail "it does not start again"
    wait $reader || fail "the read failed"
    cmp $STATE/sum $STATE/sum.again || fail "other data after the stop"
    ! dmesg | grep "I/O error" || fail "there were I/O errors"

    say "started by the bus"
    systemctl stop tcmu-runnerd || fail "systemctl stop"
    busctl call org.kernel.TCMUService1 /org/kernel/TCMUService1/file org.kernel.TCMUService1 CheckConfig s file//srv/x | grep true ||
        fail "the bus does not start it"
    systemctl is-active --quiet tcmu-runnerd || fail "the bus started it beside its unit"
    [ "$(sum)" = "$(cat $STATE/sum)" ] || fail "other data after the bus started it"

    say "the same packages again, as an upgrade"
    local daemon host
    daemon=$(main_pid) host=$(host_pid)
    [ -n "$host" ] || fail "no host of file: $(processes)"
    dpkg -i ./*runnerd_*.deb >/tmp/dpkg 2>&1 || fail "dpkg: $(cat /tmp/dpkg)"
    [ "$(main_pid) $(host_pid)" = "$daemon $host" ] || fail "the daemon or its host was restarted: $daemon $host, $(main_pid) $(host_pid)"
    journalctl --no-pager -b -u tcmu-runnerd | grep >/dev/null "its host goes on" || fail "the daemon was not exchanged"
    [ "$(sum)" = "$(cat $STATE/sum)" ] || fail "other data after the upgrade"

    say "a daemon that is stuck"
    mkdir -p /run/systemd/system/tcmu-runnerd.service.d
    # A stopped process takes no SIGABRT: it is killed when that has not helped.
    printf '[Service]\nWatchdogSec=6\nTimeoutAbortSec=1\n' >/run/systemd/system/tcmu-runnerd.service.d/watchdog.conf
    systemctl daemon-reload
    systemctl restart tcmu-runnerd || fail "it does not start again"
    daemon=$(main_pid) host=$(host_pid)
    sleep 8
    [ "$(main_pid)" = "$daemon" ] || fail "the watchdog ended a daemon that is well"
    kill -STOP "$daemon"
    other() { [ "$(main_pid)" != "$daemon" ] && systemctl is-active --quiet tcmu-runnerd; }
    wait_for 60 other
    [ "$(host_pid)" = "$host" ] || fail "its host ended with it"
    [ "$(sum)" = "$(cat $STATE/sum)" ] || fail "other data after the watchdog"
    systemctl show -p NRestarts tcmu-runnerd
    rm -r /run/systemd/system/tcmu-runnerd.service.d
    systemctl daemon-reload
}

back() {
    say "after the reboot"
    wait_for 60 systemctl is-active --quiet rtslib-fb-targetctl
    wait_for 30 has_disk
    systemctl is-active --quiet tcmu-runnerd || fail "the daemon does not run"
    local since
    since() { systemctl show -p ActiveEnterTimestampMonotonic --value "$1"; }
    [ "$(since tcmu-runnerd)" -lt "$(since rtslib-fb-targetctl)" ] || fail "targets were restored before the daemon was ready"
    ! journalctl --no-pager -b -u rtslib-fb-targetctl | grep -i "error\|could not" || fail "targets were not restored"
    wait_for 60 systemctl is-active --quiet tcmu-disks
    wait_for 30 has_disk 32
    tcmuctl devices
    for disk in vm1 vm2; do tcmuctl devices | grep "$disk .*serving" || fail "the disk $disk is not served"; done
    [ "$(sum)" = "$(cat $STATE/sum)" ] || fail "other data after the reboot"
    [ "$(sum 32)" = "$(cat $STATE/sum.32)" ] || fail "other data of the disk of disks.d after the reboot"
    tcmuctl apply --dry-run | grep -x "Nothing to change." || fail "disks.d: $(tcmuctl apply --dry-run)"
}

# A file system on a disk of ours, whose image is on a file system that can be taken away. What was written to it before it went down is there.
kept() {
    if [ ! -e $STATE/kept ]; then
        say "a file system on a disk, on a file system"
        truncate -s 64M /srv/store.ext4
        mkfs.ext4 -q /srv/store.ext4
        mkdir -p /srv/store /srv/mounted
        echo "/srv/store.ext4 /srv/store ext4 loop,nofail 0 0" >>/etc/fstab
        systemctl daemon-reload
        mount /srv/store || fail "mount /srv/store"
        sed 's/vm2.img/store\/vm3.img/; s/32M/24M/' /etc/tcmu/disks.d/vm2.toml >/etc/tcmu/disks.d/vm3.toml
        tcmuctl apply --yes || fail "tcmuctl apply"
        wait_for 30 has_disk 24
        mkfs.ext4 -q "$(disk 24)" || fail "mkfs.ext4 of our disk"
    fi
    wait_for 30 has_disk 24
    mount "$(disk 24)" /srv/mounted || fail "the file system cannot be mounted"
    if [ -e $STATE/kept ]; then
        [ "$(sha256sum </srv/mounted/kept)" = "$(cat $STATE/kept)" ] || fail "what was written and flushed is not there"
    fi
    dd if=/dev/urandom of=/srv/mounted/kept bs=1M count=2 conv=fsync status=none || fail "it cannot be written"
    sha256sum </srv/mounted/kept >$STATE/kept
    # And something that waits to be written.
    dd if=/dev/urandom of=/srv/mounted/late bs=1M count=2 status=none
}

# How the machine goes down: in systemd's order, or after something went first that should not. All of it is left to systemd then.
DOWN=(systemd daemon killed target store)
down() {
    local way=${DOWN[$1]}
    say "going down: $way first"
    case $way in
        systemd) ;;
        daemon)
            systemctl stop tcmu-runnerd
            # By somebody who looks what that is: the disks still wait for the daemon.
            systemctl restart tcmu-runnerd-shutdown
            [ "$(cat /sys/class/scsi_disk/*/cache_type | sort -u)" = "write back" ] ||
                fail "a disk has no cache any more, though the machine does not go down"
            ;;
        killed)
            systemctl mask --runtime tcmu-runnerd
            kill -KILL $(processes)
            ;;
        target) timeout 60 systemctl stop rtslib-fb-targetctl ;;
        store) umount -l /srv/store ;;
    esac
    date +%s >$STATE/down
    sync -f $STATE
    systemctl reboot
}
went_down() {
    local took lost
    # For which the emulated machine was stuck in between.
    lost=$(sed -nE 's/.*install_test_lost=([0-9]+).*/\1/p' /proc/cmdline)
    took=$(($(date +%s) - $(cut -d. -f1 /proc/uptime) - $(cat $STATE/down) - lost))
    say "the machine was down after $took s, with ${DOWN[$1]} gone first"
    # systemd waits for 90 s for whoever does not end.
    [ $took -le 80 ] || fail "it took $took s to go down"
}

taken_away() {
    say "taken away again"
    dpkg -r tcmu-runnerd-handler-file tcmu-runnerd-handler-alloc tcmu-runnerd-handler-null tcmu-runnerd >/tmp/dpkg 2>&1 || fail "dpkg: $(cat /tmp/dpkg)"
    [ -z "$(processes)" ] || fail "it still runs"
    dpkg -P tcmu-runnerd >/tmp/dpkg 2>&1 || fail "dpkg: $(cat /tmp/dpkg)"
    [ ! -e /usr/lib/systemd/system/tcmu-runnerd.service ] || fail "its unit is left"
}

systemctl is-system-running --wait >/dev/null
say "systemd says: $(systemctl is-system-running), in $(systemd-analyze 2>/dev/null | head -1)"
# How often it went down before.
boots=$(cat $STATE/boots 2>/dev/null || echo 0)
if [ "$boots" = 0 ]; then
    mkdir -p $STATE /var/log/journal
    journalctl --flush
    install_
else
    went_down $((boots - 1))
    back
fi
if [ "$boots" = 1 ]; then
    # The way down of the first boot: targets before the daemon, and nobody had to be killed.
    journalctl --no-pager -b -1 -u tcmu-runnerd | grep >/dev/null "stopped; devices stay blocked" || fail "the daemon was not stopped in order"
fi
kept
if [ "$boots" -lt ${#DOWN[@]} ]; then
    echo $((boots + 1)) >$STATE/boots
    down "$boots"
else
    umount /srv/mounted || fail "umount"
    taken_away
    say "done"
    sync
    end 10
fi
