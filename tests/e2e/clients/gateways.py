#!/usr/bin/env python3
"""Makes a disk as gluster-block and ceph-iscsi do, by rtslib, and exports it: gateways.py FILE. `file` stands in for glfs and rbd."""
import sys

from rtslib_fb import FabricModule, LUN, NodeACL, Target, TPG, UserBackedStorageObject
from rtslib_fb.alua import ALUATargetPortGroup

image = sys.argv[1]
# ceph-iscsi: options behind the image's name, limits through the control string, then attributes and a group of ports.
disk = UserBackedStorageObject(
    name="pool.image",
    config=f"file/{image};direct=off",
    size=64 << 20,
    wwn="36001405a-0000-4000-8000-000000000001",
    hw_max_sectors=1024,
    control="max_data_area_mb=8,hw_block_size=512",
)
disk.set_attribute("cmd_time_out", 130)
disk.set_attribute("qfull_time_out", 5)
disk.set_attribute("emulate_pr", 0)
assert disk.status == "deactivated" and disk.size == 64 << 20
group = ALUATargetPortGroup(disk, "ao", 1)
group.alua_access_type = 1
group.preferred = 1

target = Target(FabricModule("loopback"), "naa.5001405500000077", mode="create")
portal = TPG(target, 1, mode="create")
lun = LUN(portal, 3, disk)
lun.alua_tg_pt_gp_name = "ao"
assert disk.status == "activated"

# gluster-block's resize.
disk.set_attribute("dev_size", 96 << 20)
assert disk.size == 96 << 20, disk.size

# And back to nothing for a name that is refused.
try:
    UserBackedStorageObject(name="bad", config="file/relative", size=1 << 20)
    sys.exit("a bad config string was taken")
except Exception as error:
    print("refused:", error)
