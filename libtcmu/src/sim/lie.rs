//! Ways to break the rules.
use super::{OFFSET, SimKernel};
use crate::ring::layout::{header, mailbox, op, request};

/// A way in which the simulated kernel can lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Lie {
    /// `cmd_head` outside the ring.
    HeadOutside,
    /// `cmd_head` where no entry can end.
    HeadUnaligned,
    /// An entry without a length.
    NoLength,
    /// An entry that reaches past `cmd_head`.
    LengthPastHead,
    /// An entry too short for its response.
    TooShort,
    /// The CDB outside the mapping.
    CdbOutside,
    /// An iovec outside the mapping.
    IovecOutside,
    /// An iovec whose end wraps around.
    IovecWraps,
    /// More iovecs than the entry holds.
    ManyIovecs,
    /// An id that is in flight.
    DuplicateId,
    /// An opcode that doesn't exist. No lie, just news: it must be refused and skipped.
    UnknownOpcode,
}

impl Lie {
    /// All of them.
    pub const ALL: [Lie; 11] = [
        Lie::HeadOutside,
        Lie::HeadUnaligned,
        Lie::NoLength,
        Lie::LengthPastHead,
        Lie::TooShort,
        Lie::CdbOutside,
        Lie::IovecOutside,
        Lie::IovecWraps,
        Lie::ManyIovecs,
        Lie::DuplicateId,
        Lie::UnknownOpcode,
    ];
}

impl SimKernel {
    /// Puts one more command on the ring, a TEST UNIT READY, with a lie about it.
    pub fn lie(&mut self, lie: Lie) {
        if lie == Lie::DuplicateId {
            // The id of the command before.
            self.next_id = self.next_id.wrapping_sub(1);
            let kept = self.commands.remove(&(self.next_id + 1));
            let _ = self.queue_quietly(&[0; 6], super::Data::None);
            if let Some(kept) = kept {
                self.commands.insert(self.next_id, kept);
            }
            return self.ring_bell();
        }
        let at = u64::from(OFFSET + self.head);
        let _ = self.queue_quietly(&[0; 6], super::Data::In(16));
        let len = u32::from_ne_bytes(self.read(at)) & !op::MASK;
        let put32 = |at: u64, value: u32| self.write(at, &value.to_ne_bytes());
        match lie {
            Lie::HeadOutside => put32(mailbox::CMD_HEAD, self.config.ring + 8),
            Lie::HeadUnaligned => put32(mailbox::CMD_HEAD, self.head + 4),
            Lie::NoLength => put32(at, op::CMD),
            Lie::LengthPastHead => put32(at, (len + 8) | op::CMD),
            Lie::TooShort => put32(at, 16 | op::CMD),
            Lie::CdbOutside => self.write(at + request::CDB_OFF, &(1u64 << 40).to_ne_bytes()),
            Lie::IovecOutside => self.write(at + request::IOV, &(1usize << 40).to_ne_bytes()),
            Lie::IovecWraps => self.write(at + request::IOV, &(usize::MAX - 8).to_ne_bytes()),
            Lie::ManyIovecs => put32(at + request::IOV_CNT, u32::MAX),
            Lie::DuplicateId => {}
            Lie::UnknownOpcode => put32(at + header::LEN_OP, len | 5),
        }
        self.ring_bell();
    }
}
