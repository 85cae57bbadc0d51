//! A token of one replica counts at every other, and a user who is removed is gone everywhere.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use tercet_chaos::{Cluster, ClusterOptions, Image, User, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);
const REPOSITORY: &str = "team/app";

fn options() -> ClusterOptions {
    ClusterOptions::default()
        .users(&[User::ALICE, User::BOB])
        .rule("user:alice", "**", &["*"])
        .rule("user:bob", "**", &["pull"])
        .client_user(User::ALICE)
}

/// As a client that follows the challenge: Basic at `/token`, which is on the registry's own port.
async fn token(cluster: &Cluster, index: usize, user: User) -> Result<String> {
    let path = format!("/token?service=tercet&scope=repository:{REPOSITORY}:pull,push");
    // The leader makes the first key when it has a majority.
    wait_until("a token", DEADLINE, || async {
        let answer = cluster.client_as(index, Some(user))?.get(&path).await?.expect(200)?;
        let json = answer.json()?;
        Ok(json["token"].as_str().context("no token")?.to_owned())
    })
    .await
}

async fn status(cluster: &Cluster, index: usize, method: Method, token: &str) -> Result<u16> {
    let client = cluster.client_as(index, None)?;
    let path = match method {
        Method::POST => format!("/v2/{REPOSITORY}/blobs/uploads/"),
        _ => format!("/v2/{REPOSITORY}/tags/list"),
    };
    let request = client.request(method, &path)?.bearer_auth(token);
    Ok(client.send(request).await?.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_any_replica_counts_at_every_replica() -> Result<()> {
    let cluster = Cluster::start_with(options()).await?;
    cluster.client(0)?.push_image(REPOSITORY, "v1", &Image::random(1, &[1_000])).await?;
    for issuer in 0..3 {
        let (alices, bobs) = (
            token(&cluster, issuer, User::ALICE).await?,
            token(&cluster, issuer, User::BOB).await?,
        );
        for index in 0..3 {
            let got = [
                status(&cluster, index, Method::GET, &alices).await?,
                status(&cluster, index, Method::POST, &alices).await?,
                status(&cluster, index, Method::GET, &bobs).await?,
                // What the rules do not allow is not in the token, and not in the rules.
                status(&cluster, index, Method::POST, &bobs).await?,
            ];
            ensure!(got == [200, 202, 200, 403], "token of {issuer} at {index}: {got:?}");
        }
    }
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_outlive_the_replica_that_made_them_and_end_with_their_user() -> Result<()> {
    let mut cluster = Cluster::start_with(options()).await?;
    cluster.client(0)?.push_image(REPOSITORY, "v1", &Image::random(2, &[1_000])).await?;
    let issuer = cluster.leader().await?;
    let (alices, bobs) =
        (token(&cluster, issuer, User::ALICE).await?, token(&cluster, issuer, User::BOB).await?);
    cluster.kill9(issuer)?;
    for index in (0..3).filter(|index| *index != issuer) {
        ensure!(status(&cluster, index, Method::GET, &bobs).await? == 200, "at {index}");
    }
    cluster.restart(issuer)?;
    cluster.wait_ready(DEADLINE).await?;
    ensure!(status(&cluster, issuer, Method::GET, &bobs).await? == 200, "after a restart");
    let htpasswd = cluster.folder().join("htpasswd");
    fs::write(&htpasswd, User::ALICE.htpasswd_line())?;
    for index in 0..3 {
        wait_until("bob is gone", DEADLINE, || async {
            let status = status(&cluster, index, Method::GET, &bobs).await?;
            ensure!(status == 401, "{status} at {index}");
            Ok(())
        })
        .await?;
        ensure!(status(&cluster, index, Method::GET, &alices).await? == 200, "alice at {index}");
    }
    cluster.shut_down().await
}
