//! Random numbers that a seed repeats.

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Rng {
    state: u64,
    /// Data is all zeros.
    zeros: bool,
}

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng { state: seed, zeros: false }
    }

    /// With zeros for data; numbers are random all the same.
    pub(super) fn with_zeros(self, zeros: bool) -> Rng {
        Rng { zeros, ..self }
    }

    pub(super) fn is_zeros(&self) -> bool {
        self.zeros
    }

    /// Another one that goes its own way.
    pub(super) fn fork(&self, n: u64) -> Rng {
        Rng { state: self.clone().next() ^ n, zeros: self.zeros }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    pub(super) fn bytes(&mut self, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        if !self.zeros {
            self.fill(&mut bytes);
        }
        bytes
    }
}
