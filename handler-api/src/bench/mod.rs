//! Runs any handler, from a `.so` or linked in, without a kernel and without root.
//!
//! Two things are here. [`conformance`] runs everything that a handler must do against a model in memory and returns a [`Report`];
//! `tcmuctl handler test` is a thin skin over it. [`Bench`] opens one device and sends it single [`Command`]s, for a handler's own
//! tests:
//!
//! ```
//! use tcmu_handler_api::bench::{Bench, Command, linked};
//! # use tcmu_handler_api::prelude::*;
//! # struct Ram(std::sync::RwLock<Vec<u8>>);
//! # impl Handler for Ram {
//! #     const INFO: HandlerInfo = HandlerInfo { subtype: c"ram", name: c"RAM", version: c"1", config_desc: c"ram/" };
//! #     fn open(_: &Open<'_>, info: &mut DeviceInfo) -> Result<Ram, Refusal> {
//! #         Ok(Ram(std::sync::RwLock::new(vec![0; info.size() as usize])))
//! #     }
//! # }
//! # impl BlockDevice for Ram {
//! #     fn read(&self, offset: u64, data: Buffer<'_>) -> Result<(), Error> {
//! #         data.copy_from(&self.0.read().unwrap()[offset as usize..]);
//! #         Ok(())
//! #     }
//! #     fn write(&self, offset: u64, data: Buffer<'_>, _: RequestFlags) -> Result<(), Error> {
//! #         data.copy_to(&mut self.0.write().unwrap()[offset as usize..]);
//! #         Ok(())
//! #     }
//! # }
//!
//! let device = Bench::new(linked::<Ram>()?, "").size(1 << 20).open()?;
//! device.run(Command::write(512, &[7; 512]))?;
//! assert_eq!(device.run(Command::read(512, 512))?.data, [7; 512]);
//! device.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `command` | [`Command`], [`Answer`]: what is sent and what came back |
//! | `memory` | data buffers in segments between guard bytes |
//! | `slot` | the memory of one request; counts its completions |
//! | `device` | [`Bench`], [`BenchDevice`]: threads, queues, timeouts |
//! | `services` | the host's services, with I/O that completes at once or later |
//! | `report` | [`Report`] |
//! | `conformance` | the checks |
//!
//! A handler that hangs does not hang the bench: every call has a timeout, and what hung is left behind with all its memory. A
//! handler that crashes takes the process with it.
mod command;
mod conformance;
mod device;
mod memory;
mod report;
mod rng;
mod services;
mod slot;

pub use command::{Answer, Command, Failure};
pub use conformance::{Options, conformance};
pub use device::{Bench, BenchDevice, BenchError, Pending};
pub use report::{Check, Outcome, Report};
pub use services::{linked, load, offer, services};
