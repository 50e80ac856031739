//! A model of a disk, a rig that compares a real one with it, and commands out of arbitrary bytes.
//!
//! | module | subject |
//! |---|---|
//! | `choose` | decisions out of bytes |
//! | `shape` | kinds of devices |
//! | `handler` | the disk in memory that is served; it watches how it is called |
//! | `facts` | what the unit says of itself |
//! | `disk` | the model: what a command must do |
//! | `access`, `provisioning`, `copy` | its commands |
//! | `verdict` | what the model expects, and whether it came so |
//! | `command` | commands to try: valid, on the edge, malformed |
//! | `lists` | parameter lists to try |
//! | `rig` | a device on the simulated kernel, and one command at a time |
//! | `group` | several commands at a time |
//! | `show` | commands, for people |
mod access;
mod choose;
mod command;
mod copy;
mod disk;
pub mod facts;
mod group;
mod handler;
mod lists;
mod provisioning;
mod rig;
mod shape;
mod show;
mod verdict;

pub use choose::Choose;
pub use command::KNOWN;
use facts::{be16, be32, be64};
pub use rig::{Rig, Tally};
pub use shape::Shape;
