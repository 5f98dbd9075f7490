//! The timed benches in one binary, which is linked once. `bench/run` runs them all.
//!
//! `taskset -c 0 cargo run --release -p tidelog-bench --bin tidelog-bench -- segment|append|catchup|cold [OPTIONS]`

use tidelog_bench::Fallible;
use tidelog_bench::options::Options;

mod append;
mod catchup;
mod cold;
mod segment;

/// Both sides of every pair use it: glibc's gives buffers back to the kernel after each segment.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Fallible<()> {
    let (bench, options) = Options::with_bench(31, 200_000)?;
    match bench.as_str() {
        "segment" => segment::run(&options),
        "append" => append::run(&options),
        "catchup" => catchup::run(&options),
        "cold" => cold::run(&options),
        _ => Err(format!("segment, append, catchup or cold, not {bench:?}").into()),
    }
}
