//! Access control is the same through every replica, also where one passes a request on to another.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;
use tercet_chaos::{Answer, Blob, Cluster, ClusterOptions, Image, Listener, User, wait_until};

const REPOSITORY: &str = "team/app";
const DEADLINE: Duration = Duration::from_secs(60);
/// May push to `team` and delete nothing.
const CAROL: User = User {
    name: "carol",
    password: "carols-car-9",
    bcrypt: "$2y$05$K7mQ2xW9pL4vT8nR3sY6zePGRBVTXPE.yrZkC.bI1QL23WG7anycq",
};

fn options() -> ClusterOptions {
    ClusterOptions::default()
        .users(&[User::ALICE, User::BOB, CAROL])
        .rule("user:alice", "**", &["*"])
        .rule("user:bob", "**", &["pull"])
        .rule("user:carol", "team/**", &["pull", "push"])
        .setting("log", "format", "\"json\"")
        .client_user(User::ALICE)
}

/// One bearer token for everything in the repository.
async fn token(cluster: &Cluster, index: usize, user: Option<User>) -> Result<String> {
    let scope = format!("repository:{REPOSITORY}:pull,push,delete");
    let path = format!("/token?service=tercet&scope={scope}");
    let client = cluster.client_as(index, user)?;
    // The leader of a new cluster makes the key a moment after the start.
    let answer = wait_until("the replica gives a token", DEADLINE, || async {
        client.get(&path).await?.expect(200)
    });
    let token = answer.await?.json()?;
    Ok(token.get("token").and_then(Value::as_str).context("no token")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_answers_everybody_alike() -> Result<()> {
    let cluster = Cluster::start_with(options()).await?;
    let image = Image::random(1, &[1_000]);
    cluster.client(0)?.push_image(REPOSITORY, "v1", &image).await?;
    let absent = format!("sha256:{}", "0".repeat(64));
    let layer = &image.blobs[1].digest;
    // Statuses for nobody, Bob, Carol and Alice.
    let requests = [
        (Method::GET, "/v2/".to_owned(), [401, 200, 200, 200]),
        (Method::GET, format!("/v2/{REPOSITORY}/manifests/v1"), [401, 200, 200, 200]),
        (Method::HEAD, format!("/v2/{REPOSITORY}/blobs/{layer}"), [401, 200, 200, 200]),
        (Method::GET, format!("/v2/{REPOSITORY}/tags/list"), [401, 200, 200, 200]),
        (Method::GET, format!("/v2/{REPOSITORY}/referrers/{absent}"), [401, 200, 200, 200]),
        (Method::GET, "/v2/other/app/tags/list".to_owned(), [401, 404, 403, 404]),
        (Method::GET, "/v2/_catalog".to_owned(), [401, 200, 200, 200]),
        (Method::POST, format!("/v2/{REPOSITORY}/blobs/uploads/"), [401, 403, 202, 202]),
        (
            Method::POST,
            format!("/v2/team/new/blobs/uploads/?mount={layer}&from={REPOSITORY}"),
            [401, 403, 201, 201],
        ),
        (Method::DELETE, format!("/v2/{REPOSITORY}/manifests/none"), [401, 403, 403, 404]),
        (Method::DELETE, format!("/v2/{REPOSITORY}/blobs/{absent}"), [401, 403, 403, 404]),
    ];
    let everybody = [None, Some(User::BOB), Some(CAROL), Some(User::ALICE)];
    for (who, column) in everybody.into_iter().zip(0..) {
        for made_by in 0..3 {
            let token = token(&cluster, made_by, who).await?;
            for asked in 0..3 {
                for (method, path, wanted) in &requests {
                    if path == "/v2/" || path == "/v2/_catalog" {
                        continue;
                    }
                    let client = cluster.client_as(asked, None)?;
                    let request = client.request(method.clone(), path)?.bearer_auth(&token);
                    // Its scope names one repository; about others it says nothing.
                    let in_scope = path.contains(REPOSITORY) && !path.contains("team/new");
                    let answer = client.send(request).await?;
                    let wanted = match wanted[column] {
                        status if in_scope || status == 403 => status,
                        _ => 401,
                    };
                    let what = format!("token of {who:?} by {made_by} at {asked}: {method} {path}");
                    ensure!(answer.status == wanted, "{what}: {}", answer.describe());
                }
            }
        }
        for index in 0..3 {
            let client = cluster.client_as(index, who)?;
            for (method, path, wanted) in &requests {
                let answer = client.call(method.clone(), path).await?;
                let what = format!("{who:?} at replica {index}: {method} {path}");
                ensure!(answer.status == wanted[column], "{what}: {}", answer.describe());
            }
        }
    }
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_its_owners_through_every_replica() -> Result<()> {
    let mut cluster = Cluster::start_with(options()).await?;
    let blob = Blob::random(1, 90_000);
    let carol = |index| cluster.client_as(index, Some(CAROL));
    let chunk = |number: usize| blob.bytes.slice(number * 30_000..(number + 1) * 30_000);
    // Opened at 0: at 1 and 2 it is passed on.
    let mut upload = carol(0)?.open_upload(REPOSITORY).await?;
    carol(1)?.append(&mut upload, chunk(0)).await?;
    carol(2)?.append(&mut upload, chunk(1)).await?;
    refused_to_others(&cluster, &upload.location, &[0, 1, 2]).await?;
    carol(1)?.get(&upload.location).await?.expect(204)?;
    for index in 0..3 {
        let lines = audit_lines(&cluster, index, "upload.append");
        let carols = lines.iter().filter(|line| line["principal"] == "user:carol").count();
        ensure!(carols == usize::from(index != 0), "one line, where she asked: {lines:?}");
    }

    // Somebody else goes on with it when its replica is gone; it stays hers.
    cluster.kill9(0)?;
    let carol = |index| cluster.client_as(index, Some(CAROL));
    let what = "the upload goes on without the replica that opened it";
    wait_until(what, DEADLINE, || async {
        let state = carol(1)?.get(&upload.location).await?.expect(204)?;
        ensure!(state.need_header("range")? == "0-59999", "{}", state.describe());
        Ok(())
    })
    .await?;
    refused_to_others(&cluster, &upload.location, &[1, 2]).await?;
    carol(2)?.append(&mut upload, chunk(2)).await?;
    carol(1)?.finish(&upload, &blob.digest, Bytes::new()).await?.expect(201)?;
    cluster.restart(0)?;
    cluster.wait_ready(DEADLINE).await?;
    for index in 0..3 {
        let bytes =
            cluster.client_as(index, Some(User::BOB))?.pull_blob(REPOSITORY, &blob.digest).await?;
        ensure!(bytes == blob.bytes, "other bytes");
    }
    cluster.shut_down().await
}

/// The common name of a certificate that the registry's `client_ca` vouches for is a name like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_a_name() -> Result<()> {
    let mut options = ClusterOptions::default()
        .users(&[User::ALICE])
        .rule("user:alice", "**", &["*"])
        .rule("certificate:node-*", "team/**", &["pull"])
        .tls(Listener::Registry)
        .setting("registry.tls", "client_ca", "\"{folder}/tls/ca.pem\"")
        .setting("log", "format", "\"json\"")
        .client_user(User::ALICE);
    options.replicas = 1;
    let cluster = Cluster::start_with(options).await?;
    let image = Image::random(1, &[1_000]);
    cluster.client(0)?.push_image(REPOSITORY, "v1", &image).await?;
    let authority = cluster.authority()?;
    for (name, statuses) in
        [(None, [401, 401]), (Some("node-1"), [200, 403]), (Some("stranger"), [403, 403])]
    {
        let mut builder = authority.trusted_by(reqwest::Client::builder())?;
        if let Some(name) = name {
            builder = builder.identity(authority.issue(name).await?.identity()?);
        }
        let client = builder.build()?;
        let url = format!("{}/v2/{REPOSITORY}", cluster.registry_url(0));
        let pulled = client.get(format!("{url}/manifests/v1")).send().await?.status().as_u16();
        let pushed = client.post(format!("{url}/blobs/uploads/")).send().await?.status().as_u16();
        ensure!([pulled, pushed] == statuses, "{name:?}: {pulled} {pushed}");
        // Who also gives a password is who the password says.
        let base = client.get(format!("{}/v2/", cluster.registry_url(0)));
        let wrong = base.basic_auth("alice", Some("guess")).send().await?.status();
        ensure!(wrong == 401, "{name:?} with a wrong password: {wrong}");
    }
    let denials = audit_lines(&cluster, 0, "upload.open");
    let node = denials.iter().any(|line| line["principal"] == "certificate:node-1");
    ensure!(node, "no denial of the node: {denials:?}");
    cluster.shut_down().await
}

/// Alice may push here, and it is not her upload; Bob may not push; nobody may do nothing.
async fn refused_to_others(cluster: &Cluster, location: &str, replicas: &[usize]) -> Result<()> {
    let mut answers = BTreeSet::new();
    for index in replicas {
        for (who, wanted) in [(Some(User::ALICE), 404), (Some(User::BOB), 403), (None, 401)] {
            let client = cluster.client_as(*index, who)?;
            for method in [Method::GET, Method::PATCH, Method::PUT, Method::DELETE] {
                let path = match method {
                    Method::PUT => format!("{location}?digest=sha256:{}", "0".repeat(64)),
                    _ => location.to_owned(),
                };
                let request = client.request(method.clone(), &path)?.body("x");
                let answer: Answer = client.send(request).await?;
                let what = format!("{who:?} at replica {index}: {method}");
                ensure!(answer.status == wanted, "{what}: {}", answer.describe());
                answers.insert((wanted, answer.error_code()?));
            }
        }
    }
    // The same words everywhere.
    ensure!(answers.len() == 3, "{answers:?}");
    Ok(())
}

fn audit_lines(cluster: &Cluster, index: usize, action: &str) -> Vec<Value> {
    let text = cluster.replica(index).log_text();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "tercet::audit" && line["action"] == action).collect()
}
