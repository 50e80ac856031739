//! The disk in memory that is served. It watches that it is called as the ABI says, and keeps what would survive a crash apart.
use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
};

use tcmu_handler_api::{
    abi,
    plugin::{Batch, Device, Error, Operation, Operations, Request, RequestFlags, Threads},
};

use super::Shape;

/// The medium, and what was noticed.
pub struct Medium {
    pub bytes: Vec<u8>,
    /// What would be there after a crash.
    pub stable: Vec<u8>,
    dirty: Vec<Range<usize>>,
    mapped: Vec<bool>,
    /// Requests that were failed.
    pub failures: u64,
    /// Whether a device that fails now and then does so at the moment.
    pub fails: bool,
    /// How the handler was called as it must not be.
    pub wrong: Vec<String>,
    random: u64,
    shape: Shape,
}

pub type SharedMedium = Arc<Mutex<Medium>>;

pub fn lock(medium: &SharedMedium) -> MutexGuard<'_, Medium> {
    medium.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Medium {
    pub fn new(shape: Shape, seed: u64) -> SharedMedium {
        let bytes: Vec<u8> = (0..shape.size()).map(|n| (n / shape.block + n) as u8).collect();
        let (stable, mapped) = (bytes.clone(), vec![true; shape.blocks as usize]);
        let (dirty, wrong, random) = (Vec::new(), Vec::new(), seed | 1);
        Arc::new(Mutex::new(Medium { bytes, stable, dirty, mapped, failures: 0, fails: false, wrong, random, shape }))
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn expect(&mut self, holds: bool, what: &str, request: &Request) {
        if !holds {
            self.wrong.push(format!("{what}: {request:?}, {} bytes of data, {:?}", request.buffer().len(), request.flags()));
        }
    }

    /// Checks a request, and maybe fails it.
    fn perform(&mut self, request: &mut Request) -> Result<(), Error> {
        let (info, block) = (self.shape.info(), self.shape.block);
        let operation = request.operation();
        let (offset, length, data) = (request.offset(), request.length(), request.buffer().len() as u64);
        let announced = match operation {
            Operation::Read => Operations::READ,
            Operation::Write => Operations::WRITE,
            Operation::Flush => Operations::FLUSH,
            Operation::Unmap => Operations::UNMAP,
            Operation::WriteZeroes => Operations::WRITE_ZEROES,
            Operation::WriteSame => Operations::WRITE_SAME,
            Operation::CompareAndWrite => Operations::COMPARE_AND_WRITE,
            Operation::Copy => Operations::COPY,
            Operation::Extents => Operations::EXTENTS,
            Operation::Prefetch => Operations::PREFETCH,
            _ => Operations::empty(),
        };
        self.expect(!announced.is_empty() && info.operations().contains(announced), "not announced", request);
        let inside = offset.checked_add(length).is_some_and(|end| end <= info.size());
        let aligned = offset.is_multiple_of(block as u64) && length.is_multiple_of(block as u64);
        self.expect(inside && aligned, "outside of the device or no whole blocks", request);
        if !inside {
            return Err(Error::IO);
        }
        let (fits, limit) = match operation {
            Operation::Read | Operation::Write => (data == length, u64::from(info.0.max_transfer)),
            Operation::CompareAndWrite => (data == 2 * length, 0),
            Operation::WriteSame => (data == block as u64, 0),
            Operation::Unmap | Operation::WriteZeroes => (true, info.0.max_unmap),
            Operation::Extents => (data >= size_of::<abi::tcmu_extent>() as u64, 0),
            _ => (true, 0),
        };
        self.expect(fits, "data of another length", request);
        self.expect(limit == 0 || length <= limit, "longer than the limit", request);
        self.expect(length > 0 || operation == Operation::Flush, "nothing to do", request);
        let atomic = request.flags().contains(RequestFlags::ATOMIC);
        self.expect(!atomic || length <= u64::from(info.0.max_atomic), "atomic, but too long", request);
        let writes = !matches!(operation, Operation::Read | Operation::Flush | Operation::Extents | Operation::Prefetch);
        self.expect(!(writes && self.shape.read_only), "a change of a read-only device", request);
        if self.fails && self.next().is_multiple_of(4) {
            return self.fail(request);
        }
        let whole = length as usize;
        self.execute(request, offset as usize, whole)
    }

    /// Fails a request; a write or so has had an effect on a part of its range.
    fn fail(&mut self, request: &mut Request) -> Result<(), Error> {
        self.failures += 1;
        let blocks = request.length() / self.shape.block as u64;
        let partial = matches!(request.operation(), Operation::Write | Operation::Unmap | Operation::WriteZeroes);
        if partial && blocks > 0 && self.next().is_multiple_of(2) {
            let some = self.next() % blocks;
            self.execute(request, request.offset() as usize, some as usize * self.shape.block)?;
        }
        let errors = [
            Error::IO,
            Error::NO_SPACE,
            Error::UNSUPPORTED,
            Error::Errno(libc::EROFS),
            Error::Errno(libc::EINVAL),
            Error::Errno(libc::ENOMEM),
            Error::Errno(libc::EPERM),
            Error::Errno(77_777),
            Error::Busy,
            Error::TaskSetFull,
            Error::Aborted,
            Error::Fenced,
            Error::Transition,
        ];
        Err(errors[self.next() as usize % errors.len()])
    }

    fn execute(&mut self, request: &mut Request, offset: usize, length: usize) -> Result<(), Error> {
        let range = offset..offset + length;
        let through = !self.shape.cache || self.shape.fua && request.flags().contains(RequestFlags::FUA);
        match request.operation() {
            Operation::Read => {
                request.buffer().copy_from(&self.bytes[range]);
                return Ok(());
            }
            Operation::Write => {
                request.buffer().copy_to(&mut self.bytes[range.clone()]);
            }
            Operation::Flush => {
                for range in std::mem::take(&mut self.dirty) {
                    self.stable[range.clone()].copy_from_slice(&self.bytes[range]);
                }
                return Ok(());
            }
            // What is deallocated may read as anything, unless zeros were promised.
            Operation::Unmap => self.bytes[range.clone()].fill(if self.shape.zeroes { 0 } else { 0xa5 }),
            Operation::WriteZeroes => self.bytes[range.clone()].fill(0),
            Operation::WriteSame => {
                let pattern = request.buffer().to_vec();
                self.bytes[range.clone()].chunks_mut(self.shape.block).for_each(|block| block.copy_from_slice(&pattern));
            }
            Operation::CompareAndWrite => {
                let data = request.buffer().to_vec();
                if let Some(at) = data[..length].iter().zip(&self.bytes[range.clone()]).position(|(a, b)| a != b) {
                    return Err(Error::Miscompare { offset: at as u64 });
                }
                self.bytes[range.clone()].copy_from_slice(&data[length..]);
            }
            Operation::Copy => {
                let source = request.source_offset() as usize;
                let inside = source.checked_add(length).is_some_and(|end| end <= self.bytes.len());
                self.expect(inside, "a source outside of the device", request);
                if !inside {
                    return Err(Error::IO);
                }
                self.bytes.copy_within(source..source + length, offset);
            }
            Operation::Extents => return self.extents(request),
            _ => return Ok(()),
        }
        let unmaps = request.operation() == Operation::Unmap
            || request.operation() == Operation::WriteZeroes && request.flags().contains(RequestFlags::MAY_UNMAP);
        self.mapped[offset / self.shape.block..(offset + length) / self.shape.block].fill(!unmaps);
        if through {
            self.stable[range.clone()].copy_from_slice(&self.bytes[range]);
        } else {
            self.dirty.push(range);
        }
        Ok(())
    }

    fn extents(&mut self, request: &mut Request) -> Result<(), Error> {
        let block = self.shape.block;
        let (start, length) = (request.offset() as usize / block, request.length() as usize / block);
        let mut extents = Vec::new();
        for run in self.mapped[start..start + length].chunk_by(|a, b| a == b) {
            let at = extents.iter().map(|e: &abi::tcmu_extent| e.length).sum::<u64>() + request.offset();
            let state = if run[0] { abi::TCMU_EXTENT_MAPPED } else { abi::TCMU_EXTENT_DEALLOCATED };
            extents.push(abi::tcmu_extent { offset: at, length: (run.len() * block) as u64, state, reserved: 0 });
        }
        let count = request.put_extents(&extents);
        request.set_result(count as u64);
        Ok(())
    }
}

/// The handler's device.
pub struct Handler {
    medium: SharedMedium,
    later: Option<Sender<Vec<Request>>>,
}

impl Handler {
    pub fn new(shape: Shape, medium: SharedMedium) -> Handler {
        let later = shape.later.then(|| {
            let (send, receive) = channel::<Vec<Request>>();
            let medium = medium.clone();
            thread::spawn(move || {
                while let Ok(mut requests) = receive.recv() {
                    requests.extend(receive.try_iter().flatten());
                    while !requests.is_empty() {
                        let at = lock(&medium).next() as usize % requests.len();
                        complete(&medium, requests.swap_remove(at));
                    }
                }
            });
            send
        });
        Handler { medium, later }
    }
}

fn complete(medium: &SharedMedium, mut request: Request) {
    let outcome = lock(medium).perform(&mut request);
    request.complete(outcome);
}

impl Device for Handler {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        match &self.later {
            // A request that can't be sent is dropped, which fails it.
            Some(later) => drop(later.send(batch.collect())),
            None => batch.for_each(|request| complete(&self.medium, request)),
        }
    }
}
