//! The safe Rust side of the ABI, for authors of handlers.
//!
//! A handler implements two traits: [`Handler`] (what it is, and how a device is opened from a config string) and one of
//!
//! * [`BlockDevice`]: `read`, `write` and whatever else it can do, each returning when it is done. Enough for most.
//! * [`Device`]: takes batches of owned [`Request`]s and completes each when it likes, from any thread; hands I/O on a file descriptor
//!   back to the host ([`Request::io`]); gets whole SCSI commands if it wants them.
//!
//! and says [`export_handler!`](crate::export_handler). A panic in a handler fails the requests it held and nothing else.
mod buffer;
mod device;
mod error;
mod info;
pub mod log;
pub mod options;
pub(crate) mod request;
pub(crate) mod table;

pub use buffer::Buffer;
pub use device::{BlockDevice, Device, Handler, HandlerInfo, LockState, Threads};
pub use error::{Error, Refusal};
pub use info::{Change, DeviceFlags, DeviceInfo, Notifier, Open};
pub use request::{Batch, FileIo, Operation, Operations, Request, RequestFlags, RequestId};
pub use table::{embedded_table, handler_table};
