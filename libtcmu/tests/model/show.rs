//! Commands, for people.
use tcmu::sim::{Data, SimCompletion};

/// Bytes of data that the engine sees.
pub(super) fn out_length(data: &Data) -> usize {
    match data {
        Data::Bidi(bytes, length) if bytes.is_empty() => *length,
        Data::Out(bytes) | Data::Bidi(bytes, _) => bytes.len(),
        // The engine can't see the direction: what is in the buffer is a list to it.
        Data::In(length) => *length,
        Data::None => 0,
    }
}

/// A command, for people.
pub(super) fn describe(cdb: &[u8], data: &Data, done: &SimCompletion, why: &str) -> String {
    let data = match data {
        Data::Out(bytes) if bytes.len() <= 256 => format!("Data-Out {bytes:02x?}"),
        Data::Out(bytes) => format!("Data-Out of {} bytes, {:02x?}...", bytes.len(), &bytes[..32]),
        Data::In(room) => format!("Data-In of {room} bytes"),
        Data::Bidi(bytes, room) => format!("Data-Out of {} bytes and Data-In of {room}", bytes.len()),
        Data::None => "no data".to_owned(),
    };
    let sense = done.sense.get(..18).unwrap_or(&[]);
    format!("{why}\n  CDB {cdb:02x?}\n  {data}\n  status {:#x}, sense {sense:02x?}", done.status)
}
