//! See `tidelog_fuzz::segment`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: tidelog_fuzz::let_the_core_catch(), |data: &[u8]| tidelog_fuzz::segment(data));
