//! Names that are the same whenever they are made for the same thing.
use uuid::Uuid;

/// For name-based UUIDs (RFC 9562, version 5): a random one that says "made by us".
const OURS: Uuid = Uuid::from_u128(0x6f1d_6f9e_8a0e_4a55_9d1c_1f0b_3c61_7b8a);

/// A unit serial number for a disk, in the form that targetcli gives them: the same for the same machine, handler, config string and
/// name. Initiators know a disk by it, and the kernel keeps persistent reservations under it.
pub fn stable_serial(machine: &str, dev_config: &str, name: &str) -> String {
    Uuid::new_v5(&OURS, format!("{machine}\n{dev_config}\n{name}").as_bytes()).to_string()
}

/// An NAA name (IEEE Registered) that depends on what it stands for (a serial number, say) and its role.
pub(super) fn naa(seed: &str, role: &str) -> String {
    let bits = Uuid::new_v5(&OURS, format!("{seed}\n{role}").as_bytes()).as_u128();
    format!("naa.5001405{:09x}", bits & 0xf_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Machines that are upgraded must find their disks and virtual machines under the names they had.
    #[test]
    fn names_never_change() {
        let serial = stable_serial("m", "file//srv/a", "a");
        assert_eq!(serial, stable_serial("m", "file//srv/a", "a"));
        assert_ne!(serial, stable_serial("n", "file//srv/a", "a"));
        assert_eq!((serial.len(), naa(&serial, "target").len()), (36, 20));
        assert_ne!(naa(&serial, "target"), naa(&serial, "nexus"));
        assert_eq!(
            (serial.as_str(), naa("s", "target").as_str()),
            ("6478a8b9-e7ba-5760-9ea3-81c645a8d087", "naa.50014051a6b1eff4")
        );
    }
}
