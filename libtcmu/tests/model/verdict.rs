//! What the model expects of a command, and whether it came so.
use std::ops::Range;

use tcmu::sim::SimCompletion;
use tcmu_handler_api::scsi::{Sense, sense::Specific};

/// Sense key, ASC and ASCQ, and INFORMATION where it has to be a certain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(pub u8, pub u8, pub u8, pub Option<u64>);

impl Fault {
    pub const OPCODE: Fault = Fault(5, 0x20, 0, None);
    pub const RANGE: Fault = Fault(5, 0x21, 0, None);
    pub const FIELD: Fault = Fault(5, 0x24, 0, None);
    pub const LIST_LENGTH: Fault = Fault(5, 0x1a, 0, None);
    pub const LIST_FIELD: Fault = Fault(5, 0x26, 0, None);
    pub const PROTECTED: Fault = Fault(7, 0x27, 0, None);
    pub const MISCOMPARE: Fault = Fault(0xe, 0x1d, 0, None);
}

/// What a command does to the medium; offsets are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These bytes are there afterwards.
    Put(usize, Vec<u8>),
    /// Deallocated: zeros if that was promised, else anything.
    Unmap(Range<usize>),
    /// The model can't know.
    Unknown,
}

/// What it returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reply {
    /// The model does not care.
    Any,
    /// Nothing. What is in a buffer for Data-In nevertheless may be another command's, so it has to be cleared.
    #[default]
    Nothing,
    /// This, as far as there is room for it.
    Exactly(Vec<u8>),
    /// Something that begins so, as far as there is room for it.
    Begins(Vec<u8>),
    /// GET LBA STATUS data from this block on.
    LbaStatus(u64),
}

/// What the model expects.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// If there are any: the command fails with one of these, or of `may`.
    pub must: Vec<Fault>,
    /// The command may fail with one of these.
    pub may: Vec<Fault>,
    /// Any end is right. The medium changes only as `changes` tell, and only if the end is GOOD.
    pub any: bool,
    /// What it does, in this order. A command that fails has done nothing, unless `partly`.
    pub changes: Vec<Change>,
    /// Having failed, it may have done the first of its changes.
    pub partly: bool,
    pub reply: Reply,
    /// What it reads of the medium.
    pub reads: Vec<Range<usize>>,
    /// What has to survive a crash afterwards.
    pub durable: Option<Range<usize>>,
    /// CONDITION MET is as good as GOOD.
    pub condition_met: bool,
}

impl Verdict {
    /// A command that the model does not know.
    pub fn anything(may_change: bool) -> Verdict {
        let changes = if may_change { vec![Change::Unknown] } else { vec![] };
        Verdict { any: true, changes, reply: Reply::Any, ..Verdict::default() }
    }

    pub fn refused(fault: Fault) -> Verdict {
        Verdict { must: vec![fault], ..Verdict::default() }
    }

    /// Bytes that it changes.
    pub fn writes(&self) -> Vec<Range<usize>> {
        self.changes
            .iter()
            .map(|change| match change {
                Change::Put(at, bytes) => *at..at + bytes.len(),
                Change::Unmap(range) => range.clone(),
                Change::Unknown => 0..usize::MAX,
            })
            .collect()
    }

    /// Whether the end is one that the model allows; `Ok(true)` if the command did what it does.
    pub fn judge(&self, cdb: &[u8], list: usize, done: &SimCompletion) -> Result<bool, String> {
        if done.unknown_op {
            return Err("the ring entry was refused".into());
        }
        if done.status == 0 || self.condition_met && done.status == 4 {
            if !self.must.is_empty() {
                return Err(format!("GOOD, but it had to fail with one of {:x?}", self.must));
            }
            return Ok(true);
        }
        if done.status != 2 {
            return if self.any { Ok(false) } else { Err(format!("status {:#x}", done.status)) };
        }
        let Some(sense) = Sense::parse(&done.sense) else { return Err(format!("sense data {:x?}", done.sense)) };
        if let Some(Specific::Field(field)) = sense.specific {
            let (asc, limit) = if field.in_cdb { (0x24, cdb.len()) } else { (0x26, list) };
            // Copy commands have codes of their own for descriptors.
            if usize::from(field.byte) >= limit.max(1) || sense.code.asc != asc && field.in_cdb {
                return Err(format!("a field pointer out of place: {sense:?}"));
            }
        }
        let got = Fault(sense.key as u8, sense.code.asc, sense.code.ascq, sense.information);
        let fits = |fault: &Fault| {
            (fault.0, fault.1, fault.2) == (got.0, got.1, got.2) && fault.3.is_none_or(|information| got.3 == Some(information))
        };
        if self.any || self.must.iter().chain(&self.may).any(fits) {
            return Ok(false);
        }
        Err(format!("sense {got:x?}, but allowed are {:x?} and {:x?}", self.must, self.may))
    }

    /// Whether a command that failed, but not with CHECK CONDITION, shows nothing that is another command's.
    pub fn check_remains(&self, data: &[u8]) -> Result<(), String> {
        let own = match &self.reply {
            Reply::Exactly(own) => &own[..],
            Reply::Nothing => &[],
            _ => return Ok(()),
        };
        match data.iter().enumerate().position(|(at, byte)| *byte != 0 && own.get(at) != Some(byte)) {
            Some(at) => Err(format!("byte {at} of the data is not this command's")),
            None => Ok(()),
        }
    }

    /// Whether the data is right; `medium` is how it was before.
    pub fn check_reply(&self, data: &[u8], room: usize, lbprz: bool, block: usize, medium: &[u8]) -> Result<(), String> {
        let wrong = |expected: &[u8]| {
            let at = data.iter().zip(expected).position(|(a, b)| a != b);
            Err(format!("{} bytes of data where {} were expected; they differ at {at:?}", data.len(), expected.len()))
        };
        match &self.reply {
            Reply::Any => Ok(()),
            Reply::Nothing if data.iter().all(|byte| *byte == 0) => Ok(()),
            Reply::Nothing => wrong(&[]),
            Reply::Exactly(expected) => {
                let expected = &expected[..expected.len().min(room)];
                // Of a length of 0 the kernel cannot be told: it copies the whole buffer, in which nothing may be.
                let nothing = expected.is_empty() && data.iter().all(|byte| *byte == 0);
                if nothing || data == expected { Ok(()) } else { wrong(expected) }
            }
            Reply::Begins(expected) => {
                let common = expected.len().min(data.len());
                if data[..common] == expected[..common] { Ok(()) } else { wrong(expected) }
            }
            Reply::LbaStatus(lba) => super::provisioning::check_status(data, *lba, lbprz, block, medium),
        }
    }
}
