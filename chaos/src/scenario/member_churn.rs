//! Row 23: members come and go, and leaders die in between.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::RngExt as _;

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "member-churn",
    rows: &[23],
    hypothesis: "members may be removed and come back while everybody works, the leader among them, and a leader that \
                 dies half-way leaves nothing half done",
    fault: "one of five replicas is removed, now and then the leader; the leader is killed in the middle of it; the \
            removed one comes back with an empty disk",
    given: "five replicas are voters of one cluster; images are pushed and tags move",
    abort: "a membership change is not over after 90 s, or fewer than three members are left",
    recovery: "the same `tercet member remove` again completes whatever a dead leader left; writes go on within 10 \
               s; the removed replica comes back empty and is whole within 90 s",
    rollback: "on a cluster of one's own: repeat the removal until it says that there is no such member, then start \
               the replica with an empty disk",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["removal", "kill -9"],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    run.full_copies = false;
    run.start(ClusterOptions::default().replicas(5)).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(32 << 10, 1 << 20))).await?;
    for round in 0..run.of(2, 12) {
        run.work().await?;
        let leader = run.leader().await?;
        // Every other time it is the leader's own turn.
        let leaving = if round % 2 == 0 { leader } else { (leader + 1) % 5 };
        remove(run, leaving, leader).await?;
        come_back(run, leaving).await?;
    }
    Ok(())
}

/// Has a member removed, and kills the leader while that is going on.
async fn remove(run: &mut Run, leaving: usize, leader: usize) -> Result<()> {
    let asked = (leader + 2) % 5;
    let name = run.cluster()?.replica(leaving).name.clone();
    let config = run.cluster()?.replica(asked).config.display().to_string();
    let command = run.cluster()?.command();
    let words: Vec<String> = ["member", "remove", &name, "--now", "--yes", "--config", &config]
        .map(ToOwned::to_owned)
        .to_vec();
    run.members.retain(|index| *index != leaving);
    run.retarget()?;
    run.faults.injected("removal", &format!("of replica {leaving}, asked of replica {asked}"));
    let first = {
        let (command, words) = (command.clone(), words.clone());
        tokio::spawn(async move {
            command.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
        })
    };
    let pause = run.random.random_range(0..400);
    tokio::time::sleep(Duration::from_millis(pause)).await;
    run.kill(leader)?;
    // Interrupted or not: what matters is that asking again is enough.
    let _ = first.await?;
    run.cluster()?.restart(leader)?;
    wait_until(&format!("{name} is removed"), HEAL_DEADLINE, || async {
        command.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await.map(drop).or_else(
            // Removed already: the first one got through.
            |error| if format!("{error:#}").contains("no member") { Ok(()) } else { Err(error) },
        )
    })
    .await?;
    let standing = run.members.clone();
    run.writes_resume(&standing).await?;
    let cluster = &*run.cluster()?;
    wait_until("everybody has four members", HEAL_DEADLINE, || async {
        for index in &standing {
            let members = cluster.status(*index).await?.members;
            ensure!(members.len() == 4, "replica {index} sees {members:?}");
        }
        Ok(())
    })
    .await?;
    wait_until("the removed replica says so", HEAL_DEADLINE, || async {
        let code = cluster.ops_status(leaving, "/readyz").await?;
        ensure!(code == 503, "it answers {code} on /readyz");
        ensure!(cluster.replica(leaving).log_text().contains("TERCET-M0"), "no code in its log");
        Ok(())
    })
    .await
}

/// Lets the removed replica in again, as a new one.
async fn come_back(run: &mut Run, index: usize) -> Result<()> {
    run.cluster()?.kill9(index)?;
    run.cluster()?.wipe(index)?;
    run.members.push(index);
    run.members.sort_unstable();
    run.restart_all().await?;
    run.whole_again(index).await?;
    run.retarget()
}
