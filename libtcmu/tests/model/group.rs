//! Several commands at a time.
use tcmu::sim::{Data, SimCompletion};

use super::{
    Choose, Rig,
    command::{CONTENDED, KNOWN, Try, command},
    disk::Disk,
    handler::lock,
    show::{describe, out_length},
    verdict::{Change, Verdict},
};

impl Rig {
    /// Commands that have nothing to do with each other: in which order they are done must not matter.
    pub(super) fn apart(&mut self, records: &[&[u8]]) -> Result<(), String> {
        if self.disk.shape.failing {
            return Ok(()); // nobody could tell which of them failed
        }
        let each = self.disk.shape.blocks / 8;
        let mut tried: Vec<(Try, Verdict)> = Vec::new();
        for (n, record) in records.iter().enumerate() {
            let mut choose = Choose::new(record);
            let room = (n as u64 % 8 * each, each);
            let codes = &KNOWN[..KNOWN.len() - 1]; // not MODE SELECT, which changes how others write
            let (cdb, data) = command(&mut choose, &self.disk, codes, Some(room));
            let verdict = self.disk.judge(&cdb, &data);
            if tried.iter().all(|(_, other)| independent(other, &verdict)) && !verdict.changes.contains(&Change::Unknown) {
                tried.push(((cdb, data), verdict));
            }
        }
        let done = self.together(tried.iter().map(|(tried, _)| tried))?;
        let medium = lock(&self.medium).bytes.clone();
        for (((cdb, data), verdict), done) in tried.iter().zip(&done) {
            let judged =
                verdict.judge(cdb, out_length(data), done).and_then(|good| self.take(verdict, good, data, done, &medium));
            judged.map_err(|why| describe(cdb, data, done, &format!("{why}, {} commands in flight", tried.len())))?;
            self.count(cdb, done.status == 0);
        }
        self.still_right(&medium).map_err(|why| {
            let all: Vec<_> = tried.iter().zip(&done).map(|(((c, d), _), done)| describe(c, d, done, "in flight:")).collect();
            format!("{why}\n{}", all.join("\n"))
        })
    }

    fn take(&mut self, verdict: &Verdict, good: bool, data: &Data, done: &SimCompletion, medium: &[u8]) -> Result<(), String> {
        if !good {
            return Ok(());
        }
        if let Data::In(room) = data {
            let (facts, block) = (&self.disk.facts, self.disk.shape.block);
            verdict.check_reply(&done.data, *room, facts.lbprz, block, &self.disk.bytes)?;
        }
        self.disk.apply(&verdict.changes, medium)
    }

    /// Commands for the same few blocks: there must be an order in which one after the other would have ended as they did.
    pub(super) fn contended(&mut self, records: &[&[u8]], choose: &mut Choose<'_>) -> Result<(), String> {
        if self.disk.shape.failing {
            return Ok(());
        }
        let length = 1 + choose.below(3);
        let room = (choose.below(self.disk.shape.blocks - length), length);
        let tried: Vec<Try> = records
            .iter()
            .map(|record| command(&mut Choose::new(record), &self.disk, CONTENDED, Some(room)))
            .filter(|(cdb, data)| !self.disk.judge(cdb, data).changes.contains(&Change::Unknown))
            .take(4)
            .collect();
        let done = self.together(tried.iter())?;
        let medium = lock(&self.medium).bytes.clone();
        let mut left: Vec<_> = tried.iter().zip(&done).collect();
        match explain(&self.disk, &mut left, &medium) {
            Some(disk) => self.disk = disk,
            None => {
                let all: Vec<_> = tried.iter().zip(&done).map(|((c, d), done)| describe(c, d, done, "in flight:")).collect();
                return Err(format!("no order explains how these ended\n{}", all.join("\n")));
            }
        }
        for ((cdb, _), done) in tried.iter().zip(&done) {
            self.count(cdb, done.status == 0);
        }
        self.still_right(&medium)
    }

    /// Sends all at once; their ends in the order they were sent.
    fn together<'a>(&mut self, tried: impl Iterator<Item = &'a Try>) -> Result<Vec<SimCompletion>, String> {
        let mut ids = Vec::new();
        for (cdb, data) in tried {
            ids.push(self.kernel.queue_quietly(cdb, data.clone()).map_err(|e| e.to_string())?);
        }
        self.kernel.ring_bell();
        let mut done = self.wait(ids.len())?;
        done.sort_by_key(|done| ids.iter().position(|id| *id == done.id));
        Ok(done)
    }

    fn still_right(&self, medium: &[u8]) -> Result<(), String> {
        if let Some(wrong) = lock(&self.medium).wrong.first() {
            return Err(format!("the handler was called as it must not be: {wrong}"));
        }
        self.disk.compare(medium)
    }
}

fn independent(one: &Verdict, other: &Verdict) -> bool {
    let apart = |one: &Verdict, other: &Verdict| {
        let touched: Vec<_> = other.writes().into_iter().chain(other.reads.clone()).collect();
        one.writes().iter().all(|a| touched.iter().all(|b| a.is_empty() || b.is_empty() || a.end <= b.start || b.end <= a.start))
    };
    apart(one, other) && apart(other, one)
}

/// The disk after these commands, in an order that makes them end as they did.
fn explain(disk: &Disk, left: &mut Vec<(&Try, &SimCompletion)>, medium: &[u8]) -> Option<Disk> {
    if left.is_empty() {
        return (disk.bytes == medium).then(|| disk.clone());
    }
    for at in 0..left.len() {
        let (tried, done) = left.remove(at);
        let (cdb, data) = tried;
        let verdict = disk.judge(cdb, data);
        let fits = match verdict.judge(cdb, out_length(data), done) {
            Ok(true) => match data {
                Data::In(room) => verdict.check_reply(&done.data, *room, false, disk.shape.block, &disk.bytes).is_ok(),
                _ => true,
            },
            Ok(false) => true,
            Err(_) => false,
        };
        if fits {
            let mut after = disk.clone();
            let applied = done.status != 0 || after.apply(&verdict.changes, medium).is_ok();
            if let Some(found) = applied.then(|| explain(&after, left, medium)).flatten() {
                return Some(found);
            }
        }
        left.insert(at, (tried, done));
    }
    None
}
