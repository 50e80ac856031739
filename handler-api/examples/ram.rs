//! A disk in memory: the whole handler.
use std::sync::RwLock;

use tcmu_handler_api::prelude::*;

/// A disk in memory.
struct Ram(RwLock<Vec<u8>>);

impl Handler for Ram {
    const INFO: HandlerInfo =
        HandlerInfo { subtype: c"ram", name: c"RAM disk", version: c"1.0", config_desc: c"ram/<anything>: a disk in memory" };

    fn open(_open: &Open<'_>, info: &mut DeviceInfo) -> Result<Ram, Refusal> {
        Ok(Ram(RwLock::new(vec![0; info.size() as usize])))
    }
}

impl BlockDevice for Ram {
    fn read(&self, offset: u64, data: Buffer<'_>) -> Result<(), Error> {
        data.copy_from(&self.0.read().unwrap()[offset as usize..]);
        Ok(())
    }

    fn write(&self, offset: u64, data: Buffer<'_>, _flags: RequestFlags) -> Result<(), Error> {
        data.copy_to(&mut self.0.write().unwrap()[offset as usize..]);
        Ok(())
    }
}

export_handler!(Ram);
