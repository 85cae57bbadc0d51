//! Files that change while connections are open.

use tercet_storage::{Algorithm, Digest};

use crate::authority::Authority;
use crate::process::{Replica, content, first_of, shown_at, value_of};
use crate::until;

const RELOADS: &str = "tercet_tls_reloads_total{listener=\"registry\"}";
const FAILURES: &str = "tercet_tls_reload_failures_total{listener=\"registry\"}";
/// More than every buffer on the way together, so that a download that is not read stands still.
const BLOB_BYTES: usize = 96 * 1024 * 1024;

pub(crate) async fn push(client: &reqwest::Client, registry: &str, bytes: &[u8]) -> String {
    let digest = Digest::of(Algorithm::Sha256, bytes);
    let base = format!("https://{registry}");
    let opened = client.post(format!("{base}/v2/team/app/blobs/uploads/")).send().await.unwrap();
    assert_eq!(opened.status(), 202);
    let location = opened.headers()["location"].to_str().unwrap().to_owned();
    let location = if location.starts_with('/') { format!("{base}{location}") } else { location };
    let mark = if location.contains('?') { '&' } else { '?' };
    let closed = client
        .put(format!("{location}{mark}digest={digest}"))
        .body(bytes.to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(closed.status(), 201);
    format!("{base}/v2/team/app/blobs/{digest}")
}

#[tokio::test]
async fn a_download_in_flight_outlives_a_new_certificate() {
    let (first, second) = (Authority::new(), Authority::new());
    let replica = Replica::with_tls(&first, "").await;
    let bytes = content(BLOB_BYTES);
    let (h2, h1) = (first.http(None), first.http1());
    let url = push(&h2, &replica.registry, &bytes).await;
    let mut downloads = Vec::new();
    for client in [&h2, &h1] {
        let mut answer = client.get(&url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let begin = answer.chunk().await.unwrap().unwrap().to_vec();
        downloads.push((answer, begin));
    }

    let new = second.issue("registry");
    new.write(replica.dir.path());
    let shown = until("the new certificate", async || replica.shown_to(&second).await).await;
    assert_eq!(shown, first_of(&new));
    assert_eq!(replica.shown_to(&first).await, None);

    for (mut answer, mut got) in downloads {
        while let Some(chunk) = answer.chunk().await.unwrap() {
            got.extend_from_slice(&chunk);
        }
        assert!(got == bytes, "{} bytes of {BLOB_BYTES}", got.len());
    }
    // The connections themselves are still good, with the certificate that they began with.
    for client in [&h2, &h1] {
        let url = format!("https://{}/v2/", replica.registry);
        assert_eq!(client.get(url).send().await.unwrap().status(), 200);
    }
    assert_eq!(replica.metric(RELOADS).await, Some(1.0));
    assert_eq!(replica.metric(FAILURES).await, Some(0.0));
}

#[tokio::test]
async fn every_listener_takes_a_new_certificate() {
    let (first, second) = (Authority::new(), Authority::new());
    let mut replica = Replica::new();
    let listeners = ["registry", "ops", "webhook"];
    let old = first.issue("all");
    old.write(replica.dir.path());
    replica.start(&listeners.map(|listener| replica.tls_section(listener)).concat());
    let addresses = [&replica.registry, &replica.ops, &replica.webhook];
    for address in addresses {
        let shown = until(address, async || shown_at(address, &first).await).await;
        assert_eq!(shown, first_of(&old), "{address}");
    }
    let new = second.issue("all");
    new.write(replica.dir.path());
    for address in addresses {
        let shown = until(address, async || shown_at(address, &second).await).await;
        assert_eq!(shown, first_of(&new), "{address}");
    }
    let url = format!("https://{}/metrics", replica.ops);
    let metrics = second.http(None).get(url).send().await.unwrap().text().await.unwrap();
    for listener in listeners {
        let reloads = format!("tercet_tls_reloads_total{{listener=\"{listener}\"}}");
        assert_eq!(value_of(&metrics, &reloads), Some(1.0), "{listener}");
    }
}

#[tokio::test]
async fn a_bad_certificate_changes_nothing_and_is_told_once() {
    let authority = Authority::new();
    let mut replica = Replica::new();
    let good = authority.issue("registry");
    good.write(replica.dir.path());
    replica.start(&replica.tls_section("registry"));
    replica.ready().await;
    let old = authority
        .issue_with("registry", |params| params.not_after = rcgen::date_time_ymd(2021, 2, 3));
    old.write(replica.dir.path());
    until("a failure", async || (replica.metric(FAILURES).await == Some(1.0)).then_some(())).await;
    assert_eq!(replica.shown_to(&authority).await, Some(first_of(&good)));
    let told = "registry.tls.certificate: ";
    assert_eq!(replica.log().matches(told).count(), 1, "{}", replica.log());
    assert!(replica.log().contains("expired on Feb  3"), "{}", replica.log());

    let new = authority.issue("registry");
    new.write(replica.dir.path());
    until("the new certificate", async || {
        (replica.shown_to(&authority).await == Some(first_of(&new))).then_some(())
    })
    .await;
    assert_eq!(replica.metric(FAILURES).await, Some(1.0));
    assert_eq!(replica.log().matches(told).count(), 1, "{}", replica.log());
}

#[tokio::test]
async fn a_new_authority_of_clients_counts_from_the_next_connection_on() {
    let (authority, before, after) = (Authority::new(), Authority::new(), Authority::new());
    let mut replica = Replica::new();
    authority.issue("registry").write(replica.dir.path());
    let ca = before.write(&replica.path("clients.pem"));
    replica.start(&format!(
        "{}client_ca = {ca:?}\nclient_auth = \"required\"\n",
        replica.tls_section("registry")
    ));
    replica.ready().await;
    let url = format!("https://{}/v2/", replica.registry);
    let (old, new) = (before.issue("builder"), after.issue("builder"));
    let let_in = async |identity| {
        // A client of its own each time, and so a connection of its own.
        authority.http(Some(identity)).get(&url).send().await.is_ok()
    };
    assert!(let_in(&old).await && !let_in(&new).await);
    after.write(&ca);
    until("the new authority", async || let_in(&new).await.then_some(())).await;
    assert!(!let_in(&old).await);
}
