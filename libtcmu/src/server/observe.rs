//! Those who look at single commands.
use std::{sync::Arc, time::Duration};

use super::{Attached, Message};

/// A command as it was completed.
#[derive(Clone, Copy, Debug)]
pub struct Completed<'a> {
    /// Its CDB.
    pub cdb: &'a [u8],
    /// Bytes of its data buffer.
    pub length: u64,
    /// SCSI status.
    pub status: u8,
    /// Sense data, if there is some.
    pub sense: &'a [u8],
    /// From the ring and back.
    pub latency: Duration,
}

/// Is told of each command of a device.
pub trait Observe: Send + Sync {
    /// On the thread that serves the device, which waits for this.
    fn completed(&self, command: &Completed<'_>);
}

impl Attached {
    /// Has somebody told of each command from now on, in place of who was told before. Meanwhile commands take the long way through the
    /// engine, which costs some hundred nanoseconds each.
    pub fn observe(&self, observer: Option<Arc<dyn Observe>>) {
        self.reactor.send(Message::With(self.key, Box::new(move |server| server.observe(observer))));
    }

    /// Commands that take longer are said to be slow; `None`: none is.
    pub fn set_slow(&self, limit: Option<Duration>) {
        self.reactor.send(Message::With(self.key, Box::new(move |server| server.set_slow(limit))));
    }
}
