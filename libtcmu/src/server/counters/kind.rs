//! What commands are counted as.

/// How many kinds there are.
pub const KINDS: usize = 8;

/// A kind of command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(usize)]
pub enum Kind {
    Read,
    /// Also WRITE AND VERIFY, WRITE ATOMIC, ORWRITE.
    Write,
    /// SYNCHRONIZE CACHE.
    Flush,
    Unmap,
    WriteSame,
    CompareAndWrite,
    /// EXTENDED COPY and its relatives.
    Copy,
    Other,
}

impl Kind {
    /// All of them, in the order of [`Counters::latency`](super::Counters::latency).
    pub const ALL: [Kind; KINDS] =
        [Kind::Read, Kind::Write, Kind::Flush, Kind::Unmap, Kind::WriteSame, Kind::CompareAndWrite, Kind::Copy, Kind::Other];

    /// By the operation code.
    pub fn of(cdb: &[u8]) -> Kind {
        match cdb.first().copied().unwrap_or(0) {
            0x08 | 0x28 | 0x88 | 0xa8 => Kind::Read,
            0x0a | 0x2a | 0x2e | 0x8a | 0x8b | 0x8e | 0x9c | 0xaa | 0xae => Kind::Write,
            0x35 | 0x91 => Kind::Flush,
            0x42 => Kind::Unmap,
            0x41 | 0x93 => Kind::WriteSame,
            0x89 => Kind::CompareAndWrite,
            0x83 => Kind::Copy,
            _ => Kind::Other,
        }
    }

    /// One word, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::Flush => "flush",
            Kind::Unmap => "unmap",
            Kind::WriteSame => "write_same",
            Kind::CompareAndWrite => "compare_and_write",
            Kind::Copy => "copy",
            Kind::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use tcmu_handler_api::scsi::opcode::TABLE;

    use super::*;

    #[test]
    fn kinds_are_in_the_order_of_their_numbers() {
        assert!(Kind::ALL.iter().enumerate().all(|(number, kind)| *kind as usize == number));
    }

    #[test]
    fn commands_are_counted_as_what_their_names_say() {
        for entry in TABLE {
            let name = format!("{:?}", entry.opcode);
            let wanted = match name.as_str() {
                "Read6" | "Read10" | "Read12" | "Read16" => Kind::Read,
                "OrWrite16" | "Write6" | "Write10" | "Write12" | "Write16" | "WriteAtomic16" => Kind::Write,
                name if name.starts_with("WriteAndVerify") => Kind::Write,
                name if name.starts_with("SynchronizeCache") => Kind::Flush,
                "Unmap" => Kind::Unmap,
                name if name.starts_with("WriteSame") => Kind::WriteSame,
                "CompareAndWrite" => Kind::CompareAndWrite,
                "ExtendedCopyLid1" | "PopulateToken" | "WriteUsingToken" => Kind::Copy,
                _ => Kind::Other,
            };
            assert_eq!(Kind::of(entry.usage), wanted, "{name}");
        }
        assert_eq!(Kind::of(&[]), Kind::Other);
    }
}
