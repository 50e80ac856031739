//! A ring whose memory anything may have written over.
use std::sync::Arc;

use tcmu::{
    mapping::Mapping,
    server::Server,
    sim::{Data, SimConfig},
};
use tcmu_handler_api::{
    host::OpenDevice,
    plugin::{Batch, Device, DeviceInfo, Operation, Threads},
};

use crate::unit::{Quiet, Unit};

/// Bytes of a step.
const STEP: usize = 12;
/// Most steps of an input.
const STEPS: usize = 200;
/// Each step begins with what it does: a command is queued (with the rest as its CDB), task management is, eight bytes are written over at
/// some offset, or the device has its turn. However it ends, a device that refused to go on does not go on.
pub fn ring(data: &[u8]) {
    let mut map: Option<Arc<Mapping>> = None;
    // Small, so that most offsets mean something.
    let mut unit = Unit::new(SimConfig { ring: 4096, pages: 16, ..SimConfig::default() }, |mapping| {
        map = Some(mapping.clone());
        OpenDevice::embed(Reader, DeviceInfo::new(1 << 20, 512), Arc::new(Quiet), Server::services()).expect("a device")
    });
    let map = map.expect("a mapping");
    let mut refused = false;
    for step in data.chunks_exact(STEP).take(STEPS) {
        let (at, bytes) = (usize::from(u16::from_le_bytes([step[1], step[2]])), &step[4..]);
        match step[0] % 8 {
            0 | 1 => {
                let length = at % (8 * 512);
                let data = if step[3] & 1 == 0 { Data::In(length) } else { Data::Out(vec![step[3]; length]) };
                let _ = unit.kernel.queue(&step[2..], data);
            }
            2 => {
                let _ = unit.kernel.task_management(step[1], &[u16::from(step[2]), u16::from(step[3])]);
            }
            // In the mailbox or the first entries, most of the time.
            3 | 4 => drop(map.write((at % 512) as u64, bytes)),
            5 => drop(map.write((at % map.len()) as u64, bytes)),
            _ => {
                let turn = unit.turn();
                assert!(!refused || turn.is_err(), "a ring that made no sense is served again");
                refused = turn.is_err();
                let _ = unit.kernel.reap();
            }
        }
    }
}

/// Reads and writes all that it is given.
struct Reader;

impl Device for Reader {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        for request in batch {
            match request.operation() {
                Operation::Read => request.buffer().fill(0x5a),
                _ => drop(request.buffer().to_vec()),
            }
            request.complete(Ok(()));
        }
    }
}
