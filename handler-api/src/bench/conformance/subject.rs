//! An open device and the model of what it must hold.
use super::{Checked, Verdict, fail, not_applicable};
use crate::{
    bench::{command::Command, device::BenchDevice, rng::Rng},
    plugin::{DeviceFlags, DeviceInfo, Operations, RequestFlags},
};

/// Bytes at each end of a device that are used.
const REGION: u64 = 2 << 20;
/// Longest transfer that the checks make.
const LONGEST: u64 = 1 << 20;

/// A part of the device that the checks use, and what is in it.
struct Region {
    start: u64,
    bytes: Vec<u8>,
}

/// An open device with its model.
pub(super) struct Subject {
    pub(super) device: BenchDevice,
    pub(super) info: DeviceInfo,
    pub(super) block: u64,
    /// Longest transfer, a multiple of the block size.
    pub(super) longest: u64,
    pub(super) rng: Rng,
    pub(super) rounds: u32,
    regions: Vec<Region>,
}

impl Subject {
    pub(super) fn new(device: BenchDevice, rng: Rng, rounds: u32) -> Result<Subject, Verdict> {
        let info = device.info();
        let block = u64::from(info.block_size());
        let limit = match u64::from(info.0.max_transfer) {
            0 => LONGEST,
            max => max.min(LONGEST),
        };
        let size = info.size() - info.size() % block;
        let parts = if size <= 2 * REGION { vec![(0, size)] } else { vec![(0, REGION), (size - REGION, REGION)] };
        let mut subject = Subject {
            device,
            info,
            block,
            longest: (limit - limit % block).max(block),
            rng,
            rounds,
            regions: parts.into_iter().map(|(start, len)| Region { start, bytes: vec![0; len as usize] }).collect(),
        };
        if subject.has_data() {
            subject.reload()?;
        }
        Ok(subject)
    }

    /// Whether it is a device of blocks that can be read.
    fn has_data(&self) -> bool {
        self.info.operations().contains(Operations::READ)
            && self.info.size() >= self.block
            && !self.info.flags().contains(DeviceFlags::NO_MEDIUM)
    }

    pub(super) fn needs_data(&self) -> Checked {
        if self.has_data() { Ok(()) } else { Err(not_applicable("there are no blocks to be read")) }
    }

    pub(super) fn needs_writes(&self) -> Checked {
        self.needs_data()?;
        if self.is_writable() { Ok(()) } else { Err(not_applicable("the device is read-only")) }
    }

    pub(super) fn is_writable(&self) -> bool {
        self.info.operations().contains(Operations::WRITE) && !self.info.flags().contains(DeviceFlags::READ_ONLY)
    }

    pub(super) fn needs(&self, operations: Operations, name: &str) -> Checked {
        self.needs_data()?;
        if self.info.operations().contains(operations) { Ok(()) } else { Err(not_applicable(format!("{name} is not announced"))) }
    }

    /// Makes the model what the device says.
    pub(super) fn reload(&mut self) -> Checked {
        if !self.has_data() {
            return Ok(());
        }
        for n in 0..self.regions.len() {
            let (start, len) = (self.regions[n].start, self.regions[n].bytes.len());
            for at in (0..len).step_by(self.longest as usize) {
                let part = (len - at).min(self.longest as usize);
                let data = self.device.run(Command::read(start + at as u64, part as u64))?.data;
                self.regions[n].bytes[at..at + part].copy_from_slice(&data);
            }
        }
        Ok(())
    }

    /// First and last byte behind each part that the checks use.
    pub(super) fn parts(&self) -> Vec<(u64, u64)> {
        self.regions.iter().map(|r| (r.start, r.start + r.bytes.len() as u64)).collect()
    }

    /// The end of the device, a multiple of the block size.
    pub(super) fn end(&self) -> u64 {
        self.regions.last().map_or(0, |r| r.start + r.bytes.len() as u64)
    }

    /// A range of at most `longest` bytes: often at an end of the device.
    pub(super) fn range(&mut self, longest: u64) -> (u64, u64) {
        let region = self.rng.below(self.regions.len() as u64) as usize;
        let (start, size) = (self.regions[region].start, self.regions[region].bytes.len() as u64);
        let blocks = (size / self.block).max(1);
        let most = (longest / self.block).clamp(1, blocks);
        // Short ones are more frequent.
        let most = if self.rng.one_in(2) { most.min(8) } else { most };
        let count = self.rng.between(1, most);
        let first = match self.rng.below(8) {
            0 => 0,
            1 => blocks - count,
            _ => self.rng.below(blocks - count + 1),
        };
        (start + first * self.block, count * self.block)
    }

    /// A place for `length` bytes in the first part, which is big enough, or the check does not apply.
    pub(super) fn place(&mut self, length: u64) -> Result<u64, Verdict> {
        let size = self.regions.first().map_or(0, |r| r.bytes.len() as u64);
        if size < length {
            return Err(not_applicable(format!("the device is smaller than {length} bytes")));
        }
        Ok(self.rng.below((size - length) / self.block + 1) * self.block)
    }

    /// Cuts a command's data at random into segments.
    pub(super) fn cut(&mut self, command: Command, len: u64) -> Command {
        let len = len as usize;
        let block = self.block as usize;
        let odd = self.rng.between(1, 97) as usize;
        let lengths = match self.rng.below(8) {
            0 | 1 => vec![],
            2 if len <= 4096 => vec![1],
            3 => vec![block - 1],
            4 => vec![block + 1, 1, len / 50 + 1],
            5 => vec![4096],
            6 => vec![len / 300 + 1],
            _ => vec![odd, 2 * odd + 1, len / 7 + 1],
        };
        let misalign = if self.rng.one_in(2) { self.rng.below(64) as usize } else { 0 };
        command.segments(&lengths).misaligned(misalign)
    }

    /// What the model holds.
    pub(super) fn expected(&self, offset: u64, length: u64) -> &[u8] {
        self.regions
            .iter()
            .find_map(|r| {
                let at = usize::try_from(offset.checked_sub(r.start)?).ok()?;
                r.bytes.get(at..at.checked_add(length as usize)?)
            })
            .unwrap_or(&[])
    }

    /// Changes the model.
    pub(super) fn set(&mut self, offset: u64, data: &[u8]) {
        for region in &mut self.regions {
            if let Some(at) = offset.checked_sub(region.start)
                && let Some(place) = region.bytes.get_mut(at as usize..at as usize + data.len())
            {
                place.copy_from_slice(data);
                return;
            }
        }
    }

    /// Writes random data to device and model.
    pub(super) fn write(&mut self, offset: u64, length: u64, flags: RequestFlags) -> Checked {
        let data = self.rng.bytes(length);
        self.write_this(offset, &data, flags)
    }

    pub(super) fn write_this(&mut self, offset: u64, data: &[u8], flags: RequestFlags) -> Checked {
        let command = self.cut(Command::write(offset, data).flags(flags), data.len() as u64);
        self.device.run(command)?;
        self.set(offset, data);
        Ok(())
    }

    /// Reads and compares with the model.
    pub(super) fn verify(&mut self, offset: u64, length: u64) -> Checked {
        let command = self.cut(Command::read(offset, length), length);
        let answer = self.device.run(command)?;
        self.compare(offset, &answer.data)
    }

    /// Compares what was read with the model.
    pub(super) fn compare(&self, offset: u64, found: &[u8]) -> Checked {
        let expected = self.expected(offset, found.len() as u64);
        if expected == found {
            return Ok(());
        }
        let Some(at) = (0..expected.len()).find(|at| expected[*at] != found[*at]) else { return Ok(()) };
        let different = (at..expected.len()).filter(|at| expected[*at] != found[*at]).count();
        let place = offset + at as u64;
        let show = |bytes: &[u8]| bytes[at..].iter().take(8).map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
        let elsewhere = self.find(&found[at - at % self.block as usize..], place - place % self.block);
        Err(fail(
            format!("byte {place} (block {}, byte {} in it) to be {}", place / self.block, place % self.block, show(expected)),
            format!("{} there, in a read of {} bytes at {offset}; {different} bytes differ{elsewhere}", show(found), found.len()),
        ))
    }

    /// Says where the block that was found belongs, if it is known.
    fn find(&self, found: &[u8], wanted: u64) -> String {
        let block = self.block as usize;
        let Some(found) = found.get(..block) else { return String::new() };
        if found.iter().all(|b| *b == found[0]) {
            return format!("; the block is full of {:#04x}", found[0]);
        }
        for region in &self.regions {
            if let Some(n) = region.bytes.chunks_exact(block).position(|b| b == found) {
                let place = region.start + (n * block) as u64;
                return format!("; that is block {}, wanted was block {}", place / self.block, wanted / self.block);
            }
        }
        String::new()
    }

    /// Compares a range and a block on each side with the model.
    pub(super) fn verify_around(&mut self, offset: u64, length: u64) -> Checked {
        let inside = self.parts().into_iter().find(|(start, end)| (*start..*end).contains(&offset));
        let Some((start, end)) = inside else { return Ok(()) };
        let from = offset.saturating_sub(self.block).max(start);
        let to = (offset + length + self.block).min(end);
        self.verify_long(from, to)
    }

    /// Compares everything with the model.
    pub(super) fn verify_all(&mut self) -> Checked {
        for (start, end) in self.parts() {
            self.verify_long(start, end)?;
        }
        Ok(())
    }

    fn verify_long(&mut self, from: u64, to: u64) -> Checked {
        let mut at = from;
        while at < to {
            let part = (to - at).min(self.longest);
            self.verify(at, part)?;
            at += part;
        }
        Ok(())
    }
}
