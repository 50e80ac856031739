//! Sparse memory: chunks that are there once something was written to them.
use std::sync::{PoisonError, RwLock};

use tcmu_handler_api::{
    abi,
    plugin::{Buffer, Error},
};

/// Bytes of a chunk.
pub(crate) const CHUNK: u64 = 64 << 10;

/// Chunks that share a lock.
const GROUP: u64 = 256;

type Chunk = Option<Box<[u8]>>;

/// Memory of a given size. Reads and writes of different groups of chunks don't wait for each other.
#[derive(Debug)]
pub(crate) struct Memory {
    size: RwLock<Groups>,
}

#[derive(Debug)]
struct Groups {
    size: u64,
    groups: Vec<RwLock<Vec<Chunk>>>,
}

impl Groups {
    fn resize(&mut self, size: u64) {
        if size < self.size {
            // What is cut off must read as zeros if the device grows again.
            let _ = self.zero(size, self.size - size);
        }
        self.size = size;
        let groups = size.div_ceil(CHUNK * GROUP) as usize;
        self.groups.resize_with(groups, RwLock::default);
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), Error> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::Errno(22)), // EINVAL: the host checks ranges, so this does not happen
        }
    }

    /// Calls `with` for the part of each chunk that a range covers: the group, the chunk in it, the first byte in that, the first byte
    /// in the range, and the length.
    fn each(
        &self,
        offset: u64,
        length: u64,
        mut with: impl FnMut(&RwLock<Vec<Chunk>>, usize, usize, usize, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.check(offset, length)?;
        let mut at = offset;
        while at < offset + length {
            let (number, within) = (at / CHUNK, at % CHUNK);
            let run = (CHUNK - within).min(offset + length - at);
            let group = &self.groups[(number / GROUP) as usize];
            with(group, (number % GROUP) as usize, within as usize, (at - offset) as usize, run as usize)?;
            at += run;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.each(offset, length, |group, chunk, within, _, run| {
            let mut group = group.write().unwrap_or_else(PoisonError::into_inner);
            match group.get_mut(chunk) {
                Some(slot) if run as u64 == CHUNK => *slot = None,
                Some(Some(data)) => data[within..within + run].fill(0),
                _ => {}
            }
            Ok(())
        })
    }
}

impl Memory {
    pub(crate) fn new(size: u64) -> Memory {
        let mut groups = Groups { size: 0, groups: Vec::new() };
        groups.resize(size);
        Memory { size: RwLock::new(groups) }
    }

    pub(crate) fn read(&self, offset: u64, data: &Buffer<'_>) -> Result<(), Error> {
        let groups = self.size.read().unwrap_or_else(PoisonError::into_inner);
        groups.each(offset, data.len() as u64, |group, chunk, within, at, run| {
            let group = group.read().unwrap_or_else(PoisonError::into_inner);
            match group.get(chunk) {
                Some(Some(memory)) => data.copy_from_at(at, &memory[within..within + run]),
                _ => {
                    data.fill_at(at, run, 0);
                    run
                }
            };
            Ok(())
        })
    }

    pub(crate) fn write(&self, offset: u64, data: &Buffer<'_>) -> Result<(), Error> {
        let groups = self.size.read().unwrap_or_else(PoisonError::into_inner);
        groups.each(offset, data.len() as u64, |group, chunk, within, at, run| {
            let mut group = group.write().unwrap_or_else(PoisonError::into_inner);
            if group.len() <= chunk {
                group.resize_with(chunk + 1, || None);
            }
            let memory = match &mut group[chunk] {
                Some(memory) => memory,
                empty => {
                    let mut fresh = Vec::new();
                    fresh.try_reserve_exact(CHUNK as usize).map_err(|_| Error::NO_SPACE)?;
                    fresh.resize(CHUNK as usize, 0);
                    empty.insert(fresh.into_boxed_slice())
                }
            };
            data.copy_to_at(at, &mut memory[within..within + run]);
            Ok(())
        })
    }

    /// Gives whole chunks back and clears the rest.
    pub(crate) fn zero(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.size.read().unwrap_or_else(PoisonError::into_inner).zero(offset, length)
    }

    /// Waits for what is being read and written.
    pub(crate) fn resize(&self, size: u64) {
        self.size.write().unwrap_or_else(PoisonError::into_inner).resize(size);
    }

    /// Empty memory of another size. Waits for what is being read and written.
    pub(crate) fn replace(&self, size: u64) {
        let mut groups = self.size.write().unwrap_or_else(PoisonError::into_inner);
        *groups = Groups { size: 0, groups: Vec::new() };
        groups.resize(size);
    }

    /// Which runs of a range have memory.
    pub(crate) fn extents(&self, offset: u64, length: u64) -> Result<Vec<abi::tcmu_extent>, Error> {
        let groups = self.size.read().unwrap_or_else(PoisonError::into_inner);
        let mut extents: Vec<abi::tcmu_extent> = Vec::new();
        groups.each(offset, length, |group, chunk, _, at, run| {
            let there = matches!(group.read().unwrap_or_else(PoisonError::into_inner).get(chunk), Some(Some(_)));
            let state = if there { abi::TCMU_EXTENT_MAPPED } else { abi::TCMU_EXTENT_DEALLOCATED };
            match extents.last_mut() {
                Some(last) if last.state == state => last.length += run as u64,
                _ => extents.push(abi::tcmu_extent { offset: offset + at as u64, length: run as u64, state, reserved: 0 }),
            }
            Ok(())
        })?;
        Ok(extents)
    }
}
