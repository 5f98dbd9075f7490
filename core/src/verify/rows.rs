//! Segments and inline bodies: every byte summed, every slice's records hashed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::chain::{detail, pk};
use super::{Known, Owned, Report, twice};
use crate::batch::Rows;
use crate::env::offload;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::action::{Action, Append, Data, ObjectRef};
use crate::ledger::codec;
use crate::ledger::view::{Place, Slice};
use crate::objects::ObjectName;
use crate::record::TopicId;
use crate::segment::{Footer, Layout, decode_group, inline, schema};
use crate::store::Store;
use crate::table::{Consistency, TableError};

/// The slices of one object.
type InObject<'a> = (Arc<Layout>, Vec<&'a Owned>);

pub(super) async fn check(
    store: &Store,
    known: &Known,
    report: &mut Report,
    progress: &mut impl FnMut(u64),
) -> Result<()> {
    let mut objects: BTreeMap<ObjectRef, InObject<'_>> = BTreeMap::new();
    let mut inline: BTreeMap<(u64, u32), Vec<&Owned>> = BTreeMap::new();
    for owned in &known.slices {
        match &owned.2.place {
            Place::Object(object, layout) => {
                objects.entry(*object).or_insert_with(|| (layout.clone(), Vec::new())).1.push(owned);
            }
            Place::Inline { action, .. } => inline.entry((owned.2.slot, *action)).or_default().push(owned),
        }
    }
    for ((slot, action), slices) in inline {
        inline_body(store, known, report, (slot, action), &slices).await?;
    }
    for (done, (object, (layout, slices))) in (0..).zip(objects) {
        progress(done);
        report.add(twice(|| segment(store, known, object, layout.clone(), slices.clone())).await?);
    }
    Ok(())
}

/// Segments that [`check`] reads.
pub(super) fn count(known: &Known) -> u64 {
    let object = |owned: &Owned| match &owned.2.place {
        Place::Object(object, _) => Some(*object),
        Place::Inline { .. } => None,
    };
    known.slices.iter().filter_map(object).collect::<BTreeSet<_>>().len() as u64
}

async fn segment(
    store: &Store,
    known: &Known,
    object: ObjectRef,
    layout: Arc<Layout>,
    slices: Vec<&Owned>,
) -> Result<Report> {
    let mut report = Report::default();
    let name = ObjectName::from(&object);
    let all = || known.touched_by(slices.iter().copied());
    let bytes = match store.objects.get(&name).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            report.damaged(name.to_string(), "missing", all());
            return Ok(report);
        }
        Err(error) if error.kind() == ErrorKind::Retry => return Err(error),
        Err(error) => {
            report.damaged(name.to_string(), detail(&error), all());
            return Ok(report);
        }
    };
    report.segments += 1;
    report.bytes += bytes.len() as u64;
    if bytes.len() as u64 != layout.file_bytes() {
        let words = format!("{} bytes long, must be {}", bytes.len(), layout.file_bytes());
        report.damaged(name.to_string(), words, all());
    } else if !bytes.starts_with(schema::MAGIC) {
        report.damaged(name.to_string(), "does not begin as a Parquet file", all());
    }
    let footer = layout.footer.cut(&bytes).and_then(|cut| Footer::parse(&cut, &layout));
    let footer = match footer {
        Ok(footer) => footer,
        Err(error @ Error::Newer { .. }) => return Err(error),
        Err(error) => {
            report.damaged(name.to_string(), detail(&error), all());
            return Ok(report);
        }
    };
    // Every group, also one that no slice needs any more.
    for (group, span) in (0..).zip(&layout.groups) {
        let of_group: Vec<&Owned> = slices.iter().copied().filter(|owned| owned.2.group == group).collect();
        let (cut, footer) = (span.cut(&bytes), footer.clone());
        let decoded = offload(move || decode_group(&footer, group, &cut?)).await;
        match decoded {
            Err(error) => report.damaged(
                name.to_string(),
                format!("row group {group}: {}", detail(&error)),
                known.touched_by(of_group),
            ),
            Ok(decoded) => {
                for owned in of_group {
                    let (topic, partition, slice) = owned;
                    let rows = decoded.slice(&known.name(*topic), *partition, slice.first_row, slice.rows);
                    judge(known, &mut report, &name.to_string(), owned, rows);
                }
            }
        }
    }
    if let Some(owned) = slices.iter().find(|owned| owned.2.group as usize >= layout.groups.len()) {
        let words = format!("a slice in row group {}, there are {}", owned.2.group, layout.groups.len());
        report.damaged(name.to_string(), words, known.touched_by([*owned]));
    }
    Ok(report)
}

async fn inline_body(
    store: &Store,
    known: &Known,
    report: &mut Report,
    (slot, action): (u64, u32),
    slices: &[&Owned],
) -> Result<()> {
    let what = format!("commit {slot}");
    // Its own damage is told by the walk, which adds what it placed.
    if report.damage.iter().any(|damage| damage.slot == Some(slot)) {
        return Ok(());
    }
    let item = match store.table.get(&pk(store), slot, Consistency::Strong).await {
        Ok(answer) => answer.value,
        Err(TableError::Damaged(detail)) => {
            report.damaged(what, detail, known.touched_by(slices.iter().copied()));
            return Ok(());
        }
        Err(error) => return Err(error.into_error("reading inline records", store.table.name())),
    };
    let body: Option<(u128, Bytes)> = item.and_then(|item| Some((item.id, item.body?)));
    let rows = match body.map(|(id, body)| codec::decode(&body, slot, id)) {
        None => Err(Error::damaged("inline records", "the commit or its body is missing")),
        Some(Err(error)) => Err(error),
        Some(Ok(commit)) => match commit.actions.get(action as usize) {
            Some(Action::Append(Append { data: Data::Inline(body), .. })) => inline::decode_inline(body),
            _ => Err(Error::damaged("inline records", format!("action {action} has none"))),
        },
    };
    match rows {
        Err(error) => report.damaged(what, detail(&error), known.touched_by(slices.iter().copied())),
        Ok(rows) => {
            for owned in slices {
                let rows = cut(&rows, &owned.2);
                judge(known, report, &what, owned, rows);
            }
        }
    }
    Ok(())
}

fn cut(rows: &Rows, slice: &Slice) -> Result<Rows> {
    match slice.first_row.checked_add(slice.rows) {
        Some(end) if end <= rows.len() as u64 => {
            Ok(rows.slice(slice.first_row as usize, slice.rows as usize))
        }
        end => Err(Error::damaged("inline records", format!("{} rows, a slice ends at {end:?}", rows.len()))),
    }
}

/// Compares a slice's rows with what its commit says of them.
fn judge(known: &Known, report: &mut Report, what: &str, owned: &Owned, rows: Result<Rows>) {
    let (topic, partition, slice): &(TopicId, u32, Slice) = owned;
    report.slices += 1;
    report.records += slice.rows;
    let wrong = match rows {
        Err(error) => Some(detail(&error)),
        Ok(rows) if rows.sum(*topic, *partition, 0, rows.len()) != slice.sum => {
            Some("the records are not those of the commit: their sum differs".to_owned())
        }
        Ok(rows) if rows.time_range() != Some(slice.time_us) => {
            Some("the records' timestamps are not those of the commit".to_owned())
        }
        Ok(_) => None,
    };
    if let Some(wrong) = wrong {
        report.damaged(what, wrong, known.touched_by([owned]));
    }
}
