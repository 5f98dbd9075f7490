//! See `tidelog_fuzz::merged`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: tidelog_fuzz::let_the_core_catch(), |data: &[u8]| tidelog_fuzz::merged(data));
