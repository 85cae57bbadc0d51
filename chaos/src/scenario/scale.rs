//! A cluster grows from one replica to five and shrinks to three, while clients work.

use anyhow::{Context, Result, ensure};

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "scale",
    rows: &[23],
    hypothesis: "replicas come and go under load, the leader among them, and no client misses a pull",
    fault: "1 -> 3 -> 5 -> 3 replicas: new ones are started and join by themselves; the leader and another one are \
            taken away with `tercet member remove` and stopped",
    given: "one replica is ready and takes writes; nothing else belongs to the cluster yet",
    abort: "a pull fails, or a membership change is not over after 90 s: do not begin another one on top of it",
    recovery: "each new replica is a voter and holds every blob within 90 s; a removed one is forgotten by all \
               others within 90 s",
    rollback: "on a cluster of one's own: `tercet member remove` what joined, or start what was removed with an \
               empty disk",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["join", "remove"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default().replicas(1).with_room_for(4)).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(128 << 10, 8 << 20))).await?;
    // Once: whoever joins asks the founder that its configuration names, and that one may be gone at the end.
    for wanted in [3, 5] {
        run.work().await?;
        while run.members.len() < wanted {
            let index = run.cluster()?.grow()?;
            run.cluster()?.wait_caught_up(index, HEAL_DEADLINE).await?;
            run.members.push(index);
            run.retarget()?;
            run.faults.injected("join", &format!("replica {index}"));
        }
    }
    run.work().await?;
    while run.members.len() > 3 {
        let leader = run.leader().await?;
        let victim = if run.members.len() == 5 {
            leader
        } else {
            let members = run.members.clone();
            run.choose(&members)?
        };
        remove(run, victim).await?;
    }
    run.work().await?;
    run.stop_load().await?;
    let failed = run.ledger.counts().failed_pulls;
    ensure!(failed == 0, "{failed} pulls failed");
    Ok(())
}

/// Takes a member away as an operator does. Clients go on asking it until it is gone.
async fn remove(run: &mut Run, victim: usize) -> Result<()> {
    let name = run.cluster()?.replica(victim).name.clone();
    let others: Vec<usize> = run.members.iter().copied().filter(|index| *index != victim).collect();
    let asked = others.first().copied().context("a member is left")?;
    let said = run.cluster()?.operate(asked, &["member", "remove", &name, "--yes"]).await?;
    run.faults.injected("remove", said.stdout.trim());
    let cluster = run.cluster()?;
    for index in &others {
        wait_until("everybody knows that the member is gone", HEAL_DEADLINE, || async {
            let status = cluster.status(*index).await?;
            ensure!(status.member(&name).is_none(), "{} still lists it", status.name);
            Ok(())
        })
        .await?;
    }
    run.members = others;
    run.retarget()?;
    run.cluster()?.term(victim)?;
    let status = run.cluster()?.wait_exit(victim, HEAL_DEADLINE).await?;
    run.faults.note(&format!("{name} was stopped and ended with {status}"));
    run.work().await
}
