# Target port groups: what configfs has is reported, initiators set states, and the kernel refuses commands in states that don't take
# them.
. ./lib.sh
modprobe sg
start_daemon
backstore 0 a alloc/a $((64 << 20))
echo 0a1b2c3d-4e5f >$C/core/user_0/a/wwn/vpd_unit_serial
A=$(loopback 1 user_0/a)
G=/dev/$(ls /sys/block/${A#/dev/}/device/scsi_generic)
LUN=$C/loopback/naa.5001405000000001/tpgt_1/lun/lun_0
! sg_rtpg $G >/dev/null 2>&1 || fail "groups before there are any"
group=$C/core/user_0/a/alua/site1
mkdir $group
echo 16 >$group/tg_pt_gp_id
echo 3 >$group/alua_access_type # implicit and explicit
for state in transitioning offline unavailable standby active_nonoptimized active_optimized; do echo 1 >$group/alua_support_$state; done
echo 1 >$group/preferred
echo site1 >$LUN/alua_tg_pt_gp
expect "site1" cat $LUN/alua_tg_pt_gp
sg_turs -n 5 $G >/dev/null 2>&1 # the identification page changed: a unit attention condition, once
sg_inq $G >$W/out
grep -q "TPGS=3" $W/out || fail "$(cat $W/out)"
sg_rtpg -d $G >$W/out || fail "$(cat $W/out)"
grep -q "target port group id : 0x10 , Pref=1" $W/out || fail "$(cat $W/out)"
grep -q "active/optimized" $W/out || fail "$(cat $W/out)"
sg_vpd -p di $G >$W/out
grep -q "Target port group: 0x10" $W/out || fail "$(cat $W/out)"
# Standby: INQUIRY is answered, reads and writes are not.
sg_stpg --standby $G || fail "sg_stpg --standby ended with $?"
expect "2" cat $group/alua_access_state
# The kernel tells every initiator that the state changed, over loopback also the one that changed it.
sg_turs -n 5 $G >$W/out 2>&1
sg_inq $G >/dev/null || fail "INQUIRY in standby"
sg_rtpg -d $G >$W/out || fail "REPORT TARGET PORT GROUPS in standby"
grep -q "standby" $W/out || fail "$(cat $W/out)"
! sg_dd if=$G of=/dev/null bs=512 count=1 >$W/out 2>&1 || fail "a read in standby"
sg_stpg --optimized $G || fail "sg_stpg --optimized ended with $?"
expect "0" cat $group/alua_access_state
sg_turs -n 5 $G >$W/out 2>&1
sg_dd if=$G of=/dev/null bs=512 count=1 >$W/out 2>&1 || fail "a read: $(cat $W/out)"
# A state that cannot be asked for, and a group that is not there.
! sg_stpg --tp=16 --state=15 $G >/dev/null 2>&1 || fail "transitioning was set"
sg_stpg --tp=99 --state=0 $G >$W/out 2>&1 # whose exit status is 0 all the same
grep -q "Illegal request" $W/out || fail "a group that is not there: $(cat $W/out)"
echo default_tg_pt_gp >$LUN/alua_tg_pt_gp
rmdir $group
dmesg -C
remove_loopback 1
remove_backstore 0 a
stop_daemon
no_complaints
