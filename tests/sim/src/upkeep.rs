//! Those who keep the log: checkpoints, strip, leaders, expiry, topics, groups. And the one
//! who strikes processes down.

use std::sync::Arc;

use tidelog_core::Error;
use tidelog_core::ledger::action::{Action, Expire, Expiring, IdentityKind, Lead};

use crate::cast::{Cast, TOPIC};
use crate::clock::sleep_ms;
use crate::rng::Rng;

/// Freezes, kills and restarts processes, and sets their clocks.
pub async fn nemesis(cast: Arc<Cast>, mut rng: Rng) {
    let plan = &cast.world.plan;
    while plan.blow_ms > 0 && !cast.world.is_stopped() {
        sleep_ms(rng.between(1, plan.blow_ms * 2)).await;
        if cast.world.is_stopped() {
            return;
        }
        let process = cast.some_process(&mut rng).clone();
        let skew = skew(&mut rng, plan.skew_ms_max);
        let gate = process.gate();
        match rng.below(12) {
            0..=4 => {
                let ms = rng.pick(&[100, 1_000, 6_000, 20_000, 60_000]);
                let ms = rng.between(1, ms);
                cast.world.note(&gate.name, || format!("freezes for {ms} ms"));
                gate.freeze(ms);
            }
            5..=6 => gate.set_skew(skew),
            7..=9 => {
                let ms = rng.pick(&[1_000, 20_000, 60_000]);
                let ms = rng.between(1, ms);
                cast.world.note(&gate.name, || format!("is cut off for {ms} ms"));
                gate.cut(ms);
            }
            _ => {
                process.crash();
                let (oracle, after) = (cast.oracle.clone(), rng.below(3_000));
                tokio::spawn(async move {
                    sleep_ms(after).await;
                    process.start(skew, false, &oracle).await;
                });
            }
        }
    }
}

/// How far a clock is off: either way.
pub fn skew(rng: &mut Rng, most: u64) -> i64 {
    rng.below(2 * most + 1) as i64 - most as i64
}

/// Explicit upkeep, at any time and in any process.
pub async fn keeper(cast: Arc<Cast>, mut rng: Rng) {
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(100, 3_000)).await;
        let Some((gate, log)) = cast.some_process(&mut rng).running() else { continue };
        let ledger = log.ledger();
        let done = match rng.below(5) {
            0 => gate.ask(async { ledger.checkpoint().await.map(drop) }).await,
            1 => gate.ask(async { ledger.strip().await.map(drop) }).await,
            2 => {
                let before_ms = cast.world.clock.wall_ms() - 3_600_000;
                let what = Expiring::Producers(rng.pick(&[IdentityKind::Dense, IdentityKind::Once]));
                let expire = Action::Expire(Expire { what, before_ms });
                gate.ask(async { ledger.act(expire).await.map(drop) }).await
            }
            _ => {
                let chain = ledger.chain();
                let take = chain.view(|view| {
                    let (id, topic) = view.topic_or_unknown(TOPIC)?;
                    let free =
                        |p: &(usize, &tidelog_core::ledger::view::Partition)| p.1.leader != Some(chain.who);
                    let free = topic.partitions.iter().enumerate().filter(free);
                    Ok::<_, Error>(free.map(|(number, _)| (id, number as u32)).collect::<Vec<_>>())
                });
                let Ok(Ok(take)) = take else { continue };
                if take.is_empty() {
                    continue;
                }
                let lead = Lead { who: chain.who, address: String::new(), take, let_go: Vec::new() };
                gate.ask(async { ledger.act(Action::Lead(lead)).await.map(drop) }).await
            }
        };
        if let Some(Err(error)) = done
            && !matches!(error, Error::Superseded { .. } | Error::InvalidField { .. })
        {
            cast.refused(&gate.name, &(TOPIC.into(), 0), &error);
        }
    }
}

/// Makes topics, grows and deletes them, some of them twice under one name, and asks other processes about them.
pub async fn topics(cast: Arc<Cast>, mut rng: Rng) {
    for number in 0.. {
        let name = format!("gone-{}-{number}", cast.world.era());
        for life in 1.. {
            let wait_ms = if life == 1 { rng.between(300, 3_000) } else { rng.below(1_000) };
            sleep_ms(wait_ms).await;
            if cast.world.is_stopped() {
                return;
            }
            // Known to be deleted, if it ever was: what is there from now on is of this life.
            cast.begin_life(&name, life);
            let ends = rng.chance(if life == 1 { 700 } else { 200 });
            if live(&cast, &mut rng, &name, ends).await.is_none() || life == 2 {
                break;
            }
            cast.world.saw("topic", "none", "deleted, made anew");
        }
    }
}

/// A topic from its making to its end, if it comes to one, and that is known.
async fn live(cast: &Arc<Cast>, rng: &mut Rng, name: &str, ends: bool) -> Option<()> {
    let (gate, log) = cast.some_process(rng).running()?;
    let admin = log.admin();
    let id = gate.ask(admin.create_topic(name, 1, &[])).await?.ok()?;
    let grown = gate.ask(admin.alter_topic(name, Some(2), &[])).await;
    if matches!(grown, Some(Err(Error::UnknownTopic { .. }))) {
        cast.oracle().violation(format!("{} does not know its topic {name}", gate.name));
    }
    let (gate, log) = cast.some_process(rng).running()?;
    match gate.ask(log.admin().describe_topic(name)).await {
        Some(Ok(found)) => {
            let least = if matches!(grown, Some(Ok(_))) { 2 } else { 1 };
            if found.id != id || found.partitions.len() < least {
                cast.oracle().violation(format!("{} describes {name} as {found:?}", gate.name));
            }
        }
        Some(Err(error)) => cast.refused(&gate.name, &(name.to_owned(), 0), &error),
        None => {}
    }
    // A commit each, perhaps a merge each; by whoever, so perhaps by one that knows an earlier topic of the name.
    for _ in 0..rng.between(1, 6) {
        let (gate, log) = cast.some_process(rng).running()?;
        if let Ok(producer) = log.producer().linger_ms(0).build() {
            let (id, value) = cast.oracle().begin(u64::MAX, &cast.account_of(name), 0);
            match gate.ask(producer.send(name, tidelog_core::Record::value(value))).await {
                Some(Ok(found)) => {
                    let at_ms = cast.world.clock.ms();
                    cast.oracle().acked(id, found.partition, found.offset, at_ms);
                }
                // By a process that knows the topic that had the name before: it says so, and took nothing.
                Some(Err(Error::TopicDeleted { topic })) if topic == name => {
                    cast.world.saw("topic", "none", "sent to the one before");
                    cast.oracle().failed(id, "its topic was deleted");
                }
                Some(Err(error)) => cast.refused(&gate.name, &(name.to_owned(), 0), &error),
                None => {}
            }
        }
        sleep_ms(rng.pick(&[0, 0, 1_000, 5_000])).await;
    }
    if !ends {
        return None;
    }
    let deleted = gate.ask(log.admin().delete_topic(name)).await;
    let (gate, log) = cast.some_process(rng).running()?;
    let found = gate.ask(log.admin().describe_topic(name)).await;
    if let (Some(Ok(_)), Some(Ok(_))) = (&deleted, found) {
        cast.oracle().violation(format!("{} still knows {name}, which was deleted", gate.name));
    }
    deleted?.ok().map(drop)
}

/// Stores offsets of a group of its own through any process, and asks any other for them.
pub async fn group(cast: Arc<Cast>, mut rng: Rng, number: u64) {
    let group = format!("g{number}");
    let (mut offset, mut stored) = (0, 0);
    while !cast.world.is_stopped() {
        sleep_ms(rng.between(200, 3_000)).await;
        let Some((gate, log)) = cast.some_process(&mut rng).running() else { continue };
        offset += 1;
        match gate.ask(log.admin().store_offsets(&group, TOPIC, &[(0, Some(offset))])).await {
            Some(Ok(())) => stored = offset,
            Some(Err(error)) => cast.refused(&gate.name, &(TOPIC.into(), 0), &error),
            None => {}
        }
        let Some((gate, log)) = cast.some_process(&mut rng).running() else { continue };
        match gate.ask(log.admin().describe_group(&group)).await {
            Some(Ok(lags)) => {
                // An unknown outcome may come true late, but an older one never after a newer one was stored.
                let found = lags.iter().map(|lag| lag.offset).max().unwrap_or(0);
                if found < stored {
                    cast.oracle()
                        .violation(format!("{group} is at {found} in {}, stored {stored}", gate.name));
                }
            }
            Some(Err(Error::UnknownGroup { .. })) if stored == 0 => {}
            Some(Err(error)) => cast.refused(&gate.name, &(TOPIC.into(), 0), &error),
            None => {}
        }
    }
}
