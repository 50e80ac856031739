//! What the lock-free parts are made of. `tests/loom` compiles those against another one of these, whose every interleaving is tried.
pub(super) use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering, fence};
