//! Decisions out of bytes: the same bytes always decide the same, and when they are used up every decision is the first choice.

/// Bytes that decide.
#[derive(Clone, Debug)]
pub struct Choose<'a>(&'a [u8]);

impl<'a> Choose<'a> {
    pub fn new(bytes: &'a [u8]) -> Choose<'a> {
        Choose(bytes)
    }

    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `end`, which is not 0; evenly enough.
    pub fn below(&mut self, end: u64) -> u64 {
        let first = u64::from(self.byte());
        if end <= 256 { first % end } else { (first | u64::from(self.byte()) << 8) % end }
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// True `n` times of 256. False when the bytes are used up.
    pub fn seldom(&mut self, n: u8) -> bool {
        self.byte() > 255 - n
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
