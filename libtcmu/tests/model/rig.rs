//! A device on the simulated kernel with the model beside it, and one command at a time.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tcmu::{
    server::{Attach, Server, Solo, Turn},
    sim::{Data, SimCompletion, SimConfig, SimKernel},
};
use tcmu_handler_api::host::{Events, Level, OpenDevice};

use super::{
    Choose, Shape, be16,
    command::{KNOWN, Try, command, malformed},
    disk::Disk,
    facts::Facts,
    handler::{Handler, Medium, SharedMedium, lock},
    show::{describe, out_length},
    verdict::{Change, Verdict},
};

struct Quiet;
impl Events for Quiet {
    fn log(&self, _: Level, _: &str) {}
}

/// How often each command ended GOOD, and how often it did not, by operation code and service action.
pub type Tally = BTreeMap<(u8, Option<u8>), (u64, u64)>;

/// The device and its model.
pub struct Rig {
    pub(super) kernel: SimKernel,
    solo: Solo,
    pub(super) medium: SharedMedium,
    pub disk: Disk,
    pub tally: Tally,
}

/// So long may a command take.
const PATIENCE: Duration = Duration::from_secs(20);

impl Rig {
    /// A new device. What it says of itself is read first.
    pub fn new(shape: Shape, seed: u64) -> Result<Rig, String> {
        let (kernel, map, fd) = SimKernel::new(SimConfig::default()).map_err(|e| e.to_string())?;
        let medium = Medium::new(shape, seed);
        let handler = Handler::new(shape, medium.clone());
        let device = OpenDevice::embed(handler, shape.info(), std::sync::Arc::new(Quiet), Server::services());
        let attach = Attach {
            target: std::sync::Arc::new(|| Some("0a1b2c3d".to_owned())),
            hw_max_sectors: 8192,
            ..Attach::new("user_0/model", fd, map.len(), device.map_err(|e| format!("{e:?}"))?)
        };
        let solo = Solo::mapped(map, attach, 1).map_err(|e| e.to_string())?;
        let bytes = lock(&medium).bytes.clone();
        let disk = Disk { shape, facts: Facts::default(), bytes };
        let mut rig = Rig { kernel, solo, medium, disk, tally: Tally::new() };
        rig.read_facts()?;
        lock(&rig.medium).fails = shape.failing;
        Ok(rig)
    }

    fn read_facts(&mut self) -> Result<(), String> {
        let page = |code: u8| vec![0x12, 1, code, 2, 0, 0];
        let mut facts = Facts::default();
        facts.block_limits(&self.ask(&page(0xb0), 512, 64)?);
        facts.provisioning(&self.ask(&page(0xb2), 512, 8)?);
        facts.identification(&self.ask(&page(0x83), 512, 4)?);
        let all = self.ask(&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0], 8192, 12)?;
        for entry in all[4..].chunks_exact(8) {
            let action = (entry[5] & 1 != 0).then_some(entry[3]);
            let options = if action.is_some() { 2 } else { 1 };
            let one = self.ask(&[0xa3, 0x0c, options, entry[0], 0, entry[3], 0, 0, 1, 0, 0, 0], 256, 4)?;
            let length = be16(&one, 2) as usize;
            if one[1] & 7 != 3 || one.len() < 4 + length || one[4] != entry[0] || length as u64 != be16(entry, 6) {
                return Err(format!("REPORT SUPPORTED OPERATION CODES for {entry:x?} is {one:x?}"));
            }
            facts.usage.insert((entry[0], action), one[4..4 + length].to_vec());
        }
        self.disk.facts = facts;
        self.read_mode()
    }

    /// WP and WCE, which initiators can change.
    fn read_mode(&mut self) -> Result<(), String> {
        let data = self.ask(&[0x1a, 0x08, 0x08, 0, 255, 0], 255, 7)?;
        let facts = &mut self.disk.facts;
        (facts.write_protected, facts.write_cache) = (data[2] & 0x80 != 0, data[6] & 0x04 != 0);
        Ok(())
    }

    fn ask(&mut self, cdb: &[u8], room: usize, least: usize) -> Result<Vec<u8>, String> {
        let done = self.send(cdb, Data::In(room))?;
        if done.status != 0 || done.data.len() < least {
            return Err(format!("{cdb:x?} was answered with {done:x?}"));
        }
        Ok(done.data)
    }

    /// Sends one command and waits for it.
    pub fn send(&mut self, cdb: &[u8], data: Data) -> Result<SimCompletion, String> {
        self.kernel.queue(cdb, data).map_err(|e| e.to_string())?;
        self.wait(1)?.pop().ok_or_else(|| "no completion".into())
    }

    /// Serves the device until so many commands are done.
    pub(super) fn wait(&mut self, count: usize) -> Result<Vec<SimCompletion>, String> {
        let (mut done, end) = (Vec::new(), Instant::now() + PATIENCE);
        loop {
            while self.solo.turn().map_err(|e| format!("the device stopped: {e}"))? == Turn::More {}
            done.extend(self.kernel.reap().map_err(|e| e.to_string())?);
            if done.len() >= count {
                return Ok(done);
            }
            if Instant::now() > end {
                return Err(format!("{} of {count} commands were not completed", count - done.len()));
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            let mut fds = self.solo.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            let _ = poll(&mut fds, Some(&wait));
        }
    }

    /// Runs what the bytes say: records of commands, alone or several at a time.
    pub fn run(&mut self, records: &[&[u8]]) -> Result<(), String> {
        let mut rest = records;
        while let Some((first, behind)) = rest.split_first() {
            let mut choose = Choose::new(first);
            let kind = choose.byte();
            let more = match kind % 8 {
                0..=4 => 0,
                5 | 6 => 2 + usize::from(kind >> 3) % 6,
                _ => 2 + usize::from(kind >> 3) % 3,
            };
            let (together, behind) = behind.split_at(more.min(behind.len()));
            rest = behind;
            match kind % 8 {
                0..=4 => {
                    let tried = match kind % 8 {
                        4 => malformed(&mut choose, &self.disk),
                        _ => command(&mut choose, &self.disk, KNOWN, None),
                    };
                    self.one(tried)?;
                }
                5 | 6 => self.apart(together)?,
                _ => self.contended(together, &mut choose)?,
            }
        }
        self.finish()
    }

    /// One command; the model says what has to come of it.
    pub fn one(&mut self, (cdb, data): Try) -> Result<(), String> {
        let verdict = self.disk.judge(&cdb, &data);
        let failures = lock(&self.medium).failures;
        let done = self.send(&cdb, data.clone())?;
        let failed = lock(&self.medium).failures != failures;
        self.check(&cdb, &data, &verdict, &done, failed).map_err(|why| describe(&cdb, &data, &done, &why))?;
        if verdict.any && done.status == 0 {
            self.recover().and_then(|()| self.settle()).map_err(|why| describe(&cdb, &data, &done, &why))?;
            if verdict.changes.contains(&Change::Unknown) {
                self.disk.bytes = lock(&self.medium).bytes.clone();
            }
            if matches!(cdb[0], 0x15 | 0x55) {
                self.read_mode()?;
            }
        }
        Ok(())
    }

    fn check(&mut self, cdb: &[u8], data: &Data, verdict: &Verdict, done: &SimCompletion, failed: bool) -> Result<(), String> {
        let lenient = failed && done.status != 0;
        if done.status != 0 {
            verdict.check_remains(&done.data)?;
        }
        let good = if lenient { false } else { verdict.judge(cdb, out_length(data), done)? };
        self.count(cdb, done.status == 0);
        match data {
            Data::In(room) if good => {
                let (lbprz, block) = (self.disk.facts.lbprz, self.disk.shape.block);
                verdict.check_reply(&done.data, *room, lbprz, block, &self.disk.bytes)?;
            }
            // Data-In of another direction goes nowhere.
            Data::Bidi(..) => verdict.check_remains(&done.data)?,
            _ => {}
        }
        let medium = self.medium.clone();
        let medium = lock(&medium);
        if let Some(wrong) = medium.wrong.first() {
            return Err(format!("the handler was called as it must not be: {wrong}"));
        }
        if good {
            self.disk.apply(&verdict.changes, &medium.bytes)?;
            if let Some(range) = verdict.durable.clone().filter(|_| !failed)
                && medium.stable[range.clone()] != medium.bytes[range]
            {
                return Err("it is not on stable storage".into());
            }
        } else if lenient {
            self.adopt(verdict, &medium)?;
        } else if verdict.partly {
            self.partly(&verdict.changes, &medium.bytes)?;
        }
        self.disk.compare(&medium.bytes)
    }

    /// A command failed with its handler: each byte of its range is as before, or as it would be.
    fn adopt(&mut self, verdict: &Verdict, medium: &Medium) -> Result<(), String> {
        if verdict.changes.contains(&Change::Unknown) {
            return self.disk.apply(&verdict.changes, &medium.bytes);
        }
        for change in &verdict.changes {
            let (at, new) = match change {
                Change::Put(at, bytes) => (*at, bytes.clone()),
                Change::Unmap(range) if self.disk.facts.lbprz => (range.start, vec![0; range.len()]),
                Change::Unmap(range) => (range.start, medium.bytes[range.clone()].to_vec()),
                Change::Unknown => continue,
            };
            for (at, new) in (at..).zip(new) {
                if medium.bytes[at] == new {
                    self.disk.bytes[at] = new;
                }
            }
        }
        Ok(())
    }

    /// A copy that failed may have done its first segments.
    fn partly(&mut self, changes: &[Change], actual: &[u8]) -> Result<(), String> {
        if changes.contains(&Change::Unknown) {
            return self.disk.apply(changes, actual);
        }
        let done = (0..=changes.len()).find(|count| {
            let mut disk = self.disk.clone();
            disk.apply(&changes[..*count], actual).is_ok() && disk.bytes == actual
        });
        self.disk.apply(&changes[..done.ok_or("no part of it leads to what is on the medium")?], actual)
    }

    pub(super) fn count(&mut self, cdb: &[u8], good: bool) {
        let action = cdb[1] & 0x1f;
        let has_actions = self.disk.facts.has(cdb[0], Some(action)) || KNOWN.contains(&(cdb[0], Some(action)));
        let (yes, no) = self.tally.entry((cdb[0], has_actions.then_some(action))).or_default();
        *(if good { yes } else { no }) += 1;
    }

    /// Makes the unit ready again after a command that may have stopped it.
    fn recover(&mut self) -> Result<(), String> {
        for _ in 0..1000 {
            let mut done = self.send(&[0; 6], Data::None)?;
            if done.status == 0 {
                // A unit whose format failed says that it is ready, and reads nothing.
                let mut nothing = [0; 16];
                nothing[0] = 0x88;
                done = self.send(&nothing, Data::None)?;
            }
            if done.status == 0 {
                return Ok(());
            }
            match done.sense.get(12..14) {
                Some([0x04, 0x02]) => drop(self.send(&[0x1b, 0, 0, 0, 1, 0], Data::None)?), // START
                Some([0x31, 0x03]) => drop(self.send(&[0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0], Data::None)?), // EXIT FAILURE MODE
                Some([0x31, _]) => drop(self.send(&[0x04, 0, 0, 0, 0, 0], Data::None)?),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Err("the unit does not become ready".into())
    }

    /// Waits for what a command does after it is done.
    fn settle(&mut self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            while self.solo.turn().map_err(|e| format!("the device stopped: {e}"))? == Turn::More {}
            if self.solo.is_idle() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err("it goes on for ever".into());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// The device is usable, and all of the medium reads as the model says.
    pub fn finish(&mut self) -> Result<(), String> {
        lock(&self.medium).fails = false;
        self.recover()?;
        let step = if self.disk.shape.limited { 16 } else { 64 };
        for lba in (0..self.disk.shape.blocks).step_by(step) {
            let blocks = (self.disk.shape.blocks - lba).min(step as u64);
            let cdb = [&[0x88, 0][..], &lba.to_be_bytes(), &(blocks as u32).to_be_bytes(), &[0, 0]].concat();
            let length = blocks as usize * self.disk.shape.block;
            self.one((cdb, Data::In(length)))?;
        }
        if !self.disk.facts.write_protected {
            let cdb = vec![0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0];
            self.one((cdb, Data::Out(vec![0x77; self.disk.shape.block])))?;
        }
        Ok(())
    }
}
