//! See `tidelog_fuzz::row`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog_fuzz::row(data));
