//! Reads the local copy of a blob, and a peer's where that breaks off.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tercet_storage::{BlobReader, Broken, Digest};

use super::fetch::{BlobStream, FetchError, Fetcher};

enum State {
    /// Read from this disk.
    Here(BoxStream<'static, Result<Bytes, Broken>>),
    /// Streamed from the peers.
    There(BlobStream),
}

/// The bytes that `reader` was opened for. When this disk does not give them all, a peer's copy goes on in
/// the same stream, as long as nothing wrong has been handed out; the damaged copy is replaced in the
/// background.
pub fn read_or_go_on(fetcher: &Fetcher, reader: BlobReader) -> BlobStream {
    let (digest, size) = (reader.digest().clone(), reader.size());
    let begin = (State::Here(reader.into_content().boxed()), fetcher.clone(), digest);
    stream::try_unfold(begin, move |(mut state, fetcher, digest)| async move {
        if let State::Here(content) = &mut state {
            let broken = match content.next().await {
                Some(Ok(chunk)) => return Ok(Some((chunk, (state, fetcher, digest)))),
                Some(Err(broken)) => broken,
                None => return Ok(None),
            };
            state = State::There(go_on(&fetcher, &digest, size, broken).await?);
        }
        let State::There(content) = &mut state else { return Ok(None) };
        let chunk = content.next().await.transpose()?;
        Ok(chunk.map(|chunk| (chunk, (state, fetcher, digest))))
    })
    .boxed()
}

async fn go_on(
    fetcher: &Fetcher,
    digest: &Digest,
    size: u64,
    broken: Broken,
) -> Result<BlobStream, FetchError> {
    tracing::error!(%digest, error = %broken.error, "a blob cannot be read to its end here");
    replace(fetcher, digest, size);
    let Some(rest) = broken.rest else { return Err(broken.error.into()) };
    let content = fetcher.resume(digest, size, rest).await?;
    tracing::info!(%digest, "a peer's copy goes on in its place");
    fetcher.parts.metrics.read_failovers.inc();
    Ok(content)
}

fn replace(fetcher: &Fetcher, digest: &Digest, size: u64) {
    let (keeper, digest) = (fetcher.clone(), digest.clone());
    fetcher.parts.workers.spawn("replace-blob", move |stop| async move {
        if let Some(Err(error)) = stop.run_until_cancelled(keeper.keep(&digest, size)).await {
            tracing::warn!(%digest, %error, "a damaged copy was not replaced; repair tries again");
        }
    });
}
