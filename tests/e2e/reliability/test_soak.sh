# The short form of `cargo xtask soak`: verified load while hosts and the supervisor are killed, handlers hang, programs are exchanged,
# disks resized, others added and removed; nothing is lost, nothing leaks. SOAK_SECONDS; 40. SOAK_SEED: repeats a run.
# limit: 400
. ./lib.sh
LOG=$W/soak/daemon.log
# Debian's own, which has the bindings of D-Bus.
/usr/bin/python3 -B ../soak/soak.py --seconds "${SOAK_SECONDS:-40}" --seed "${SOAK_SEED:-$RANDOM}" --directory $W/soak
no_complaints
