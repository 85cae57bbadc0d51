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
use crate::network::{Hello, Invitation, Transport, TransportError};
use crate::type_config::MemberKind;

/// How long one member may take to say who it is.
const HELLO_DEADLINE: Duration = Duration::from_secs(2);
/// How long a replica that knows its cluster waits for the others to name theirs.
const STRANGER_DEADLINE: Duration = Duration::from_secs(1);
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

/// What [`bootstrap`] needs.
pub struct BootstrapOptions<'a> {
    /// The replica's data directory, locked by the caller.
    pub data: &'a DataDir,
    /// Its configured name.
    pub own_name: &'a str,
    /// Its configured kind: an edge founds no cluster.
    pub kind: MemberKind,
    /// Where the cluster is looked for.
    pub initial_members: &'a [InitialMember],
    /// Carries questions to the others.
    pub transport: &'a Arc<dyn Transport>,
    /// When an identity is made.
    pub clock: &'a Arc<dyn Clock>,
    /// Told what this replica waits for, for the log and `/readyz`.
    pub progress: &'a watch::Sender<String>,
    /// Holds the invitation, once an operator has had a leader send one.
    pub invited: &'a watch::Receiver<Option<Invitation>>,
}

/// Returns who this replica is: from its disk, or decided now and fsynced. Must run while this replica's
/// own peer listener answers `hello` already, since the others ask the same.
///
/// # Errors
/// When the disk belongs to another replica, when those who answer are not of one cluster or not who they
/// should be, or when the identity cannot be written.
pub async fn bootstrap(options: BootstrapOptions<'_>) -> Result<Identity, RaftError> {
    let BootstrapOptions { data, own_name, initial_members, transport, clock, progress, .. } =
        options;
    if let Some(identity) = Identity::load(data)? {
        if identity.name != own_name {
            return Err(RaftError::ClusterMismatch(format!(
                "TERCET-M08: the data directory belongs to replica `{}`, this replica is configured as `{own_name}`",
                identity.name
            )));
        }
        refuse_strangers(&identity, initial_members, transport).await?;
        return Ok(identity);
    }
    if initial_members.is_empty() {
        return Err(RaftError::ClusterMismatch("no initial members are configured".to_owned()));
    }
    let identity = loop {
        if let Some(invitation) = options.invited.borrow().as_ref() {
            tracing::info!(cluster = %invitation.cluster_id, "invited to a cluster");
            break Identity::join(own_name, &invitation.cluster_id, clock.now_ms());
        }
        let answers = ask_all(own_name, initial_members, transport).await;
        match judge(own_name, initial_members, &answers)? {
            Verdict::Join(cluster_id) => {
                break Identity::join(own_name, &cluster_id, clock.now_ms());
            }
            Verdict::Found if options.kind == MemberKind::Edge => {
                return Err(RaftError::ClusterMismatch(
                    "this replica is an edge, and is first in the list of initial members: an edge founds no cluster. List the voters only".to_owned(),
                ));
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

/// A disk of another cluster must not serve under an address of this one. It is told by those who answer: when a
/// majority of the configured members belongs to another cluster, this disk is the stranger. Who is silent says
/// nothing, and one wrong disk among the others is theirs to refuse.
async fn refuse_strangers(
    identity: &Identity,
    members: &[InitialMember],
    transport: &Arc<dyn Transport>,
) -> Result<(), RaftError> {
    let questions = members.iter().filter(|member| member.name != identity.name).map(|member| {
        let answer = transport.hello(&member.address, STRANGER_DEADLINE);
        async move { (&member.name, answer.await) }
    });
    let mut others = Vec::new();
    for (name, answer) in futures_util::future::join_all(questions).await {
        if let Ok(Hello { cluster_id: Some(cluster_id), .. }) = answer
            && cluster_id != identity.cluster_id
        {
            others.push(format!("`{name}` to {cluster_id}"));
        }
    }
    if others.len() <= members.len() / 2 {
        return Ok(());
    }
    Err(RaftError::ClusterMismatch(format!(
        "TERCET-M02: this disk belongs to cluster {}, but {}: it is another cluster's disk. Give this replica its own disk back, correct cluster.members, or wipe its data directory to join as a new member",
        identity.cluster_id,
        others.join(", ")
    )))
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
                "TERCET-M09: `{first_name}` belongs to cluster {cluster} and `{name}` to cluster {other}: they cannot be members of one registry"
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
    make_log(data)?;
    tercet_storage::sync_dir(&data.log())?;
    tercet_storage::sync_dir(data.root())?;
    Ok(())
}

fn make_log(data: &DataDir) -> Result<(), RaftError> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        // The log of a simulated replica is no file.
        tercet_storage::create_dir_durable(&data.log())?;
        return Ok(());
    }
    drop(LogStore::open(&data.log())?);
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
        (name.to_owned(), Ok(hello(name, None)))
    }

    fn of_cluster(name: &str, cluster: &str) -> (String, Answer) {
        (name.to_owned(), Ok(hello(name, Some(cluster))))
    }

    fn hello(name: &str, cluster: Option<&str>) -> Hello {
        Hello {
            name: name.to_owned(),
            cluster_id: cluster.map(ToOwned::to_owned),
            node_id: cluster.map(|_| 7),
            feature_level: 2,
        }
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
