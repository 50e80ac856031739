//! The traits that a handler implements.
use std::ffi::CStr;

use crate::plugin::{Batch, Buffer, Change, DeviceInfo, Error, Open, Operation, Refusal, Request, RequestFlags, RequestId};

/// On which threads `submit` runs; see `TCMU_THREADS_*` in [`crate::abi`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// It never blocks, and runs on the thread that serves the device's ring.
    Inline,
    /// It may block, and runs on several pool threads at a time.
    Pool,
    /// It may block, and runs on one pool thread at a time, in the order of the ring.
    Serial,
}

/// What a handler is, for routing and for people.
#[derive(Clone, Copy, Debug)]
pub struct HandlerInfo {
    /// What devices are routed by: 1 to 64 of `A-Z a-z 0-9 _`.
    pub subtype: &'static CStr,
    /// A name for people.
    pub name: &'static CStr,
    /// The plugin's version.
    pub version: &'static CStr,
    /// What config strings look like; `targetcli` shows it.
    pub config_desc: &'static CStr,
}

/// A handler: how its devices are opened.
pub trait Handler: Device + Sized {
    /// What it is.
    const INFO: HandlerInfo;

    /// What it asks of the system beside files, memory, time and threads, such as `c"network"`: the words are at
    /// [`tcmu_handler::needs`](crate::abi::tcmu_handler::needs). What is not named may be refused.
    const NEEDS: &'static CStr = c"";

    /// Judges a config string (the part behind `<subtype>/`) without opening anything. May block; any thread.
    fn check_config(config: &str) -> Result<(), Refusal> {
        let _ = config;
        Ok(())
    }

    /// Opens a device. `info` holds what the kernel was told; change what is known better, and announce what the device can do.
    fn open(open: &Open<'_>, info: &mut DeviceInfo) -> Result<Self, Refusal>;
}

/// A device that takes requests. Dropped when it is closed, with no request outstanding.
pub trait Device: Send + Sync + 'static {
    /// On which threads `submit` runs.
    const THREADS: Threads;

    /// How many calls of `submit` at a time are of use with [`Threads::Pool`]; 0 leaves it to the host.
    const CONCURRENCY: u32 = 0;

    /// Takes requests; each is completed when it likes.
    fn submit(&self, batch: Batch<'_>);

    /// The initiator gave up on a request, which is to be completed soon: with [`Error::Aborted`] if nothing was done. It may be completed
    /// on another thread at the same time, so look for it among those that are outstanding. Runs on the thread that serves the device's
    /// ring, at any time; never blocks.
    fn cancel(&self, request: RequestId) {
        let _ = request;
    }

    /// Changes the device while I/O runs. On failure all is as before.
    fn reconfigure(&self, change: Change<'_>, info: &mut DeviceInfo) -> Result<(), Refusal> {
        let _ = (change, info);
        Err(Refusal::unsupported("this handler cannot change a device while it is in use"))
    }

    /// Takes the exclusive lock from whoever has it, and stores `tag` with it.
    fn lock(&self, tag: u32) -> Result<(), Refusal> {
        let _ = tag;
        Err(Refusal::unsupported("this handler has no exclusive lock"))
    }

    /// Gives the exclusive lock back.
    fn unlock(&self) -> Result<(), Refusal> {
        Err(Refusal::unsupported("this handler has no exclusive lock"))
    }

    /// Who holds the exclusive lock.
    fn lock_state(&self) -> Result<LockState, Refusal> {
        Err(Refusal::unsupported("this handler has no exclusive lock"))
    }

    /// Lines of `key=value` about the device's state.
    fn describe(&self) -> String {
        String::new()
    }
}

/// Who holds the exclusive lock of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockState {
    /// Nobody.
    Free,
    /// This process, with this tag.
    Own(u32),
    /// Another node, with this tag.
    Other(u32),
}

/// A device whose every operation returns when it is done: the easy way to write a handler. Only what [`DeviceInfo::supports`]
/// announced is called.
pub trait BlockDevice: Send + Sync + 'static {
    /// On which threads the functions run.
    const THREADS: Threads = Threads::Pool;

    /// Reads at byte `offset`, filling `data`.
    fn read(&self, offset: u64, data: Buffer<'_>) -> Result<(), Error>;

    /// Writes `data` at byte `offset`.
    fn write(&self, offset: u64, data: Buffer<'_>, flags: RequestFlags) -> Result<(), Error>;

    /// Brings completed writes to stable storage.
    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Deallocates.
    fn unmap(&self, offset: u64, length: u64) -> Result<(), Error> {
        let _ = (offset, length);
        Err(Error::UNSUPPORTED)
    }

    /// Makes a range read as zeros.
    fn write_zeroes(&self, offset: u64, length: u64, flags: RequestFlags) -> Result<(), Error> {
        let _ = (offset, length, flags);
        Err(Error::UNSUPPORTED)
    }

    /// See [`Device::reconfigure`].
    fn reconfigure(&self, change: Change<'_>, info: &mut DeviceInfo) -> Result<(), Refusal> {
        let _ = (change, info);
        Err(Refusal::unsupported("this handler cannot change a device while it is in use"))
    }

    /// Whatever else was announced.
    fn other(&self, request: &mut Request) -> Result<(), Error> {
        let _ = request;
        Err(Error::UNSUPPORTED)
    }
}

impl<T: BlockDevice> Device for T {
    const THREADS: Threads = T::THREADS;

    fn submit(&self, batch: Batch<'_>) {
        for mut request in batch {
            let (offset, length, flags) = (request.offset(), request.length(), request.flags());
            let outcome = match request.operation() {
                Operation::Read => self.read(offset, request.buffer()),
                Operation::Write => self.write(offset, request.buffer(), flags),
                Operation::Flush => self.flush(),
                Operation::Unmap => self.unmap(offset, length),
                Operation::WriteZeroes => self.write_zeroes(offset, length, flags),
                _ => self.other(&mut request),
            };
            request.complete(outcome);
        }
    }

    fn reconfigure(&self, change: Change<'_>, info: &mut DeviceInfo) -> Result<(), Refusal> {
        BlockDevice::reconfigure(self, change, info)
    }
}
