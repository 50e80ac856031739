//! A lock-free stack that many threads push to and one takes all of. Nothing is allocated: the nodes link themselves.
use std::ptr;

use super::sync::{AtomicPtr, Ordering};

/// What can be on a [`Stack`].
pub(super) trait Node {
    /// The next one of a list that was taken.
    ///
    /// # Safety
    /// The node is the caller's.
    unsafe fn next(node: *mut Self) -> *mut Self;

    /// Makes another one the next.
    ///
    /// # Safety
    /// As in [`Node::next`].
    unsafe fn set_next(node: *mut Self, next: *mut Self);
}

/// The stack. It owns none of its nodes.
pub(super) struct Stack<N>(AtomicPtr<N>);

impl<N: Node> Stack<N> {
    pub(super) fn new() -> Stack<N> {
        Stack(AtomicPtr::new(ptr::null_mut()))
    }

    /// Pushes a node; whether there was none before. Whoever takes it sees what this thread did until now.
    ///
    /// # Safety
    /// The node is the caller's, stays where it is until it was taken, and is in no other list.
    #[inline]
    pub(super) unsafe fn push(&self, node: *mut N) -> bool {
        let mut head = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node is the caller's until the exchange succeeds.
            unsafe { N::set_next(node, head) };
            match self.0.compare_exchange_weak(head, node, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return head.is_null(),
                Err(seen) => head = seen,
            }
        }
    }

    /// Takes all nodes, the newest first: a list by [`Node::next`].
    #[inline]
    pub(super) fn take(&self) -> *mut N {
        self.0.swap(ptr::null_mut(), Ordering::Acquire)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
    }
}
