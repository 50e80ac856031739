//! TCMU's mailbox and command ring, as userspace sees it: fetch entries, complete commands, publish.
//!
//! The rules (`drivers/target/target_core_user.c`): the kernel puts entries at `cmd_head`, which we load with acquire. A response is
//! written over the slot at the tail, whatever command it answers (`TCMU_MAILBOX_FLAG_CAP_OOOC`), and `cmd_tail` is stored with release
//! and followed by a kick. So everything that is needed of an entry is copied out when it is fetched, and a slot is only overwritten
//! after it was fetched.
//!
//! Nothing here is taken on trust: an offset or a length that doesn't fit is a [`RingError`], after which the ring refuses to go on.
mod doorbell;
pub mod layout;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

pub use doorbell::{Doorbell, Gone};
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
}

// SAFETY: the iovecs point into the mapping, which any thread may use; whoever holds a `Fetched` holds its ring's mapping too.
unsafe impl Send for Fetched {}

impl Default for Fetched {
    fn default() -> Fetched {
        Fetched { id: CommandId { id: 0, generation: 0 }, cdb: [0; MAX_CDB], cdb_len: 0, iovecs: Vec::with_capacity(32), bidi: 0 }
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
    TaskManagement(TaskManagement),
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
    /// Where the next response is written; ahead of the mailbox's `cmd_tail` by what isn't published.
    tail: u32,
    /// The mailbox's `cmd_tail`.
    published: u32,
    generation: u32,
    in_flight: usize,
    ids: Box<[u64; 1024]>,
    broken: bool,
}

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
            tail: 0,
            published: 0,
            generation: 0,
            in_flight: 0,
            ids: Box::new([0; 1024]),
            broken: false,
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
        self.broken = false;
        self.start()
    }

    fn start(&mut self) -> Result<(), RingError> {
        let tail = self.map.load_u32(mailbox::CMD_TAIL, Ordering::Acquire).map_err(|range| self.poison(0, range))?;
        self.index("cmd_tail", tail)?;
        (self.fetch, self.tail, self.published) = (tail, tail, tail);
        Ok(())
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
        self.map.load_u32(mailbox::CMD_HEAD, Ordering::Acquire).is_ok_and(|head| head != self.fetch)
    }

    /// Fetches the next entry, a command into `into`.
    #[inline]
    pub fn next(&mut self, into: &mut Fetched) -> Result<Next, RingError> {
        if self.broken {
            return Err(RingError::Poisoned);
        }
        loop {
            let at = self.fetch;
            let head = self.map.load_u32(mailbox::CMD_HEAD, Ordering::Acquire).map_err(|range| self.poison(at, range))?;
            if head == at {
                return Ok(Next::Empty);
            }
            self.check_tail()?;
            self.index("cmd_head", head)?;
            let room = if head > at { head - at } else { self.size - at };
            let (opcode, len) = self.entry(at)?;
            if len < header::SIZE || len > room {
                self.broken = true;
                return Err(RingError::EntryLength { at, len, room });
            }
            let next = match opcode {
                op::PAD => None,
                op::CMD => {
                    self.fetch_command(at, len, into)?;
                    Some(Next::Command)
                }
                op::TMR => Some(Next::TaskManagement(self.fetch_tmr(at, len)?)),
                _ => {
                    // The kernel completes it with CHECK CONDITION when it sees the flag.
                    let flags = self.place(at) + header::UFLAGS;
                    self.map.write(flags, &[uflag::UNKNOWN_OP]).map_err(|range| self.poison(at, range))?;
                    None
                }
            };
            self.fetch = self.after(at, len);
            if self.in_flight == 0 {
                self.skip()?;
            }
            if let Some(next) = next {
                return Ok(next);
            }
        }
    }

    fn fetch_command(&mut self, at: u32, len: u32, into: &mut Fetched) -> Result<(), RingError> {
        // A response must fit where the request was.
        if len < response::END {
            self.broken = true;
            return Err(RingError::EntryLength { at, len, room: response::END });
        }
        let place = self.place(at);
        let lied = |ring: &mut Ring, range| ring.poison(at, range);
        // One copy, so that what is checked is what is used.
        let fixed: [u8; request::IOV as usize] = self.map.load(place).map_err(|r| lied(self, r))?;
        let word = |at: u64| u32::from_ne_bytes(fixed[at as usize..at as usize + 4].try_into().unwrap_or_default());
        let id = u16::from_ne_bytes([fixed[header::CMD_ID as usize], fixed[header::CMD_ID as usize + 1]]);
        let (data, bidi) = (word(request::IOV_CNT), word(request::IOV_BIDI_CNT));
        let cdb_off = request::CDB_OFF as usize;
        let cdb_off = u64::from_ne_bytes(fixed[cdb_off..cdb_off + 8].try_into().unwrap_or_default());

        let iovecs = u64::from(data) + u64::from(bidi);
        if request::IOV + iovecs * layout::IOVEC > u64::from(len) {
            self.broken = true;
            return Err(RingError::Iovecs { at, len, iovecs });
        }
        into.iovecs.clear();
        for n in 0..iovecs {
            let raw: [u8; layout::IOVEC as usize] =
                self.map.load(place + request::IOV + n * layout::IOVEC).map_err(|r| lied(self, r))?;
            let (base, length) = raw.split_at(layout::IOVEC as usize / 2);
            let base = usize::from_ne_bytes(base.try_into().unwrap_or_default());
            let length = usize::from_ne_bytes(length.try_into().unwrap_or_default());
            let data = self.map.at(base as u64, length as u64).map_err(|r| lied(self, r))?;
            // Data lies behind the ring; a buffer in it would let a read overwrite what decides.
            if (base as u64) < u64::from(self.offset) + u64::from(self.size) && length > 0 {
                let range = OutOfMapping { offset: base as u64, len: length as u64, map: self.map.len() as u64 };
                return Err(self.poison(at, range));
            }
            into.iovecs.push(libc::iovec { iov_base: data.as_ptr().cast(), iov_len: length });
        }
        into.bidi = bidi as usize;

        into.cdb_len = self.read_cdb(cdb_off, place, place + u64::from(len), &mut into.cdb).map_err(|r| lied(self, r))?;
        if self.mark(id) {
            self.broken = true;
            return Err(RingError::DuplicateId { at, id });
        }
        self.in_flight += 1;
        into.id = CommandId { id, generation: self.generation };
        Ok(())
    }

    /// Copies the CDB, whose length its first byte tells, or the end of the entry where it doesn't.
    fn read_cdb(&self, offset: u64, entry: u64, entry_end: u64, cdb: &mut [u8; MAX_CDB]) -> Result<usize, OutOfMapping> {
        self.map.read(offset, &mut cdb[..1])?;
        let room = entry_end.saturating_sub(offset) as usize;
        let len = match cdb[0] >> 5 {
            0 => 6,
            1 | 2 => 10,
            4 => 16,
            5 => 12,
            3 if cdb[0] == 0x7f => {
                self.map.read(offset, &mut cdb[..8])?;
                // One that is longer than the longest is cut, and unknown to whoever decodes it.
                (8 + usize::from(cdb[7])).min(MAX_CDB)
            }
            _ => room.clamp(1, 16),
        };
        if offset < entry || len > room {
            return Err(OutOfMapping { offset, len: len as u64, map: self.map.len() as u64 });
        }
        self.map.read(offset, &mut cdb[..len])?;
        Ok(len)
    }

    /// Nobody but us stores `cmd_tail`, except a reset of the ring.
    fn check_tail(&mut self) -> Result<(), RingError> {
        let found = self.map.load_u32(mailbox::CMD_TAIL, Ordering::Relaxed).map_err(|range| self.poison(0, range))?;
        if found != self.published {
            self.broken = true;
            return Err(RingError::Reset { found, published: self.published });
        }
        Ok(())
    }

    fn fetch_tmr(&mut self, at: u32, len: u32) -> Result<TaskManagement, RingError> {
        let place = self.place(at);
        let lied = |ring: &mut Ring, range| ring.poison(at, range);
        if u64::from(len) < tmr::CMD_IDS {
            self.broken = true;
            return Err(RingError::EntryLength { at, len, room: tmr::CMD_IDS as u32 });
        }
        let [kind] = self.map.load(place + tmr::TYPE).map_err(|r| lied(self, r))?;
        let count = u32::from_ne_bytes(self.map.load(place + tmr::CMD_CNT).map_err(|r| lied(self, r))?);
        if tmr::CMD_IDS + 2 * u64::from(count) > u64::from(len) {
            self.broken = true;
            return Err(RingError::EntryLength { at, len, room: 2 * count });
        }
        let mut commands = Vec::new();
        for n in 0..u64::from(count) {
            let id = u16::from_ne_bytes(self.map.load(place + tmr::CMD_IDS + 2 * n).map_err(|r| lied(self, r))?);
            if self.is_marked(id) {
                commands.push(CommandId { id, generation: self.generation });
            }
        }
        Ok(TaskManagement { kind, commands })
    }

    /// Writes a command's response over the slot at the tail. The kernel sees it after [`Ring::publish`] and a kick.
    #[inline]
    pub fn complete(&mut self, command: CommandId, done: &Completion<'_>) -> Result<Completed, RingError> {
        if self.broken {
            return Err(RingError::Poisoned);
        }
        if command.generation != self.generation || !self.is_marked(command.id) {
            return Ok(Completed::Stale);
        }
        self.skip()?;
        let at = self.tail;
        let (_, len) = self.entry(at)?;
        if len < response::END || len > self.size - at {
            self.broken = true;
            return Err(RingError::EntryLength { at, len, room: self.size - at });
        }
        let place = self.place(at);
        let sense = &done.sense[..done.sense.len().min(response::SENSE_SIZE)];
        let mut uflags = 0;
        let mut read_len = 0;
        if let Some(len) = done.read_len.filter(|_| self.flags.contains(MailboxFlags::READ_LEN)) {
            (uflags, read_len) = (uflag::READ_LEN, len);
        }
        // cmd_id, kflags, uflags; scsi_status, padding, read_len
        let mut head = [0; 12];
        head[..2].copy_from_slice(&command.id.to_ne_bytes());
        head[3] = uflags;
        head[4] = done.status;
        head[8..].copy_from_slice(&read_len.to_ne_bytes());
        let write = |ring: &Ring| {
            ring.map.write(place + header::CMD_ID, &head)?;
            if done.status != 0 {
                let mut buffer = [0; response::SENSE_SIZE];
                buffer[..sense.len()].copy_from_slice(sense);
                ring.map.write(place + response::SENSE, &buffer)?;
            }
            Ok(())
        };
        write(self).map_err(|range| self.poison(at, range))?;
        self.unmark(command.id);
        self.in_flight -= 1;
        self.tail = self.after(at, len);
        if self.in_flight == 0 {
            self.skip()?;
        }
        Ok(Completed::Written)
    }

    /// Moves the tail over entries that take no response.
    fn skip(&mut self) -> Result<(), RingError> {
        while self.tail != self.fetch {
            let at = self.tail;
            let (opcode, len) = self.entry(at)?;
            if opcode == op::CMD {
                break;
            }
            if len < header::SIZE || len > self.size - at {
                self.broken = true;
                return Err(RingError::EntryLength { at, len, room: self.size - at });
            }
            self.tail = self.after(at, len);
        }
        Ok(())
    }

    /// Shows the kernel all responses so far: one release of `cmd_tail`. Whether there was any, and so a kick is due.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.tail == self.published || self.broken || self.check_tail().is_err() {
            return false;
        }
        self.published = self.tail;
        // The mailbox is within the mapping since `attach`.
        self.map.store_u32(mailbox::CMD_TAIL, self.tail, Ordering::Release).is_ok()
    }

    fn entry(&mut self, at: u32) -> Result<(u32, u32), RingError> {
        let len_op = self.map.load(self.place(at) + header::LEN_OP).map_err(|range| self.poison(at, range))?;
        let len_op = u32::from_ne_bytes(len_op);
        Ok((len_op & op::MASK, len_op & !op::MASK))
    }

    fn index(&mut self, name: &'static str, value: u32) -> Result<(), RingError> {
        if value >= self.size || !value.is_multiple_of(layout::ALIGN) {
            self.broken = true;
            return Err(RingError::Index { name, value, size: self.size });
        }
        Ok(())
    }

    fn poison(&mut self, at: u32, range: OutOfMapping) -> RingError {
        self.broken = true;
        RingError::Range { at, range }
    }

    /// The offset in the mapping of a place in the ring.
    fn place(&self, at: u32) -> u64 {
        u64::from(self.offset) + u64::from(at)
    }

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

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring(fetch {}, tail {}, {} in flight)", self.fetch, self.tail, self.in_flight)
    }
}
