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
pub mod layout;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

pub use doorbell::{Doorbell, Gone};
use entry::Entry;
pub use layout::MailboxFlags;
use layout::{header, mailbox, op, request, response, tmr, uflag};

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
    #[error("the entry at {at} of {len} bytes cannot hold its {iovecs} iovecs")]
    Iovecs { at: u32, len: u32, iovecs: u64 },
    #[error("the entry at {at}: {range}")]
    Range { at: u32, range: OutOfMapping },
    #[error("command {id} at {at} is in flight already")]
    DuplicateId { at: u32, id: u16 },
    #[error("cmd_tail is {found}, where {published} was stored: the ring was reset by somebody else")]
    Reset { found: u32, published: u32 },
    #[error("the ring was found broken before")]
    Poisoned,
}

/// A command in flight: the kernel's id, and which life of the ring it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId {
    /// The kernel's `cmd_id`.
    pub id: u16,
    generation: u32,
}

/// A command as it was fetched: all that is needed of it, copied out of the ring. Reused, so that nothing is allocated in the long run.
pub struct Fetched {
    /// To complete it by.
    pub id: CommandId,
    cdb: [u8; MAX_CDB],
    cdb_len: usize,
    iovecs: Vec<libc::iovec>,
    bidi: usize,
    data_len: u64,
}

// SAFETY: the iovecs point into the mapping, which any thread may use; whoever holds a `Fetched` holds its ring's mapping too.
unsafe impl Send for Fetched {}

impl Default for Fetched {
    fn default() -> Fetched {
        Fetched {
            id: CommandId { id: 0, generation: 0 },
            cdb: [0; MAX_CDB],
            cdb_len: 0,
            iovecs: Vec::with_capacity(32),
            bidi: 0,
            data_len: 0,
        }
    }
}

impl Fetched {
    /// The command descriptor block, as long as its operation code says (vendor specific ones: as long as the entry has room for, 16
    /// at most).
    #[inline]
    pub fn cdb(&self) -> &[u8] {
        &self.cdb[..self.cdb_len]
    }

    /// The data buffer: Data-In or Data-Out, or the Data-Out of a bidirectional command. Pointers into the mapping.
    #[inline]
    pub fn data(&self) -> &[libc::iovec] {
        &self.iovecs[..self.iovecs.len() - self.bidi]
    }

    /// Bytes of the data buffer.
    #[inline]
    pub fn data_len(&self) -> u64 {
        self.data_len
    }

    /// The Data-In buffer of a bidirectional command.
    pub fn bidi(&self) -> &[libc::iovec] {
        &self.iovecs[self.iovecs.len() - self.bidi..]
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command {} {:02x?}, {} segments", self.id.id, self.cdb(), self.iovecs.len())
    }
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
    map: Arc<Mapping>,
    flags: MailboxFlags,
    offset: u32,
    size: u32,
    /// Where the next entry is fetched.
    fetch: u32,
    /// The mailbox's `cmd_head` as it was seen last: up to there are entries.
    head: u32,
    /// Where the next response is written; ahead of the mailbox's `cmd_tail` by what isn't published.
    tail: u32,
    /// The mailbox's `cmd_tail`.
    published: u32,
    generation: u32,
    in_flight: usize,
    ids: Box<[u64; 1024]>,
    /// How the kernel's side broke the rules; from then on nothing goes.
    broken: Option<RingError>,
    /// A notification for [`Ring::next`] to return.
    notice: Option<TaskManagement>,
}

/// What was found at the place where the next entry is; what there is to say of it is in the ring.
enum Found {
    Empty,
    Command,
    Notice,
    Fault,
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
        let offset = u32::from_ne_bytes(map.load(mailbox::CMDR_OFF).map_err(short)?);
        let size = u32::from_ne_bytes(map.load(mailbox::CMDR_SIZE).map_err(short)?);
        let fits = u64::from(offset) + u64::from(size) <= map.len() as u64
            && u64::from(offset) >= mailbox::SIZE
            && size >= 2 * response::END
            && offset.is_multiple_of(layout::ALIGN)
            && size.is_multiple_of(layout::ALIGN);
        if !fits {
            return Err(RingError::Geometry { offset, size, map: map.len() as u64 });
        }
        let mut ring = Ring {
            map,
            flags,
            offset,
            size,
            fetch: 0,
            head: 0,
            tail: 0,
            published: 0,
            generation: 0,
            in_flight: 0,
            ids: Box::new([0; 1024]),
            broken: None,
            notice: None,
        };
        ring.start()?;
        Ok(ring)
    }

    /// Forgets all commands in flight and starts where the mailbox stands: after the kernel's `action/reset_ring`. Completions of
    /// commands from before are recognised as stale.
    pub fn reset(&mut self) -> Result<(), RingError> {
        self.generation = self.generation.wrapping_add(1);
        self.in_flight = 0;
        self.ids.fill(0);
        self.broken = None;
        self.start()
    }

    fn start(&mut self) -> Result<(), RingError> {
        let tail = self.mailbox(mailbox::CMD_TAIL, Ordering::Acquire);
        self.index("cmd_tail", tail).map_err(|Fault| self.why())?;
        (self.fetch, self.head, self.tail, self.published) = (tail, tail, tail, tail);
        Ok(())
    }

    /// An index in the mailbox, which is within the mapping since `attach`.
    #[inline]
    fn mailbox(&self, at: u64, order: Ordering) -> u32 {
        self.map.load_u32(at, order).unwrap_or(u32::MAX)
    }

    /// What the kernel's side can do.
    pub fn flags(&self) -> MailboxFlags {
        self.flags
    }

    /// The shared memory.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.map
    }

    /// Commands that were fetched and not completed.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether there is an entry to fetch.
    #[inline]
    pub fn has_entries(&self) -> bool {
        self.mailbox(mailbox::CMD_HEAD, Ordering::Acquire) != self.fetch
    }

    /// Fetches the next entry, a command into `into`.
    #[inline]
    pub fn next(&mut self, into: &mut Fetched) -> Result<Next, RingError> {
        match self.find(into) {
            Found::Command => Ok(Next::Command),
            Found::Empty => Ok(Next::Empty),
            Found::Notice => Ok(self.notice.take().map_or(Next::Empty, |notice| Next::TaskManagement(Box::new(notice)))),
            Found::Fault => Err(self.why()),
        }
    }

    #[inline]
    fn find(&mut self, into: &mut Fetched) -> Found {
        if self.broken.is_some() {
            return Found::Fault;
        }
        loop {
            let at = self.fetch;
            if at == self.head {
                let head = self.mailbox(mailbox::CMD_HEAD, Ordering::Acquire);
                if head == at {
                    return Found::Empty;
                }
                if self.index("cmd_head", head).is_err() {
                    return Found::Fault;
                }
                self.head = head;
            }
            if self.check_tail().is_err() {
                return Found::Fault;
            }
            let room = if self.head > at { self.head - at } else { self.size - at };
            // One load for all that is in the header.
            let word = self.header(at);
            let (opcode, len) = split(half(word, 0));
            if len < header::SIZE || len > room {
                self.fault(RingError::EntryLength { at, len, room });
                return Found::Fault;
            }
            let found = match opcode {
                op::CMD => match self.fetch_command(at, len, quarter(word, header::CMD_ID as usize), into) {
                    Ok(()) => Found::Command,
                    Err(Fault) => return Found::Fault,
                },
                op::PAD => Found::Empty,
                op::TMR => match self.fetch_tmr(at, len) {
                    Ok(notice) => {
                        self.notice = Some(notice);
                        Found::Notice
                    }
                    Err(Fault) => return Found::Fault,
                },
                _ => {
                    // The kernel completes it with CHECK CONDITION when it sees the flag.
                    let _ = self.map.write(self.place(at) + header::UFLAGS, &[uflag::UNKNOWN_OP]);
                    Found::Empty
                }
            };
            self.fetch = self.after(at, len);
            if self.in_flight == 0 && self.skip().is_err() {
                return Found::Fault;
            }
            if !matches!(found, Found::Empty) {
                return found;
            }
        }
    }

    #[inline]
    fn fetch_command(&mut self, at: u32, len: u32, id: u16, into: &mut Fetched) -> Result<(), Fault> {
        let Some(entry) = Entry::new(&self.map, self.place(at), len) else {
            // A response must fit where the request was.
            return Err(self.fault(RingError::EntryLength { at, len, room: response::END }));
        };
        let (counts, cdb) = (entry.word::<{ request::IOV_CNT }>(), entry.word::<{ request::CDB_OFF }>());
        let (data, bidi) = (half(counts, 0), half(counts, 4));
        let count = u64::from(data) + u64::from(bidi);
        let Some(iovecs) = entry.iovecs(request::IOV, count) else {
            return Err(self.fault(RingError::Iovecs { at, len, iovecs: count }));
        };
        into.iovecs.clear();
        // Data lies behind the ring; a buffer in it would let a read overwrite what decides.
        let ring_end = u64::from(self.offset) + u64::from(self.size);
        let mut outside = None;
        into.data_len = 0;
        for (base, length) in iovecs {
            match self.map.at(base as u64, length as u64) {
                Ok(data) if base as u64 >= ring_end || length == 0 => {
                    into.data_len += length as u64;
                    into.iovecs.push(libc::iovec { iov_base: data.as_ptr().cast(), iov_len: length });
                }
                _ => {
                    outside = Some((base as u64, length as u64));
                    break;
                }
            }
        }
        let copied = cdb.checked_sub(self.place(at)).and_then(|offset| entry.cdb(offset, &mut into.cdb));
        if let Some((offset, length)) = outside {
            return Err(self.outside(at, offset, length));
        }
        into.bidi = bidi as usize;
        if bidi > 0 {
            into.data_len = into.data().iter().map(|segment| segment.iov_len as u64).sum();
        }
        let Some(length) = copied else { return Err(self.outside(at, cdb, 0)) };
        into.cdb_len = length;
        if self.mark(id) {
            return Err(self.fault(RingError::DuplicateId { at, id }));
        }
        self.in_flight += 1;
        into.id = CommandId { id, generation: self.generation };
        Ok(())
    }

    /// Nobody but us stores `cmd_tail`, except a reset of the ring.
    #[inline]
    fn check_tail(&mut self) -> Result<(), Fault> {
        let found = self.mailbox(mailbox::CMD_TAIL, Ordering::Relaxed);
        if found != self.published {
            return Err(self.fault(RingError::Reset { found, published: self.published }));
        }
        Ok(())
    }

    fn fetch_tmr(&mut self, at: u32, len: u32) -> Result<TaskManagement, Fault> {
        let place = self.place(at);
        if u64::from(len) < tmr::CMD_IDS {
            return Err(self.fault(RingError::EntryLength { at, len, room: tmr::CMD_IDS as u32 }));
        }
        let [kind] = self.map.load(place + tmr::TYPE).unwrap_or_default();
        let count = u32::from_ne_bytes(self.map.load(place + tmr::CMD_CNT).unwrap_or_default());
        if tmr::CMD_IDS + 2 * u64::from(count) > u64::from(len) {
            return Err(self.fault(RingError::EntryLength { at, len, room: count.saturating_mul(2) }));
        }
        let mut commands = Vec::new();
        for n in 0..u64::from(count) {
            let id = u16::from_ne_bytes(self.map.load(place + tmr::CMD_IDS + 2 * n).unwrap_or_default());
            if self.is_marked(id) {
                commands.push(CommandId { id, generation: self.generation });
            }
        }
        Ok(TaskManagement { kind, commands })
    }

    /// Writes a command's response over the slot at the tail. The kernel sees it after [`Ring::publish`] and a kick.
    #[inline]
    pub fn complete(&mut self, command: CommandId, done: &Completion<'_>) -> Result<Completed, RingError> {
        if command.generation != self.generation || !self.is_marked(command.id) {
            return Ok(Completed::Stale);
        }
        match self.respond(command.id, done) {
            Ok(()) => Ok(Completed::Written),
            Err(Fault) => Err(self.why()),
        }
    }

    #[inline]
    fn respond(&mut self, id: u16, done: &Completion<'_>) -> Result<(), Fault> {
        if self.broken.is_some() {
            return Err(Fault);
        }
        let len = self.skip()?;
        let at = self.tail;
        let room = self.size - at;
        let Some(entry) = Entry::new(&self.map, self.place(at), len).filter(|_| len <= room) else {
            return Err(self.fault(RingError::EntryLength { at, len, room }));
        };
        let (uflags, read_len) = match done.read_len {
            Some(length) if self.flags.contains(MailboxFlags::READ_LEN) => (uflag::READ_LEN, length),
            _ => (0, 0),
        };
        entry.respond(id, uflags, done.status, read_len, done.sense);
        self.unmark(id);
        self.in_flight -= 1;
        self.tail = self.after(at, len);
        if self.in_flight == 0 {
            self.skip()?;
        }
        Ok(())
    }

    /// Moves the tail over entries that take no response, to one that takes one: its length, or 0 if there is none.
    #[inline]
    fn skip(&mut self) -> Result<u32, Fault> {
        while self.tail != self.fetch {
            let at = self.tail;
            let (opcode, len) = split(half(self.header(at), 0));
            if opcode == op::CMD {
                return Ok(len);
            }
            if len < header::SIZE || len > self.size - at {
                return Err(self.fault(RingError::EntryLength { at, len, room: self.size - at }));
            }
            self.tail = self.after(at, len);
        }
        Ok(0)
    }

    /// Shows the kernel all responses so far: one release of `cmd_tail`. Whether there was any, and so a kick is due.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.tail == self.published || self.broken.is_some() || self.check_tail().is_err() {
            return false;
        }
        self.published = self.tail;
        // The mailbox is within the mapping since `attach`.
        self.map.store_u32(mailbox::CMD_TAIL, self.tail, Ordering::Release).is_ok()
    }

    /// The first word of the entry at a place that was checked: the ring is within the mapping, and entries are multiples of 8.
    #[inline]
    fn header(&self, at: u32) -> u64 {
        self.map.load_u64(self.place(at)).unwrap_or(0)
    }

    #[inline]
    fn index(&mut self, name: &'static str, value: u32) -> Result<(), Fault> {
        if value >= self.size || !value.is_multiple_of(layout::ALIGN) {
            return Err(self.fault(RingError::Index { name, value, size: self.size }));
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn fault(&mut self, error: RingError) -> Fault {
        self.broken = Some(error);
        Fault
    }

    #[cold]
    #[inline(never)]
    fn outside(&mut self, at: u32, offset: u64, len: u64) -> Fault {
        let range = OutOfMapping { offset, len, map: self.map.len() as u64 };
        self.fault(RingError::Range { at, range })
    }

    /// What is wrong; told once, after that only that something was.
    #[cold]
    fn why(&mut self) -> RingError {
        self.broken.replace(RingError::Poisoned).unwrap_or(RingError::Poisoned)
    }

    /// The offset in the mapping of a place in the ring.
    #[inline]
    fn place(&self, at: u32) -> u64 {
        u64::from(self.offset) + u64::from(at)
    }

    #[inline]
    fn after(&self, at: u32, len: u32) -> u32 {
        let next = at + len;
        if next >= self.size { 0 } else { next }
    }

    /// Marks an id as in flight; whether it was already.
    fn mark(&mut self, id: u16) -> bool {
        let (word, bit) = (usize::from(id >> 6), 1u64 << (id & 63));
        let was = self.ids[word] & bit != 0;
        self.ids[word] |= bit;
        was
    }

    fn unmark(&mut self, id: u16) {
        self.ids[usize::from(id >> 6)] &= !(1 << (id & 63));
    }

    fn is_marked(&self, id: u16) -> bool {
        self.ids[usize::from(id >> 6)] & 1 << (id & 63) != 0
    }
}

/// Opcode and length.
#[inline]
fn split(len_op: u32) -> (u32, u32) {
    (len_op & op::MASK, len_op & !op::MASK)
}

/// The 32-bit field at this byte of a word as it is in memory.
#[inline]
fn half(word: u64, at: usize) -> u32 {
    let bytes = word.to_ne_bytes();
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The 16-bit field at this byte of a word as it is in memory.
#[inline]
fn quarter(word: u64, at: usize) -> u16 {
    let bytes = word.to_ne_bytes();
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring(fetch {}, tail {}, {} in flight)", self.fetch, self.tail, self.in_flight)
    }
}
