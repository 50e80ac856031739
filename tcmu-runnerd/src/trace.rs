//! The format of traces: what `tcmuctl trace start` has a host write, and `tcmuctl trace print` reads.
//!
//! A header of 64 bytes, then records of 48 bytes each. Numbers are little-endian.
//!
//! | bytes | header | | bytes | record |
//! |---|---|---|---|---|
//! | 0 to 7 | `TCMUTRC` and the version, 1 | | 0 to 7 | when it was completed, nanoseconds since 1970 |
//! | 8 to 15 | when it began, nanoseconds since 1970 | | 8 to 15 | nanoseconds from the ring and back |
//! | 16 to 19 | block size in bytes | | 16 to 31 | the first bytes of the CDB |
//! | 20 to 63 | the device's name, then zeros | | 32 to 39 | bytes of the data buffer; of a gap: commands that are missing |
//! | | | | 40 | length of the CDB; 0: this is a gap |
//! | | | | 41 | SCSI status |
//! | | | | 42, 43, 44 | sense key, ASC, ASCQ |
//! | | | | 45 to 47 | zeros |
use std::io::{self, Read};

use tcmu_handler_api::scsi::{Sense, describe};

/// Bytes of a header.
pub const HEADER: usize = 64;
/// Bytes of a record.
pub const RECORD: usize = 48;

const MAGIC: &[u8; 8] = b"TCMUTRC\x01";
/// Bytes of a CDB that are kept.
const CDB: usize = 16;

/// What a trace is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Nanoseconds since 1970.
    pub began: u64,
    /// Bytes.
    pub block_size: u32,
    /// `user_<hba>/<name>`; the first 44 bytes of it.
    pub device: String,
}

/// A command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When it was completed, in nanoseconds since 1970.
    pub time: u64,
    /// Nanoseconds from the ring and back.
    pub latency: u64,
    /// The first bytes of the CDB.
    pub cdb: [u8; CDB],
    /// How many there are; 0 in a [`Record::gap`].
    pub cdb_length: u8,
    /// Bytes of the data buffer.
    pub length: u64,
    /// SCSI status.
    pub status: u8,
    /// Sense key, additional sense code and qualifier.
    pub sense: [u8; 3],
}

impl Header {
    /// As it is in the file.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.began.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.block_size.to_le_bytes());
        for (byte, letter) in bytes[20..].iter_mut().zip(self.device.bytes()) {
            *byte = letter;
        }
        bytes
    }

    fn decode(bytes: &[u8; HEADER]) -> Option<Header> {
        let name = bytes[20..].split(|byte| *byte == 0).next().unwrap_or_default();
        (bytes[..8] == *MAGIC).then(|| Header {
            began: u64_at(bytes, 8),
            block_size: u64_at(bytes, 16) as u32,
            device: String::from_utf8_lossy(name).into_owned(),
        })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Record {
    /// A command that was completed.
    pub fn new(time: u64, completed: &tcmu::server::Completed<'_>) -> Record {
        let mut cdb = [0; CDB];
        let kept = completed.cdb.len().min(CDB);
        cdb[..kept].copy_from_slice(&completed.cdb[..kept]);
        let sense = Sense::parse(completed.sense).map(|sense| [sense.key as u8, sense.code.asc, sense.code.ascq]);
        Record {
            time,
            latency: completed.latency.as_nanos() as u64,
            cdb,
            cdb_length: kept as u8,
            length: completed.length,
            status: completed.status,
            sense: sense.unwrap_or_default(),
        }
    }

    /// In the place of commands that came too fast.
    pub fn gap(time: u64, missing: u64) -> Record {
        Record { time, length: missing, ..Record::default() }
    }

    /// How many commands are missing here, if this is a gap.
    pub fn missing(&self) -> Option<u64> {
        (self.cdb_length == 0).then_some(self.length)
    }

    /// The CDB.
    pub fn cdb(&self) -> &[u8] {
        &self.cdb[..usize::from(self.cdb_length).min(CDB)]
    }

    /// Status and sense, as they can be shown.
    pub fn outcome(&self) -> describe::Outcome {
        let [key, asc, ascq] = self.sense;
        // Fixed format, of which only these are looked at.
        let sense = [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq];
        describe::outcome(self.status, if self.sense == [0; 3] { &[] } else { &sense })
    }

    /// As it is in the file.
    pub fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..8].copy_from_slice(&self.time.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.latency.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.cdb);
        bytes[32..40].copy_from_slice(&self.length.to_le_bytes());
        bytes[40] = self.cdb_length;
        bytes[41] = self.status;
        bytes[42..45].copy_from_slice(&self.sense);
        bytes
    }

    fn decode(bytes: &[u8; RECORD]) -> Record {
        let mut record = Record {
            time: u64_at(bytes, 0),
            latency: u64_at(bytes, 8),
            length: u64_at(bytes, 32),
            cdb_length: bytes[40].min(CDB as u8),
            status: bytes[41],
            ..Record::default()
        };
        record.cdb.copy_from_slice(&bytes[16..32]);
        record.sense.copy_from_slice(&bytes[42..45]);
        record
    }
}

/// Reads a trace.
#[derive(Debug)]
pub struct Reader<R>(R);

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn new(mut from: R) -> io::Result<(Header, Reader<R>)> {
        let not_one = || io::Error::new(io::ErrorKind::InvalidData, "this is no trace that `tcmuctl trace start` began");
        let mut bytes = [0; HEADER];
        from.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => not_one(),
            _ => error,
        })?;
        Ok((Header::decode(&bytes).ok_or_else(not_one)?, Reader(from)))
    }

    /// The next record. One that is not there as a whole is the end: its host died while it wrote it.
    pub fn record(&mut self) -> io::Result<Option<Record>> {
        let mut bytes = [0; RECORD];
        match self.0.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(Record::decode(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tcmu::server::Completed;

    use super::*;

    fn header() -> Header {
        Header { began: 1 << 60, block_size: 4096, device: "user_0/ä".into() }
    }

    #[test]
    fn a_trace_reads_back_and_says_it_in_words() {
        let sense = [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x21, 0];
        let cdb = [0x28, 0, 0, 0, 1, 0, 0, 0, 8, 0];
        let latency = Duration::from_micros(7);
        let record = Record::new(9, &Completed { cdb: &cdb, length: 4096, status: 2, sense: &sense, latency });
        let file = [&header().encode()[..], &record.encode(), &Record::gap(10, 77).encode(), &[1; RECORD - 1]].concat();
        let (found, mut reader) = Reader::new(&file[..]).unwrap();
        assert_eq!(found, header());
        let read = reader.record().unwrap().unwrap();
        assert_eq!((read, read.missing(), read.cdb()), (record, None, &cdb[..]));
        assert_eq!(read.outcome().to_string(), "CHECK CONDITION: ILLEGAL REQUEST, LBA OUT OF RANGE");
        assert_eq!(reader.record().unwrap().unwrap().missing(), Some(77));
        assert_eq!(reader.record().unwrap(), None, "the last record is cut off");
    }

    #[test]
    fn a_good_command_has_no_sense_data() {
        assert_eq!(Record { cdb_length: 6, ..Record::default() }.outcome().to_string(), "GOOD");
    }

    #[test]
    fn another_file_is_refused() {
        for file in [&b""[..], b"TCMU", &[0; 100], b"TCMUTRC\x02 ------------------------------------------------------------"] {
            assert!(Reader::new(file).unwrap_err().to_string().starts_with("this is no trace"));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_in_a_file_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let file = [&header().encode()[..], &bytes].concat();
            let (_, mut reader) = Reader::new(&file[..]).unwrap();
            while let Some(record) = reader.record().unwrap() {
                prop_assert!(!describe(record.cdb()).to_string().is_empty() && !record.outcome().to_string().is_empty());
            }
        }
    }
}
