//! Merges and rewrites a folder's log with the allocator that the product has, and prints this process's peak of resident
//! memory after each, MiB: `merge-peak FOLDER`. Run by the bench `merge`; a binary of its own, for its allocator.

use tidelog_bench::Fallible;
use tidelog_core::Log;
use tidelog_core::upkeep::UpkeepSettings;

fn main() -> Fallible<()> {
    let store = std::env::args().nth(1).ok_or("a folder is wanted")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let upkeep = Log::open(&store).await?.upkeep(UpkeepSettings::default());
        let merged = upkeep.merge(true, |_, _| {}).await?;
        assert_eq!(merged.damage, Vec::<String>::new());
        print_peak()?;
        assert_ne!(upkeep.rewrite(true, |_| {}).await?.objects, 0);
        print_peak()
    })
}

fn print_peak() -> Fallible<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: f64 = peak.trim().trim_end_matches("kB").trim().parse()?;
    println!("{:.1}", kib / 1024.0);
    Ok(())
}
