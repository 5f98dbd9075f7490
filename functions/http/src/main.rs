//! `tidelog-http`: wiring.

use std::sync::Arc;

use clap::Parser;
use tidelog_functions::{Settings, telemetry};
use tokio::net::TcpListener;

/// Serve ingest and fetch on one port, for development
#[derive(Debug, Parser)]
struct Args {
    /// The store: a folder, memory:, or s3://…
    #[arg(long, default_value = "memory:")]
    store: String,
    /// Address and port; port 0 takes any that is free
    #[arg(long, default_value = "127.0.0.1:9080")]
    listen: String,
    /// Partitions of topics that are made because somebody writes to them; 0: none is made
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000))]
    auto_create_partitions: u32,
    /// Topic of OTLP requests that name none
    #[arg(long)]
    otlp_topic: Option<String>,
    /// Milliseconds that a request has
    #[arg(long, default_value_t = 30_000)]
    timeout_ms: u64,
    /// Memory of the function that is played, MiB
    #[arg(long, default_value_t = 1_024)]
    memory_mib: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let (auto_create_partitions, otlp_topic) = (args.auto_create_partitions, args.otlp_topic);
    let settings = Settings {
        auto_create_partitions,
        otlp_topic,
        memory_mib: args.memory_mib,
        ..Settings::of(&args.store)
    };
    telemetry::start_logs(settings.log_level);
    let listener = TcpListener::bind(&args.listen).await?;
    println!("http://{}", listener.local_addr()?);
    let app = Arc::new(tidelog_http::app(settings));
    tokio::select! {
        served = tidelog_http::serve(listener, app, args.timeout_ms) => Ok(served?),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}
