//! The timed benches in one binary, which is linked once. `bench/run` runs those of the log, `bench/s3` and
//! `bench/functions` the others.
//!
//! `taskset -c 0 cargo run --release -p tidelog-bench --bin tidelog-bench -- segment|append|catchup|cold|merge [OPTIONS]`

use tidelog_bench::Fallible;
use tidelog_bench::options::Options;

mod append;
mod catchup;
mod cold;
mod functions;
mod merge;
mod s3;
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
        "merge" => merge::run(&options),
        "s3" => s3::run(&options),
        "beside-merge" => s3::beside_merge(&options),
        "functions" => functions::run(&options),
        _ => Err(format!(
            "segment, append, catchup, cold, merge, s3, beside-merge or functions, not {bench:?}"
        )
        .into()),
    }
}
