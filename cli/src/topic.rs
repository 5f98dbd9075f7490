//! `tidelog topic`: what topics there are.

use clap::Subcommand;
use serde_json::{Value, json};
use tidelog_core::Position;
use tidelog_core::log::TopicDescription;
use tidelog_core::topic::CONFIG_KEYS;

use crate::out::{Context, Failure, Outcome, print, print_json, table};
use crate::time::{parse_position, show_ms};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a topic
    Create {
        /// 1 to 249 of a-z A-Z 0-9 . _ -
        name: String,
        /// How many partitions; more can be added later, none taken away
        #[arg(long, value_name = "N")]
        partitions: u32,
        /// Configuration: retention.ms, retention.bytes, compression.type, message.timestamp.type,
        /// max.message.bytes, inline.bytes.max, merge.max.age.ms, parquet.bloom.filter.key
        #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
        config: Vec<(String, String)>,
    },
    /// List the topics
    List,
    /// Show a topic's configuration and partitions
    Describe {
        /// The topic
        name: String,
    },
    /// Add partitions or change configuration
    Alter {
        /// The topic
        name: String,
        /// How many partitions there shall be: not fewer than there are. Keys go to other partitions from then on
        #[arg(long, value_name = "N")]
        partitions: Option<u32>,
        /// Configuration to set
        #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
        config: Vec<(String, String)>,
        /// Configuration to take back to its default
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
    },
    /// Delete the records before an offset or a time: nobody reads them from then on. Their space is freed by `upkeep`
    #[command(name = "delete-records")]
    DeleteRecords {
        /// The topic
        name: String,
        /// The new log start: an offset, a TIME, or end; one that lies before the log start changes nothing
        #[arg(long, value_name = "POSITION", value_parser = parse_position, allow_hyphen_values = true)]
        before: Position,
        /// Only this partition; may be given more than once. An offset must not lie past the end of any
        #[arg(long, value_name = "P")]
        partition: Vec<u32>,
    },
    /// Delete a topic and all its records
    Delete {
        /// The topic
        name: String,
    },
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not KEY=VALUE; keys are {}", CONFIG_KEYS.join(", ")))?;
    Ok((key.to_owned(), value.to_owned()))
}

pub async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Create { name, partitions, config } => {
            let id = context.open().await?.admin().create_topic(&name, partitions, &config).await?;
            let json = json!({"topic": name, "topic_id": id.to_string(), "partitions": partitions});
            context.done(&format!("created {name} with {partitions} partitions"), &json)
        }
        Command::List => list(context).await,
        Command::Describe { name } => {
            let topic = context.open_existing().await?.admin().describe_topic(&name).await?;
            if context.json() { print_json(&to_json(&topic)) } else { print(&to_text(&topic)) }
        }
        Command::Alter { name, partitions, config, unset } => {
            if partitions.is_none() && config.is_empty() && unset.is_empty() {
                return Err(Failure::Usage(
                    "nothing to alter: give --partitions, --config or --unset".into(),
                ));
            }
            let set = config.into_iter().map(|(key, value)| (key, Some(value)));
            let changes: Vec<_> = set.chain(unset.into_iter().map(|key| (key, None))).collect();
            context.open_existing().await?.admin().alter_topic(&name, partitions, &changes).await?;
            context.done(&format!("altered {name}"), &json!({"topic": name}))
        }
        Command::DeleteRecords { name, before, partition } => {
            let partitions = (!partition.is_empty()).then_some(&partition[..]);
            let admin = context.open_existing().await?.admin();
            let starts = admin.delete_records(&name, partitions, before).await?;
            if context.json() {
                let start = |(partition, log_start): &(u32, u64)| json!({"partition": partition, "log_start": log_start});
                let starts: Vec<_> = starts.iter().map(start).collect();
                return print_json(&json!({"topic": name, "partitions": starts}));
            }
            print(
                &starts
                    .iter()
                    .map(|(p, start)| format!("{name}/{p} starts at {start}\n"))
                    .collect::<String>(),
            )
        }
        Command::Delete { name } => {
            context.open_existing().await?.admin().delete_topic(&name).await?;
            context.done(&format!("deleted {name}"), &json!({"topic": name}))
        }
    }
}

async fn list(context: &Context) -> Outcome {
    let topics: Vec<(String, usize, u64)> = context
        .open_existing()
        .await?
        .fresh_view(|view| {
            let records = |topic: &tidelog_core::ledger::view::Topic| {
                topic.partitions.iter().map(|p| p.next.saturating_sub(p.log_start)).sum()
            };
            let topics = view.names.iter().filter_map(|(name, id)| Some((name, view.topics.get(id)?)));
            topics.map(|(name, topic)| (name.clone(), topic.partitions.len(), records(topic))).collect()
        })
        .await?;
    if context.json() {
        let topic = |(name, partitions, records): &(String, usize, u64)| json!({"topic": name, "partitions": partitions, "records": records});
        return print_json(&topics.iter().map(topic).collect());
    }
    let row = |(name, partitions, records): &(String, usize, u64)| {
        vec![name.clone(), partitions.to_string(), records.to_string()]
    };
    print(&table(&["TOPIC", "PARTITIONS", "RECORDS"], &topics.iter().map(row).collect::<Vec<_>>()))
}

/// A topic for programs.
pub fn to_json(topic: &TopicDescription) -> Value {
    let config: serde_json::Map<String, Value> =
        topic.config.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let partitions = topic.partitions.iter().map(|p| {
        json!({
            "partition": p.partition, "log_start": p.log_start, "high_watermark": p.high_watermark,
            "leader": p.leader.map(|who| format!("{who:016x}")), "leader_epoch": p.leader_epoch,
            "slices": p.slices, "producers": p.producers,
        })
    });
    json!({
        "topic": topic.name, "topic_id": topic.id.to_string(), "created_ms": topic.created_ms, "config": config,
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

fn to_text(topic: &TopicDescription) -> String {
    let mut text = format!("{}  id {}  created {}\n", topic.name, topic.id, show_ms(topic.created_ms));
    for (key, value) in &topic.config {
        text.push_str(&format!("  {key} = {value}\n"));
    }
    text + &partitions(topic)
}

/// The partitions' table.
pub fn partitions(topic: &TopicDescription) -> String {
    let rows: Vec<Vec<String>> = topic
        .partitions
        .iter()
        .map(|p| {
            let leader = p.leader.map_or("-".to_owned(), |who| format!("{who:016x}"));
            let epoch = if p.leader_epoch < 0 { "-".to_owned() } else { p.leader_epoch.to_string() };
            let numbers = [p.log_start, p.high_watermark, p.slices as u64, p.producers as u64];
            let mut row = vec![p.partition.to_string(), leader, epoch];
            row.extend(numbers.map(|number| number.to_string()));
            row
        })
        .collect();
    table(&["PARTITION", "LEADER", "EPOCH", "LOG START", "HIGH WATERMARK", "SLICES", "PRODUCERS"], &rows)
}
