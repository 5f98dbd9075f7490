//! `tidelog group`: stored offsets of consumer groups.

use clap::Subcommand;
use serde_json::json;
use tidelog_core::{Error, Log, Position};

use crate::out::{Context, Outcome, print, print_json, table};
use crate::time::parse_position;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the groups
    List,
    /// Show a group's stored offsets, and how far behind they are
    Describe {
        /// The group
        group: String,
    },
    /// Move a group's stored offsets; members that run keep their place until they start again
    Reset {
        /// The group; it need not exist yet
        group: String,
        /// The topic
        #[arg(long)]
        topic: String,
        /// Only this partition; may be given more than once
        #[arg(long, value_name = "P")]
        partition: Vec<u32>,
        /// start, end, an offset, or a TIME
        #[arg(long, value_name = "POSITION", value_parser = parse_position, allow_hyphen_values = true)]
        to: Position,
    },
    /// Forget a group
    Delete {
        /// The group
        group: String,
    },
}

pub async fn run(context: &Context, command: Command) -> Outcome {
    let log = context.open_existing().await?;
    match command {
        Command::List => {
            let groups = log.admin().groups().await?;
            if context.json() {
                return print_json(&json!(groups));
            }
            print(&groups.iter().map(|group| format!("{group}\n")).collect::<String>())
        }
        Command::Describe { group } => describe(context, &log, &group).await,
        Command::Reset { group, topic, partition, to } => {
            let offsets = positions(&log, &topic, &partition, to).await?;
            let stored: Vec<_> = offsets.iter().map(|(p, offset)| (*p, Some(*offset))).collect();
            log.admin().store_offsets(&group, &topic, &stored).await?;
            describe(context, &log, &group).await
        }
        Command::Delete { group } => {
            log.admin().delete_group(&group).await?;
            context.done(&format!("deleted group {group}"), &json!({"group": group}))
        }
    }
}

async fn describe(context: &Context, log: &Log, group: &str) -> Outcome {
    let lags = log.admin().describe_group(group).await?;
    if context.json() {
        let lag = |lag: &tidelog_core::log::GroupLag| {
            json!({
                "topic": lag.topic, "partition": lag.partition, "offset": lag.offset,
                "high_watermark": lag.high_watermark, "lag": lag.lag,
            })
        };
        return print_json(&json!({"group": group, "partitions": lags.iter().map(lag).collect::<Vec<_>>()}));
    }
    let rows: Vec<Vec<String>> = lags
        .iter()
        .map(|lag| {
            let numbers = [u64::from(lag.partition), lag.offset, lag.high_watermark, lag.lag];
            [lag.topic.clone()].into_iter().chain(numbers.map(|n| n.to_string())).collect()
        })
        .collect();
    print(&table(&["TOPIC", "PARTITION", "OFFSET", "HIGH WATERMARK", "LAG"], &rows))
}

/// The offset that a position means in each partition.
async fn positions(
    log: &Log,
    topic: &str,
    wanted: &[u32],
    to: Position,
) -> tidelog_core::Result<Vec<(u32, u64)>> {
    let known = log.admin().describe_topic(topic).await?;
    if let Some(partition) = wanted.iter().find(|p| **p as usize >= known.partitions.len()) {
        let (topic, partitions) = (topic.to_owned(), known.partitions.len() as u32);
        return Err(Error::UnknownPartition { topic, partition: *partition, partitions });
    }
    let fetcher = log.fetcher();
    let mut offsets = Vec::new();
    for p in known.partitions.iter().filter(|p| wanted.is_empty() || wanted.contains(&p.partition)) {
        let (log_start, high_watermark) = (p.log_start, p.high_watermark);
        let offset = match to {
            Position::Start => log_start,
            Position::End => high_watermark,
            Position::Offset(offset) if (log_start..=high_watermark).contains(&offset) => offset,
            Position::Offset(offset) => {
                let (topic, partition) = (topic.to_owned(), p.partition);
                return Err(Error::OffsetOutOfRange { topic, partition, offset, log_start, high_watermark });
            }
            Position::Time(us) => fetcher.offset_at(topic, p.partition, us).await?.unwrap_or(high_watermark),
        };
        offsets.push((p.partition, offset));
    }
    Ok(offsets)
}
