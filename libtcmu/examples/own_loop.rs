//! Serves a backstore in the program's own event loop, the way libtcmu's users do it: `own_loop user_<hba>/<name>` serves, from memory, a
//! backstore that was created with `nl_reply_supported=-1`, until the backstore is removed.
use std::{env, sync::Arc, time::Duration};

use rustix::event::{PollFd, PollFlags, poll};
use tcmu::{
    BackstoreId, Roots,
    configfs::Backstore,
    server::{Attach, Server, Solo, Turn},
    uio,
};
use tcmu_handler_api::{
    host::{Events, Level, OpenDevice},
    plugin::{BlockDevice, Buffer, DeviceInfo, Error, RequestFlags, Threads},
};

struct Memory(std::sync::RwLock<Vec<u8>>);

impl BlockDevice for Memory {
    const THREADS: Threads = Threads::Inline;

    fn read(&self, offset: u64, data: Buffer<'_>) -> Result<(), Error> {
        let memory = self.0.read().map_err(|_| Error::IO)?;
        data.copy_from(&memory[offset as usize..]);
        Ok(())
    }

    fn write(&self, offset: u64, data: Buffer<'_>, _: RequestFlags) -> Result<(), Error> {
        let mut memory = self.0.write().map_err(|_| Error::IO)?;
        data.copy_to(&mut memory[offset as usize..]);
        Ok(())
    }
}

struct ToStderr;

impl Events for ToStderr {
    fn log(&self, level: Level, message: &str) {
        eprintln!("{level:?}: {message}");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let id: BackstoreId = env::args().nth(1).ok_or("usage: own_loop user_<hba>/<name>")?.parse()?;
    let roots = Roots::default();
    let backstore = Backstore::at(&roots, &id);
    let facts = backstore.facts()?;
    let device = uio::find(&roots, &id)?;
    let memory = Memory(std::sync::RwLock::new(vec![0; facts.size as usize]));
    let info = DeviceInfo::new(facts.size, facts.block_size);
    let attach = Attach {
        target: Arc::new(move || backstore.serial()),
        hw_max_sectors: facts.hw_max_sectors,
        ..Attach::new(
            id.to_string(),
            uio::open(&roots, device.minor, Duration::from_secs(5))?,
            device.map_size,
            OpenDevice::embed(memory, info, Arc::new(ToStderr), Server::services())?,
        )
    };
    let mut solo = Solo::new(attach, 2)?;
    println!("serving {id}");
    // Any event loop will do: wait for both descriptors, and call `turn` when one is readable.
    loop {
        match solo.turn() {
            Ok(Turn::More) => {}
            Ok(Turn::Idle) => {
                let mut fds = solo.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
                poll(&mut fds, None)?;
            }
            Err(error) => {
                println!("{error}");
                return Ok(());
            }
        }
    }
}
