//! Linux's TCMU as a library.
pub mod engine;
pub mod mapping;
pub mod ring;
pub mod server;
pub mod sim;
