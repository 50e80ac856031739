//! How one thread that may sleep is told by others that there is something for it, with a system call only if it does sleep.
use super::sync::{AtomicBool, Ordering, fence};

/// What the thread sleeps at.
pub(super) trait Descriptor {
    /// Makes it readable.
    fn ring(&self);

    /// Makes it unreadable.
    fn silence(&self);
}

/// Both sides of it.
pub(super) struct Signal<D> {
    /// The descriptor was made readable.
    rung: AtomicBool,
    /// Whoever waits is awake, and will look for news before it sleeps.
    awake: AtomicBool,
    descriptor: D,
}

impl<D: Descriptor> Signal<D> {
    pub(super) fn new(descriptor: D) -> Signal<D> {
        Signal { rung: AtomicBool::new(false), awake: AtomicBool::new(false), descriptor }
    }

    pub(super) fn descriptor(&self) -> &D {
        &self.descriptor
    }

    /// Makes the descriptor readable.
    pub(super) fn wake(&self) {
        self.descriptor.ring();
        // After the write: who sees this finds the descriptor readable, and who doesn't yet is woken once more.
        self.rung.store(true, Ordering::Release);
    }

    /// Makes the descriptor unreadable. To be called before the news are taken. A system call only if it was readable.
    pub(super) fn clear(&self) {
        if self.rung.load(Ordering::Acquire) {
            self.rung.store(false, Ordering::Relaxed);
            self.descriptor.silence();
        }
    }

    /// There is news where there was none.
    pub(super) fn wake_a_sleeper(&self) {
        // Pairs with the fence in `falls_asleep`: one of the two sees what the other did.
        fence(Ordering::SeqCst);
        if !self.awake.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// The one who waits is about to sleep; `false` if there is something to do first.
    pub(super) fn falls_asleep(&self, has_news: impl FnOnce() -> bool) -> bool {
        self.awake.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !has_news() && !self.is_rung()
    }

    /// The one who waits is awake: nobody needs to wake it before it `falls_asleep`.
    pub(super) fn is_awake(&self) {
        self.awake.store(true, Ordering::Relaxed);
    }

    /// Whether it was woken since the last `clear`.
    #[inline]
    pub(super) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }
}
