//! cosign: signatures with a key, in each of the ways that it keeps them in a registry.
//!
//! Nothing here asks Sigstore's public services: no transparency log, no certificates for people, no TUF.

use anyhow::{Context, Result, ensure};
use tercet_chaos::{Tool, ToolOutput, User};

use super::{Ground, REFUSED, UNTRUSTED, WRONG, said};

/// A place for a signature.
struct Way {
    repository: &'static str,
    /// The options that cosign takes when signing.
    sign: &'static [&'static str],
    /// Those that it takes when verifying.
    verify: &'static [&'static str],
    /// Where the signature is afterwards.
    place: Place,
}

enum Place {
    /// A manifest whose subject is the image, of this type.
    Referrer(&'static str),
    /// A tag made of the image's digest.
    Tag,
}

const WAYS: [Way; 3] = [
    Way {
        repository: "cosign/bundle",
        sign: &["--signing-config", "signing.json", "--trusted-root", "root.json"],
        verify: &["--trusted-root", "root.json"],
        place: Place::Referrer("application/vnd.dev.sigstore.bundle.v0.3+json"),
    },
    Way {
        repository: "cosign/tag",
        sign: &["--use-signing-config=false", "--new-bundle-format=false", "--tlog-upload=false"],
        verify: &["--new-bundle-format=false"],
        place: Place::Tag,
    },
    Way {
        repository: "cosign/oci11",
        sign: &[
            "--use-signing-config=false",
            "--new-bundle-format=false",
            "--tlog-upload=false",
            "--registry-referrers-mode=oci-1-1",
        ],
        verify: &["--new-bundle-format=false", "--experimental-oci11"],
        place: Place::Referrer("application/vnd.dev.cosign.artifact.sig.v1+json"),
    },
];

/// cosign with the cluster's authority.
struct Cosign<'a> {
    tool: Tool,
    ground: &'a Ground,
}

impl Cosign<'_> {
    async fn verify(&self, way: &Way, replica: usize, key: &str) -> Result<ToolOutput> {
        let image = format!("{}/{}:v1", self.ground.host(replica), way.repository);
        let verify = ["verify", "--key", key, "--insecure-ignore-tlog"];
        self.tool.run(&[&verify[..], way.verify, &[&image]].concat()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cosign_signs_and_verifies_in_every_way() -> Result<()> {
    let Some(tool) = Tool::find_go_built("cosign")? else { return Ok(()) };
    let ground = Ground::prepare().await?;
    let bare = tool.at_home(ground.home.path()).with("COSIGN_PASSWORD", "");
    // `--experimental-oci11` wants it said twice.
    let bare = bare.with("COSIGN_EXPERIMENTAL", "1");
    let tool = bare.clone().first(&[&format!("--registry-cacert={}", ground.ca()?)]);
    for key in ["own", "other"] {
        bare.run(&["generate-key-pair", "--output-key-prefix", key]).await?;
    }
    // Services to sign with, and to believe: none.
    bare.run(&["signing-config", "create", "--out", "signing.json"]).await?;
    bare.run(&["trusted-root", "create", "--out", "root.json"]).await?;
    let busybox = &ground.images.busybox;
    for way in &WAYS {
        ground.seed(way.repository, "v1", busybox).await?;
    }

    let image = format!("{}/cosign/tag:v1", ground.host(0));
    let verify = ["verify", "--key", "own.pub", "--insecure-ignore-tlog", &image];
    said(&tool.run_to_fail(&verify).await?, &REFUSED)?;
    // It keeps what it is given, and asks the registry only when it wants something.
    let log_in = |host: String, password: &'static str| {
        let bare = bare.clone();
        async move {
            let login = ["login", "-u", User::ALICE.name, "--password-stdin", &host];
            bare.run_with_input(&login, password).await
        }
    };
    log_in(ground.host(0), WRONG).await?;
    said(&tool.run_to_fail(&verify).await?, &REFUSED)?;
    for host in ground.hosts() {
        log_in(host, User::ALICE.password).await?;
    }
    said(&bare.run_to_fail(&verify).await?, &UNTRUSTED)?;

    let cosign = Cosign { tool, ground: &ground };
    for way in &WAYS {
        sign_and_verify(&cosign, way).await.context(way.repository)?;
    }
    ground.shut_down().await
}

async fn sign_and_verify(cosign: &Cosign<'_>, way: &Way) -> Result<()> {
    let ground = cosign.ground;
    let digest = &ground.images.busybox.manifest.digest;
    let before = cosign.verify(way, 0, "own.pub").await;
    ensure!(before.is_err(), "verified before it was signed");
    let image = format!("{}/{}@{digest}", ground.host(0), way.repository);
    let sign = ["sign", "--yes", "--key", "own.key"];
    cosign.tool.run(&[&sign[..], way.sign, &[&image]].concat()).await?;
    let said = cosign.verify(way, 2, "own.pub").await?.stdout;
    ensure!(said.contains(digest), "verified something else: {said}");
    let other = cosign.verify(way, 1, "other.pub").await;
    ensure!(other.is_err(), "another key verifies it too");

    let client = ground.cluster.client(1)?;
    let tag = format!("{}.sig", digest.replace(':', "-"));
    match way.place {
        Place::Referrer(kind) => {
            let found = client.referrers(way.repository, digest).await?;
            let kinds: Vec<&str> =
                found.iter().filter_map(|item| item["artifactType"].as_str()).collect();
            ensure!(kinds == [kind], "{found:?}");
        }
        Place::Tag => {
            let tags = client.tags(way.repository).await?;
            ensure!(tags == [tag.clone(), "v1".to_owned()], "{tags:?}");
        }
    }
    let tree = format!("{}/{}:v1", ground.host(1), way.repository);
    let tree = cosign.tool.run(&["tree", &tree]).await?.stdout;
    ensure!(tree.contains("sha256:"), "{tree}");
    if matches!(way.place, Place::Tag) {
        let image = format!("{}/{}:v1", ground.host(2), way.repository);
        cosign.tool.run(&["clean", "--force", &image]).await?;
        ground.check_gone(way.repository, &tag).await?;
        ground.check(0, way.repository, "v1", &ground.images.busybox).await?;
    }
    Ok(())
}
