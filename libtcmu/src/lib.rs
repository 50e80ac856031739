//! Linux TCMU.
