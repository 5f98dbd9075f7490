//! libFuzzer's loop around the target that `TIDELOG_FUZZ` names: see `run`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidelog_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("TIDELOG_FUZZ").unwrap_or_default();
    let named = TARGETS.iter().find(|(target, _)| *target == name);
    named.unwrap_or_else(|| panic!("TIDELOG_FUZZ: there is no target {name:?}")).1
});

fuzz_target!(init: tidelog_fuzz::let_the_core_catch(), |data: &[u8]| TARGET(data));
