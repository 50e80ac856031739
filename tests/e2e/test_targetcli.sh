# The unmodified targetcli: lists the handlers, shows their descriptions, creates and deletes disks, passes refusals on.
. ./lib.sh
start_daemon
targetcli set global auto_save_on_exit=false >/dev/null
expect "user:file" targetcli ls /backstores
expect "user:alloc" targetcli ls /backstores
expect "user:null" targetcli ls /backstores
expect "file/<absolute path>" targetcli /backstores/user:file help create
expect "the path \"relative\" is relative" targetcli /backstores/user:file create bad 64M relative
targetcli /backstores/user:file create vm1 64M $W/vm1.img
targetcli /backstores/user:alloc create ram1 64M x
[ -s $W/vm1.img ]
targetcli /loopback create naa.5001405aaaaaaaaa
targetcli /loopback/naa.5001405aaaaaaaaa/luns create /backstores/user:file/vm1
wait_for 20 test -e /dev/disk/by-path -o -b /dev/sda
D=/dev/$(lsblk -Sno NAME,MODEL | awk '/TCMU/ { print $1; exit }')
verify $D 3 --size=32m
# targetcli set the unit serial number after the disk was enabled.
SERIAL=$(sed 's/.*: //' $C/core/user_*/vm1/wwn/vpd_unit_serial)
expect "$SERIAL" sg_vpd -p sn $D
expect "6001405" sg_vpd -p di $D
targetcli /loopback delete naa.5001405aaaaaaaaa
targetcli /backstores/user:file delete vm1
targetcli /backstores/user:alloc delete ram1
expect "no devices" tcmuctl devices
stop_daemon
no_io_errors
