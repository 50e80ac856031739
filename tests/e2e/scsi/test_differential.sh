# The same random commands to one of our disks and to the kernel's scsi_debug: what they answer may only differ where the table of
# tests/differential says so. DIFFERENTIAL_COMMANDS and DIFFERENTIAL_SEEDS for longer runs.
# limit: 600
. ./lib.sh
modprobe sg
start_daemon
SIZE=64 # MiB

# like BLOCK: a scsi_debug that looks like our disk with such blocks; prints its sg device
like() {
    modprobe scsi_debug dev_size_mb=$SIZE sector_size="$1" num_tgts=1 max_luns=1 num_parts=0 physblk_exp=0 delay=0 strict=1 removable=0 \
        lbpu=1 lbpws=1 lbpws10=1 lbprz=1 unmap_granularity=1 unmap_alignment=0 write_same_length=131072
    wait_for 20 eval "grep -qs scsi_debug /sys/class/scsi_device/*/device/model"
    udevadm settle -t 20 || true
    local device
    for device in /sys/class/scsi_generic/*; do
        ! grep -q scsi_debug "$device/device/model" || echo "/dev/${device##*/}"
    done
}

for block in 512 4096; do
    backstore 0 a alloc/a $((SIZE << 20)) hw_block_size=$block hw_max_sectors=2048
    disk=$(loopback 1 user_0/a)
    ours=/dev/$(ls "/sys/block/${disk#/dev/}/device/scsi_generic")
    peer=$(like $block)
    for seed in ${DIFFERENTIAL_SEEDS:-1 2}; do
        tcmu-differential "$ours" "$peer" --seed "$seed" --commands "${DIFFERENTIAL_COMMANDS:-1500}" --seconds 60 ||
            fail "with blocks of $block bytes, seed $seed"
    done
    udevadm settle -t 20 || true
    wait_for 20 modprobe -r scsi_debug
    dmesg -C # which tells of every command of the kernel's own that met a stopped or write protected unit
    remove_loopback 1
    remove_backstore 0 a
done
stop_daemon
