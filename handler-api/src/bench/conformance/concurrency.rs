//! Many requests at a time.
use std::thread;

use super::{Checked, Run, Subject, Verdict, fail, not_applicable};
use crate::{
    bench::{command::Command, device::BenchDevice, rng::Rng},
    plugin::{Error, Operations},
};

/// Threads that submit at a time.
const SUBMITTERS: u64 = 4;

pub(super) fn checks(run: &mut Run) {
    run.on_device("concurrency", "a batch of 200 writes, then one of 200 reads", batches);
    run.on_device("concurrency", "requests in flight from several threads do not disturb each other", disjoint);
    run.on_device("concurrency", "reads of the same blocks at the same time", |s| {
        s.needs_data()?;
        let length = (8 * s.block).min(s.longest);
        let offset = s.place(length)?;
        let pending = s.device.submit_batch((0..64).map(|_| Command::read(offset, length)));
        for pending in pending {
            let answer = pending.wait_ok()?;
            s.compare(offset, &answer.data)?;
        }
        Ok(())
    });
    run.on_device("concurrency", "compare and write is atomic", counter);
    let cancels = run.plugin.table().cancel.is_some();
    run.on_device("concurrency", "a cancelled request is completed all the same", |s| {
        if cancels { cancelled(s) } else { Err(not_applicable("the handler has no `cancel`")) }
    });
}

fn batches(s: &mut Subject) -> Checked {
    s.needs_data()?;
    let (start, end) = s.parts()[0];
    let slots = ((end - start) / s.block).min(200);
    let length = s.block;
    if s.is_writable() {
        let writes: Vec<_> = (0..slots).map(|n| (start + n * length, s.rng.bytes(length))).collect();
        let pending = s.device.submit_batch(writes.iter().map(|(offset, data)| Command::write(*offset, data)));
        for pending in pending {
            pending.wait_ok()?;
        }
        for (offset, data) in writes {
            s.set(offset, &data);
        }
    }
    let pending = s.device.submit_batch((0..slots).map(|n| Command::read(start + n * length, length)));
    for (n, pending) in (0..).zip(pending) {
        let answer = pending.wait_ok()?;
        s.compare(start + n * length, &answer.data)?;
    }
    Ok(())
}

/// Each thread has a slice of the device and a model of its own.
pub(super) fn disjoint(s: &mut Subject) -> Checked {
    s.needs_writes()?;
    let (start, end) = s.parts()[0];
    let slice = (end - start) / SUBMITTERS / s.block * s.block;
    if slice < 4 * s.block {
        return Err(not_applicable("the device is too small"));
    }
    let slice = slice.min(1 << 20);
    let rounds = s.rounds / 8 + 1;
    let (block, longest) = (s.block, s.longest.min(slice / 4 / s.block * s.block).max(s.block));
    let device = &s.device;
    let results: Vec<Result<(u64, Vec<u8>), Verdict>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..SUBMITTERS)
            .map(|n| {
                let base = start + n * slice;
                let before = s.expected(base, slice).to_vec();
                let rng = s.rng.fork(n);
                scope.spawn(move || slice_of(device, base, before, rng, block, longest, rounds).map(|bytes| (base, bytes)))
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(fail("no panic", "the bench panicked")))).collect()
    });
    for result in results {
        let (base, bytes) = result?;
        s.set(base, &bytes);
    }
    s.rng.next();
    s.verify_all()
}

/// Batches of writes and reads of ranges that do not overlap within one slice. Returns what the slice holds then.
fn slice_of(
    device: &BenchDevice,
    base: u64,
    mut model: Vec<u8>,
    mut rng: Rng,
    block: u64,
    longest: u64,
    rounds: u32,
) -> Result<Vec<u8>, Verdict> {
    for _ in 0..rounds {
        let mut at = 0;
        let mut batch = Vec::new();
        while at < model.len() as u64 && batch.len() < 12 {
            let length = (rng.between(1, (longest / block).min(16)) * block).min(model.len() as u64 - at);
            let command = if rng.one_in(2) {
                let data = rng.bytes(length);
                model[at as usize..(at + length) as usize].copy_from_slice(&data);
                Command::write(base + at, &data)
            } else {
                Command::read(base + at, length)
            };
            batch.push((at as usize, command));
            at += length + rng.below(3) * block;
        }
        let (places, commands): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        for (at, pending) in places.into_iter().zip(device.submit_batch(commands)) {
            let answer = pending.wait_ok()?;
            if !answer.command.starts_with("read") {
                continue;
            }
            let expected = &model[at..at + answer.data.len()];
            if let Some(n) = (0..expected.len()).find(|n| expected[*n] != answer.data[*n]) {
                return Err(fail(
                    format!("byte {} to be {:#04x}", base + (at + n) as u64, expected[n]),
                    format!("{:#04x}, in a {} among others in flight", answer.data[n], answer.command),
                ));
            }
        }
    }
    Ok(model)
}

/// Threads count one number up by compare and write; each success must count.
fn counter(s: &mut Subject) -> Checked {
    s.needs_writes()?;
    s.needs(Operations::COMPARE_AND_WRITE, "COMPARE AND WRITE")?;
    let block = s.block as usize;
    let offset = s.place(s.block)?;
    let zero = vec![0; block];
    s.write_this(offset, &zero, crate::plugin::RequestFlags::empty())?;
    let device = &s.device;
    let count = |value: u64| {
        let mut bytes = vec![0; block];
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let increments = 25;
    let results: Vec<Checked> = thread::scope(|scope| {
        let threads: Vec<_> = (0..SUBMITTERS)
            .map(|_| {
                scope.spawn(|| {
                    let (mut done, mut attempts) = (0, 0);
                    while done < increments {
                        attempts += 1;
                        // Each miscompare means that one of all increments succeeded in between.
                        if attempts > SUBMITTERS * increments {
                            return Err(fail(
                                "a miscompare only where another command succeeded",
                                "more miscompares than commands",
                            ));
                        }
                        let now = device.run(Command::read(offset, block as u64))?.data;
                        let value = u64::from_le_bytes(now[..8].try_into().unwrap_or_default());
                        let answer = device.answer(Command::compare_and_write(offset, &now, &count(value + 1)))?;
                        match answer.error() {
                            None => done += 1,
                            Some(Error::Miscompare { .. }) => {}
                            Some(error) => return Err(fail("success or a miscompare", error.to_string())),
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(fail("no panic", "the bench panicked")))).collect()
    });
    results.into_iter().collect::<Checked>()?;
    s.set(offset, &count(SUBMITTERS * increments));
    s.verify(offset, s.block)
}

fn cancelled(s: &mut Subject) -> Checked {
    s.needs_writes()?;
    let (start, end) = s.parts()[0];
    let slots = ((end - start) / s.block).min(32);
    let writes: Vec<_> = (0..slots).map(|n| (start + n * s.block, s.rng.bytes(s.block))).collect();
    let pending = s.device.submit_batch(writes.iter().map(|(offset, data)| Command::write(*offset, data)));
    for pending in pending.iter().step_by(2) {
        s.device.cancel(pending);
    }
    for ((offset, data), pending) in writes.into_iter().zip(pending) {
        let answer = pending.wait()?;
        match answer.error() {
            None => s.set(offset, &data),
            Some(Error::Aborted) => {} // as it was
            Some(error) => return Err(fail("success, or TCMU_STATUS_ABORTED", format!("{}: {error}", answer.command))),
        }
    }
    s.verify_all()
}
