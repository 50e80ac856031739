//! A simulated kernel side of TCMU, for tests and benchmarks: the same memory layout, the same rules, no kernel.
//!
//! It does what `drivers/target/target_core_user.c` does: puts commands on the ring (with PAD entries where one doesn't fit before the
//! end), hands out data pages first-fit and without clearing them, walks completions strictly in ring order looking commands up by
//! their id, declares the ring broken when an id is unknown, and can expire commands, notify of task management and reset the ring. The
//! device's descriptor is one end of a socket pair that knows the same `read(4)` and `write(4)` as a UIO device.
//!
//! [`SimKernel::lie`] makes it break the rules.
mod lie;
mod pages;

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

pub use lie::Lie;
use pages::Pages;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};

use crate::{
    mapping::Mapping,
    ring::layout::{self, MailboxFlags, header, mailbox, op, request, response, tmr, uflag},
};

/// What the simulated device is like.
#[derive(Clone, Copy, Debug)]
pub struct SimConfig {
    /// Bytes of the command ring.
    pub ring: u32,
    /// Pages of 4096 bytes in the data area.
    pub pages: usize,
    /// What the mailbox announces.
    pub flags: MailboxFlags,
}

impl Default for SimConfig {
    fn default() -> SimConfig {
        SimConfig {
            ring: 64 * 1024,
            pages: 1024,
            flags: MailboxFlags::OUT_OF_ORDER | MailboxFlags::READ_LEN | MailboxFlags::TASK_MANAGEMENT,
        }
    }
}

/// The data of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// None.
    None,
    /// To the device.
    Out(Vec<u8>),
    /// From the device, at most so many bytes.
    In(usize),
    /// Both.
    Bidi(Vec<u8>, usize),
}

/// A command that the device completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimCompletion {
    /// As [`SimKernel::queue`] returned it.
    pub id: u16,
    /// The SCSI status byte.
    pub status: u8,
    /// All 96 bytes, as the initiator would get them; empty unless the status is CHECK CONDITION.
    pub sense: Vec<u8>,
    /// Data-In, as much as the initiator would get.
    pub data: Vec<u8>,
    /// The device said that it doesn't know the opcode.
    pub unknown_op: bool,
    /// The command had expired before; the initiator sees nothing of this.
    pub expired: bool,
}

/// There is no room on the ring or in the data area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring or the data area is full")]
pub struct Full;

/// The device broke the rules: what Linux calls "ring is broken".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring is broken: {0}")]
pub struct Broken(pub String);

struct Command {
    out: Vec<(u32, usize)>,
    input: Vec<(u32, usize)>,
    expired: bool,
}

/// The kernel's side of one device.
pub struct SimKernel {
    map: Arc<Mapping>,
    config: SimConfig,
    fd: OwnedFd,
    pages: Pages,
    head: u32,
    last_cleaned: u32,
    next_id: u16,
    commands: HashMap<u16, Command>,
    done: Vec<SimCompletion>,
    kicks: u64,
}

const PAGE: u64 = 4096;
const OFFSET: u32 = mailbox::SIZE as u32;

impl SimKernel {
    /// A device: the kernel's side, the shared memory and the device's descriptor.
    pub fn new(config: SimConfig) -> io::Result<(SimKernel, Arc<Mapping>, OwnedFd)> {
        let data = Self::data_offset(&config);
        let map = Arc::new(Mapping::of_memory((data + config.pages as u64 * PAGE) as usize)?);
        let (fd, device) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
        let put = |at, bytes: &[u8]| map.write(at, bytes).map_err(io::Error::other);
        put(mailbox::VERSION, &layout::MAILBOX_VERSION.to_ne_bytes())?;
        put(mailbox::FLAGS, &config.flags.bits().to_ne_bytes())?;
        put(mailbox::CMDR_OFF, &OFFSET.to_ne_bytes())?;
        put(mailbox::CMDR_SIZE, &config.ring.to_ne_bytes())?;
        let kernel = SimKernel {
            map: map.clone(),
            config,
            fd,
            pages: Pages::new(config.pages),
            head: 0,
            last_cleaned: 0,
            next_id: 0,
            commands: HashMap::new(),
            done: Vec::new(),
            kicks: 0,
        };
        Ok((kernel, map, device))
    }

    fn data_offset(config: &SimConfig) -> u64 {
        (u64::from(OFFSET) + u64::from(config.ring)).next_multiple_of(PAGE)
    }

    /// Commands that are on the ring or being worked on.
    pub fn outstanding(&self) -> usize {
        self.commands.len()
    }

    /// Kicks that were seen by [`SimKernel::reap`] so far.
    pub fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Puts a command on the ring and rings the bell.
    pub fn queue(&mut self, cdb: &[u8], data: Data) -> Result<u16, Full> {
        let id = self.queue_quietly(cdb, data)?;
        self.ring_bell();
        Ok(id)
    }

    /// Puts a command on the ring without an event, as the kernel does within a plugged batch.
    pub fn queue_quietly(&mut self, cdb: &[u8], data: Data) -> Result<u16, Full> {
        let (out, in_len) = match data {
            Data::None => (Vec::new(), 0),
            Data::Out(out) => (out, 0),
            Data::In(len) => (Vec::new(), len),
            Data::Bidi(out, len) => (out, len),
        };
        let out_pages = self.pages.take(out.len()).ok_or(Full)?;
        let Some(in_pages) = self.pages.take(in_len) else {
            self.pages.give(&out_pages);
            return Err(Full);
        };
        let give_up = |kernel: &mut SimKernel| {
            kernel.pages.give(&out_pages);
            kernel.pages.give(&in_pages);
            Full
        };
        let (out_iov, in_iov) = (self.iovecs(&out_pages), self.iovecs(&in_pages));
        let iovecs = out_iov.len() + in_iov.len();
        let base = (request::IOV + iovecs as u64 * layout::IOVEC).max(u64::from(response::END));
        let len = (base + cdb.len().next_multiple_of(8) as u64) as u32;
        let Some(id) = self.make_room(len).and_then(|()| self.free_id()) else { return Err(give_up(self)) };

        let mut entry = vec![0; len as usize];
        let mut put = |at: u64, bytes: &[u8]| entry[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        put(header::LEN_OP, &(len | op::CMD).to_ne_bytes());
        put(header::CMD_ID, &id.to_ne_bytes());
        let bidi = !out_iov.is_empty() && !in_iov.is_empty();
        put(request::IOV_CNT, &((if bidi { out_iov.len() } else { iovecs }) as u32).to_ne_bytes());
        put(request::IOV_BIDI_CNT, &((if bidi { in_iov.len() } else { 0 }) as u32).to_ne_bytes());
        put(request::CDB_OFF, &(u64::from(OFFSET + self.head) + base).to_ne_bytes());
        for (n, (at, len)) in out_iov.iter().chain(&in_iov).enumerate() {
            let iov = request::IOV + n as u64 * layout::IOVEC;
            put(iov, &(*at as usize).to_ne_bytes());
            put(iov + layout::IOVEC / 2, &len.to_ne_bytes());
        }
        put(base, cdb);
        self.write(u64::from(OFFSET + self.head), &entry);
        let mut from = &out[..];
        for (at, len) in &out_iov {
            self.write(*at, &from[..*len]);
            from = &from[*len..];
        }
        self.commands.insert(id, Command { out: out_pages, input: in_pages, expired: false });
        self.advance(len);
        Ok(id)
    }

    /// Notifies of task management that affects these commands.
    pub fn task_management(&mut self, kind: u8, ids: &[u16]) -> Result<(), Full> {
        let len = (tmr::CMD_IDS as usize + 2 * ids.len()).next_multiple_of(8) as u32;
        self.make_room(len).ok_or(Full)?;
        let mut entry = vec![0; len as usize];
        entry[..4].copy_from_slice(&(len | op::TMR).to_ne_bytes());
        entry[tmr::TYPE as usize] = kind;
        entry[tmr::CMD_CNT as usize..][..4].copy_from_slice(&(ids.len() as u32).to_ne_bytes());
        for (n, id) in ids.iter().enumerate() {
            entry[tmr::CMD_IDS as usize + 2 * n..][..2].copy_from_slice(&id.to_ne_bytes());
        }
        self.write(u64::from(OFFSET + self.head), &entry);
        self.advance(len);
        self.ring_bell();
        Ok(())
    }

    /// A command took too long: the initiator was told so; its slot and its pages stay the device's until it completes it.
    pub fn expire(&mut self, id: u16) {
        if let Some(command) = self.commands.get_mut(&id) {
            command.expired = true;
        }
    }

    /// `action/reset_ring`: everything in flight is forgotten. Returns the ids that the initiators will send again.
    pub fn reset(&mut self) -> Vec<u16> {
        let mut ids: Vec<u16> = self
            .commands
            .drain()
            .map(|(id, command)| {
                self.pages.give(&command.out);
                self.pages.give(&command.input);
                id
            })
            .collect();
        ids.sort_unstable();
        self.head = 0;
        self.last_cleaned = 0;
        self.store(mailbox::CMD_HEAD, 0);
        self.store(mailbox::CMD_TAIL, 0);
        ids
    }

    /// Looks at what was completed since the last time (`tcmu_handle_completions`).
    pub fn reap(&mut self) -> Result<Vec<SimCompletion>, Broken> {
        while rustix::io::read(&self.fd, &mut [0u8; 4]).is_ok_and(|n| n > 0) {
            self.kicks += 1;
        }
        let tail = self.map.load_u32(mailbox::CMD_TAIL, Ordering::Acquire).unwrap_or(u32::MAX);
        if tail >= self.config.ring {
            return Err(Broken(format!("cmd_tail is {tail} in a ring of {} bytes", self.config.ring)));
        }
        while self.last_cleaned != tail {
            let at = u64::from(OFFSET + self.last_cleaned);
            let len_op = u32::from_ne_bytes(self.read(at + header::LEN_OP));
            let (opcode, len) = (len_op & op::MASK, len_op & !op::MASK);
            if len == 0 || len > self.config.ring - self.last_cleaned {
                return Err(Broken(format!("the slot at {} is {len} bytes long", self.last_cleaned)));
            }
            match opcode {
                op::PAD | op::TMR => {}
                _ => {
                    let completion = self.complete(at)?;
                    self.done.push(completion);
                }
            }
            self.last_cleaned = (self.last_cleaned + len) % self.config.ring;
        }
        Ok(std::mem::take(&mut self.done))
    }

    fn complete(&mut self, at: u64) -> Result<SimCompletion, Broken> {
        let id = u16::from_ne_bytes(self.read(at + header::CMD_ID));
        let [uflags] = self.read(at + header::UFLAGS);
        let Some(command) = self.commands.remove(&id) else { return Err(Broken(format!("cmd_id {id} not found"))) };
        let [mut status] = self.read(at + response::SCSI_STATUS);
        let unknown_op = uflags & uflag::UNKNOWN_OP != 0;
        let mut sense = Vec::new();
        if unknown_op {
            status = 0x02;
        } else if status == 0x02 {
            sense = self.read::<{ response::SENSE_SIZE }>(at + response::SENSE).to_vec();
        }
        let mut data = Vec::new();
        let asked = u32::from_ne_bytes(self.read(at + response::READ_LEN)) as usize;
        let read_len = (uflags & uflag::READ_LEN != 0 && asked != 0).then_some(asked);
        if status != 0x02 || read_len.is_some() {
            // Without READ_LEN the whole buffer goes to the initiator, whatever is in it.
            for (at, len) in self.iovecs(&command.input) {
                let from = data.len();
                data.resize(from + len, 0);
                let _ = self.map.read(at, &mut data[from..]);
            }
            data.truncate(read_len.unwrap_or(usize::MAX));
        }
        self.pages.give(&command.out);
        self.pages.give(&command.input);
        Ok(SimCompletion { id, status, sense, data, unknown_op, expired: command.expired })
    }

    /// Waits until something was completed, or `within` has passed: then the list is empty.
    pub fn wait(&mut self, within: Duration) -> Result<Vec<SimCompletion>, Broken> {
        let end = Instant::now() + within;
        loop {
            let done = self.reap()?;
            let left = end.saturating_duration_since(Instant::now());
            if !done.is_empty() || left.is_zero() {
                return Ok(done);
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let _ = poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout));
        }
    }

    /// Queues one command and waits for it, and only it, to be completed.
    pub fn run(&mut self, cdb: &[u8], data: Data) -> Result<SimCompletion, Broken> {
        let id = self.queue(cdb, data).map_err(|full| Broken(full.to_string()))?;
        let end = Instant::now() + Duration::from_secs(20);
        let mut others = Vec::new();
        while Instant::now() < end {
            let mut done = self.wait(Duration::from_secs(1))?;
            if let Some(at) = done.iter().position(|c| c.id == id) {
                let mine = done.swap_remove(at);
                others.extend(done);
                self.done.extend(others);
                return Ok(mine);
            }
            others.extend(done);
        }
        Err(Broken(format!("command {id} was not completed within 20 s")))
    }

    /// Tells the device that something happened, as the kernel does after it moved `cmd_head`.
    pub fn ring_bell(&self) {
        // A full socket has events in it already.
        let _ = rustix::io::write(&self.fd, &1u32.to_ne_bytes());
    }

    /// Makes room for an entry of `len` bytes at the head, with a PAD entry where it wouldn't fit before the end.
    fn make_room(&mut self, len: u32) -> Option<()> {
        let size = self.config.ring;
        if len > size / 2 {
            return None;
        }
        let to_end = size - self.head;
        let needed = if to_end < len { len + to_end } else { len };
        let used = (self.head + size - self.last_cleaned) % size;
        if size - used - 1 < needed {
            return None;
        }
        if to_end < len {
            self.write(u64::from(OFFSET + self.head), &(to_end | op::PAD).to_ne_bytes());
            self.write(u64::from(OFFSET + self.head) + 4, &[0; 4]);
            self.advance(to_end);
        }
        Some(())
    }

    fn free_id(&mut self) -> Option<u16> {
        for _ in 0..u16::MAX {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.commands.contains_key(&self.next_id) {
                return Some(self.next_id);
            }
        }
        None
    }

    fn advance(&mut self, len: u32) {
        self.head = (self.head + len) % self.config.ring;
        self.store(mailbox::CMD_HEAD, self.head);
    }

    /// Segments of the mapping: neighbouring pages are one.
    fn iovecs(&self, pages: &[(u32, usize)]) -> Vec<(u64, usize)> {
        let mut segments: Vec<(u64, usize)> = Vec::new();
        for (page, len) in pages {
            let at = Self::data_offset(&self.config) + u64::from(*page) * PAGE;
            match segments.last_mut() {
                Some((start, length)) if *start + *length as u64 == at => *length += len,
                _ => segments.push((at, *len)),
            }
        }
        segments
    }

    fn store(&self, at: u64, value: u32) {
        let _ = self.map.store_u32(at, value, Ordering::Release);
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let _ = self.map.write(at, bytes);
    }

    fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        self.map.load(at).unwrap_or([0; N])
    }
}
