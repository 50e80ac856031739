//! Capabilities: what only root may do.
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities,
};

/// What every host keeps: opening images whoever they belong to. It opens nothing else by rights of root: UIO descriptors are handed to
/// it, and what `PR_SET_IO_FLUSHER` and locked memory ask for is done before.
pub(super) const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// Takes all others out of the bounding set, so that no program that is started can have them. Needs `CAP_SETPCAP`, else nothing is
/// done: then there is nothing to lose either.
pub(super) fn bound_to(keep: CapabilitySet) {
    for capability in CapabilitySet::all().iter().filter(|one| !keep.contains(*one)) {
        let _ = remove_capability_from_bounding_set(capability);
    }
}

/// Gives up all others for good: effective, permitted, inheritable and ambient ones. Of the calling thread, and of those it starts.
pub(super) fn limit_to(keep: CapabilitySet) -> rustix::io::Result<()> {
    let _ = clear_ambient_capability_set();
    let permitted = capabilities(None)?.permitted & keep;
    set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() })
}
