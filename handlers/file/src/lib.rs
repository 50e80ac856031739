//! The `file` handler.
