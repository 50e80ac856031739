#!/bin/bash
# Makes what the test of installation boots: a clean Debian of this machine's release with systemd as init, as root.img, and an initramfs,
# as initrd.img. Arguments: the kernel's version, the directory for both. Needs root.
set -eu
version=$1 dir=$2
tree=$dir/tree initrd=$dir/initrd
here=$(cd "$(dirname "$0")" && pwd)
. /etc/os-release
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    sed -nE 's/^deb (\[.*\] )?(http[^ ]*) .*/\2/p; s/^URIs: (http[^ ]*).*/\1/p' | head -1)
rm -rf "$dir"
mkdir -p "$dir"
debootstrap --variant=minbase \
    --include=systemd,systemd-sysv,dbus,udev,kmod,e2fsprogs,targetcli-fb,python3-gi,gir1.2-glib-2.0 \
    "$VERSION_CODENAME" "$tree" "${mirror:-http://deb.debian.org/debian}"

# The modules that are needed, in the order in which they load.
modules() { for name in "$@"; do modprobe -S "$version" --show-depends "$name" || exit; done | awk '/^insmod/ && !seen[$2]++ { print $2 }'; }
modules crc32c_generic ext4 virtio_pci virtio_blk configfs target_core_user tcm_loop target_core_file target_core_iblock \
    target_core_pscsi iscsi_target_mod sd_mod sg loop | xargs cp --parents -t "$tree"
cp /lib/modules/"$version"/modules.builtin* /lib/modules/"$version"/modules.order "$tree/lib/modules/$version/"
depmod -b "$tree" "$version"

echo "/dev/vda / ext4 noatime 0 0" >"$tree/etc/fstab"
echo clean >"$tree/etc/hostname"
: >"$tree/etc/machine-id"
rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* "$tree"/usr/share/{doc,locale,man}/*
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer e2scrub_reap.service \
    getty@tty1.service serial-getty@ttyS0.service; do
    ln -sf /dev/null "$tree/etc/systemd/system/$unit"
done
cp "$here"/install-test*.service "$tree/etc/systemd/system/"
mkdir -p "$tree/etc/systemd/system/basic.target.wants"
ln -s ../install-test-up.service "$tree/etc/systemd/system/basic.target.wants/"
ln -s ../install-test.service "$tree/etc/systemd/system/multi-user.target.wants/"
mkfs.ext4 -q -F -d "$tree" "$dir/root.img" 2G

mkdir -p "$initrd"/{bin,proc,dev,root,modules}
cp /bin/busybox "$initrd/bin/"
number=100
for module in $(modules crc32c_generic ext4 virtio_pci virtio_blk); do
    cp "$module" "$initrd/modules/$number.ko"
    number=$((number + 1))
done
cat >"$initrd/init" <<'I'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
for module in /modules/*; do /bin/busybox insmod $module 2>/dev/null; done
until [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 -o noatime /dev/vda /root
/bin/busybox umount /dev
exec /bin/busybox switch_root /root /sbin/init
I
chmod 755 "$initrd/init"
(cd "$initrd" && find . | cpio -o -H newc --quiet) | gzip -1 >"$dir/initrd.img"
rm -rf "$tree" "$initrd"
