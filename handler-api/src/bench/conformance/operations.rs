//! What a handler may announce beside reads and writes.
use super::{Checked, Run, Subject, fail};
use crate::{
    abi,
    bench::command::Command,
    plugin::{DeviceFlags, Error, Operations, RequestFlags},
};

const NONE: RequestFlags = RequestFlags::empty();

/// An operation code that no version of the ABI has.
const UNKNOWN_OP: u32 = 0x7fff_0001;

pub(super) fn checks(run: &mut Run) {
    run.on_device("operations", "a flush succeeds and changes nothing", |s| {
        s.needs(Operations::FLUSH, "FLUSH")?;
        for _ in 0..3 {
            if s.is_writable() {
                let (offset, length) = s.range(64 << 10);
                s.write(offset, length, NONE)?;
            }
            s.device.run(Command::flush())?;
        }
        s.verify_all()
    });
    run.on_device("operations", "unmapped blocks read as announced, their neighbours as before", unmap);
    run.on_device("operations", "write zeroes makes zeros, and nothing beside them", |s| {
        s.needs_writes()?;
        s.needs(Operations::WRITE_ZEROES, "WRITE_ZEROES")?;
        for n in 0..16 {
            let (offset, length) = s.range(longest_unmap(s));
            s.write_around(offset, length)?;
            let flags = [NONE, RequestFlags::MAY_UNMAP, RequestFlags::FUA][n % 3];
            s.device.run(Command::write_zeroes(offset, length).flags(flags))?;
            s.set(offset, &vec![0; length as usize]);
            s.verify_around(offset, length)?;
        }
        Ok(())
    });
    run.on_device("operations", "write same repeats its block, and writes nothing beside", |s| {
        s.needs_writes()?;
        s.needs(Operations::WRITE_SAME, "WRITE_SAME")?;
        for n in 0..12 {
            let (offset, length) = s.range(longest_unmap(s));
            s.write_around(offset, length)?;
            let pattern = if n == 0 { vec![0; s.block as usize] } else { s.rng.bytes(s.block) };
            let command = s.cut(Command::write_same(offset, length, &pattern), s.block);
            s.device.run(command)?;
            s.set(offset, &pattern.repeat((length / s.block) as usize));
            s.verify_around(offset, length)?;
        }
        Ok(())
    });
    run.on_device("operations", "compare and write writes when the data is equal", |s| {
        s.needs_writes()?;
        s.needs(Operations::COMPARE_AND_WRITE, "COMPARE AND WRITE")?;
        for count in [1, 2, 7] {
            let length = count * s.block;
            if 2 * length > s.longest {
                continue;
            }
            let offset = s.place(length)?;
            s.write(offset, length, NONE)?;
            let (old, new) = (s.expected(offset, length).to_vec(), s.rng.bytes(length));
            let command = s.cut(Command::compare_and_write(offset, &old, &new), 2 * length);
            s.device.run(command)?;
            s.set(offset, &new);
            s.verify_around(offset, length)?;
        }
        Ok(())
    });
    run.on_device("operations", "compare and write tells the first different byte, and writes nothing", miscompare);
    run.on_device("operations", "copies arrive, overlapping ones too", copies);
    run.on_device("operations", "extents cover their range in order and without gaps", extents);
    run.on_device("operations", "a prefetch succeeds and changes nothing", |s| {
        s.needs(Operations::PREFETCH, "PREFETCH")?;
        let (offset, length) = s.range(s.longest);
        s.device.run(Command::prefetch(offset, length))?;
        s.verify_around(offset, length)
    });
    run.on_device("operations", "an unknown operation fails and does no harm", |s| {
        let length = if s.needs_data().is_ok() { s.block } else { 0 };
        for command in
            [Command::new(UNKNOWN_OP, 0, length), Command::new(UNKNOWN_OP, 0, length).data_out(&vec![0; length as usize])]
        {
            let answer = s.device.answer(command)?;
            if answer.error().is_none() {
                return Err(fail("an error, EOPNOTSUPP for one", "success"));
            }
        }
        if s.needs_data().is_ok() { s.verify_all() } else { Ok(()) }
    });
}

/// Longest range without a buffer.
fn longest_unmap(s: &Subject) -> u64 {
    match s.info.0.max_unmap {
        0 => 4 << 20,
        max => (max - max % s.block).clamp(s.block, 4 << 20),
    }
}

impl Subject {
    /// Writes to a range (or what one transfer holds of it) and to its neighbours.
    fn write_around(&mut self, offset: u64, length: u64) -> Checked {
        let Some((start, end)) = self.parts().into_iter().find(|(start, end)| (*start..*end).contains(&offset)) else {
            return Ok(());
        };
        let (mut at, to) = (offset.saturating_sub(self.block).max(start), (offset + length + self.block).min(end));
        while at < to {
            let part = (to - at).min(self.longest);
            self.write(at, part, NONE)?;
            at += part;
        }
        Ok(())
    }
}

fn unmap(s: &mut Subject) -> Checked {
    s.needs_writes()?;
    s.needs(Operations::UNMAP, "UNMAP")?;
    let zeroes = s.info.flags().contains(DeviceFlags::UNMAP_ZEROES);
    for _ in 0..16 {
        let (offset, length) = s.range(longest_unmap(s));
        s.write_around(offset, length)?;
        s.device.run(Command::unmap(offset, length))?;
        if zeroes {
            s.set(offset, &vec![0; length as usize]);
        } else {
            let mut at = offset;
            while at < offset + length {
                let part = (offset + length - at).min(s.longest);
                let now = s.device.run(Command::read(at, part))?.data;
                s.set(at, &now);
                at += part;
            }
        }
        // Twice: it must not change its mind.
        s.verify_around(offset, length)?;
        s.verify_around(offset, length)?;
        // And it can be used again.
        let again = length.min(s.longest);
        s.write(offset, again, NONE)?;
        s.verify_around(offset, again)?;
    }
    Ok(())
}

fn miscompare(s: &mut Subject) -> Checked {
    s.needs_writes()?;
    s.needs(Operations::COMPARE_AND_WRITE, "COMPARE AND WRITE")?;
    for count in [1, 3] {
        let length = count * s.block;
        if 2 * length > s.longest {
            continue;
        }
        let offset = s.place(length)?;
        s.write(offset, length, NONE)?;
        for wrong in [0, 1, s.block / 2, length - s.block, length - 1] {
            let mut other = s.expected(offset, length).to_vec();
            // This byte and some behind it differ.
            for byte in other.iter_mut().skip(wrong as usize).step_by(11) {
                *byte ^= 0x40;
            }
            let new = s.rng.bytes(length);
            let command = s.cut(Command::compare_and_write(offset, &other, &new), 2 * length);
            let answer = s.device.answer(command)?;
            match answer.error() {
                Some(Error::Miscompare { offset: told }) if told == wrong => {}
                Some(Error::Miscompare { offset: told }) => {
                    return Err(fail(format!("`result` {wrong}, the first different byte"), format!("`result` {told}")));
                }
                Some(error) => return Err(fail("TCMU_STATUS_MISCOMPARE", error.to_string())),
                None => return Err(fail("TCMU_STATUS_MISCOMPARE", "success")),
            }
            s.verify_around(offset, length)?;
        }
    }
    Ok(())
}

fn copies(s: &mut Subject) -> Checked {
    s.needs_writes()?;
    s.needs(Operations::COPY, "COPY")?;
    let unit = s.block;
    // Source, target and length in blocks from a common start: apart, overlapping both ways, touching, the same.
    for (from, to, count) in [(0, 32, 16), (32, 0, 16), (0, 8, 16), (8, 0, 16), (0, 16, 16), (1, 0, 40), (0, 1, 40), (4, 4, 4)] {
        let place = s.place(64 * unit)?;
        let mut at = 0;
        while at < 64 * unit {
            let part = (64 * unit - at).min(s.longest);
            s.write(place + at, part, NONE)?;
            at += part;
        }
        let moved = s.expected(place + from * unit, count * unit).to_vec();
        s.device.run(Command::copy(place + from * unit, place + to * unit, count * unit))?;
        s.set(place + to * unit, &moved);
        s.verify_around(place, 64 * unit)?;
    }
    Ok(())
}

fn extents(s: &mut Subject) -> Checked {
    s.needs(Operations::EXTENTS, "EXTENTS")?;
    let mut rng = s.rng.fork(1);
    for n in 0..12 {
        let (offset, length) = s.range(u64::MAX);
        if s.is_writable() {
            s.write(offset, length.min(s.longest), NONE)?;
        }
        let room = [1, 2, 64, 1024][n % 4];
        let answer = s.device.run(Command::extents(offset, length, room))?;
        if answer.result == 0 || answer.result > room as u64 {
            return Err(fail(format!("`result` from 1 to {room}"), format!("{}", answer.result)));
        }
        let mut at = offset;
        for extent in answer.extents() {
            if extent.offset != at || extent.length == 0 {
                let found = format!("{} bytes at {}", extent.length, extent.offset);
                return Err(fail(format!("an extent that is not empty and starts at {at}"), found));
            }
            if extent.state > abi::TCMU_EXTENT_ANCHORED {
                return Err(fail("a state of TCMU_EXTENT_*", extent.state.to_string()));
            }
            let Some(end) = at.checked_add(extent.length) else {
                return Err(fail("an extent within the device", format!("{} bytes at {at}", extent.length)));
            };
            // Deallocated blocks hold no data: pick one and see.
            let inside = end.min(offset + length).min(at + s.longest);
            if extent.state == abi::TCMU_EXTENT_DEALLOCATED && s.info.flags().contains(DeviceFlags::UNMAP_ZEROES) {
                let blocks = (inside - at) / s.block;
                let place = at + rng.below(blocks) * s.block;
                if s.expected(place, s.block).iter().any(|b| *b != 0) {
                    return Err(fail(format!("block {} to be mapped, it holds data", place / s.block), "deallocated"));
                }
            }
            at = end;
        }
        if at < offset + length && (answer.result as usize) < room {
            return Err(fail(
                format!("extents up to byte {}, there was room for more", offset + length),
                format!("{} extents up to {at}", answer.result),
            ));
        }
    }
    Ok(())
}
