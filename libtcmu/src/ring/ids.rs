//! Which of the kernel's ids are in flight.

/// A set of command ids.
pub(super) struct Ids(Box<[u64; 1024]>);

impl Ids {
    /// None.
    pub(super) fn new() -> Ids {
        Ids(Box::new([0; 1024]))
    }

    /// Adds an id; `false` if it was there already.
    #[inline]
    pub(super) fn add(&mut self, id: u16) -> bool {
        let (word, bit) = self.bit(id);
        let was = *word;
        *word = was | bit;
        was & bit == 0
    }

    /// Takes an id out; `false` if it was not there.
    #[inline]
    pub(super) fn remove(&mut self, id: u16) -> bool {
        let (word, bit) = self.bit(id);
        let was = *word;
        *word = was & !bit;
        was & bit != 0
    }

    pub(super) fn contains(&self, id: u16) -> bool {
        self.0[usize::from(id >> 6)] & 1 << (id & 63) != 0
    }

    pub(super) fn clear(&mut self) {
        self.0.fill(0);
    }

    #[inline]
    fn bit(&mut self, id: u16) -> (&mut u64, u64) {
        (&mut self.0[usize::from(id >> 6)], 1 << (id & 63))
    }
}
