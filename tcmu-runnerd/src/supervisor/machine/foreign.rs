//! Subtypes that are another program's: the kernel's events about their devices are for it to answer. The operator says which these are,
//! or the program itself, for as long as it is registered on the bus.
use tcmu::BackstoreId;

use super::{Action, Machine, Token};

/// An event that was left to a registered program.
pub(super) struct Left {
    subtype: String,
    token: Token,
    /// The answer if the program goes without one.
    status: i32,
}

impl Machine {
    /// A program serves a subtype from now on.
    pub fn add_program(&mut self, subtype: &str) {
        self.programs.insert(subtype.to_owned());
    }

    /// Events that registered programs were to answer, as far as we know.
    pub fn left(&self) -> usize {
        self.left.len()
    }

    pub(super) fn is_foreign(&self, subtype: &str) -> bool {
        self.settings.foreign.contains(subtype) || self.programs.contains(subtype)
    }

    /// Leaves an event to the program whose device it is about, if it is one's.
    pub(super) fn leave_to_program(&mut self, token: Token, id: &BackstoreId, subtype: &str, status: i32) -> bool {
        if self.settings.foreign.contains(subtype) {
            self.actions.push(Action::Disown { token });
            return true;
        }
        if !self.programs.contains(subtype) {
            return false;
        }
        // The kernel sends the next event of a device when the last one was answered.
        if let Some(earlier) = self.left.insert(id.clone(), Left { subtype: subtype.to_owned(), token, status }) {
            self.actions.push(Action::Disown { token: earlier.token });
        }
        true
    }

    /// A program is gone. Tools must not wait for it: what it answered already the kernel does not hear a second time.
    pub(super) fn program_gone(&mut self, subtype: &str) {
        self.programs.remove(subtype);
        for (_, left) in self.left.extract_if(|_, left| left.subtype == subtype) {
            self.actions.push(Action::AnswerKernel { token: left.token, status: left.status });
        }
    }
}
