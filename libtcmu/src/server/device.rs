//! One device: entries from its ring become commands, commands become requests for its handler, and back.
mod completion;
mod elsewhere;
mod management;
mod plain;
mod timing;

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use tcmu_handler_api::{
    abi,
    host::OpenDevice,
    plugin::{Change, DeviceFlags, DeviceInfo, Threads},
};
use timing::Timing;

use super::{
    attach::Attach,
    command::Command,
    counters::{Counters, Page},
    peer::{Neighbours, Piece},
    pool::{Lane, Pool},
    slot::{Shared, Slot},
    waker::Waker,
};
use crate::{
    engine::{self, Judge, Step, Tally, Unit, Work},
    mapping::Mapping,
    ring::{Doorbell, Gone, Next, Ring, RingError},
};

/// Entries taken in one turn, so that one busy device does not keep a thread from its others.
const TURN: usize = 256;

/// Bytes of plain commands after which a turn takes no more: those who wait for the first of them go on while the next are done. The first
/// few bytes of each command do not count: what small ones cost is not copying, and the more of them are completed together, the less often
/// initiators are woken. So a turn takes two commands of 128 KiB, four of 64 KiB.
const TURN_BYTES: u64 = 224 << 10;
const UNCOUNTED: u64 = 8 << 10;

/// Pieces of long commands done in one turn, for the same reason; the others wait for the next.
const PIECES: usize = 8;

/// Why a device can't be served (any more).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The region can't be mapped.
    #[error("the UIO device cannot be mapped with {size} bytes: {error}")]
    Map {
        /// As told by sysfs.
        size: usize,
        /// The system's words.
        error: std::io::Error,
    },
    /// The kernel's side broke the rules of the ring.
    #[error("the command ring makes no sense: {0}")]
    Ring(#[from] RingError),
    /// The UIO device was removed.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// A thread or a descriptor is missing.
    #[error("out of threads or descriptors: {0}")]
    System(#[from] std::io::Error),
}

/// What a turn leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing to do until a descriptor says so.
    Idle,
    /// There may be more entries: take another turn.
    More,
}

/// Serves one device, on the thread that calls [`DeviceServer::turn`].
pub struct DeviceServer {
    name: String,
    ring: Ring,
    bell: Doorbell,
    unit: Unit,
    /// What plain commands are judged by.
    judge: Judge,
    /// Plain commands of this turn that the counters don't have yet.
    tally: Tally,
    shared: Arc<Shared>,
    device: Arc<OpenDevice>,
    lane: Option<Arc<Lane>>,
    /// Boxed, because requests point into them.
    #[expect(clippy::vec_box)]
    commands: Vec<Box<Command>>,
    free: Vec<usize>,
    /// Armed requests that go to the handler together.
    batch: Vec<*mut abi::tcmu_request>,
    /// Commands that wait for a range which another one has to itself, with what they will do.
    waiting: VecDeque<(usize, Work)>,
    /// Pieces of long commands that wait for the next turn.
    later: VecDeque<(usize, Work)>,
    /// Pieces that may still be done in this turn.
    pieces: usize,
    /// Commands that have a range to themselves, or wait for it.
    exclusive: usize,
    in_flight: usize,
    stopping: bool,
    wakes: u32,
    /// Entries that were taken since `take_taken`.
    taken: u32,
    counters: Arc<Page>,
    timing: Timing,
    neighbours: Option<Arc<Neighbours>>,
}

// SAFETY: the raw pointers are to slots that this owns; it may be served by one thread after the other.
unsafe impl Send for DeviceServer {}

impl DeviceServer {
    /// Maps the device and gets ready to serve it. Requests completed elsewhere come back by `waker`.
    pub(super) fn new(attach: Attach, waker: Arc<Waker>, pool: Arc<Pool>, key: usize) -> Result<DeviceServer, ServeError> {
        let map =
            Mapping::of_uio(&attach.uio, attach.map_size).map_err(|error| ServeError::Map { size: attach.map_size, error })?;
        DeviceServer::on(Arc::new(map), attach, waker, pool, key)
    }

    /// As [`DeviceServer::new`], on memory that is mapped already (the simulated kernel's).
    pub(super) fn on(
        map: Arc<Mapping>,
        attach: Attach,
        waker: Arc<Waker>,
        pool: Arc<Pool>,
        key: usize,
    ) -> Result<DeviceServer, ServeError> {
        let mut device = attach.device;
        // A handler that switches it itself is asked; for the others the unit does.
        let left = attach.write_cache.filter(|on| match device.reconfigure(&Change::WriteCache(*on), *device.info()) {
            Ok(info) => {
                device.set_info(info);
                false
            }
            Err(_) => true,
        });
        let mut unit = Unit::new(*device.info(), attach.hw_max_sectors, attach.target);
        unit.go_on(left, attach.known_size);
        let device = Arc::new(device);
        let lane = match device.threads() {
            Threads::Inline => None,
            Threads::Serial => Some(Lane::new(device.clone(), 1)),
            Threads::Pool => {
                let limit = device.concurrency() as usize;
                Some(Lane::new(device.clone(), if limit == 0 { usize::MAX } else { limit }))
            }
        };
        let mut server = DeviceServer {
            ring: Ring::attach(map)?,
            bell: Doorbell::new(attach.uio),
            unit,
            judge: Judge::default(),
            tally: Tally::default(),
            shared: Arc::new(Shared::new(&attach.name, waker, pool, key, lane.is_none())),
            name: attach.name,
            device,
            lane,
            commands: Vec::new(),
            free: Vec::new(),
            batch: Vec::with_capacity(TURN),
            waiting: VecDeque::new(),
            later: VecDeque::new(),
            pieces: 0,
            exclusive: 0,
            in_flight: 0,
            stopping: false,
            wakes: 0,
            taken: 0,
            counters: Arc::new(attach.counters),
            timing: Timing::default(),
            neighbours: None,
        };
        server.counters.cells().begin(server.unit.info().size());
        server.set_slow(attach.slow);
        Ok(server)
    }

    /// `user_<hba>/<name>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The UIO descriptor: readable when there are new entries.
    pub fn uio(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The handler's device.
    pub fn device(&self) -> &Arc<OpenDevice> {
        &self.device
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.counters.read()
    }

    pub(super) fn page(&self) -> Arc<Page> {
        self.counters.clone()
    }

    /// The device changed; initiators are told by a unit attention.
    pub fn change(&mut self, info: DeviceInfo) {
        self.with_unit(|unit| unit.change(info));
    }

    /// Does something with the unit, whose size may be another after that.
    pub(super) fn with_unit<T>(&mut self, run: impl FnOnce(&mut Unit) -> T) -> T {
        let done = run(&mut self.unit);
        self.counters.cells().size.set(self.unit.info().size());
        done
    }

    /// Who may take part in copies.
    pub(super) fn copies_with(&mut self, neighbours: &Arc<Neighbours>, names: Vec<String>) {
        if !names.is_empty() {
            self.unit.copies_with(neighbours.named(names));
            self.neighbours = Some(neighbours.clone());
        }
    }

    /// Takes on a piece of another unit's copy.
    pub(super) fn piece(&mut self, mut piece: Piece) {
        let work = Work { peer: None, ..piece.work };
        match engine::begin_for_peer(&mut self.unit, work, std::mem::take(&mut piece.memory)) {
            Err((errno, memory)) => {
                piece.memory = memory;
                piece.end(-errno);
            }
            Ok(task) => {
                let index = self.free_command();
                self.in_flight += 1;
                let command = &mut self.commands[index];
                command.detach();
                (command.age, command.piece, command.task) = (1, Some(piece), Some(task));
                self.submit_in_turn(index, work);
            }
        }
    }

    /// Another node has the exclusive lock now.
    pub(super) fn lock_lost(&mut self) {
        self.unit.lock_lost();
    }

    /// Takes no more entries from the ring (or goes on with it).
    pub fn stop_fetching(&mut self, stop: bool) {
        self.stopping = stop;
    }

    /// Counts up how old the commands in flight are, and tells for how many calls the oldest one has been there. What goes on after its
    /// command was answered does not count.
    pub(super) fn grow_older(&mut self) {
        let mut oldest = 0;
        if self.in_flight > 0 {
            for command in self.commands.iter_mut().filter(|command| command.age > 0 && !command.detached) {
                command.age = command.age.saturating_add(1);
                oldest = oldest.max(command.age - 1);
            }
        }
        self.counters.cells().oldest.set(u64::from(oldest));
    }

    /// Whether no command is in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Takes what is on the ring, submits it, and completes what is done. Never blocks unless the handler does.
    pub fn turn(&mut self) -> Result<Turn, ServeError> {
        self.bell.clear()?;
        self.work()
    }

    /// A turn after something happened at the descriptor, for who is told of each time only. A UIO device then needs no reading; but
    /// where nothing came, it may be gone.
    pub(super) fn woken(&mut self) -> Result<Turn, ServeError> {
        self.wakes = self.wakes.wrapping_add(1);
        // Its count of events is compared with the count at the last reading, and must not come round to that.
        if self.bell.fills_up() || !self.ring.has_entries() || self.wakes.is_multiple_of(1 << 20) {
            self.bell.clear()?;
        }
        self.work()
    }

    /// Whether there is something on the ring that a turn would take.
    #[inline]
    pub(super) fn has_entries(&self) -> bool {
        !self.stopping && self.ring.has_entries()
    }

    /// A turn without a look at the descriptor: after completions came back.
    pub(super) fn work(&mut self) -> Result<Turn, ServeError> {
        let _serving = self.shared.serve();
        self.pieces = PIECES;
        self.judge_anew();
        while self.pieces > 0
            && let Some((index, work)) = self.later.pop_front()
        {
            self.pieces -= 1;
            self.submit(index, work);
        }
        // What comes after this look has the next turn.
        let taken = if self.has_entries() {
            self.begin_turn();
            let taken = self.take_entries();
            self.count_plain();
            self.counters.cells().in_flight(self.in_flight as u64);
            taken
        } else {
            Ok((0, false))
        };
        // What was taken goes to the handler and comes back, also from a ring that makes no sense any more.
        let settled = self.settle();
        self.end_turn();
        settled?;
        let (taken, full) = taken?;
        if self.ring.publish() {
            self.counters.cells().kicks.add(1);
            self.bell.kick()?;
        } else {
            // Else nobody would hear of it until the next command comes.
            self.ring.check()?;
        }
        self.taken = self.taken.saturating_add(taken as u32);
        if taken > 0 {
            self.counters.cells().batches.add(1);
        }
        self.counters.cells().in_flight(self.in_flight as u64);
        Ok(if full || !self.later.is_empty() { Turn::More } else { Turn::Idle })
    }

    /// Entries that turns took since this was asked last.
    pub(super) fn take_taken(&mut self) -> u32 {
        std::mem::take(&mut self.taken)
    }

    /// Takes back a slot that was completed on another thread.
    pub(super) fn take_back(&mut self, slot: *mut Slot) -> Result<(), ServeError> {
        // SAFETY: from the waker, so one of ours, completed, and in no other list now.
        let index = unsafe { (*slot).index };
        self.came_back(index)
    }

    /// Takes what is on the ring, as far as a turn goes: how many entries, and whether there may be more.
    #[inline(never)]
    fn take_entries(&mut self) -> Result<(usize, bool), ServeError> {
        let (mut taken, mut bytes) = (0, 0);
        while taken < TURN && bytes < TURN_BYTES && !self.stopping {
            let index = self.next_command();
            let command = &mut *self.commands[index];
            if !self.ring.next_command(&mut command.fetched) {
                match self.ring.next_other(&mut command.fetched)? {
                    Next::Command => {}
                    Next::Empty => break,
                    Next::TaskManagement(notice) => {
                        self.task_management(&notice)?;
                        taken += 1;
                        continue;
                    }
                }
            }
            taken += 1;
            (command.age, command.begun) = (1, self.timing.begun);
            self.free.pop();
            self.in_flight += 1;
            // Where a range is somebody's own, the engine's tasks tell whose.
            if self.exclusive == 0
                && let Some(plain) = plain::judge(&self.judge, &command.fetched)
            {
                self.tally.add(&plain);
                bytes += plain.length.saturating_sub(UNCOUNTED);
                self.batch.push(command.arm_plain(plain));
            } else {
                self.begin_other(index)?;
            }
        }
        Ok((taken, taken >= TURN || bytes >= TURN_BYTES))
    }

    /// A command that is free, and still in the list of those: the last one.
    #[inline]
    fn next_command(&mut self) -> usize {
        if let Some(index) = self.free.last() {
            return *index;
        }
        let index = self.commands.len();
        self.commands.push(Command::new(Arc::as_ptr(&self.shared), index));
        self.free.push(index);
        index
    }

    /// A command that is free, from now on not in the list of those.
    fn free_command(&mut self) -> usize {
        let index = self.next_command();
        self.free.pop();
        index
    }

    /// Begins a command that is not plain.
    #[inline(never)]
    fn begin_other(&mut self, index: usize) -> Result<(), ServeError> {
        self.counters.cells().commands.add(1);
        if self.unit.info().flags().contains(DeviceFlags::SCSI) {
            self.batch.push(self.commands[index].arm_cdb());
            return Ok(());
        }
        // It may ask for what is counted.
        self.count_plain();
        self.begin(index)
    }

    /// Lets the engine judge a command.
    fn begin(&mut self, index: usize) -> Result<(), ServeError> {
        let command = &mut self.commands[index];
        let (task, step) = engine::begin(&mut self.unit, command.fetched.cdb(), &command.buffer());
        self.judge = Judge::of(&self.unit);
        self.exclusive += usize::from(task.exclusive);
        command.task = Some(task);
        match step {
            Step::Done(outcome) => self.finish(index, outcome),
            Step::Submit(work) => {
                match work.op {
                    abi::TCMU_OP_READ => {
                        self.counters.cells().reads.add(1);
                        self.counters.cells().bytes_read.add(work.length);
                    }
                    abi::TCMU_OP_WRITE => {
                        self.counters.cells().writes.add(1);
                        self.counters.cells().bytes_written.add(work.length);
                    }
                    _ => {}
                }
                self.submit_in_turn(index, work);
                Ok(())
            }
            Step::Detach(detached) => {
                let (outcome, work) = *detached;
                if let Err(error) = self.detach(index, outcome) {
                    self.release(index);
                    return Err(error);
                }
                self.submit_in_turn(index, work);
                Ok(())
            }
            Step::Ask(question) => {
                self.ask(index, question);
                Ok(())
            }
        }
    }

    /// Submits the first piece of work of a command, unless it has to wait for another command's range.
    fn submit_in_turn(&mut self, index: usize, work: Work) {
        if self.exclusive > 0 && self.must_wait(index) {
            self.waiting.push_back((index, work));
        } else {
            self.submit(index, work);
        }
    }

    /// Whether a command that changes a range has to wait for one that has an overlapping range to itself, or the other way round.
    fn must_wait(&self, index: usize) -> bool {
        let task = |index: usize| {
            let command = &self.commands[index];
            let plain = command.plain.as_ref().map(|plain| (plain::changes(plain), false));
            plain.or_else(|| command.task.as_ref().map(|task| (task.changes, task.exclusive)))
        };
        let Some((Some(range), exclusive)) = task(index) else { return false };
        let overlaps = |other: usize| match task(other) {
            Some((Some(other_range), other_exclusive)) => {
                (exclusive || other_exclusive) && range.0 < other_range.0 + other_range.1 && other_range.0 < range.0 + range.1
            }
            _ => false,
        };
        (0..self.commands.len()).any(|other| other != index && self.commands[other].age > 0 && overlaps(other))
    }

    /// Lets those go on that waited for a range.
    #[inline]
    fn retry_waiting(&mut self) {
        if !self.waiting.is_empty() {
            self.retry_all_waiting();
        }
    }

    #[cold]
    fn retry_all_waiting(&mut self) {
        for _ in 0..self.waiting.len() {
            let Some((index, work)) = self.waiting.pop_front() else { return };
            // A waiting command neither waits for itself nor for those behind it.
            let behind: Vec<usize> = self.waiting.iter().map(|(index, _)| *index).collect();
            let ages: Vec<u8> = behind.iter().map(|other| std::mem::take(&mut self.commands[*other].age)).collect();
            let wait = self.must_wait(index);
            for (other, age) in behind.iter().zip(ages) {
                self.commands[*other].age = age;
            }
            if wait {
                self.waiting.push_front((index, work));
                return;
            }
            self.submit(index, work);
        }
    }

    /// Gets a command's request ready for the handler.
    fn submit(&mut self, index: usize, work: Work) {
        if let Some(peer) = work.peer {
            return self.submit_to_peer(index, peer, work);
        }
        self.batch.push(self.commands[index].arm(work));
    }

    /// Hands the batch to the handler and takes what it completed at once, until there is nothing left of either.
    #[inline(never)]
    fn settle(&mut self) -> Result<(), ServeError> {
        let mut outcome = Ok(());
        loop {
            if !self.batch.is_empty() {
                match &self.lane {
                    // SAFETY: armed slots of this device, on the thread that serves it.
                    None => unsafe { self.device.submit(&self.batch) },
                    Some(lane) => self.shared.pool.submit(lane, &self.batch),
                }
                self.batch.clear();
            }
            let mut slot = self.shared.take_local();
            if slot.is_null() && self.batch.is_empty() {
                return outcome;
            }
            while !slot.is_null() {
                // SAFETY: completed on this thread, so one of ours.
                let (index, next) = unsafe { ((*slot).index, (*slot).next) };
                if let Err(error) = self.came_back(index) {
                    outcome = Err(error);
                }
                slot = next;
            }
        }
    }
}

impl Drop for DeviceServer {
    fn drop(&mut self) {
        if self.in_flight == 0 {
            return;
        }
        // The handler still has requests, which point to the slots, the shared memory and the waker: they must outlive it.
        tracing::error!(
            device = self.name,
            in_flight = self.in_flight,
            "abandoned with commands in flight; its memory is not freed"
        );
        std::mem::forget(std::mem::take(&mut self.commands));
        std::mem::forget(self.shared.clone());
        std::mem::forget(self.device.clone());
        std::mem::forget(self.ring.mapping().clone());
    }
}

impl std::fmt::Debug for DeviceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceServer").field("name", &self.name).field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}
