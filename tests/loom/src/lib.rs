//! The lock-free parts of the device server under loom, which runs every interleaving of a few threads, and every value that a load may
//! return by the memory model. The sources are the server's own; only what they are made of is loom's.
//!
//! A wake-up that is lost is a deadlock here, and data that a thread may not see yet is a data race.
#![cfg(test)]

mod descriptor;
#[path = "../../../libtcmu/src/server/signal.rs"]
mod signal;
#[path = "../../../libtcmu/src/server/stack.rs"]
mod stack;
mod wake;

/// In place of the server's own.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicPtr, Ordering, fence};
}
