//! W5: clients that lie, stumble and speak nonsense, in the midst of honest ones.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use rand::{RngExt as _, rngs::StdRng};
use reqwest::Method;

use super::{
    invariant::Invariant,
    ledger::{Kept, Ledger},
    tags::register_manifest,
    targets::Targets,
};
use crate::{
    check::End,
    client::{Answer, RegistryClient, Upload},
    content::{Blob, Image, MediaType},
    raw::{raw_exchange, raw_send_and_cut},
    timeline::{Outcome, RequestKind},
};

const REPOSITORY: &str = "chaos/lies";
const SIZE: usize = 20_000;
const PAUSE: Duration = Duration::from_millis(20);

/// What a client may lie about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    WrongDigest,
    WrongDigestAtOnce,
    WrongLength,
    ShortBody,
    ExtraBody,
    EarlyClose,
    Garbage,
    NoNumber,
    ManifestOfAnotherDigest,
    ManifestWithoutBlobs,
}

impl Lie {
    const ALL: [Self; 10] = [
        Self::WrongDigest,
        Self::WrongDigestAtOnce,
        Self::WrongLength,
        Self::ShortBody,
        Self::ExtraBody,
        Self::EarlyClose,
        Self::Garbage,
        Self::NoNumber,
        Self::ManifestOfAnotherDigest,
        Self::ManifestWithoutBlobs,
    ];

    /// Its word in reports.
    fn word(self) -> &'static str {
        match self {
            Self::WrongDigest | Self::WrongDigestAtOnce => "wrong digest",
            Self::WrongLength => "wrong length",
            Self::ShortBody => "short body",
            Self::ExtraBody => "extra body",
            Self::EarlyClose => "early close",
            Self::Garbage | Self::NoNumber => "garbage",
            Self::ManifestOfAnotherDigest => "manifest of another digest",
            Self::ManifestWithoutBlobs => "manifest without blobs",
        }
    }
}

/// What all liars have in common.
#[derive(Clone, Debug)]
pub(super) struct Liars {
    pub(super) targets: Targets,
    pub(super) ledger: Arc<Ledger>,
}

impl Liars {
    /// Tells one lie to one replica, and judges what that makes of it.
    pub(super) async fn lie(&self, number: u64, random: &mut StdRng) {
        let Some(client) = self.targets.any(random) else { return };
        // Each of them in turn, so that none is left out.
        let turn = usize::try_from(number).unwrap_or(0) % Lie::ALL.len();
        let Some(lie) = Lie::ALL.get(turn).copied() else { return };
        let blob = Blob::random(random.random(), random.random_range(1_000..SIZE));
        if self.tell(lie, &client, &blob, random).await.is_ok_and(|told| told == Told::Yes) {
            self.ledger.lied(lie.word());
        }
        tokio::time::sleep(PAUSE).await;
    }

    async fn tell(
        &self,
        lie: Lie,
        client: &RegistryClient,
        blob: &Blob,
        random: &mut StdRng,
    ) -> Result<Told> {
        let other = Blob::random(random.random(), 1_000);
        match lie {
            Lie::WrongDigest => {
                let Some(upload) = self.open(client).await? else { return Ok(Told::No) };
                self.unpublished(&[&blob.digest, &other.digest]);
                let answer = client.finish(&upload, &other.digest, blob.bytes.clone()).await;
                self.judge(lie, answer, &[(400, "DIGEST_INVALID")])
            }
            Lie::WrongDigestAtOnce => {
                self.unpublished(&[&blob.digest, &other.digest]);
                let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={}", other.digest);
                let request = client
                    .request(Method::POST, &path)?
                    .header("content-type", "application/octet-stream")
                    .body(blob.bytes.clone());
                let answer = client.send(request).await;
                self.judge(lie, answer, &[(400, "DIGEST_INVALID")])
            }
            Lie::WrongLength => {
                let Some(upload) = self.open(client).await? else { return Ok(Told::No) };
                self.unpublished(&[&blob.digest]);
                let request = client
                    .request(Method::PATCH, &upload.location)?
                    .header("content-type", "application/octet-stream")
                    .header("content-range", format!("0-{}", blob.bytes.len() * 2))
                    .body(blob.bytes.clone());
                let answer = client.send(request).await;
                self.judge(lie, answer, &[(400, "SIZE_INVALID"), (416, "")])
            }
            Lie::ExtraBody => {
                let Some(upload) = self.open(client).await? else { return Ok(Told::No) };
                self.unpublished(&[&blob.digest]);
                let longer = [&blob.bytes[..], &other.bytes[..]].concat();
                let answer = client.finish(&upload, &blob.digest, Bytes::from(longer)).await;
                self.judge(lie, answer, &[(400, "DIGEST_INVALID")])
            }
            Lie::ShortBody | Lie::EarlyClose => {
                let Some(upload) = self.open(client).await? else { return Ok(Told::No) };
                self.unpublished(&[&blob.digest]);
                self.cut(lie, client, &upload, blob).await
            }
            Lie::Garbage | Lie::NoNumber => self.garbage(lie, client, random).await,
            Lie::ManifestOfAnotherDigest => {
                let manifest = register_manifest(&format!("lie-{}", random.random::<u64>()));
                self.unpublished_manifests(&[&manifest.digest, &other.digest]);
                let bytes = manifest.bytes.clone();
                let kind = MediaType::MANIFEST;
                let answer = client.put_manifest(REPOSITORY, &other.digest, kind, bytes).await;
                self.judge(lie, answer, &[(400, "DIGEST_INVALID")])
            }
            Lie::ManifestWithoutBlobs => {
                let image = Image::of_layers(random.random(), vec![blob.clone()]);
                self.unpublished_manifests(&[&image.manifest.digest]);
                let bytes = image.manifest.bytes.clone();
                let kind = &image.media_type;
                let answer = client.put_manifest(REPOSITORY, "lie", kind, bytes).await;
                self.judge(lie, answer, &[(404, "MANIFEST_BLOB_UNKNOWN")])
            }
        }
    }

    async fn open(&self, client: &RegistryClient) -> Result<Option<Upload>> {
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let answer = client.call(Method::POST, &path).await;
        let location = answer.as_ref().ok().and_then(|answer| answer.header("location"));
        let location = location.map(str::to_owned);
        if !self.ledger.judge_write(answer, &[202]).is_acknowledged() {
            return Ok(None);
        }
        let location = location.context("a session has a place")?;
        Ok(Some(Upload { location, offset: 0 }))
    }

    /// A body that ends before it should: the connection is cut.
    async fn cut(
        &self,
        lie: Lie,
        client: &RegistryClient,
        upload: &Upload,
        blob: &Blob,
    ) -> Result<Told> {
        let (method, target) = if lie == Lie::ShortBody {
            ("PUT", upload.with_digest(&blob.digest))
        } else {
            ("PATCH", upload.location.clone())
        };
        let url = client.request(Method::GET, &target)?.build()?.url().clone();
        let path = url
            .query()
            .map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let length = blob.bytes.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: registry\r\nContent-Length: {length}\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let body = blob.bytes.slice(..length / 2);
        let bytes = [head.as_bytes(), &body].concat();
        // Nobody waits for an answer.
        let _sent = client.begin(RequestKind::PushBlob, bytes.len() as u64);
        self.ledger.ended(End::Unknown);
        raw_send_and_cut(&client.base(), &bytes).await?;
        Ok(Told::Yes)
    }

    async fn garbage(
        &self,
        lie: Lie,
        client: &RegistryClient,
        random: &mut StdRng,
    ) -> Result<Told> {
        let bytes = if lie == Lie::Garbage {
            crate::content::random_bytes(random.random(), 2_000)
        } else {
            format!(
                "PUT /v2/{REPOSITORY}/blobs/uploads/ HTTP/1.1\r\nHost: registry\r\n\
                 Content-Length: many\r\nConnection: close\r\n\r\nwhat?"
            )
            .into_bytes()
        };
        let sent = client.begin(RequestKind::Other, bytes.len() as u64);
        let answer = raw_exchange(&client.base(), &bytes).await;
        let status = answer.as_ref().ok().and_then(|answer| answer.status);
        // The connection may as well be closed without a word.
        let (outcome, end) = match status {
            Some(_) => (Outcome::Refused, End::Refused),
            None => (Outcome::Unknown, End::Unknown),
        };
        if let Some(sent) = sent {
            sent.end(outcome, status);
        }
        self.ledger.ended(end);
        let answer = answer?;
        if let Some(status) = answer.status
            && !matches!(status, 400..500 | 503)
        {
            let what = format!("{} was answered with {status}: {}", lie.word(), answer.body);
            self.ledger.violated(Invariant::I7, what);
        }
        Ok(Told::Yes)
    }

    /// A lie is never believed: it gets its own error, or one of the cluster's state.
    fn judge(&self, lie: Lie, answer: Result<Answer>, wanted: &[(u16, &str)]) -> Result<Told> {
        let Some(answer) = self.ledger.judge_refusal(answer) else { return Ok(Told::No) };
        let status = answer.status;
        if status < 300 {
            self.ledger.believed(lie.word(), &answer);
            return Ok(Told::Yes);
        }
        // Of a session that went with its owner, of too much work, of no leader.
        let of_the_state = matches!(status, 404 | 429 | 503 | 507);
        let code = answer.error_code().unwrap_or_default();
        let fits = wanted
            .iter()
            .any(|(wanted, name)| status == *wanted && (name.is_empty() || code == *name));
        if !fits && !of_the_state {
            let what = format!("{} got {}", lie.word(), answer.describe());
            self.ledger.violated(Invariant::I7, what);
        }
        // One that met no leader, or a session that is gone, was not heard.
        Ok(if fits { Told::Yes } else { Told::No })
    }

    fn unpublished(&self, digests: &[&String]) {
        digests.iter().for_each(|digest| self.ledger.never(kept(digest, Of::Blob)));
    }

    fn unpublished_manifests(&self, digests: &[&String]) {
        digests.iter().for_each(|digest| self.ledger.never(kept(digest, Of::Manifest)));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Blob,
    Manifest,
}

fn kept(digest: &str, of: Of) -> Kept {
    Kept {
        repository: REPOSITORY.to_owned(),
        reference: digest.to_owned(),
        digest: digest.to_owned(),
        manifest: of == Of::Manifest,
    }
}
