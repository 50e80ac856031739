//! A disk in memory behind the device server, and the simulated kernel in front of it.
#![allow(dead_code)] // each test uses its part
use std::sync::{
    Arc, Mutex, RwLock,
    atomic::{AtomicUsize, Ordering},
};

use tcmu::{
    engine::Target,
    server::{Attach, Attached, Server, ServerOptions},
    sim::{Data, SimCompletion, SimConfig, SimKernel},
};
use tcmu_handler_api::{
    host::{Events, Level, OpenDevice},
    plugin::{BlockDevice, Buffer, Change, Device, DeviceFlags, DeviceInfo, Error, Operations, Refusal, RequestFlags},
    scsi::{Sense, SenseKey},
};

/// Events that nobody looks at.
pub struct Quiet;
impl Events for Quiet {
    fn log(&self, _: Level, _: &str) {}
}

/// What a handler was asked to do.
#[derive(Default)]
pub struct Log {
    pub flushes: AtomicUsize,
    pub unmaps: Mutex<Vec<(u64, u64)>>,
}

/// A disk in memory whose functions may run on several threads.
pub struct Memory(pub RwLock<Vec<u8>>, pub Arc<Log>);

impl BlockDevice for Memory {
    fn read(&self, offset: u64, data: Buffer<'_>) -> Result<(), Error> {
        data.copy_from(&self.0.read().unwrap()[offset as usize..]);
        Ok(())
    }

    fn write(&self, offset: u64, data: Buffer<'_>, _: RequestFlags) -> Result<(), Error> {
        data.copy_to(&mut self.0.write().unwrap()[offset as usize..]);
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        self.1.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn unmap(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.1.unmaps.lock().unwrap().push((offset, length));
        self.0.write().unwrap()[offset as usize..][..length as usize].fill(0);
        Ok(())
    }

    fn reconfigure(&self, change: Change<'_>, info: &mut DeviceInfo) -> Result<(), Refusal> {
        match change {
            Change::Size(bytes) if bytes >= info.size() || bytes > 0 => {
                self.0.write().unwrap().resize(bytes as usize, 0);
                Ok(())
            }
            Change::Medium { config: "", .. } => {
                info.set_flags(DeviceFlags::NO_MEDIUM, true);
                Ok(())
            }
            Change::Medium { size, .. } => {
                *self.0.write().unwrap() = vec![0x11; size as usize];
                info.set_flags(DeviceFlags::NO_MEDIUM, false);
                Ok(())
            }
            _ => Err(Refusal::unsupported("only the size")),
        }
    }
}

pub const BLOCKS: u64 = 2048;

pub fn info() -> DeviceInfo {
    let mut info = DeviceInfo::new(BLOCKS * 512, 512);
    info.supports(Operations::FLUSH | Operations::UNMAP)
        .set_flags(DeviceFlags::WRITE_CACHE | DeviceFlags::UNMAP_ZEROES | DeviceFlags::THIN, true);
    info
}

pub fn memory() -> (Memory, Arc<Log>) {
    let log = Arc::new(Log::default());
    (Memory(RwLock::new(vec![0xee; (BLOCKS * 512) as usize]), log.clone()), log)
}

pub fn serve<D: Device>(device: D, info: DeviceInfo, config: SimConfig) -> (SimKernel, Box<Attached>) {
    serve_for(device, info, config, Arc::new(|| Some("0a1b2c3d".into())))
}

pub fn serve_for<D: Device>(
    device: D,
    info: DeviceInfo,
    config: SimConfig,
    target: Arc<dyn Target>,
) -> (SimKernel, Box<Attached>) {
    let (kernel, map, fd) = SimKernel::new(config).unwrap();
    let device = OpenDevice::embed(device, info, Arc::new(Quiet), Server::services()).unwrap();
    let server = Server::start(ServerOptions { reactors: 1, workers: 4, ..ServerOptions::default() }).unwrap();
    let attach = Attach { target, ..Attach::new("user_0/t", fd, map.len(), device) };
    (kernel, server.attach_mapped(map, attach, |_| ()).unwrap())
}

pub fn disk() -> (SimKernel, Box<Attached>, Arc<Log>) {
    let (memory, log) = memory();
    let (kernel, attached) = serve(memory, info(), SimConfig::default());
    (kernel, attached, log)
}

pub fn rw10(code: u8, flags: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let ([a, b, c, d], [e, f]) = (lba.to_be_bytes(), blocks.to_be_bytes());
    [code, flags, a, b, c, d, 0, e, f, 0]
}

pub fn run(kernel: &mut SimKernel, cdb: &[u8], data: Data) -> SimCompletion {
    kernel.run(cdb, data).unwrap()
}

pub fn sense(done: &SimCompletion) -> (SenseKey, u8, u8) {
    assert_eq!(done.status, 2, "{done:?}");
    let sense = Sense::parse(&done.sense).unwrap();
    (sense.key, sense.code.asc, sense.code.ascq)
}
