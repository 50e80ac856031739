//! Runs any handler against a model, without a kernel or root.
