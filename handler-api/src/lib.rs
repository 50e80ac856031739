//! What crosses the plugin boundary of `tcmu-runnerd`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`abi`] | the C ABI, the one file that defines it |
//! | [`plugin`] | the safe Rust side for authors of handlers: traits, requests, buffers, [`export_handler!`] |
//! | [`host`] | the safe side for those who call handlers: loading, opening, requests (feature `host`) |
//! | [`scsi`] | the SCSI model: CDBs, sense data, pages; pure |
//! | [`bench`] | runs any handler against a model without a kernel or root (feature `bench`) |
//!
//! A disk in memory, whole (it ships as `examples/ram.rs`):
//!
//! ```
#![doc = include_str!("../examples/ram.rs")]
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod abi;
#[cfg(feature = "bench")]
pub mod bench;
#[cfg(feature = "host")]
pub mod host;
pub mod plugin;
pub mod scsi;

/// What a handler usually needs.
pub mod prelude {
    pub use crate::export_handler;
    pub use crate::plugin::{
        Batch, BlockDevice, Buffer, Change, Device, DeviceFlags, DeviceInfo, Error, Handler, HandlerInfo, Open, Operation,
        Operations, Refusal, Request, RequestFlags, RequestId, Threads,
    };
}
