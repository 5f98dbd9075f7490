//! `tidelog inspect`: the picture that a person needs.

use clap::Subcommand;
use serde_json::{Value, json};
use tidelog_core::inspect::Entry;
use tidelog_core::ledger::action::{Action, CheckpointName, Data};
use tidelog_core::ledger::index::IndexRow;
use tidelog_core::ledger::view::{Partition, Place, Slice, View, author};
use tidelog_core::objects::ObjectName;
use tidelog_core::{Error, Log};

use crate::out::{Context, Failure, Outcome, print, print_json, show_bytes, table};
use crate::time::show_ms;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The newest commits, and what they add up to
    Ledger {
        /// Begin at this commit; the newest ones unless set
        #[arg(long, value_name = "SLOT")]
        from: Option<u64>,
        /// How many commits
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// A segment's row groups, and the records in it that the log names
    Segment {
        /// Its name, as `inspect partition` shows it
        name: String,
    },
    /// What a checkpoint holds
    Checkpoint {
        /// Its name; the newest unless given
        name: Option<String>,
    },
    /// Where a topic's records lie: merged file by merged file, then slice by slice
    Partition {
        /// The topic
        topic: String,
        /// Only this partition
        #[arg(long, value_name = "P")]
        partition: Option<u32>,
    },
}

pub async fn run(context: &Context, command: Command) -> Outcome {
    let log = context.open_existing().await?;
    match command {
        Command::Ledger { from, limit } => ledger(context, &log, from, limit).await,
        Command::Segment { name } => segment(context, &log, &name).await,
        Command::Checkpoint { name } => checkpoint(context, &log, name).await,
        Command::Partition { topic, partition } => partitions(context, &log, &topic, partition).await,
    }
}

/// A view in numbers.
fn summary(view: &View) -> Vec<(&'static str, String)> {
    let store = view.store.as_ref();
    let named = |checkpoint: &tidelog_core::ledger::action::Checkpoint| {
        ObjectName::from(&checkpoint.name).to_string()
    };
    let partitions: usize = view.topics.values().map(|topic| topic.partitions.len()).sum();
    vec![
        ("commit", view.slot.to_string()),
        ("time", show_ms(view.time_ms)),
        ("store_id", store.map_or_else(String::new, |store| format!("{:032x}", store.store_id))),
        ("level", view.level.to_string()),
        ("checkpoint", view.checkpoint.as_ref().map_or("-".to_owned(), named)),
        ("floor", view.floor.to_string()),
        ("topics", view.topics.len().to_string()),
        ("partitions", partitions.to_string()),
        ("segments", view.objects.len().to_string()),
        ("slices", view.slices().count().to_string()),
        ("pending", view.pending.len().to_string()),
        ("dead", view.dead.len().to_string()),
        ("groups", view.groups.len().to_string()),
        ("leaders", view.leaders.len().to_string()),
    ]
}

async fn ledger(context: &Context, log: &Log, from: Option<u64>, limit: usize) -> Outcome {
    let (slot, summary) = log.fresh_view(|view| (view.slot, summary(view))).await?;
    let from = from.unwrap_or_else(|| (slot + 1).saturating_sub(limit as u64).max(1));
    let commits = log.commits(from, limit).await?;
    if context.json() {
        let commits: Vec<Value> = commits.iter().map(commit_json).collect();
        let mut object: serde_json::Map<String, Value> =
            summary.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        object.insert("commits".to_owned(), commits.into());
        return print_json(&Value::Object(object));
    }
    context.fields(&summary)?;
    let row = |entry: &Entry| {
        let size = entry.body_bytes.map_or("stripped".to_owned(), |bytes| bytes.to_string());
        let by = format!("{:016x}", author(entry.id));
        let what = entry.commit.as_ref().map_or_else(
            || entry.hint.clone(),
            |commit| commit.actions.iter().map(action_text).collect::<Vec<_>>().join(", "),
        );
        vec![entry.slot.to_string(), show_ms(entry.time_ms), by, size, what]
    };
    let rows: Vec<_> = commits.iter().map(row).collect();
    print(&format!("\n{}", table(&["COMMIT", "TIME", "BY", "BYTES", "WHAT"], &rows)))
}

fn action_text(action: &Action) -> String {
    match action {
        Action::Append(append) => {
            let rows: u64 = append.slices.iter().map(tidelog_core::ledger::action::SliceBody::rows).sum();
            let place = match &append.data {
                Data::Object { object, .. } => ObjectName::from(object).to_string(),
                Data::Inline(body) => format!("inline, {} bytes", body.len()),
            };
            format!("append {rows} records in {} slices ({place})", append.slices.len())
        }
        Action::Offsets(offsets) => format!("offsets of group {}", offsets.group),
        Action::Checkpoint(checkpoint) => format!("checkpoint as of {}", checkpoint.name.at),
        other => other.kind().to_owned(),
    }
}

fn commit_json(entry: &Entry) -> Value {
    let actions =
        entry.commit.as_ref().map(|commit| commit.actions.iter().map(action_text).collect::<Vec<_>>());
    json!({
        "slot": entry.slot, "id": format!("{:032x}", entry.id), "by": format!("{:016x}", author(entry.id)),
        "time_ms": entry.time_ms, "hint": entry.hint, "body_bytes": entry.body_bytes, "actions": actions,
    })
}

async fn segment(context: &Context, log: &Log, name: &str) -> Outcome {
    let name: ObjectName = name.parse()?;
    if matches!(name, ObjectName::L1 { .. }) {
        let words = "is a merged segment, which any Parquet reader shows: SELECT * FROM parquet_metadata('…') in DuckDB";
        return Err(Failure::Failed(format!("{name} {words}")));
    }
    let found = log
        .fresh_view(|view| {
            let layout = view.objects.iter().find(|(object, _)| ObjectName::from(*object) == name)?.1.layout.clone();
            let within = |slice: &Slice| matches!(&slice.place, Place::Object(object, _) if ObjectName::from(object) == name);
            let slices = view.slices().filter(|(_, _, slice)| within(slice));
            let topic = |id| view.topics.get(&id).map_or_else(String::new, |topic| topic.name.clone());
            Some((layout, slices.map(|(id, p, slice)| (topic(id), p, slice.clone())).collect::<Vec<_>>()))
        })
        .await?;
    let Some((layout, slices)) = found else {
        return Err(Failure::Failed(format!("{name}: the log names no such segment")));
    };
    let groups = layout.groups.iter().zip(0u32..).map(|(span, group)| {
        let rows: u64 = slices.iter().filter(|(_, _, s)| s.group == group).map(|(_, _, s)| s.rows).sum();
        (group.to_string(), *span, rows)
    });
    let parts: Vec<_> = groups.chain([("footer".to_owned(), layout.footer, 0)]).collect();
    if context.json() {
        let part = |(part, span, rows): &(String, tidelog_core::segment::Span, u64)| json!({"part": part, "position": span.position, "length": span.length, "crc32c": format!("{:08x}", span.crc), "rows": rows});
        let slice = |(topic, partition, slice): &(String, u32, Slice)| {
            let mut json = slice_json(slice);
            json["topic"] = json!(topic);
            json["partition"] = json!(partition);
            json
        };
        return print_json(&json!({
            "segment": name.to_string(), "bytes": layout.file_bytes(),
            "parts": parts.iter().map(part).collect::<Vec<_>>(),
            "slices": slices.iter().map(slice).collect::<Vec<_>>(),
        }));
    }
    let mut text = format!("{name}  {}\n\ncolumns\n{}\n", show_bytes(layout.file_bytes()), columns());
    let rows: Vec<_> = parts
        .iter()
        .map(|(part, span, rows)| {
            vec![
                part.clone(),
                span.position.to_string(),
                span.length.to_string(),
                format!("{:08x}", span.crc),
                rows.to_string(),
            ]
        })
        .collect();
    text.push_str(&table(&["ROW GROUP", "POSITION", "BYTES", "CRC-32C", "ROWS"], &rows));
    let rows: Vec<_> = slices
        .iter()
        .map(|(topic, p, s)| {
            let numbers = [u64::from(*p), s.base, s.rows, u64::from(s.group), s.first_row, s.slot];
            [topic.clone()].into_iter().chain(numbers.map(|n| n.to_string())).collect()
        })
        .collect();
    let headings = ["TOPIC", "PARTITION", "FIRST OFFSET", "RECORDS", "ROW GROUP", "FIRST ROW", "COMMIT"];
    print(&format!("{text}\n{}", table(&headings, &rows)))
}

/// The columns of every segment, in Parquet's words.
pub fn columns() -> String {
    let columns = tidelog_core::segment::schema::parquet().columns().iter().map(|column| {
        let null = if column.self_type().is_optional() { ", or null" } else { "" };
        // The kind alone: a timestamp's unit and zone are the same in every segment (µs, UTC).
        let logical = column.logical_type_ref().map_or_else(String::new, |kind| {
            let kind = format!("{kind:?}");
            format!(" {}", kind.split('(').next().unwrap_or_default())
        });
        format!("  {:26} {}{logical}{null}\n", column.path().string(), column.physical_type())
    });
    columns.collect()
}

async fn checkpoint(context: &Context, log: &Log, name: Option<String>) -> Outcome {
    let name = match name {
        Some(name) => match name.parse::<ObjectName>()? {
            ObjectName::Checkpoint { era, at, ulid, .. } => CheckpointName { at, era, ulid: ulid.0 },
            other => return Err(Failure::Failed(format!("{other} is no checkpoint"))),
        },
        None => match log.fresh_view(|view| view.checkpoint.map(|named| named.name)).await? {
            Some(name) => name,
            None => return Err(Failure::Failed("the log has no checkpoint yet".to_owned())),
        },
    };
    let object = ObjectName::from(&name).to_string();
    let found = log.checkpoint(name).await?;
    let (view, bytes) = found.ok_or_else(|| Error::damaged(&object, "missing"))?;
    let mut fields = vec![("name", object), ("bytes", bytes.to_string())];
    fields.extend(summary(&view));
    let producers = view.topics.values().flat_map(|topic| &topic.partitions).map(|p| p.producers.len());
    fields.push(("producers", producers.sum::<usize>().to_string()));
    context.fields(&fields)
}

async fn partitions(context: &Context, log: &Log, topic: &str, only: Option<u32>) -> Outcome {
    let (id, found) = log
        .fresh_view(|view| {
            let (id, known) = view.topic_or_unknown(topic)?;
            if let Some(only) = only {
                view.partition_or_unknown(topic, only)?;
            }
            let all = known.partitions.iter().zip(0u32..).filter(|(_, p)| only.is_none_or(|only| only == *p));
            Ok::<_, Error>((id, all.map(|(found, p)| (p, found.clone())).collect::<Vec<_>>()))
        })
        .await??;
    let mut merged = Vec::new();
    for (p, _) in &found {
        merged.push(log.merged(topic, *p).await?);
    }
    if context.json() {
        let each = found.iter().zip(&merged);
        let partitions: Vec<Value> =
            each.map(|((p, found), merged)| partition_json(topic, *p, found, merged)).collect();
        return print_json(&json!({"topic": topic, "topic_id": id.to_string(), "partitions": partitions}));
    }
    let mut text = format!("{topic}  id {id}\n");
    for ((p, found), merged) in found.iter().zip(&merged) {
        let leader = found.leader.map_or("nobody".to_owned(), |who| format!("{who:016x}"));
        text.push_str(&format!(
            "\npartition {p}: log start {}, high watermark {}, leader {leader}, epoch {}, producers {}\n",
            found.log_start,
            found.next,
            found.leader_epoch(),
            found.producers.len()
        ));
        let rows = merged.iter().map(|row| merged_row(topic, row)).chain(found.slices.iter().map(slice_row));
        let rows: Vec<Vec<String>> = rows.collect();
        text.push_str(&table(
            &["FIRST OFFSET", "RECORDS", "FIRST ROW", "COMMIT", "APPENDED", "WHERE"],
            &rows,
        ));
    }
    print(&text)
}

fn slice_row(slice: &Slice) -> Vec<String> {
    let place = match &slice.place {
        Place::Object(object, _) => format!("{} row group {}", ObjectName::from(object), slice.group),
        Place::Inline { .. } => "in its commit".to_owned(),
    };
    let numbers = [slice.base, slice.rows, slice.first_row, slice.slot].map(|n| n.to_string());
    numbers.into_iter().chain([show_ms(slice.append_ms), place]).collect()
}

fn merged_row(topic: &str, row: &IndexRow) -> Vec<String> {
    let range = &row.range;
    let numbers = [range.base.to_string(), range.rows.to_string(), "-".to_owned(), row.number.to_string()];
    numbers.into_iter().chain([show_ms(range.append_ms.1), row.object.name(topic).to_string()]).collect()
}

fn merged_json(topic: &str, row: &IndexRow) -> Value {
    let range = &row.range;
    json!({
        "base": range.base, "end": range.end, "rows": range.rows, "object": row.object.name(topic).to_string(),
        "groups": range.groups, "slot": row.number, "append_ms": range.append_ms,
    })
}

fn partition_json(topic: &str, number: u32, partition: &Partition, merged: &[IndexRow]) -> Value {
    json!({
        "merged": merged.iter().map(|row| merged_json(topic, row)).collect::<Vec<_>>(),
        "partition": number, "log_start": partition.log_start, "high_watermark": partition.next,
        "leader": partition.leader.map(|who| format!("{who:016x}")), "leader_epoch": partition.leader_epoch(),
        "slices": partition.slices.iter().map(slice_json).collect::<Vec<_>>(),
    })
}

fn slice_json(slice: &Slice) -> Value {
    let object = match &slice.place {
        Place::Object(object, _) => Some(ObjectName::from(object).to_string()),
        Place::Inline { .. } => None,
    };
    json!({
        "base": slice.base, "rows": slice.rows, "object": object, "first_row": slice.first_row,
        "inline": object.is_none(), "group": slice.group, "slot": slice.slot, "append_ms": slice.append_ms,
    })
}
