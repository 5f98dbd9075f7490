//! See `tidelog_fuzz::http::lines`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog_fuzz::http::lines(data));
