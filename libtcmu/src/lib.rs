//! Linux's TCMU as a library.
pub mod mapping;
pub mod ring;
pub mod sim;
