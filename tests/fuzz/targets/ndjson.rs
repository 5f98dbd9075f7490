//! See `tidelog_fuzz::http::ndjson`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog_fuzz::http::ndjson(data));
