//! The `alloc` handler.
