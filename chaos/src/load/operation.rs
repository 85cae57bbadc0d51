//! One operation of each kind, as requests on a client's connection.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;

use super::{
    connection::Connection,
    content::Payload,
    failure::Failure,
    options::{Bodies, Kind, PushUnit},
    plan::Plan,
    site::{Get, Site},
};
use crate::{content::MediaType, digest::Hasher};

/// Does operations one after the other.
pub(super) struct Operator {
    site: Arc<Site>,
    pub(super) connection: Connection,
    /// The head of a request.
    head: String,
    /// Where the next step of an upload goes.
    location: String,
    /// How long each blob of the last image took.
    pub(super) blobs: Vec<Duration>,
}

impl Operator {
    /// Must be made inside a runtime.
    pub(super) fn new(site: Arc<Site>, plan: &Plan) -> Self {
        let endpoint = Arc::clone(&site.endpoint);
        let connection = Connection::new(endpoint, plan.options.deadline);
        let (head, location, blobs) = (String::new(), String::new(), Vec::new());
        Self { site, connection, head, location, blobs }
    }

    /// Does one operation, the one of this number.
    pub(super) async fn operate(
        &mut self,
        plan: &Plan,
        kind: Kind,
        number: u64,
    ) -> Result<(), Failure> {
        match kind {
            Kind::Pull => {
                let layer = self.site.layer(number).ok_or(Failure::Malformed)?;
                fetch(&mut self.connection, layer, plan.options.bodies).await
            }
            Kind::Manifest => self.manifest(plan).await,
            Kind::Push => match plan.options.unit {
                PushUnit::Blob => {
                    let payload = plan.payloads.blob(plan.layer_size(number));
                    self.push(&payload, plan.options.chunk).await
                }
                PushUnit::Image => self.push_image(plan).await,
            },
            Kind::Tag => self.tag(&plan.tag(number)).await,
            // Has more connections than one: see [`pull_image`].
            Kind::Storm => Err(Failure::Malformed),
        }
    }

    async fn manifest(&mut self, plan: &Plan) -> Result<(), Failure> {
        let manifest = self.site.manifest.as_ref().ok_or(Failure::Malformed)?;
        fetch(&mut self.connection, &manifest.get, plan.options.bodies).await
    }

    /// Puts the known manifest under a tag.
    async fn tag(&mut self, tag: &str) -> Result<(), Failure> {
        let Self { site, connection, head, .. } = self;
        let manifest = site.manifest.as_ref().ok_or(Failure::Malformed)?;
        let path = (site.repository.as_str(), tag);
        let body: &[u8] = &manifest.content;
        put_manifest(connection, head, path, &manifest.media_type, &[body]).await
    }

    /// An image that nobody has yet.
    async fn push_image(&mut self, plan: &Plan) -> Result<(), Failure> {
        let sizes = plan.layers.iter();
        let layers: Vec<Payload<'_>> = sizes.map(|size| plan.payloads.blob(*size)).collect();
        let (config, manifest) = plan.payloads.image(&layers);
        let chunk = plan.options.chunk;
        self.blobs.clear();
        for (blob, chunk) in layers.iter().map(|layer| (layer, chunk)).chain([(&config, None)]) {
            let sent = Instant::now();
            self.push(blob, chunk).await?;
            self.blobs.push(sent.elapsed());
        }
        let tag = plan.payloads.name();
        let Self { site, connection, head, .. } = self;
        let path = (site.repository.as_str(), tag.as_str());
        put_manifest(connection, head, path, MediaType::MANIFEST, &manifest.all()).await
    }

    /// A blob: `POST` and `PUT`, or `POST`, a `PATCH` for each chunk, and `PUT`.
    async fn push(&mut self, payload: &Payload<'_>, chunk: Option<usize>) -> Result<(), Failure> {
        let Self { site, connection, head, location, .. } = self;
        let status = connection.exchange(&site.open_upload, &[], |_| ()).await?;
        expect(status, 202)?;
        follow(connection, location)?;
        let mut start = 0;
        while let Some(chunk) = chunk.filter(|_| start < payload.len()) {
            let end = payload.len().min(start.saturating_add(chunk));
            let range = format!("Content-Range: {start}-{}\r\n", end.saturating_sub(1));
            upload_head(head, "PATCH", location, connection.host(), &range, end - start);
            let body = payload.part(start, end);
            let status = connection.exchange(head.as_bytes(), &body, |_| ()).await?;
            expect(status, 202)?;
            follow(connection, location)?;
            start = end;
        }
        location.push(if location.contains('?') { '&' } else { '?' });
        location.push_str("digest=");
        location.push_str(&payload.digest);
        let body = payload.part(start, payload.len());
        upload_head(head, "PUT", location, connection.host(), "", payload.len() - start);
        let status = connection.exchange(head.as_bytes(), &body, |_| ()).await?;
        expect(status, 201)
    }
}

/// Pulls an image as a container runtime does: the manifest, then all that it names, on all connections.
pub(super) async fn pull_image(
    site: &Site,
    connections: &mut [Connection],
    bodies: Bodies,
) -> Result<(), Failure> {
    let manifest = site.manifest.as_ref().ok_or(Failure::Malformed)?;
    let first = connections.first_mut().ok_or(Failure::Malformed)?;
    fetch(first, &manifest.get, bodies).await?;
    let next = AtomicUsize::new(0);
    let mut pulls = Vec::new();
    for connection in connections {
        pulls.push(pull_blobs(site, connection, &next, bodies));
    }
    try_join_all(pulls).await.map(drop)
}

/// Pulls what no other connection has begun to pull.
async fn pull_blobs(
    site: &Site,
    connection: &mut Connection,
    next: &AtomicUsize,
    bodies: Bodies,
) -> Result<(), Failure> {
    while let Some(blob) = site.image.get(next.fetch_add(1, Ordering::Relaxed)) {
        fetch(connection, blob, bodies).await?;
    }
    Ok(())
}

/// Pulls one thing, and looks whether it is that.
async fn fetch(connection: &mut Connection, get: &Get, bodies: Bodies) -> Result<(), Failure> {
    let digest = get.digest.as_deref().filter(|_| bodies == Bodies::Hashed);
    let (status, found) = match digest {
        Some(digest) => {
            let mut hasher = Hasher::like(digest);
            let look = |bytes: &[u8]| hasher.update(bytes);
            let status = connection.exchange(&get.head, &[], look).await?;
            (status, Some(hasher.finish()))
        }
        None => (connection.exchange(&get.head, &[], |_| ()).await?, None),
    };
    expect(status, 200)?;
    if get.bytes.is_some_and(|bytes| bytes != connection.body_bytes()) {
        return Err(Failure::Length);
    }
    if found.as_deref() != digest {
        return Err(Failure::Digest);
    }
    Ok(())
}

/// Puts a manifest under a tag of a repository.
async fn put_manifest(
    connection: &mut Connection,
    head: &mut String,
    (repository, tag): (&str, &str),
    media_type: &str,
    body: &[&[u8]],
) -> Result<(), Failure> {
    let bytes: usize = body.iter().map(|part| part.len()).sum();
    head.clear();
    // Writing to a string cannot fail.
    let _ = write!(
        head,
        "PUT /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: {}\r\nUser-Agent: tercet-chaos\r\n\
         Content-Type: {media_type}\r\nContent-Length: {bytes}\r\n\r\n",
        connection.host()
    );
    let status = connection.exchange(head.as_bytes(), body, |_| ()).await?;
    expect(status, 201)
}

/// The head of a step of an upload. `more` is a whole field, or nothing.
fn upload_head(head: &mut String, method: &str, path: &str, host: &str, more: &str, bytes: usize) {
    head.clear();
    let _ = write!(
        head,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tercet-chaos\r\n\
         Content-Type: application/octet-stream\r\n{more}Content-Length: {bytes}\r\n\r\n"
    );
}

/// Takes over where the last answer says that the next step goes.
fn follow(connection: &Connection, location: &mut String) -> Result<(), Failure> {
    let path = path_of(connection.location()).ok_or(Failure::Malformed)?;
    path.clone_into(location);
    Ok(())
}

/// Path and query of a `Location`, which may be a whole URL. The host does not count: a client stays with its server.
fn path_of(location: &str) -> Option<&str> {
    if location.starts_with('/') {
        return Some(location);
    }
    let (_, rest) = location.split_once("://")?;
    rest.get(rest.find('/')?..)
}

fn expect(status: u16, wanted: u16) -> Result<(), Failure> {
    if status == wanted { Ok(()) } else { Err(Failure::Status(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_path_or_a_url() {
        assert_eq!(path_of("/v2/a?b=c://d"), Some("/v2/a?b=c://d"));
        assert_eq!(path_of("http://host:1/v2/a?b=c"), Some("/v2/a?b=c"));
        assert_eq!(path_of("https://host"), None);
        assert_eq!(path_of("v2/a"), None);
        assert_eq!(path_of(""), None);
    }

    #[test]
    fn the_head_of_a_step_says_what_follows() {
        let mut head = "old".to_owned();
        upload_head(&mut head, "PATCH", "/u", "h:1", "Content-Range: 0-4\r\n", 5);
        let wanted = "PATCH /u HTTP/1.1\r\nHost: h:1\r\nUser-Agent: tercet-chaos\r\n\
            Content-Type: application/octet-stream\r\nContent-Range: 0-4\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(head, wanted);
    }
}
