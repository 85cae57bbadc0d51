//! Row 8: what replicas send each other arrives damaged, or not to its end.

use std::{ops::RangeInclusive, time::Duration};

use anyhow::{Context, Result, ensure};
use rand::RngExt as _;

use super::{Lane, Needs, Run, Scenario};
use crate::{
    content::Image,
    nemesis::{Damage, Direction, Links, Proxy, Weather},
    not_shown::OrNotShown as _,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "corrupt-peers",
    rows: &[8],
    hypothesis: "a replica believes nothing that it can check: a damaged copy is refused and got elsewhere, a damaged \
                 message is not applied, a stream that breaks is begun again",
    fault: "proxies between replicas that speak plain HTTP flip bits in the bodies of requests and of answers, and cut \
            connections in the middle of them; a replica that was away fills itself through them, with layers that are \
            longer than the way between two flipped bits",
    given: "three replicas whose links pass proxies, without TLS; images are pushed, in chunks too, and pulled, and tags \
            move",
    abort: "a pull gives bytes of another digest",
    recovery: "pulls go on meanwhile, since some replica has a good copy; writes go on within 10 s of the end, and all \
               replicas agree and hold everything within 90 s",
    rollback: "end the program: the proxies go with it, and with them the replicas",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &[
        "damaged answers",
        "damaged requests",
        "broken streams",
        "bytes damaged",
        "streams reset",
        REFUSED,
    ],
    floor_per_second: 2.0,
    lane: Lane::Smoke,
    needs: Needs::Loopback(
        "its proxies damage what replicas tell each other in the clear, and that they do on loopback only",
    ),
    body: |run| Box::pin(body(run)),
};

const REPOSITORY: &str = "chaos/layers";
/// What replicas write to their logs when they notice.
const WRONG_BYTES: &str = "wrong bytes";
const HOLDER_LOST: &str = "holder lost";
/// Counted for each round in which a replica got a damaged blob and did not believe it.
const REFUSED: &str = "damaged blobs refused";
/// One bit of so many bytes of bodies, more or less, is flipped.
const EVERY: RangeInclusive<u64> = 5_000..=40_000;
/// Layers that a replica lacks when it comes back; none of them can pass a bad link whole.
const LAYERS: usize = 6;
const LAYER: usize = 120_000;
/// Until a replica has met the first damaged blob. It may have to elect a leader before.
const MEET_DEADLINE: Duration = Duration::from_secs(20);

async fn body(run: &mut Run) -> Result<()> {
    run.start_through_proxies(ClusterOptions::default()).await?;
    run.ledger.relays_are_damaged();
    let layer_max = run.of(256 << 10, 8 << 20);
    run.load(LoadOptions::images_and_tags(3, layer_max).and_chunked(1)).await?;
    let kinds = ["damaged answers", "damaged requests", "broken streams"];
    let mut wrong = 0;
    for round in 0..run.of(3, 24) {
        run.progress(20).await?;
        let away = run.choose(&[0, 1, 2])?;
        let rest: Vec<usize> = (0..3).filter(|index| *index != away).collect();
        run.kill(away)?;
        run.writes_resume(&rest).await?;
        run.progress(30).await?;
        push_layers(run, &rest).await?;

        let kind = kinds.get(round % kinds.len()).copied().context("a kind")?;
        // Of the two that have what it lacks, one or both are behind a bad link.
        // The first time both, so that nothing good can come.
        let bad = if round > 0 && run.toss() { vec![run.choose(&rest)?] } else { rest.clone() };
        let before = run.links.peer_traffic();
        if bad.len() == rest.len() {
            run.majority_gone();
        }
        for index in &bad {
            let weather = match round % kinds.len() {
                2 => Weather::resetting(run.random.random_range(5_000..200_000)),
                _ => {
                    let every = run.random.random_range(EVERY);
                    Weather::corrupting(Damage::EveryBodyByte(every))
                }
            };
            let direction =
                if round % kinds.len() == 1 { Direction::There } else { Direction::Back };
            for proxy in run.links.to_replica(*index) {
                proxy.set(direction, weather.clone());
            }
        }
        if round % kinds.len() == 1 {
            // What reaches the one that was away is damaged too.
            let weather = Weather::corrupting(Damage::EveryBodyByte(20_000));
            run.links
                .to_replica(away)
                .for_each(|proxy| proxy.set(Direction::There, weather.clone()));
        }
        let fault =
            run.faults.begin(kind, &format!("of replicas {bad:?}, while {away} comes back"));
        run.cluster()?.restart(away)?;
        let longest = run.of(Duration::from_secs(3), Duration::from_secs(20));
        if round == 0 {
            let replica = run.cluster()?.replica(away);
            wait_until("a damaged blob is refused", MEET_DEADLINE, || async {
                ensure!(replica.log_text().contains(WRONG_BYTES), "{} met none", replica.name);
                Ok(())
            })
            .await
            .or_not_shown()?;
        }
        run.last(Duration::from_secs(1), longest / 2).await;
        if round % kinds.len() == 2 {
            // Whatever is under way at this moment, in the middle of it.
            bad.iter().flat_map(|index| run.links.to_replica(*index)).for_each(Proxy::reset);
        }
        run.last(Duration::from_secs(1), longest / 2).await;
        run.links.clear();
        run.majority_back();
        run.faults.end(fault);
        let after = run.links.peer_traffic();
        let (corrupted, resets) =
            (after.corrupted - before.corrupted, after.resets - before.resets);
        if corrupted > 0 {
            run.faults.injected("bytes damaged", &format!("{corrupted} of them"));
        }
        if resets > 0 {
            run.faults.injected("streams reset", &format!("{resets} of them"));
        }
        let noticed = noticed(run, WRONG_BYTES)?;
        if noticed > wrong {
            run.faults.injected(REFUSED, &format!("{} times", noticed - wrong));
        }
        wrong = noticed;
        run.healed();
        run.writes_resume(&[0, 1, 2]).await?;
        run.restart_all().await?;
        run.whole_again(away).await?;
    }
    // Not only the replica that lacks something: everybody from everybody, all the time.
    run.majority_gone();
    let fault = run.faults.begin("damaged answers", "of everybody");
    Links::set(run.links.between_replicas(), &Weather::corrupting(Damage::EveryBodyByte(200_000)));
    let longest = run.of(Duration::from_secs(2), Duration::from_secs(20));
    run.last(Duration::from_secs(1), longest).await;
    run.links.clear();
    run.majority_back();
    run.faults.end(fault);
    run.healed();
    let (wrong, lost) = (noticed(run, WRONG_BYTES)?, noticed(run, HOLDER_LOST)?);
    run.figure("wrong bytes of a peer noticed", wrong);
    run.figure("copies of uploads given up", lost);
    Ok(())
}

/// What the replica that is away lacks, pushed to one of those that are there.
async fn push_layers(run: &mut Run, there: &[usize]) -> Result<()> {
    let index = run.choose(there)?;
    let seed = run.random.random();
    let image = Image::random(seed, &[LAYER; LAYERS]);
    run.push_image(index, REPOSITORY, &format!("layers-{seed}"), &image).await
}

/// How often the replicas say this in their logs.
fn noticed(run: &mut Run, words: &str) -> Result<usize> {
    let cluster = run.cluster()?;
    let logs = (0..cluster.len()).map(|index| cluster.replica(index).log_text());
    Ok(logs.map(|log| log.matches(words).count()).sum())
}
