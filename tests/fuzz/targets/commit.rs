//! See `tidelog_fuzz::commit`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog_fuzz::commit(data));
