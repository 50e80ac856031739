//! Why devices were refused, for tools that got only an `errno` from the kernel and want the words.
use std::collections::VecDeque;

use tcmu::BackstoreId;

/// Of so many devices; older ones are forgotten.
const KEPT: usize = 64;

/// The last refusal of each device, the latest at the end.
#[derive(Default)]
pub(super) struct Refusals(VecDeque<(BackstoreId, String)>);

impl Refusals {
    /// A device, or a change of it, was refused.
    pub(super) fn note(&mut self, id: &BackstoreId, reason: &str) {
        self.forget(id);
        while self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back((id.clone(), reason.to_owned()));
    }

    /// What was wanted of a device was done.
    pub(super) fn forget(&mut self, id: &BackstoreId) {
        self.0.retain(|(of, _)| of != id);
    }

    /// Why it was refused when something was wanted of it last; `None` if it was not.
    pub(super) fn of(&self, id: &BackstoreId) -> Option<&str> {
        self.0.iter().find(|(of, _)| of == id).map(|(_, reason)| reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_about_each_of_the_latest_devices_is_kept() {
        let id = |number: usize| format!("user_{number}/d").parse::<BackstoreId>().unwrap();
        let mut refusals = Refusals::default();
        for number in 0..=KEPT {
            refusals.note(&id(number), "first");
            refusals.note(&id(number), &number.to_string());
        }
        assert_eq!((refusals.of(&id(0)), refusals.of(&id(1)), refusals.0.len()), (None, Some("1"), KEPT));
        refusals.forget(&id(KEPT));
        assert_eq!(refusals.of(&id(KEPT)), None);
    }
}
