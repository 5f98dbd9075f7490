//! The proxy as a program. Rules come from the command line and, while it runs, from standard input.
#![allow(clippy::disallowed_methods, reason = "for tests")]

use std::net::SocketAddr;

use clap::Parser;
use tidelog_proxy::{Proxy, Rule};
use tokio::io::{AsyncBufReadExt, BufReader};

/// A fault proxy for an HTTP/1.1 endpoint. Prints its own endpoint, then takes commands from standard input, one a line:
/// a rule, `clear`, `release`, or `log`. Ends with standard input.
#[derive(Debug, Parser)]
#[command(name = "tidelog-proxy")]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The endpoint behind it, as address and port.
    #[arg(long)]
    upstream: SocketAddr,
    /// Draws what the rules leave open.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// `FAULT [method=M] [target=T] [operation=O] [rate=R | numbers=A..B]`. Faults: delay:MS, drop-answer, duplicate,
    /// reset, cut, short, ignore-range, flip-answer, flip-request, answer:STATUS:CODE, answer-after:STATUS:CODE, hold,
    /// hold-answer.
    #[arg(long = "rule")]
    rules: Vec<Rule>,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let proxy = Proxy::listen(args.listen, args.upstream, args.seed).await?;
    args.rules.into_iter().for_each(|rule| proxy.add_rule(rule));
    println!("{}", proxy.endpoint());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.trim() {
            "" => {}
            "clear" => proxy.clear_rules(),
            "release" => proxy.release(),
            "log" => {
                for entry in proxy.log() {
                    let (operation, fault) =
                        (entry.operation.unwrap_or_default(), entry.fault.unwrap_or_default());
                    println!("{} {} {operation} {:?} {fault}", entry.method, entry.target, entry.status);
                }
            }
            rule => match rule.parse() {
                Ok(rule) => proxy.add_rule(rule),
                Err(error) => eprintln!("{error}"),
            },
        }
    }
    Ok(())
}
