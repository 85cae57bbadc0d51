//! How a replica with an empty disk finds its cluster, or founds it.
//!
//! It asks every configured initial member who they are. Any answer with a cluster: join that one.
//! All answered, and all are empty: the first of the list founds, the others wait for it. Not all
//! answered: wait, because a silent member may hold the cluster. So two clusters cannot form.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tercet_storage::{Clock, DataDir, StorageError};
use tokio::sync::watch;

use crate::error::RaftError;
use crate::identity::Identity;
use crate::log::LogStore;
use crate::network::{Hello, Transport, TransportError};

/// How long one member may take to say who it is.
const HELLO_DEADLINE: Duration = Duration::from_secs(2);
/// Pause between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// A configured member: where the cluster is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Base URL of its peer listener.
    pub address: String,
}

/// What one round of questions leads to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Join(String),
    Found,
    Wait(String),
}

/// Returns who this replica is: from its disk, or decided now and fsynced. `progress` carries what
/// it waits for, for the log and `/readyz`. Must run while this replica's own peer listener answers
/// `hello` already, since the others ask the same.
pub async fn bootstrap(
    data: &DataDir,
    own_name: &str,
    initial_members: &[InitialMember],
    transport: &Arc<dyn Transport>,
    clock: &Arc<dyn Clock>,
    progress: &watch::Sender<String>,
) -> Result<Identity, RaftError> {
    if let Some(identity) = Identity::load(data)? {
        if identity.name != own_name {
            return Err(RaftError::ClusterMismatch(format!(
                "the data directory belongs to replica `{}`, this replica is configured as `{own_name}`",
                identity.name
            )));
        }
        return Ok(identity);
    }
    if !initial_members.iter().any(|member| member.name == own_name) && initial_members.is_empty() {
        return Err(RaftError::ClusterMismatch("no initial members are configured".to_owned()));
    }
    let identity = loop {
        let answers = ask_all(own_name, initial_members, transport).await;
        match judge(own_name, initial_members, &answers)? {
            Verdict::Join(cluster_id) => {
                break Identity::join(own_name, &cluster_id, clock.now_ms());
            }
            Verdict::Found => break Identity::found(own_name, clock.now_ms()),
            Verdict::Wait(reason) => {
                progress.send_if_modified(|current| {
                    let changed = *current != reason;
                    if changed {
                        tracing::info!("{reason}");
                        current.clone_from(&reason);
                    }
                    changed
                });
                tokio::time::sleep(ROUND_PAUSE).await;
            }
        }
    };
    create_empty_log(data)?;
    identity.store(data)?;
    tracing::info!(
        node_id = identity.node_id,
        cluster = %identity.cluster_id,
        founder = identity.founder,
        "this disk is new: identity written"
    );
    Ok(identity)
}

type Answer = Result<Hello, TransportError>;

async fn ask_all(
    own_name: &str,
    members: &[InitialMember],
    transport: &Arc<dyn Transport>,
) -> Vec<(String, Answer)> {
    let questions = members.iter().filter(|member| member.name != own_name).map(|member| async {
        (member.name.clone(), transport.hello(&member.address, HELLO_DEADLINE).await)
    });
    futures_util::future::join_all(questions).await
}

fn judge(
    own_name: &str,
    members: &[InitialMember],
    answers: &[(String, Answer)],
) -> Result<Verdict, RaftError> {
    let mut clusters: Vec<(&str, &str)> = Vec::new();
    let mut silent = Vec::new();
    for (name, answer) in answers {
        match answer {
            Ok(hello) if hello.name != *name => {
                return Err(RaftError::ClusterMismatch(format!(
                    "the peer address configured for `{name}` is answered by `{}`: check the member list",
                    hello.name
                )));
            }
            Ok(hello) => {
                if let Some(cluster) = &hello.cluster_id {
                    clusters.push((name, cluster));
                }
            }
            Err(error) => silent.push(format!("{name} ({error})")),
        }
    }
    if let Some((first_name, cluster)) = clusters.first() {
        if let Some((name, other)) = clusters.iter().find(|(_, other)| other != cluster) {
            return Err(RaftError::ClusterMismatch(format!(
                "`{first_name}` belongs to cluster {cluster} and `{name}` to cluster {other}: they cannot be members of one registry"
            )));
        }
        return Ok(Verdict::Join((*cluster).to_owned()));
    }
    if !silent.is_empty() {
        return Ok(Verdict::Wait(format!(
            "waiting to hear from all initial members before founding or joining a cluster; no answer from {}",
            silent.join(", ")
        )));
    }
    match members.first() {
        Some(first) if first.name == own_name => Ok(Verdict::Found),
        Some(first) => {
            Ok(Verdict::Wait(format!("waiting for `{}` to found the cluster", first.name)))
        }
        None => Err(RaftError::ClusterMismatch("no initial members are configured".to_owned())),
    }
}

/// Creates the log before the identity: from then on, an identity without a log is a loss. What a
/// disk without identity holds was never voted with, so it is safe to clear.
fn create_empty_log(data: &DataDir) -> Result<(), RaftError> {
    for path in [data.log(), data.state(), data.snapshots()] {
        match std::fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(StorageError::Io { operation: "remove", path, source: error }.into());
            }
        }
    }
    drop(LogStore::open(&data.log())?);
    tercet_storage::sync_dir(&data.log())?;
    tercet_storage::sync_dir(data.root())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn members() -> Vec<InitialMember> {
        ["a", "b", "c"]
            .map(|name| InitialMember { name: name.to_owned(), address: format!("http://{name}") })
            .to_vec()
    }

    fn empty(name: &str) -> (String, Answer) {
        (name.to_owned(), Ok(Hello { name: name.to_owned(), cluster_id: None, node_id: None }))
    }

    fn of_cluster(name: &str, cluster: &str) -> (String, Answer) {
        let hello =
            Hello { name: name.to_owned(), cluster_id: Some(cluster.to_owned()), node_id: Some(7) };
        (name.to_owned(), Ok(hello))
    }

    fn silent(name: &str) -> (String, Answer) {
        (name.to_owned(), Err(TransportError::NotSent("connection refused".to_owned())))
    }

    #[test]
    fn only_the_first_founds_and_only_when_all_are_empty() {
        let all_empty = judge("a", &members(), &[empty("b"), empty("c")]).unwrap();
        assert_eq!(all_empty, Verdict::Found);
        let second = judge("b", &members(), &[empty("a"), empty("c")]).unwrap();
        assert!(matches!(second, Verdict::Wait(_)));
        let one_silent = judge("a", &members(), &[empty("b"), silent("c")]).unwrap();
        assert!(matches!(one_silent, Verdict::Wait(reason) if reason.contains("c (")));
    }

    #[test]
    fn any_cluster_is_joined_even_when_others_are_silent() {
        let verdict = judge("a", &members(), &[of_cluster("b", "x"), silent("c")]).unwrap();
        assert_eq!(verdict, Verdict::Join("x".to_owned()));
    }

    #[test]
    fn two_clusters_and_wrong_names_are_refused() {
        let two = judge("a", &members(), &[of_cluster("b", "x"), of_cluster("c", "y")]);
        assert!(matches!(two, Err(RaftError::ClusterMismatch(_))));
        let wrong = judge("a", &members(), &[("b".to_owned(), empty("z").1), empty("c")]);
        assert!(matches!(wrong, Err(RaftError::ClusterMismatch(_))));
    }
}
