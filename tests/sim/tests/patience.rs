//! A seed that never ends is named, and fails.

use std::process::Command;

#[test]
fn a_seed_that_does_not_end_in_time_is_named_and_fails() {
    let run = |patience| {
        let args = ["--seeds", "77..78", "--patience", patience];
        Command::new(env!("CARGO_BIN_EXE_tidelog-sim")).args(args).output().unwrap()
    };
    let output = run("0");
    let words = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.starts_with("seed 77: has not ended after 0 s"), "{words}");
    assert!(run("600").status.success());
}
