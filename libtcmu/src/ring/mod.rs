//! TCMU's mailbox and command ring, as userspace sees it: fetch entries, complete commands, publish.
//!
//! The rules (`drivers/target/target_core_user.c`): the kernel puts entries at `cmd_head`, which we load with acquire. A response is
//! written over the slot at the tail, whatever command it answers (`TCMU_MAILBOX_FLAG_CAP_OOOC`), and `cmd_tail` is stored with release
//! and followed by a kick. So everything that is needed of an entry is copied out when it is fetched, and a slot is only overwritten
//! after it was fetched.
//!
//! Nothing here is taken on trust: an offset or a length that doesn't fit is a [`RingError`], after which the ring refuses to go on.
mod doorbell;
mod entry;
mod fetched;
mod ids;
pub mod layout;
mod region;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

pub use doorbell::{Doorbell, Gone};
pub use fetched::{CommandId, Fetched};
use ids::Ids;
pub use layout::MailboxFlags;
use layout::{header, mailbox, op, request, response, tmr, uflag};
use region::{Header, Place, Region, half};

use crate::mapping::{Mapping, OutOfMapping};

/// The longest CDB there is: 7Fh with 252 additional bytes (SPC-6 4.2.3).
pub const MAX_CDB: usize = 260;

/// How the kernel's side broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum RingError {
    #[error("the mailbox has version {0}, this software speaks version {expected}", expected = layout::MAILBOX_VERSION)]
    Version(u16),
    #[error("the kernel cannot take completions out of order; Linux 4.7 or newer is needed")]
    InOrderOnly,
    #[error("the mailbox puts a command ring of {size} bytes at offset {offset}, which does not fit the mapping of {map} bytes")]
    Geometry { offset: u32, size: u32, map: u64 },
    #[error("{name} is {value}, which is not a place in a ring of {size} bytes")]
    Index { name: &'static str, value: u32, size: u32 },
    #[error("the entry at {at} says it is {len} bytes long, where {room} are left")]
    EntryLength { at: u32, len: u32, room: u32 },
    #[error("the entry at {at} is {len} bytes long, which is too short for one")]
    EntryShort { at: u32, len: u32 },
    #[error("the entry at {at} of {len} bytes cannot hold its {iovecs} iovecs")]
    Iovecs { at: u32, len: u32, iovecs: u64 },
    #[error("the entry at {at}: {range}")]
    Range { at: u32, range: OutOfMapping },
    #[error("command {id} at {at} is in flight already")]
    DuplicateId { at: u32, id: u16 },
    #[error("cmd_tail is {found}, where {published} was stored: the ring was reset by somebody else")]
    Reset { found: u32, published: u32 },
    #[error("cmd_tail is {found}, where {published} was stored: something wrote over the mailbox")]
    Tail { found: u32, published: u32 },
    #[error("the ring was found broken before")]
    Poisoned,
}

/// What [`Ring::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing more.
    Empty,
    /// A command, now in the `Fetched` that was passed.
    Command,
    /// The initiator's side did task management; these commands are affected. Needs no answer.
    TaskManagement(Box<TaskManagement>),
}

/// A task management notification (`struct tcmu_tmr_entry`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskManagement {
    /// `TCMU_TMR_*`: 1 abort task, 2 abort task set, 4 clear task set, 5 logical unit reset, ...
    pub kind: u8,
    /// Commands that are affected, those that are still in flight.
    pub commands: Vec<CommandId>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug)]
pub struct Completion<'a> {
    /// The SCSI status byte.
    pub status: u8,
    /// Sense data, at most 96 bytes; empty without.
    pub sense: &'a [u8],
    /// How many Data-In bytes are valid, if not all; only kernels with [`MailboxFlags::READ_LEN`] look at it.
    pub read_len: Option<u32>,
}

/// What became of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completed {
    /// It stands in the ring.
    Written,
    /// The command isn't in flight: it was completed before, or the ring was reset since. Nothing was done.
    Stale,
}

/// The ring. Owned by one thread at a time.
pub struct Ring {
    region: Region,
    flags: MailboxFlags,
    /// Where the next entry is fetched.
    fetch: Place,
    /// The mailbox's `cmd_head` as it was seen last: up to there are entries.
    head: Place,
    /// Where the next response is written; ahead of the mailbox's `cmd_tail` by what isn't published.
    tail: Place,
    /// The mailbox's `cmd_tail`.
    published: Place,
    generation: u32,
    in_flight: usize,
    ids: Ids,
    /// How the kernel's side broke the rules. From then on nothing goes: `fetch`, `head` and `tail` are where `published` is, so that
    /// whoever wants an entry or a slot finds none, and looks here.
    broken: Option<RingError>,
}

/// The kernel's side broke the rules, as `Ring::broken` says.
struct Fault;

impl Ring {
    /// Looks at the mailbox. Fetching starts at its `cmd_tail`, where an earlier reader stopped.
    pub fn attach(map: Arc<Mapping>) -> Result<Ring, RingError> {
        let short = |_| RingError::Geometry { offset: 0, size: 0, map: map.len() as u64 };
        if (map.len() as u64) < mailbox::SIZE {
            return Err(RingError::Geometry { offset: 0, size: 0, map: map.len() as u64 });
        }
        let version = u16::from_ne_bytes(map.load(mailbox::VERSION).map_err(short)?);
        if version != layout::MAILBOX_VERSION {
            return Err(RingError::Version(version));
        }
        let flags = MailboxFlags::from_bits_retain(u16::from_ne_bytes(map.load(mailbox::FLAGS).map_err(short)?));
        if !flags.contains(MailboxFlags::OUT_OF_ORDER) {
            return Err(RingError::InOrderOnly);
        }
        let mut ring = Ring {
            region: Region::new(map)?,
            flags,
            fetch: Place::START,
            head: Place::START,
            tail: Place::START,
            published: Place::START,
            generation: 0,
            in_flight: 0,
            ids: Ids::new(),
            broken: None,
        };
        ring.start()?;
        Ok(ring)
    }

    /// Forgets all commands in flight and starts where the mailbox stands: after the kernel's `action/reset_ring`. Completions of
    /// commands from before are recognised as stale.
    pub fn reset(&mut self) -> Result<(), RingError> {
        self.generation = self.generation.wrapping_add(1);
        self.in_flight = 0;
        self.ids.clear();
        self.broken = None;
        self.start()
    }

    fn start(&mut self) -> Result<(), RingError> {
        let (value, size) = (self.mailbox(mailbox::CMD_TAIL, Ordering::Acquire), self.region.size());
        let Some(tail) = self.region.place(value) else {
            // Nothing is known of this ring, so nothing is put back.
            self.broken = Some(RingError::Poisoned);
            (self.fetch, self.head, self.tail) = (self.published, self.published, self.published);
            return Err(RingError::Index { name: "cmd_tail", value, size });
        };
        (self.fetch, self.head, self.tail, self.published) = (tail, tail, tail, tail);
        Ok(())
    }

    /// An index in the mailbox, which is within the mapping since `attach`.
    #[inline]
    fn mailbox(&self, at: u64, order: Ordering) -> u32 {
        self.mapping().load_u32(at, order).unwrap_or(u32::MAX)
    }

    /// What the kernel's side can do.
    #[inline]
    pub fn flags(&self) -> MailboxFlags {
        self.flags
    }

    /// The shared memory.
    pub fn mapping(&self) -> &Arc<Mapping> {
        self.region.mapping()
    }

    /// Commands that were fetched and not completed.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether there is an entry to fetch.
    #[inline]
    pub fn has_entries(&self) -> bool {
        self.mailbox(mailbox::CMD_HEAD, Ordering::Acquire) != self.fetch.get()
    }

    /// Fetches the next entry, a command into `into`.
    #[inline]
    pub fn next(&mut self, into: &mut Fetched) -> Result<Next, RingError> {
        if self.next_command(into) { Ok(Next::Command) } else { self.next_other(into) }
    }

    /// Fetches the next entry if it is a command, and one of those that were seen when the mailbox was asked last. Otherwise
    /// [`Ring::next_other`] knows what there is.
    pub(crate) fn next_command(&mut self, into: &mut Fetched) -> bool {
        if self.fetch == self.head {
            return false;
        }
        let header = self.region.header(self.fetch);
        header.opcode() == op::CMD && self.fetch_command(header, into).is_ok()
    }

    /// As [`Ring::next`], for what is less frequent.
    #[inline(never)]
    pub(crate) fn next_other(&mut self, into: &mut Fetched) -> Result<Next, RingError> {
        loop {
            if self.fetch == self.head {
                match self.look() {
                    Ok(true) => {}
                    Ok(false) => return Ok(Next::Empty),
                    Err(Fault) => return Err(self.why()),
                }
            }
            if self.next_command(into) {
                return Ok(Next::Command);
            }
            if self.broken.is_some() {
                return Err(self.why());
            }
            match self.fetch_other() {
                Ok(None) => {}
                Ok(Some(notice)) => return Ok(Next::TaskManagement(notice)),
                Err(Fault) => return Err(self.why()),
            }
        }
    }

    /// Asks the mailbox for the head, when all entries up to the last one are fetched; whether there are more.
    fn look(&mut self) -> Result<bool, Fault> {
        if self.broken.is_some() {
            return Err(Fault);
        }
        let head = self.mailbox(mailbox::CMD_HEAD, Ordering::Acquire);
        if head == self.fetch.get() {
            return Ok(false);
        }
        let head = self.index("cmd_head", head)?;
        self.check_tail()?;
        self.head = head;
        Ok(true)
    }

    #[inline]
    fn fetch_command(&mut self, header: Header, into: &mut Fetched) -> Result<(), Fault> {
        let at = self.fetch;
        let Some(entry) = self.region.entry(at, header.len(), self.head) else {
            // A response must fit where the request was.
            return Err(self.misfit(at, header, self.head));
        };
        let (counts, cdb) = (entry.word::<{ request::IOV_CNT }>(), entry.word::<{ request::CDB_OFF }>());
        let (data, bidi) = (half(counts, 0), half(counts, 4));
        let count = u64::from(data) + u64::from(bidi);
        let Some(iovecs) = entry.iovecs::<{ request::IOV }>(count) else {
            return Err(self.fault(RingError::Iovecs { at: at.get(), len: header.len(), iovecs: count }));
        };
        let Some(cdb_len) = entry.cdb(cdb.wrapping_sub(self.region.offset(at)), &mut into.cdb) else {
            return Err(self.outside(cdb, 0));
        };
        (into.cdb_len, into.bidi) = (cdb_len as u32, bidi);
        into.iovecs.clear();
        into.data_len = 0;
        for [base, length] in iovecs {
            let Some(data) = self.region.data(base, length) else {
                return Err(self.outside(base as u64, length as u64));
            };
            into.data_len += length as u64;
            into.iovecs.push(libc::iovec { iov_base: data.as_ptr().cast(), iov_len: length });
        }
        if into.bidi > 0 {
            into.data_len = into.data().iter().map(|segment| segment.iov_len as u64).sum();
        }
        if !self.ids.add(header.id()) {
            return Err(self.fault(RingError::DuplicateId { at: at.get(), id: header.id() }));
        }
        self.in_flight += 1;
        into.id = CommandId { id: header.id(), generation: self.generation };
        self.fetch = self.region.after(at, header);
        Ok(())
    }

    /// Fetches an entry that is no command: the notification that it may be.
    #[cold]
    fn fetch_other(&mut self) -> Result<Option<Box<TaskManagement>>, Fault> {
        let (at, header) = (self.fetch, self.region.header(self.fetch));
        let len = header.len();
        if len < header::SIZE || len > self.region.room(at, self.head) {
            return Err(self.misfit(at, header, self.head));
        }
        let notice = match header.opcode() {
            op::PAD => None,
            op::TMR => Some(Box::new(self.fetch_tmr(at, len)?)),
            _ => {
                // The kernel completes it with CHECK CONDITION when it sees the flag.
                let _ = self.mapping().write(self.region.offset(at) + header::UFLAGS, &[uflag::UNKNOWN_OP]);
                None
            }
        };
        self.fetch = self.region.after(at, header);
        if self.in_flight == 0 {
            self.skip()?;
        }
        Ok(notice)
    }

    /// Nobody but us stores `cmd_tail`, except a reset of the ring.
    fn check_tail(&mut self) -> Result<(), Fault> {
        let (found, published) = (self.mailbox(mailbox::CMD_TAIL, Ordering::Relaxed), self.published.get());
        if found != published {
            let error = if found == 0 { RingError::Reset { found, published } } else { RingError::Tail { found, published } };
            return Err(self.fault(error));
        }
        Ok(())
    }

    fn fetch_tmr(&mut self, at: Place, len: u32) -> Result<TaskManagement, Fault> {
        let place = self.region.offset(at);
        if u64::from(len) < tmr::CMD_IDS {
            return Err(self.fault(RingError::EntryShort { at: at.get(), len }));
        }
        let [kind] = self.mapping().load(place + tmr::TYPE).unwrap_or_default();
        let count = u32::from_ne_bytes(self.mapping().load(place + tmr::CMD_CNT).unwrap_or_default());
        if tmr::CMD_IDS + 2 * u64::from(count) > u64::from(len) {
            return Err(self.fault(RingError::EntryShort { at: at.get(), len }));
        }
        let mut commands = Vec::new();
        for n in 0..u64::from(count) {
            let id = u16::from_ne_bytes(self.mapping().load(place + tmr::CMD_IDS + 2 * n).unwrap_or_default());
            if self.ids.contains(id) {
                commands.push(CommandId { id, generation: self.generation });
            }
        }
        Ok(TaskManagement { kind, commands })
    }

    /// Writes a command's response over the slot at the tail. The kernel sees it after [`Ring::publish`] and a kick.
    #[inline(always)]
    pub fn complete(&mut self, command: CommandId, done: &Completion<'_>) -> Result<Completed, RingError> {
        if command.generation != self.generation || !self.ids.remove(command.id) {
            return Ok(Completed::Stale);
        }
        match self.respond(command.id, done) {
            Ok(()) => Ok(Completed::Written),
            Err(Fault) => Err(self.why()),
        }
    }

    #[inline(always)]
    fn respond(&mut self, id: u16, done: &Completion<'_>) -> Result<(), Fault> {
        let mut header = self.region.header(self.tail);
        if self.tail == self.fetch || header.opcode() != op::CMD {
            header = self.skip()?.ok_or_else(|| self.no_slot())?;
        }
        let at = self.tail;
        let Some(entry) = self.region.entry(at, header.len(), Place::START) else {
            return Err(self.misfit(at, header, Place::START));
        };
        let (uflags, read_len) = match done.read_len {
            Some(length) if self.flags.contains(MailboxFlags::READ_LEN) => (uflag::READ_LEN, length),
            _ => (0, 0),
        };
        entry.respond(id, uflags, done.status, read_len, done.sense);
        self.tail = self.region.after(at, header);
        self.in_flight -= 1;
        if self.in_flight == 0 {
            self.skip()?;
        }
        Ok(())
    }

    /// Moves the tail over entries that take no response, to one that takes one: its header, if there is one.
    #[inline(never)]
    fn skip(&mut self) -> Result<Option<Header>, Fault> {
        while self.tail != self.fetch {
            let (at, header) = (self.tail, self.region.header(self.tail));
            if header.opcode() == op::CMD {
                return Ok(Some(header));
            }
            if header.len() < header::SIZE || header.len() > self.region.room(at, Place::START) {
                return Err(self.misfit(at, header, Place::START));
            }
            self.tail = self.region.after(at, header);
        }
        Ok(None)
    }

    /// Shows the kernel all responses so far: one release of `cmd_tail`. Whether there was any, and so a kick is due.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.tail == self.published || self.check_tail().is_err() {
            return false;
        }
        self.published = self.tail;
        // The mailbox is within the mapping since `attach`.
        self.mapping().store_u32(mailbox::CMD_TAIL, self.tail.get(), Ordering::Release).is_ok()
    }

    /// What was found wrong, if it was not told yet by another call.
    #[inline]
    pub(crate) fn check(&mut self) -> Result<(), RingError> {
        if self.broken.is_some() { Err(self.why()) } else { Ok(()) }
    }

    fn index(&mut self, name: &'static str, value: u32) -> Result<Place, Fault> {
        let size = self.region.size();
        self.region.place(value).ok_or_else(|| self.fault(RingError::Index { name, value, size }))
    }

    /// There are fewer slots than commands in flight: the kernel's side changed entries that it had handed out.
    #[cold]
    fn no_slot(&mut self) -> Fault {
        let at = self.tail.get();
        if self.broken.is_some() { Fault } else { self.fault(RingError::EntryLength { at, len: response::END, room: 0 }) }
    }

    /// An entry is too short, or too long for the room that it has up to `end`.
    #[cold]
    #[inline(never)]
    fn misfit(&mut self, at: Place, header: Header, end: Place) -> Fault {
        let (len, room) = (header.len(), self.region.room(at, end));
        let at = at.get();
        self.fault(if len > room { RingError::EntryLength { at, len, room } } else { RingError::EntryShort { at, len } })
    }

    #[cold]
    #[inline(never)]
    fn fault(&mut self, error: RingError) -> Fault {
        self.broken = Some(error);
        self.mend_tail();
        (self.fetch, self.head, self.tail) = (self.published, self.published, self.published);
        Fault
    }

    /// Puts back what something wrote over `cmd_tail`. When the device is blocked, to be taken over, the kernel walks from where we are to
    /// there, over whatever there is, and may never come to an end (`tcmu_block_dev`, `tcmu_handle_completions`). 0 is what a reset of the
    /// ring leaves, and stays.
    fn mend_tail(&self) {
        let found = self.mailbox(mailbox::CMD_TAIL, Ordering::Relaxed);
        if found != 0 && found != self.published.get() {
            let _ = self.mapping().store_u32(mailbox::CMD_TAIL, self.published.get(), Ordering::Release);
        }
    }

    #[cold]
    #[inline(never)]
    fn outside(&mut self, offset: u64, len: u64) -> Fault {
        let (at, map) = (self.fetch.get(), self.mapping().len() as u64);
        self.fault(RingError::Range { at, range: OutOfMapping { offset, len, map } })
    }

    /// What is wrong; told once, after that only that something was.
    #[cold]
    #[inline(never)]
    fn why(&mut self) -> RingError {
        self.broken.replace(RingError::Poisoned).unwrap_or(RingError::Poisoned)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring(fetch {}, tail {}, {} in flight)", self.fetch.get(), self.tail.get(), self.in_flight)
    }
}
