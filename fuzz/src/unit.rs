//! A device on the simulated kernel, for targets that don't ask what is right but that nothing breaks.
use std::{
    ffi::c_void,
    sync::Arc,
    time::{Duration, Instant},
};

use tcmu::{
    mapping::Mapping,
    server::{Attach, Solo, Turn},
    sim::{SimConfig, SimKernel},
};
use tcmu_handler_api::host::{Events, Level, OpenDevice};

/// Events that nobody looks at.
pub struct Quiet;
impl Events for Quiet {
    fn log(&self, _: Level, _: &str) {}
}

/// Both sides of a device.
pub struct Unit {
    pub kernel: SimKernel,
    solo: Solo,
}

/// So many turns without a completion mean that none will come.
const PATIENCE: Duration = Duration::from_secs(20);

impl Unit {
    /// A new one, with the device that `make` makes for that mapping.
    pub fn new(config: SimConfig, make: impl FnOnce(&Arc<Mapping>) -> OpenDevice) -> Unit {
        let (kernel, map, fd) = SimKernel::new(config).expect("a simulated kernel");
        let device = make(&map);
        let attach = Attach {
            target: Arc::new(|| Some("0a1b2c3d".to_owned())),
            hw_max_sectors: 128,
            ..Attach::new("user_0/fuzz", fd, map.len(), device)
        };
        let solo = Solo::mapped(map, attach, 1).expect("a device to serve");
        Unit { kernel, solo }
    }

    /// Serves the device; why it stopped, if it did: one line.
    pub fn turn(&mut self) -> Result<(), String> {
        for _ in 0..64 {
            match self.solo.turn() {
                Ok(Turn::More) => {}
                Ok(Turn::Idle) => break,
                Err(error) => {
                    let line = error.to_string();
                    assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
                    return Err(line);
                }
            }
        }
        Ok(())
    }

    /// Serves it until a command is completed.
    pub fn finish(&mut self, id: u16) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.turn().expect("an honest kernel");
            if self.kernel.reap().expect("honest completions").iter().any(|done| done.id == id) {
                return;
            }
            assert!(Instant::now() < end, "a command is never completed");
            std::thread::yield_now();
        }
    }

    /// Takes no more commands, and waits for those in flight, which `complete` completes.
    pub fn stop(mut self, complete: impl Fn()) {
        self.solo.stop();
        let end = Instant::now() + PATIENCE;
        complete();
        while !self.solo.is_idle() && self.turn().is_ok() {
            assert!(Instant::now() < end, "it goes on for ever");
            complete();
        }
    }
}

/// The pointer of a device that has no data.
pub fn no_data() -> *mut c_void {
    std::ptr::dangling_mut::<u64>().cast()
}
