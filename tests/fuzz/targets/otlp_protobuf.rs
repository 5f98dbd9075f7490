//! See `tidelog_fuzz::http::otlp_protobuf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog_fuzz::http::otlp_protobuf(data));
