//! The specification's own suites: against one replica, and through balancers that send every request to
//! another replica than the one before.

use anyhow::{Context, Result, ensure};
use tercet_chaos::{
    Balance, Cluster, ClusterOptions, Conformance, Haproxy, RegistryClient, Target,
};

/// The suites of this machine. `None`, said in words, if there is none to be run.
fn suites() -> Result<Option<Vec<Conformance>>> {
    let found = Conformance::find_all()?;
    if found.is_empty() {
        println!("NOTHING WAS RUN: this machine has no conformance suite, for the reasons above");
        return Ok(None);
    }
    Ok(Some(found))
}

async fn pass_all(suites: &[Conformance], host: &str, through: &str) -> Result<()> {
    for (number, suite) in suites.iter().enumerate() {
        let report = suite.run(host, &format!("conformance/run{number}")).await;
        let report = report.with_context(|| format!("{suite}, {through}"))?;
        println!("{suite}, {through}: {report}");
        report.all_passed().with_context(|| format!("{suite}, {through}"))?;
    }
    Ok(())
}

/// All that the suites ask for, switched on: the default refuses an image of which a layer is missing.
fn options(replicas: usize) -> ClusterOptions {
    let mut options =
        ClusterOptions::default().setting("registry", "sparse_manifests", "\"always\"");
    options.replicas = replicas;
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_conforms() -> Result<()> {
    let Some(suites) = suites()? else { return Ok(()) };
    let cluster = Cluster::start_with(options(1)).await?;
    pass_all(&suites, &cluster.registry_host(0), "one replica").await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_conform_behind_a_tcp_balancer() -> Result<()> {
    conform_behind(Balance::Tcp).await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_conform_behind_an_http_balancer() -> Result<()> {
    conform_behind(Balance::Http).await
}

async fn conform_behind(balance: Balance) -> Result<()> {
    let Some(suites) = suites()? else { return Ok(()) };
    let cluster = Cluster::start_with(options(3)).await?;
    let haproxy = Haproxy::start(&cluster, balance).await?;
    let before = requests(&cluster).await?;
    pass_all(&suites, haproxy.host(), &format!("three replicas behind {balance:?}")).await?;
    let after = requests(&cluster).await?;
    // A suite that met one replica only would prove nothing.
    let served: Vec<u64> =
        after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let all: u64 = served.iter().sum();
    println!("requests that each replica served: {served:?}");
    ensure!(served.iter().all(|served| served * 10 > all * 3), "unequal turns: {served:?}");
    haproxy.stop().await?;
    cluster.shut_down().await
}

/// Requests that each replica's registry listener has answered.
async fn requests(cluster: &Cluster) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for index in 0..cluster.len() {
        let client = RegistryClient::new(vec![cluster.ops_url(index)], Target::One)?;
        let metrics = client.get("/metrics").await?.expect(200)?;
        let text = String::from_utf8_lossy(&metrics.body);
        let lines = text
            .lines()
            .filter(|line| line.starts_with("tercet_http_requests_total{listener=\"registry\""));
        let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        counts.push(values.sum());
    }
    Ok(counts)
}
