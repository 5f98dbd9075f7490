//! The server as a program, for benches and for trying things out by hand.
#![allow(clippy::disallowed_methods, reason = "a server for tests")]

use std::net::SocketAddr;

use clap::Parser;
use tidelog_s3server::{Fault, Latency, Rule, Server, Verb, When};

/// S3 in memory; access key and secret are `test`. Prints its endpoint, and at the end what was asked of it.
#[derive(Debug, Parser)]
#[command(name = "tidelog-s3server")]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The bucket to begin with.
    #[arg(long, default_value = "tidelog")]
    bucket: String,
    /// Draws latency and faults.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Median of a PUT, milliseconds.
    #[arg(long, default_value_t = 0.0)]
    put_ms: f64,
    /// Median of a GET or HEAD, milliseconds.
    #[arg(long, default_value_t = 0.0)]
    get_ms: f64,
    /// Spread: sigma of the logarithm; 0 is a constant latency.
    #[arg(long, default_value_t = 0.0)]
    sigma: f64,
    /// Share of PUTs answered with 409 `ConditionalRequestConflict`.
    #[arg(long, default_value_t = 0.0)]
    conflict_rate: f64,
    /// Share of all requests answered with 500 `InternalError`.
    #[arg(long, default_value_t = 0.0)]
    error_rate: f64,
    /// Share of all requests answered with 503 `SlowDown`.
    #[arg(long, default_value_t = 0.0)]
    throttle_rate: f64,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let server = Server::listen(args.listen, &args.bucket, args.seed).await?;
    let latency = |median_ms: f64| match args.sigma {
        0.0 => Latency::Constant(median_ms),
        sigma => Latency::LogNormal { median_ms, sigma },
    };
    server.set_latency(Verb::Put, latency(args.put_ms));
    server.set_latency(Verb::Get, latency(args.get_ms));
    server.set_latency(Verb::Head, latency(args.get_ms));
    for (verb, rate, fault) in [
        (Some(Verb::Put), args.conflict_rate, Fault::Conflict),
        (None, args.error_rate, Fault::Internal),
        (None, args.throttle_rate, Fault::SlowDown),
    ] {
        if rate > 0.0 {
            server.add_rule(Rule { verb, key: String::new(), when: When::Rate(rate), fault });
        }
    }
    println!("{}", server.endpoint());
    tokio::signal::ctrl_c().await?;
    for (verb, count) in server.counts() {
        println!("{verb:?} {count}");
    }
    Ok(())
}
