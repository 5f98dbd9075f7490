#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| { let _ = tidelog_core::segment::inline::decode_inline(&bytes::Bytes::copy_from_slice(data)); });
