//! Linux's TCMU as a library.
//!
//! | module | what it holds |
//! |---|---|
//! | [`disk`] | a disk out of anything with `read_at` and `write_at`: one call and `/dev/<dir>/<name>` is there |
//! | [`server`] | the device server: ring → SCSI engine → handler → ring, on its own threads or in the caller's loop |
//! | [`engine`] | the SCSI engine: from a CDB to requests for a handler, and back |
//! | [`ring`], [`mapping`] | mailbox and command ring in shared memory |
//! | [`uio`], [`netlink`], [`configfs`] | the kernel's other interfaces |
//! | [`sim`] | a simulated kernel side, for tests and benchmarks |
pub mod configfs;
pub mod disk;
pub mod engine;
pub mod identity;
pub mod mapping;
pub mod netlink;
pub mod ring;
mod roots;
pub mod server;
pub mod sim;
pub mod uio;

pub use identity::BackstoreId;
pub use roots::Roots;
