//! What the fuzz targets do, as plain functions: they panic when something is wrong.
//!
//! | target | bytes | what must hold |
//! |---|---|---|
//! | [`decode`] | a CDB | a bit that is not in the usage map is refused, and pointed at |
//! | [`parameters`] | which command, its parameter list | the unit stays usable; UNMAP and EXTENDED COPY do what the model does |
//! | [`engine`] | the kind of device, then records of commands | the engine does what the model does |
//! | [`plugin`] | a plugin's table and answers | it is refused in words, or its devices answer every command |
//! | [`ring`] | commands, and what is written over ring and mailbox | the device is served, or refused once and for all |
//! | [`netlink`] | a datagram of the kernel | an event that makes sense, or none |
//! | [`names`] | device names, `dev_config`, arguments of `CheckConfig` | taken apart the same each time; judged in words by the handler `file` |
//! | [`config`] | `tcmu.toml` | a configuration within its limits, or the line that is wrong |
//! | [`messages`] | what supervisor and host say to each other | an error, or a message that means the same when it is said again |
//!
//! `cargo +nightly fuzz run <target>` searches; `cargo test` replays `corpus/` and some thousand random inputs with any toolchain.
mod decode;
#[path = "../../libtcmu/tests/model/mod.rs"]
pub mod model;
mod parameters;
mod plugin;
mod ring;
mod text;
mod unit;

pub use decode::decode;
use model::{Rig, Shape};
pub use parameters::parameters;
pub use plugin::plugin;
pub use ring::ring;
pub use text::{config, messages, names, netlink};

/// Bytes of a record, which decides about one command.
const RECORD: usize = 28;
/// Most records of an input: longer ones find nothing more.
const RECORDS: usize = 24;

/// Two bytes for the kind of device, then records.
pub fn engine(data: &[u8]) {
    let Some((bits, records)) = data.split_at_checked(2) else { return };
    let shape = Shape::from_bits(u16::from_be_bytes([bits[0], bits[1]]));
    let records: Vec<&[u8]> = records.chunks(RECORD).take(RECORDS).collect();
    let outcome = Rig::new(shape, 1).and_then(|mut rig| rig.run(&records));
    outcome.unwrap_or_else(|why| panic!("{why}\n  {shape:?}"));
}
