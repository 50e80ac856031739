//! Opening, changing, closing.
use super::{
    Checked, Run, Subject, Verdict, fail, not_applicable,
    table::{good_refusal, judge, wrong_configs},
};
use crate::{
    bench::{
        command::Command,
        device::{Bench, BenchError},
    },
    host::OpenDevice,
    plugin::{Change, DeviceFlags, LockState, Operations, RequestFlags},
};

/// A change that no version of the ABI has.
const UNKNOWN_CHANGE: u32 = 0x7fff_0001;

/// What comes before there is anything to read.
pub(super) fn opening(run: &mut Run) {
    run.check("life cycle", "a device opens and closes, five times", |run| {
        for _ in 0..5 {
            let device = run.bench.open()?;
            run.close(device)?;
        }
        Ok(())
    });
    run.check("life cycle", "what `check_config` refuses `open` refuses too, with a reason", |run| {
        let mut tried = 0;
        for config in wrong_configs(run) {
            if judge(run, &config)?.is_ok() {
                continue;
            }
            tried += 1;
            let bench = Bench::new(run.plugin, &config).size(run.options.size).timeout(run.options.timeout);
            match bench.open() {
                Ok(device) => {
                    run.close(device)?;
                    return Err(fail(format!("config string {config:?} to be refused"), "it was opened"));
                }
                Err(BenchError::Refused(refusal)) => good_refusal(&config, &refusal)?,
                Err(error) => return Err(error.into()),
            }
        }
        if tried == 0 { Err(not_applicable("the handler accepts any config string")) } else { Ok(()) }
    });
    run.on_device("device", "what the device says of itself makes sense", facts);
}

fn facts(s: &mut Subject) -> Checked {
    let info = s.info.0;
    let block = info.block_size;
    if !block.is_power_of_two() || block < 512 {
        return Err(fail("a block size that is a power of two of at least 512", block.to_string()));
    }
    if !info.size.is_multiple_of(u64::from(block)) {
        return Err(fail(format!("a size that is a multiple of {block}"), info.size.to_string()));
    }
    if !s.info.flags().contains(DeviceFlags::SCSI) {
        if !s.info.operations().contains(Operations::READ) {
            return Err(fail("TCMU_OP_READ among the announced operations", format!("{:#x}", info.ops)));
        }
        if info.device_type != 0 && info.device_type != 20 && info.device_type != 5 {
            return Err(fail("device type 0, 5 or 20: all others need TCMU_DEV_SCSI", info.device_type.to_string()));
        }
    }
    for (name, value) in [("buffer_alignment", info.buffer_alignment), ("physical_block_size", info.physical_block_size)] {
        if value != 0 && !value.is_power_of_two() {
            return Err(fail(format!("{name} to be 0 or a power of two"), value.to_string()));
        }
    }
    for (name, value) in [("max_transfer", u64::from(info.max_transfer)), ("max_unmap", info.max_unmap)] {
        if value != 0 && value < u64::from(block) {
            return Err(fail(format!("{name} to be 0 or at least a block"), value.to_string()));
        }
    }
    if !info.unmap_granularity.is_multiple_of(block) {
        return Err(fail("unmap_granularity to be a multiple of the block size", info.unmap_granularity.to_string()));
    }
    for (name, text) in [("vendor", &info.vendor[..]), ("product", &info.product), ("revision", &info.revision)] {
        // SPC-6 4.3.1: graphic codes and blanks, padded to the end. All NUL is the host's own text.
        if text.iter().any(|b| *b != 0) && !text.iter().all(|b| (0x20..=0x7e).contains(b)) {
            return Err(fail(format!("{name} to be all NUL, or ASCII padded with blanks"), format!("{text:02x?}")));
        }
    }
    Ok(())
}

/// What comes when everything else is done.
pub(super) fn checks(run: &mut Run) {
    let has_reconfigure = run.plugin.table().reconfigure.is_some();
    run.on_device("life cycle", "a change that nobody knows is refused and does no harm", |s| {
        if !has_reconfigure {
            return Err(not_applicable("the handler has no `reconfigure`"));
        }
        let info = s.info;
        match s.device.control("reconfigure", move |d| d.reconfigure(&Change::Unknown(UNKNOWN_CHANGE), info))? {
            Ok(_) => return Err(fail("an error, EOPNOTSUPP for one", "success")),
            Err(refusal) => good_refusal("", &refusal)?,
        }
        unharmed(s)
    });
    let wrong: Vec<_> = wrong_configs(run).into_iter().filter(|c| matches!(judge(run, c), Ok(Err(_)))).collect();
    run.on_device("life cycle", "a change to a wrong config string is refused and does no harm", |s| {
        if !has_reconfigure {
            return Err(not_applicable("the handler has no `reconfigure`"));
        }
        if wrong.is_empty() {
            return Err(not_applicable("the handler accepts any config string"));
        }
        for config in wrong {
            let (info, shown) = (s.info, config.clone());
            match s.device.control("reconfigure", move |d| d.reconfigure(&Change::Config(&config), info))? {
                Ok(_) => return Err(fail(format!("{shown:?} to be refused"), "success")),
                Err(refusal) => good_refusal(&shown, &refusal)?,
            }
        }
        unharmed(s)
    });
    run.on_device("life cycle", "the exclusive lock is taken, told of and given back", |s| {
        if !s.info.flags().contains(DeviceFlags::LOCKED_ACCESS) {
            return Err(not_applicable("TCMU_DEV_LOCKED_ACCESS is not announced"));
        }
        s.device.control("lock", |d| d.lock().acquire(7))?.map_err(BenchError::from)?;
        let state = s.device.control("lock_state", |d| d.lock().state())?.map_err(BenchError::from)?;
        if state != LockState::Own(7) {
            return Err(fail("TCMU_LOCK_OWN with tag 7", format!("{state:?}")));
        }
        unharmed(s)?;
        s.device.control("unlock", |d| d.lock().release())?.map_err(BenchError::from)?;
        let state = s.device.control("lock_state", |d| d.lock().state())?.map_err(BenchError::from)?;
        if state == LockState::Free { Ok(()) } else { Err(fail("TCMU_LOCK_FREE", format!("{state:?}"))) }
    });
    let describes = run.plugin.table().describe.is_some();
    run.on_device("life cycle", "the description of the state is lines of key=value", |s| {
        if !describes {
            return Err(not_applicable("the handler has no `describe`"));
        }
        let text = s.device.control("describe", OpenDevice::describe)?;
        match text.lines().find(|line| line.split_once('=').is_none_or(|(key, _)| key.trim().is_empty())) {
            None => Ok(()),
            Some(line) => Err(fail("key=value", format!("{line:?}"))),
        }
    });
    run.check("life cycle", "data is there after close and open", persistence);
    run.check("life cycle", "a device can be taken over from an earlier process", |run| {
        run.close_subject()?;
        let device = run.bench.clone().take_over(true).open()?;
        Ok(run.close(device)?)
    });
}

/// Reads what the model holds, and if possible writes.
fn unharmed(s: &mut Subject) -> Checked {
    if s.needs_data().is_err() {
        return Ok(());
    }
    if s.is_writable() {
        let (offset, length) = s.range(64 << 10);
        s.write(offset, length, RequestFlags::empty())?;
    }
    s.verify_all()
}

fn persistence(run: &mut Run) -> Checked {
    let mut subject = match run.subject.take() {
        Some(subject) => subject,
        None => run.open(false)?,
    };
    if let Err(verdict) = subject.needs_writes() {
        run.subject = Some(subject);
        return Err(verdict);
    }
    let (offset, length) = subject.range(64 << 10);
    subject.write(offset, length, RequestFlags::empty())?;
    if subject.info.operations().contains(Operations::FLUSH) {
        subject.device.run(Command::flush())?;
    }
    let written = subject.expected(offset, length).to_vec();
    run.close(subject.device)?;
    let after = run.open(false)?;
    let found = after.device.run(Command::read(offset, length))?.data;
    run.subject = Some(after);
    match (found == written, run.options.persistent) {
        (true, true) => Ok(()),
        (false, true) => Err(fail(format!("the {length} bytes at {offset} as they were written"), "other data")),
        (true, false) => Err(Verdict::Noted("yes".to_owned())),
        (false, false) => Err(Verdict::Noted("no, the data is gone".to_owned())),
    }
}
