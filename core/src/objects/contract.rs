//! What every store of [`Objects`] must do, as one suite.
//!
//! [`check`] takes two handles onto the same store: what one put, the other must see. It leaves its objects behind, under
//! an era (`ffff`) and names that no other run uses. Each broken promise is an `Err` that names the check and what it saw;
//! that the suite notices broken stores is itself tested, in `tests.rs`.

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};

use super::{ObjectName, Objects, Ulid};
use crate::Error;
use crate::env::SystemEnv;
use crate::limits::SEGMENT_BYTES_MAX;

/// A broken promise, in words.
pub type Broken = String;

macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}

type Check = (&'static str, fn(Objects, Objects) -> BoxFuture<'static, Result<(), Broken>>);

const CHECKS: &[Check] = &[
    ("what was put is read, whole and in ranges", |a, b| Box::pin(round_trip(a, b))),
    ("a range past the end is refused", |a, b| Box::pin(past_the_end(a, b))),
    ("a name is used once", |a, b| Box::pin(used_once(a, b))),
    ("of several writers of a name one wins", |a, b| Box::pin(one_winner(a, b))),
    ("empty is not absent", |a, b| Box::pin(empty_is_not_absent(a, b))),
    ("large objects", |a, b| Box::pin(large(a, b))),
    ("an object in parts", |a, b| Box::pin(in_parts(a, b))),
    ("many at once", |a, b| Box::pin(many(a, b))),
    ("bounds", |a, b| Box::pin(bounds(a, b))),
];

/// Runs every check, and answers with the first broken promise.
///
/// # Errors
/// The check's name and what it saw.
pub async fn check(a: &Objects, b: &Objects) -> Result<(), Broken> {
    for (name, check) in CHECKS {
        check(a.clone(), b.clone()).await.map_err(|broken| format!("{name}: {broken}"))?;
    }
    Ok(())
}

fn fresh() -> ObjectName {
    ObjectName::L0 { era: 0xffff, ledger: 0, drawn: 1, ulid: Ulid::draw(&*SystemEnv::shared()) }
}

/// `length` bytes that differ by `seed`.
fn body(seed: u8, length: usize) -> Bytes {
    (0..length).map(|at| (at.wrapping_mul(31) >> 3) as u8 ^ seed).collect::<Vec<u8>>().into()
}

fn told(error: Error) -> Broken {
    error.to_string()
}

async fn round_trip(a: Objects, b: Objects) -> Result<(), Broken> {
    let (name, bytes) = (fresh(), body(1, 1_000));
    ensure!(a.get(&name).await.map_err(told)?.is_none(), "an object before it was put");
    ensure!(a.get_range(&name, 0..1).await.map_err(told)?.is_none(), "a range before it was put");
    a.put_new(&name, bytes.clone()).await.map_err(told)?;
    for objects in [&a, &b] {
        let whole = objects.get(&name).await.map_err(told)?;
        ensure!(whole.as_ref() == Some(&bytes), "other bytes than were put: {:?}", whole.map(|b| b.len()));
        for range in [0..1, 0..1_000, 999..1_000, 17..600] {
            let part = objects.get_range(&name, range.clone()).await.map_err(told)?;
            let expected = bytes.slice(range.start as usize..range.end as usize);
            ensure!(part == Some(expected), "range {range:?} is {:?}", part.map(|part| part.len()));
        }
    }
    Ok(())
}

async fn past_the_end(a: Objects, b: Objects) -> Result<(), Broken> {
    let name = fresh();
    a.put_new(&name, body(2, 10)).await.map_err(told)?;
    // Half of it there, and none of it.
    for range in [6..12, 10..11, 50..60] {
        let read = b.get_range(&name, range.clone()).await;
        ensure!(matches!(read, Err(Error::Damaged { .. })), "range {range:?} of 10 bytes: {read:?}");
    }
    Ok(())
}

async fn used_once(a: Objects, b: Objects) -> Result<(), Broken> {
    let (name, bytes) = (fresh(), body(3, 500));
    a.put_new(&name, bytes.clone()).await.map_err(told)?;
    // The same again is a retry.
    b.put_new(&name, bytes.clone()).await.map_err(told)?;
    for other in [body(4, 500), body(3, 499), Bytes::new()] {
        let put = b.put_new(&name, other).await;
        ensure!(matches!(put, Err(Error::NameReused { .. })), "other bytes under the name: {put:?}");
    }
    ensure!(a.get(&name).await.map_err(told)? == Some(bytes), "a refused put changed the object");
    Ok(())
}

async fn one_winner(a: Objects, b: Objects) -> Result<(), Broken> {
    for _ in 0..5 {
        let name = fresh();
        let puts = (0..8u8).map(|writer| {
            let objects = if writer % 2 == 0 { &a } else { &b };
            objects.put_new(&name, body(writer, 2_000))
        });
        let answers = join_all(puts).await;
        let winners: Vec<usize> = (0..answers.len()).filter(|at| answers[*at].is_ok()).collect();
        let [winner] = winners[..] else { return Err(format!("winners {winners:?} of 8: {answers:?}")) };
        let lost = answers.iter().filter(|answer| matches!(answer, Err(Error::NameReused { .. })));
        ensure!(lost.count() == 7, "a loser was not told that the name is used: {answers:?}");
        let there = b.get(&name).await.map_err(told)?;
        ensure!(there == Some(body(winner as u8, 2_000)), "the winner's bytes are not what is there");
    }
    Ok(())
}

async fn empty_is_not_absent(a: Objects, b: Objects) -> Result<(), Broken> {
    let name = fresh();
    a.put_new(&name, Bytes::new()).await.map_err(told)?;
    ensure!(b.get(&name).await.map_err(told)? == Some(Bytes::new()), "an empty object");
    b.put_new(&name, Bytes::new()).await.map_err(told)
}

async fn large(a: Objects, b: Objects) -> Result<(), Broken> {
    const LENGTH: usize = (8 << 20) + 1;
    let (name, bytes) = (fresh(), body(5, LENGTH));
    a.put_new(&name, bytes.clone()).await.map_err(told)?;
    ensure!(b.get(&name).await.map_err(told)?.as_ref() == Some(&bytes), "the whole");
    let part = b.get_range(&name, 1 << 20..LENGTH as u64).await.map_err(told)?;
    ensure!(part == Some(bytes.slice(1 << 20..)), "its end");
    Ok(())
}

async fn in_parts(a: Objects, b: Objects) -> Result<(), Broken> {
    // S3 takes no smaller part but the last.
    const PART: usize = 5 << 20;
    let bytes = body(7, 2 * PART + 1);
    let sent = async |name: &ObjectName| {
        let mut upload = a.upload(name.clone(), PART);
        for piece in [0..PART - 1, PART - 1..PART + 1, PART + 1..bytes.len()] {
            upload.push(bytes.slice(piece)).await?;
        }
        let early = b.get_range(name, 0..1).await?;
        upload.finish().await?;
        Ok(early)
    };
    let (mut name, mut tries) = (fresh(), 1);
    let early = loop {
        match sent(&name).await {
            Ok(early) => break early,
            // It is begun again under another name.
            Err(Error::Unavailable { .. }) if tries < 9 => (name, tries) = (fresh(), tries + 1),
            Err(error) => return Err(told(error)),
        }
    };
    ensure!(early.is_none(), "an object before it was completed");
    ensure!(b.get(&name).await.map_err(told)?.as_ref() == Some(&bytes), "the whole");
    let part = b.get_range(&name, 3..2 * PART as u64 + 1).await.map_err(told)?;
    ensure!(part == Some(bytes.slice(3..)), "its end");
    let mut again = Ok(());
    for _ in 0..9 {
        let mut other = b.upload(name.clone(), PART);
        again = match other.push(body(8, 2 * PART)).await {
            Ok(()) => other.finish().await,
            Err(error) => Err(error),
        };
        if !matches!(again, Err(Error::Unavailable { .. })) {
            break;
        }
    }
    ensure!(matches!(again, Err(Error::NameReused { .. })), "other bytes under the name: {again:?}");
    ensure!(
        b.get(&name).await.map_err(told)?.as_ref() == Some(&bytes),
        "a refused upload changed the object"
    );
    // Given up: nothing is there.
    let name = fresh();
    let mut upload = a.upload(name.clone(), PART);
    drop(upload.push(body(9, PART + 1)).await);
    upload.abort().await;
    ensure!(b.get_range(&name, 0..1).await.map_err(told)?.is_none(), "an upload that was aborted");
    Ok(())
}

async fn many(a: Objects, b: Objects) -> Result<(), Broken> {
    let names: Vec<ObjectName> = (0..32).map(|_| fresh()).collect();
    let puts = names.iter().enumerate().map(|(at, name)| a.put_new(name, body(at as u8, 100 + at)));
    join_all(puts).await.into_iter().collect::<Result<Vec<_>, _>>().map_err(told)?;
    let reads = join_all(names.iter().map(|name| b.get(name))).await;
    for (at, read) in reads.into_iter().enumerate() {
        ensure!(read.map_err(told)? == Some(body(at as u8, 100 + at)), "object {at}");
    }
    Ok(())
}

async fn bounds(a: Objects, _: Objects) -> Result<(), Broken> {
    let name = fresh();
    let empty = a.get_range(&name, 3..3).await;
    ensure!(matches!(empty, Err(Error::InvalidField { .. })), "an empty range: {empty:?}");
    let wide = a.get_range(&name, 0..SEGMENT_BYTES_MAX as u64 + 1).await;
    ensure!(matches!(wide, Err(Error::TooLarge { .. })), "a range above the limit: {wide:?}");
    // Larger than its kind allows: refused before it is read, also when somebody else put it.
    let probe = ObjectName::Probe { ulid: Ulid::draw(&*SystemEnv::shared()) };
    a.put_new(&probe, body(6, 65)).await.map_err(told)?;
    let read = a.get(&probe).await;
    ensure!(matches!(read, Err(Error::TooLarge { .. })), "an object larger than its kind: {read:?}");
    Ok(())
}
