//! Tries, before the first commit, whether a store holds what the log rests on (L2, L5): of several writers of one
//! key or name exactly one wins, the others are told, and everybody then reads the winner's.
//!
//! Leaves one small object under `probe/`, whose name nobody uses again: nothing but `sweep` deletes objects (L5). The
//! row is deleted on its id; where the probe fails or stops half way it stays, under a key that is no ledger's.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use object_store::{Error as StoreError, PutMode, PutOptions};

use crate::env::Env;
use crate::limits::{OBJECT_ATTEMPTS_MAX, OBJECT_BACKOFF_MS};
use crate::objects::{Answer, ObjectName, Objects, Ulid};
use crate::table::{Consistency, Item, Put, SharedTable, TableError};
use crate::{Error, Result};

/// Writers that race for one key.
const WRITERS: u8 = 4;

/// Refuses a store whose conditional writes do not hold. Only for `init`: a few requests, on an empty ledger.
///
/// # Errors
/// `StoreRefused`: the promise that was broken. Else what the store answered.
pub async fn probe(table: &SharedTable, objects: &Objects, env: &dyn Env) -> Result<()> {
    let ulid = Ulid::draw(env);
    probe_table(table, &format!("probe/{ulid}")).await?;
    probe_objects(objects, &ObjectName::Probe { ulid }, env).await
}

fn refused(what: impl Into<String>) -> Error {
    Error::StoreRefused { what: what.into() }
}

fn row(writer: u8) -> Item {
    let body = Some(Bytes::copy_from_slice(&[writer; 8]));
    Item { sk: 1, id: u128::from(writer) + 1, time_ms: 0, body, hint: "probe".to_owned() }
}

async fn probe_table(table: &SharedTable, pk: &str) -> Result<()> {
    let told = |error: TableError| error.into_error("probing the table", table.name());
    let rows: Vec<Item> = (0..WRITERS).map(row).collect();
    let answers = join_all(rows.iter().map(|row| table.put_if_absent(pk, row))).await;
    let answers =
        answers.into_iter().map(|answer| Ok(answer.map_err(told)?.value)).collect::<Result<Vec<_>>>()?;
    let winners: Vec<usize> = (0..answers.len()).filter(|&writer| answers[writer] == Put::Stored).collect();
    let &[winner] = winners.as_slice() else {
        return Err(refused(format!(
            "{} of {WRITERS} puts to one key of the table were stored",
            winners.len()
        )));
    };
    let won = &rows[winner];
    let losers = answers.iter().filter(|answer| **answer != Put::Stored);
    if !losers.into_iter().all(|answer| *answer == Put::Exists(won.clone())) {
        return Err(refused("a put to a taken key of the table was not answered with what is there"));
    }
    let read = table.get(pk, 1, Consistency::Strong).await.map_err(told)?.value;
    if read.as_ref() != Some(won) {
        return Err(refused("a strong read of the table does not see the put answered before it"));
    }
    if table.delete_if(pk, 1, u128::MAX).await.map_err(told)?.value {
        return Err(refused("the table deletes on a condition that does not hold"));
    }
    if !table.delete_if(pk, 1, won.id).await.map_err(told)?.value {
        return Err(refused("the table does not delete on a condition that holds"));
    }
    Ok(())
}

async fn probe_objects(objects: &Objects, name: &ObjectName, env: &dyn Env) -> Result<()> {
    let body = |writer: u8| Bytes::copy_from_slice(&[writer; 8]);
    // The first through the shipped path, with its retries and its sync; the others bare, to see each answer.
    objects.put_new(name, body(0)).await?;
    let path = name.path();
    let race = (1..WRITERS).map(|writer| {
        let path = path.clone();
        async move {
            let mut tries = 1;
            loop {
                let create = PutOptions::from(PutMode::Create);
                let put = objects.store().put_opts(&path, body(writer).into(), create).await;
                let Err(error) = &put else { return put };
                // 409 is no answer yet.
                let conflict = Answer::of(error).is_some_and(|answer| answer.status == 409);
                if !conflict || tries == OBJECT_ATTEMPTS_MAX {
                    return put;
                }
                env.sleep(Duration::from_millis(OBJECT_BACKOFF_MS << tries)).await;
                tries += 1;
            }
        }
    });
    for answer in join_all(race).await {
        match answer {
            Err(StoreError::AlreadyExists { .. }) => {}
            Ok(_) => {
                return Err(refused(
                    "an object was created where one is: the store does not look at If-None-Match, and a name could be \
                     used twice",
                ));
            }
            Err(error) => {
                return Err(Error::Unavailable { what: "probing the objects", cause: error.to_string() });
            }
        }
    }
    if objects.get(name).await? != Some(body(0)) {
        return Err(refused("an object is not read as it was put"));
    }
    let part = objects.get_range(name, 2..5).await?;
    if part != Some(body(0).slice(2..5)) {
        return Err(refused("a range of an object is not read as it was put"));
    }
    Ok(())
}
