//! What the proxy can do to a put and to a get. A scenario answers with what went wrong; it must answer with nothing, and
//! with something once the mistake is planted that it is there to notice.

use std::time::Duration;

use tidelog_core::Error;
use tidelog_core::plant::{self, Bug};
use tidelog_proxy::{Entry, Fault, Proxy, Rule, repeated_without_look};

use super::*;

type Told = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}

struct World {
    _server: Server,
    proxy: Proxy,
    objects: Objects,
}

async fn world() -> World {
    let server = Server::start(BUCKET, 1).await.unwrap();
    let proxy = Proxy::start(address(&server.endpoint()), 1).await.unwrap();
    let objects = objects(&proxy.endpoint());
    World { _server: server, proxy, objects }
}

fn told(error: Error) -> String {
    error.to_string()
}

/// On this thread: that is where a planted bug is.
fn run<F: Future<Output = Told>>(scenario: fn(World) -> F) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { scenario(world().await).await })
}

fn red_when_planted<F: Future<Output = Told>>(bug: Bug, scenario: fn(World) -> F) {
    run(scenario).unwrap();
    plant::set(Some(bug));
    let planted = run(scenario);
    plant::set(None);
    assert!(planted.is_err(), "{bug:?} was not noticed");
}

/// What the proxy saw of each request: method and the status of the store's answer.
fn seen(proxy: &Proxy) -> Vec<(String, Option<u16>)> {
    proxy.log().into_iter().map(|entry| (entry.method, entry.status)).collect()
}

fn path(entry: &Entry) -> Option<String> {
    entry.target.split('?').next().map(str::to_owned)
}

/// Puts under `rule`; the put must be answered, and what is read must be what was put.
async fn put_under(world: &World, rule: Rule) -> Told {
    world.proxy.clear_rules();
    world.proxy.forget();
    world.proxy.add_rule(rule);
    let (name, bytes) = (fresh(), body(7, 20_000));
    world.objects.put_new(&name, bytes.clone()).await.map_err(told)?;
    let log = world.proxy.log();
    let there = world.objects.get(&name).await.map_err(told)?;
    ensure!(there == Some(bytes), "acked, and then {:?} bytes are there", there.map(|there| there.len()));
    let blind = repeated_without_look(&log, path);
    let blind: Vec<_> =
        blind.iter().filter(|(first, _)| !log[*first].fault.as_deref().is_some_and(said_no)).collect();
    ensure!(blind.is_empty(), "a put was repeated without a look: {blind:?} of {:?}", seen(&world.proxy));
    Ok(())
}

/// Answers that say themselves that nothing was applied.
fn said_no(fault: &str) -> bool {
    matches!(fault, "answer:409:ConditionalRequestConflict" | "answer:503:SlowDown")
}

async fn answer_lost(world: World) -> Told {
    put_under(&world, Rule::once("PUT", "l0/", Fault::DropAnswer)).await?;
    let seen = seen(&world.proxy);
    let puts = seen.iter().filter(|(method, _)| method == "PUT").count();
    ensure!(puts == 1 && seen[1].0 == "HEAD", "the bytes were sent {puts} times: {seen:?}");
    Ok(())
}

#[test]
fn a_put_whose_answer_was_lost_is_mine_after_a_look() {
    run(answer_lost).unwrap();
}

async fn every_put(world: World) -> Told {
    let answer = |status, code: &str| Fault::Answer(status, code.to_owned());
    for fault in [
        Fault::Reset,
        Fault::Duplicate,
        Fault::FlipRequest,
        answer(500, "InternalError"),
        answer(503, "SlowDown"),
        Fault::AnswerAfter(500, "InternalError".to_owned()),
        Fault::AnswerAfter(503, "ServiceUnavailable".to_owned()),
        Fault::Delay(Duration::from_millis(50)),
        Fault::Cut,
    ] {
        let words = fault.to_string();
        let rule = Rule::numbers("PUT", "l0/", 1..=2, fault);
        put_under(&world, rule).await.map_err(|error| format!("{words}: {error}"))?;
    }
    Ok(())
}

#[test]
fn a_put_survives_everything_that_passes() {
    run(every_put).unwrap();
}

async fn conflicts(world: World) -> Told {
    let fault = Fault::Answer(409, "ConditionalRequestConflict".to_owned());
    put_under(&world, Rule::numbers("PUT", "l0/", 1..=2, fault)).await
}

#[test]
fn a_conflict_says_nothing_about_what_is_there() {
    red_when_planted(Bug::ConflictTakenForExists, conflicts);
}

async fn reused(world: World) -> Told {
    let name = fresh();
    world.objects.put_new(&name, body(1, 900)).await.map_err(told)?;
    for other in [body(2, 900), body(1, 899)] {
        let put = world.objects.put_new(&name, other).await;
        ensure!(matches!(put, Err(Error::NameReused { .. })), "other bytes under a taken name: {put:?}");
    }
    Ok(())
}

#[test]
fn a_name_is_not_used_for_other_bytes() {
    red_when_planted(Bug::NameReused, reused);
}

/// Reads under `fault`, once; what is read must be what was put.
async fn read_under(world: &World, fault: Fault) -> Told {
    let (name, bytes) = (fresh(), body(9, 100_000));
    world.objects.put_new(&name, bytes.clone()).await.map_err(told)?;
    world.proxy.clear_rules();
    world.proxy.add_rule(Rule::once("GET", "l0/", fault));
    let part = world.objects.get_range(&name, 1_000..61_000).await.map_err(told)?;
    ensure!(part == Some(bytes.slice(1_000..61_000)), "read {:?} bytes", part.map(|part| part.len()));
    Ok(())
}

async fn cut(world: World) -> Told {
    read_under(&world, Fault::Cut).await
}

async fn short(world: World) -> Told {
    read_under(&world, Fault::Short).await
}

#[test]
fn a_body_that_breaks_off_is_not_the_whole() {
    red_when_planted(Bug::TruncatedBodyAccepted, cut);
}

#[test]
fn a_range_of_another_length_is_not_accepted() {
    red_when_planted(Bug::RangeOfOtherLengthAccepted, short);
}

async fn every_get(world: World) -> Told {
    let answer = |status, code: &str| Fault::Answer(status, code.to_owned());
    for fault in [
        Fault::IgnoreRange,
        Fault::Reset,
        Fault::DropAnswer,
        Fault::Duplicate,
        answer(500, "InternalError"),
        answer(503, "SlowDown"),
    ] {
        let words = fault.to_string();
        read_under(&world, fault).await.map_err(|error| format!("{words}: {error}"))?;
    }
    Ok(())
}

#[test]
fn a_get_survives_everything_that_passes() {
    run(every_get).unwrap();
}

async fn hangs(world: World) -> Told {
    for fault in [Fault::Hold, Fault::HoldAnswer] {
        put_under(&world, Rule::once("PUT", "l0/", fault)).await?;
        // The one that was given up lands after the other: it changes nothing.
        world.proxy.release();
    }
    let answers = seen(&world.proxy);
    ensure!(answers.iter().filter(|(method, _)| method == "PUT").count() == 1, "{answers:?}");
    read_under(&world, Fault::HoldAnswer).await
}

#[test]
fn a_request_that_hangs_is_given_up_and_settled() {
    run(hangs).unwrap();
}

async fn a_storm(world: World) -> Told {
    let answer = |status, code: &str| Fault::Answer(status, code.to_owned());
    for (method, rate, fault) in [
        ("PUT", 0.1, Fault::DropAnswer),
        ("PUT", 0.1, answer(409, "ConditionalRequestConflict")),
        ("PUT", 0.05, Fault::Duplicate),
        ("", 0.03, Fault::Reset),
        ("", 0.03, answer(500, "InternalError")),
        ("", 0.02, answer(503, "SlowDown")),
        ("GET", 0.1, Fault::Cut),
        ("GET", 0.05, Fault::Short),
    ] {
        world.proxy.add_rule(Rule::once(method, "l0/", fault).rate(rate));
    }
    let names: Vec<_> = (0..300).map(|at| (fresh(), body(at as u8, 500 + at))).collect();
    for chunk in names.chunks(8) {
        let puts = chunk.iter().map(|(name, bytes)| world.objects.put_new(name, bytes.clone()));
        futures::future::try_join_all(puts).await.map_err(told)?;
    }
    for (name, bytes) in &names {
        let there = world.objects.get_range(name, 0..bytes.len() as u64).await.map_err(told)?;
        ensure!(there.as_ref() == Some(bytes), "{name} is lost or altered");
    }
    Ok(())
}

#[test]
fn in_a_storm_every_acked_object_is_there() {
    run(a_storm).unwrap();
}
