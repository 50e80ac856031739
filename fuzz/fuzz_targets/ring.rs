#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tcmu_fuzz::ring(data));
