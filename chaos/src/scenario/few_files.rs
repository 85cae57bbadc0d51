//! Row 29: fewer file descriptors than connections.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::net::TcpStream;

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    launch::Launch,
    not_shown::ensure_shown,
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "few-files",
    rows: &[29],
    hypothesis: "connections are refused before there are no files left for blobs, databases and the other replicas, \
                 and all is well when they are gone",
    fault: "each replica may have 256 open files; 400 connections are opened to one of them and held",
    given: "three replicas that may have 256 open files each; images are pushed and tags move",
    abort: "a log says `Too many open files`, or a replica loses its connection to the others because clients took \
            all descriptors",
    recovery: "the others go on within 10 s; the flooded replica takes requests again within seconds after the \
               flood, without a restart",
    rollback: "on a cluster of one's own: close the connections, or raise the limit and start the replica again",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5, Invariant::I8, Invariant::I9],
    fires: &["flood of connections"],
    floor_per_second: 2.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const FILES: u64 = 256;
const FLOOD: usize = 400;
const TRIES: usize = 10;
const PATIENCE: Duration = Duration::from_secs(2);

async fn body(run: &mut Run) -> Result<()> {
    run.bounds.files_max = FILES;
    run.start_prepared(ClusterOptions::default(), |cluster| {
        let limit = format!("--nofile={FILES}:{FILES}");
        for index in 0..cluster.len() {
            cluster.set_launch(index, Launch::default().through(&["prlimit", &limit]));
        }
        Ok(())
    })
    .await?;
    run.load(LoadOptions::images_and_tags(3, 128 << 10)).await?;
    for _ in 0..run.of(2, 10) {
        run.work().await?;
        let victim = run.choose(&[0, 1, 2])?;
        let address = run.cluster()?.registry_host(victim);
        let mut flood = Vec::new();
        for _ in 0..FLOOD {
            flood.push(TcpStream::connect(&address).await?);
        }
        let refused = refused(run, victim).await?;
        ensure_shown!(refused > 0, "all requests of {TRIES} were served: the flood was none");
        let fault = run.faults.begin("flood of connections", &format!("replica {victim}"));
        run.faults.note(&format!("{refused} of {TRIES} requests were refused"));
        let others: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
        run.writes_resume(&others).await?;
        run.work().await?;
        drop(flood);
        run.faults.end(fault);
        run.healed();
        run.writes_resume(&[victim]).await?;
        run.cluster()?.wait_ready(HEAL_DEADLINE).await?;
    }
    for index in 0..3 {
        let log = run.cluster()?.replica(index).log_text();
        ensure!(!log.contains("Too many open files"), "replica {index} ran out of files");
    }
    Ok(())
}

/// How many requests on new connections are not served.
async fn refused(run: &mut Run, index: usize) -> Result<usize> {
    let mut refused = 0;
    for _ in 0..TRIES {
        let client = run.cluster()?.client(index)?.patient_for(PATIENCE);
        let served = client.get("/v2/").await.is_ok_and(|answer| answer.status == 200);
        refused += usize::from(!served);
    }
    Ok(refused)
}
