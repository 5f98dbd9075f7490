//! See `tidelog_fuzz::text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog_fuzz::text(data));
