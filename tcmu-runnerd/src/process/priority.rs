//! A reactor may lower its priority, and needs the right to take it back, which a host would give up with its capabilities.
use rustix::process::{Resource, Rlimit, getpriority_process, getrlimit, setrlimit};

/// Lets this process's threads come back to the priority that it has now (`RLIMIT_NICE`, getrlimit(2)), but no higher, as far as it may:
/// needs `CAP_SYS_RESOURCE` where the limit is lower. Without it reactors do not lower theirs.
pub(super) fn let_it_come_back() {
    let Ok(own) = getpriority_process(None) else { return };
    let needed = u64::try_from(20 - own).unwrap_or(0);
    if getrlimit(Resource::Nice).current.is_some_and(|now| now < needed) {
        let _ = setrlimit(Resource::Nice, Rlimit { current: Some(needed), maximum: Some(needed) });
    }
}
