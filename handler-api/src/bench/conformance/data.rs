//! Reads and writes hold and return the right bytes.
use super::{Checked, Run, Subject, fail, not_applicable};
use crate::{
    bench::command::Command,
    plugin::{Operations, RequestFlags},
};

const NONE: RequestFlags = RequestFlags::empty();

pub(super) fn checks(run: &mut Run) {
    run.on_device("data", "the same read twice gives the same", |s| {
        s.needs_data()?;
        for _ in 0..20 {
            let (offset, length) = s.range(s.longest);
            s.verify(offset, length)?;
        }
        Ok(())
    });
    run.on_device("data", "what is written is read back, in many sizes and places", sizes);
    run.on_device("data", "the first and the last block hold what is written there", ends);
    run.on_device("data", "data comes in segments of any length and alignment", segments);
    run.on_device("data", "a read fills its whole buffer", fills);
    run.on_device("data", "an overwrite replaces all that was there, and nothing beside it", overwrites);
    run.on_device("data", "random reads and writes agree with the model", |s| {
        s.needs_writes()?;
        mixed(s)?;
        s.verify_all()
    });
    run.on_device("data", "a write with FUA is done like any other", |s| {
        s.needs_writes()?;
        for _ in 0..10 {
            let (offset, length) = s.range(64 << 10);
            s.write(offset, length, RequestFlags::FUA)?;
            s.verify_around(offset, length)?;
        }
        Ok(())
    });
    run.on_device("data", "a hint that data is not used again changes nothing", |s| {
        s.needs_writes()?;
        let (offset, length) = s.range(64 << 10);
        s.write(offset, length, RequestFlags::DPO)?;
        s.verify_around(offset, length)
    });
    run.on_device("data", "an atomic write is done", |s| {
        s.needs_writes()?;
        let longest = u64::from(s.info.0.max_atomic);
        if longest < s.block {
            return Err(not_applicable("max_atomic is 0"));
        }
        let (offset, length) = s.range(longest.min(s.longest));
        s.write(offset, length, RequestFlags::ATOMIC)?;
        s.verify_around(offset, length)
    });
    run.on_device("data", "a read-only device refuses writes", |s| {
        s.needs_data()?;
        if s.is_writable() {
            return Err(not_applicable("the device can be written"));
        }
        let data = s.rng.bytes(s.block);
        let answer = s.device.answer(Command::write(0, &data))?;
        if answer.error().is_none() {
            return Err(fail("an error, EROFS for one", "success"));
        }
        s.verify(0, s.block)
    });
}

fn sizes(s: &mut Subject) -> Checked {
    s.needs_writes()?;
    let mut counts = vec![1, 2, 3, 7, 8, 9, 31, 64, 127, 128, 255, 256, 1024, 2047];
    counts.push(s.longest / s.block);
    for count in counts {
        let length = count * s.block;
        if length > s.longest {
            continue;
        }
        for (start, end) in s.parts() {
            if length > end - start {
                continue;
            }
            let middle = start + (end - start - length) / 2 / s.block * s.block;
            for offset in [start, middle, end - length] {
                s.write(offset, length, NONE)?;
                s.verify_around(offset, length)?;
            }
        }
    }
    s.verify_all()
}

fn ends(s: &mut Subject) -> Checked {
    s.needs_writes()?;
    let last = s.end() - s.block;
    for _ in 0..3 {
        s.write(0, s.block, NONE)?;
        s.write(last, s.block, NONE)?;
        s.verify(0, s.block)?;
        s.verify(last, s.block)?;
    }
    Ok(())
}

fn segments(s: &mut Subject) -> Checked {
    s.needs_data()?;
    let block = s.block as usize;
    let cuts: [&[usize]; 9] = [
        &[1],
        &[block - 1],
        &[block + 1],
        &[1, 4096],
        &[3, 5, 7],
        &[block / 2],
        &[4095, 2, 511],
        &[100, 1, 1, 67],
        &[block, 1, 99],
    ];
    for (n, cut) in cuts.iter().enumerate() {
        for misalign in [0, 1, 7] {
            let length = (s.block * (n as u64 + 1) * 2).min(s.longest);
            let offset = s.place(length)?;
            if s.is_writable() {
                let data = s.rng.bytes(length);
                s.device.run(Command::write(offset, &data).segments(cut).misaligned(misalign))?;
                s.set(offset, &data);
                s.verify_around(offset, length)?;
            }
            let answer = s.device.run(Command::read(offset, length).segments(cut).misaligned(misalign))?;
            s.compare(offset, &answer.data)?;
        }
    }
    // Many segments in one command.
    let length = s.longest.min(256 << 10);
    let offset = s.place(length)?;
    if s.is_writable() {
        let data = s.rng.bytes(length);
        s.device.run(Command::write(offset, &data).segments(&[length as usize / 700 + 1]))?;
        s.set(offset, &data);
    }
    let answer = s.device.run(Command::read(offset, length).segments(&[length as usize / 600 + 1]).misaligned(5))?;
    s.compare(offset, &answer.data)
}

/// The buffer of a read holds a pattern beforehand, which is not what the device holds.
fn fills(s: &mut Subject) -> Checked {
    s.needs_data()?;
    // The buffer of a read is never zero beforehand, nor all ones.
    let fills: &[u8] = if s.rng.is_zeros() { &[0x00] } else { &[0x00, 0xff] };
    for &fill in fills {
        let length = s.longest.min(128 << 10);
        let offset = s.place(length)?;
        if s.is_writable() {
            s.write_this(offset, &vec![fill; length as usize], NONE)?;
        }
        s.verify(offset, length)?;
    }
    Ok(())
}

fn overwrites(s: &mut Subject) -> Checked {
    s.needs_writes()?;
    let length = (16 * s.block).min(s.longest);
    let offset = s.place(length)?;
    for _ in 0..4 {
        s.write(offset, length, NONE)?;
        let inner = s.rng.below(length / s.block) * s.block;
        s.write(offset + inner, s.block, NONE)?;
        s.verify_around(offset, length)?;
    }
    Ok(())
}

/// Reads, writes and flushes in random order, one after the other.
pub(super) fn mixed(s: &mut Subject) -> Checked {
    let flushes = s.info.operations().contains(Operations::FLUSH);
    for _ in 0..s.rounds {
        let longest = if s.rng.one_in(8) { s.longest } else { 32 << 10 };
        let (offset, length) = s.range(longest);
        match s.rng.below(16) {
            0 if flushes => drop(s.device.run(Command::flush())?),
            0..8 => s.write(offset, length, NONE)?,
            8 => s.write(offset, length, RequestFlags::FUA)?,
            _ => s.verify(offset, length)?,
        }
    }
    Ok(())
}

/// The same with a host that does not end I/O while the handler waits for it.
pub(super) fn deferred(run: &mut Run) {
    run.check("data", "all is right when the host ends I/O on descriptors later, on another thread", |run| {
        run.close_subject()?;
        if run.host_ios == 0 {
            return Err(not_applicable("the handler gave no I/O to the bench"));
        }
        let mut subject = run.open(true)?;
        let verdict = if subject.is_writable() {
            mixed(&mut subject).and_then(|()| super::concurrency::disjoint(&mut subject)).and_then(|()| subject.verify_all())
        } else {
            subject.verify_all()
        };
        let closed = run.close(subject.device);
        verdict.and(closed.map_err(Into::into))
    });
}
