//! Units that may be copied to and from each other: who they are, and the pieces that one has done by another.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tcmu_handler_api::plugin::DeviceInfo;

use super::reactor::{Message, Reactor};
use crate::engine::{Peer, PeerKey, Peers, Target, Unit, Work};

/// All devices of a server, by their names.
#[derive(Default)]
pub(super) struct Neighbours(Mutex<HashMap<String, Neighbour>>);

struct Neighbour {
    key: PeerKey,
    reactor: Arc<Reactor>,
    info: DeviceInfo,
    target: Arc<dyn Target>,
}

impl Neighbours {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Neighbour>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, name: &str, key: PeerKey, reactor: Arc<Reactor>, info: DeviceInfo, target: Arc<dyn Target>) {
        self.lock().insert(name.to_owned(), Neighbour { key, reactor, info, target });
    }

    pub(super) fn change(&self, key: PeerKey, info: DeviceInfo) {
        self.lock().values_mut().filter(|neighbour| neighbour.key == key).for_each(|neighbour| neighbour.info = info);
    }

    pub(super) fn remove(&self, key: PeerKey) {
        self.lock().retain(|_, neighbour| neighbour.key != key);
    }

    /// Those of these names that are there.
    pub(super) fn named(self: &Arc<Neighbours>, names: Vec<String>) -> Peers {
        let all = self.clone();
        Box::new(move || {
            let all = all.lock();
            let named = names.iter().filter_map(|name| all.get(name));
            named.map(|n| Peer { key: n.key, unit: Unit::new(n.info, 0, n.target.clone()) }).collect()
        })
    }

    /// Has a piece done by another unit. `done` is called exactly once, from any thread, with 0 or a negative `errno`.
    pub(super) fn send(&self, key: PeerKey, work: Work, memory: Vec<u8>, done: Done) {
        let piece = Piece { work, memory, done: Some(done) };
        let reactor = self.lock().values().find(|neighbour| neighbour.key == key).map(|neighbour| neighbour.reactor.clone());
        if let Some(reactor) = reactor {
            reactor.send(Message::Piece(key, piece));
        }
    }
}

/// What is to be called when a piece is done, with its memory.
pub(super) type Done = Box<dyn FnOnce(i32, Vec<u8>) + Send>;

/// A piece of one unit's copy for another to do. When nobody does it, whoever waits is told.
pub(super) struct Piece {
    pub(super) work: Work,
    pub(super) memory: Vec<u8>,
    pub(super) done: Option<Done>,
}

impl Piece {
    /// Work that is nobody's copy and needs no memory. `done` gets 0 or a negative `errno`.
    pub(super) fn new(work: Work, done: impl FnOnce(i32) + Send + 'static) -> Piece {
        Piece { work, memory: Vec::new(), done: Some(Box::new(move |status, _| done(status))) }
    }

    pub(super) fn end(mut self, status: i32) {
        if let Some(done) = self.done.take() {
            done(status, std::mem::take(&mut self.memory));
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(-libc::ENODEV, std::mem::take(&mut self.memory));
        }
    }
}
