//! When a cluster is ready: every replica takes requests, and all of them vote.

use std::time::Duration;

use super::layout::ReplicaPlan;
use crate::cli::http::OpsClient;
use crate::exit::{Exit, Failure, OrExit};
use crate::ops::status::Status;

/// How long a cluster may take. It needs about two seconds; a resumed one may have to catch up.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long one question may take.
const ASK_DEADLINE: Duration = Duration::from_secs(2);

/// Waits until every replica is ready.
pub(super) async fn wait(plans: &[ReplicaPlan]) -> Result<(), Failure> {
    let client = OpsClient::new(ASK_DEADLINE).or_exit(Exit::Software)?;
    let mut waiting_for = String::new();
    let look = async {
        loop {
            match look(&client, plans).await {
                Ok(()) => return,
                Err(reason) => waiting_for = reason,
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    let in_time = tokio::time::timeout(READY_DEADLINE, look).await;
    in_time.map_err(|_| {
        let message =
            format!("the cluster is not ready after {} s: {waiting_for}", READY_DEADLINE.as_secs());
        Failure::new(Exit::Unavailable, message)
    })
}

async fn look(client: &OpsClient, plans: &[ReplicaPlan]) -> Result<(), String> {
    for plan in plans {
        let wrong = |what: String| format!("{}: {what} (log: {})", plan.name, plan.log.display());
        let ops = plan.ops.to_string();
        let ready =
            client.get(&ops, "/readyz").await.map_err(|error| wrong(format!("{error:#}")))?;
        if !ready.ok {
            return Err(wrong(ready.text.trim().to_owned()));
        }
    }
    let mut leaders = Vec::new();
    for plan in plans {
        leaders.push(check_status(client, plan, plans.len()).await?);
    }
    if leaders.windows(2).any(|pair| pair.first() != pair.last()) {
        return Err("the replicas do not agree on a leader yet".to_owned());
    }
    Ok(())
}

/// The leader's name, if this replica sees a complete cluster.
async fn check_status(
    client: &OpsClient,
    plan: &ReplicaPlan,
    replicas: usize,
) -> Result<String, String> {
    let wrong = |what: &str| format!("{}: {what}", plan.name);
    let answer = client
        .get(&plan.ops.to_string(), "/status")
        .await
        .map_err(|error| wrong(&format!("{error:#}")))?;
    let status: Status =
        serde_json::from_str(&answer.text).map_err(|error| wrong(&error.to_string()))?;
    let voters = status.members.iter().filter(|member| member.role != "learner").count();
    if voters < replicas {
        return Err(wrong(&format!("{voters} of {replicas} replicas vote")));
    }
    status.leader.ok_or_else(|| wrong("no leader yet"))
}
