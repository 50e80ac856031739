//! Runs any handler against a model, without a kernel or root.
mod conformance;
mod device;
mod report;

pub use conformance::{Options, conformance};
pub use device::{BenchDevice, Done, Segments};
pub use report::{Check, Report, Verdict};
