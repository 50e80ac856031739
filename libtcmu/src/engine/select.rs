//! MODE SELECT (SPC-6 6.12): nothing changes unless all of the list is right.
use tcmu_handler_api::scsi::{Sense, mode};

use super::{Begun, Stage, Task, Unit, Work, nothing_to_do, submit};

/// What was selected.
#[derive(Debug)]
pub(super) struct Selected(mode::ModeChange);

pub(super) fn begin(unit: &mut Unit, ten: bool, page_format: bool, save: bool, list: &[u8]) -> Begun {
    let change: Result<mode::ModeChange, Sense> = mode::select(ten, page_format, save, list, &unit.facts());
    let selected = Selected(change?);
    if selected.0.write_cache == Some(false) && unit.has_volatile_cache() {
        // What was written before must be as safe as what is written from now on.
        return submit(Task::new(Stage::WriteCacheOff(selected)), Work::flush());
    }
    selected.apply(unit);
    Ok(nothing_to_do())
}

impl Selected {
    pub(super) fn apply(&self, unit: &mut Unit) {
        let change = self.0;
        if let Some(on) = change.write_cache {
            unit.set_write_cache(on);
        }
        unit.descriptor_sense = change.descriptor_sense.unwrap_or(unit.descriptor_sense);
        unit.write_protect = change.write_protect.unwrap_or(unit.write_protect);
    }
}
