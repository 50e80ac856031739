//! The `null` handler.
