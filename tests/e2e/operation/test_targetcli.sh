# The unmodified targetcli: lists the handlers, shows their descriptions, creates and deletes disks, passes refusals on. Each call takes
# seconds under emulation, so there are few.
. ./lib.sh
start_daemon
targetcli >$W/first <<CLI
set global auto_save_on_exit=false
ls /backstores
/backstores/user:file help create
/backstores/user:file create vm1 64M $W/vm1.img
/backstores/user:alloc create ram1 64M x
/loopback create naa.5001405aaaaaaaaa
/loopback/naa.5001405aaaaaaaaa/luns create /backstores/user:file/vm1
CLI
cat $W/first
for wanted in user:file user:alloc user:null "file/<absolute path>" "Created user-backed storage object vm1" "Created LUN 0"; do
    grep -qF "$wanted" $W/first || fail "no $wanted"
done
expect "the path \"relative\" is relative" targetcli /backstores/user:file create bad 64M relative
[ -s $W/vm1.img ]
wait_for 20 bash -c "lsblk -Sno MODEL | grep >/dev/null TCMU"
D=/dev/$(lsblk -Sno NAME,MODEL | awk '/TCMU/ { print $1; exit }')
verify $D 3 --size=32m
# targetcli set the unit serial number after the disk was enabled.
SERIAL=$(sed 's/.*: //' $C/core/user_*/vm1/wwn/vpd_unit_serial)
expect "$SERIAL" sg_vpd -p sn $D
expect "6001405" sg_vpd -p di $D
targetcli >$W/last <<CLI
/loopback delete naa.5001405aaaaaaaaa
/backstores/user:file delete vm1
/backstores/user:alloc delete ram1
CLI
expect "no devices" tcmuctl devices
stop_daemon
no_complaints
