//! One stream of a blob's bytes out of several sources, one after the other.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tercet_storage::{BlobStore, Digest};

use super::client::Client;
use super::directory::Peer;
use super::fetch::FetchError;

/// How often one peer is tried for one stream: a broken connection is not yet a lost peer.
const ATTEMPTS_PER_PEER: usize = 2;

/// Reads a range of a blob from the first source that has it and goes on at the next one when that
/// breaks. The bytes are not verified.
pub(super) struct Relay {
    client: Client,
    /// Looked at before any peer: the blob may have arrived here meanwhile.
    blobs: BlobStore,
    /// Whether this disk is worth a look; it is not once it has failed.
    here: bool,
    digest: Digest,
    size: u64,
    next: u64,
    end: u64,
    candidates: VecDeque<Candidate>,
    current: Option<Source>,
    /// The last thing that went wrong.
    fault: Option<String>,
}

/// A stream, and the peer it comes from; none if it comes from this disk.
struct Source {
    peer: Option<Candidate>,
    stream: BoxStream<'static, Result<Bytes, String>>,
}

struct Candidate {
    peer: Peer,
    attempts_left: usize,
}

impl Relay {
    /// A relay over `peers`, in their order.
    pub(super) fn new(
        client: Client,
        blobs: BlobStore,
        digest: Digest,
        size: u64,
        range: Range<u64>,
        peers: Vec<Peer>,
    ) -> Self {
        let candidates =
            peers.into_iter().map(|peer| Candidate { peer, attempts_left: ATTEMPTS_PER_PEER });
        Self {
            client,
            blobs,
            here: true,
            digest,
            size,
            next: range.start,
            end: range.end.min(size),
            candidates: candidates.collect(),
            current: None,
            fault: None,
        }
    }

    /// One that does not look at this disk, whose copy has just turned out unreadable.
    pub(super) fn elsewhere(mut self) -> Self {
        self.here = false;
        self
    }

    /// Finds the first source, so that a blob that nobody has is known before an answer begins.
    pub(super) async fn connect(&mut self) -> Result<(), FetchError> {
        if self.current.is_some() || self.next >= self.end {
            return Ok(());
        }
        let rest = self.next..self.end;
        let part = (rest != (0..self.size)).then_some(rest);
        if self.here {
            match self.blobs.reader(&self.digest, part.clone()).await {
                Ok(Some(reader)) if reader.size() == self.size => {
                    let stream = reader.into_stream().map_err(|error| error.to_string());
                    self.current = Some(Source { peer: None, stream: stream.boxed() });
                    return Ok(());
                }
                // Not here, or not in a state to be read: the peers are asked.
                Ok(_) => {}
                Err(error) => {
                    self.here = false;
                    self.note(&error.to_string());
                }
            }
        }
        while let Some(mut candidate) = self.candidates.pop_front() {
            candidate.attempts_left = candidate.attempts_left.saturating_sub(1);
            let peer = &candidate.peer;
            match self.client.fetch_blob(peer, &self.digest, self.size, part.clone()).await {
                Ok(Some(blob)) => {
                    let stream = blob.stream.map_err(|error| error.to_string());
                    self.current = Some(Source { peer: Some(candidate), stream: stream.boxed() });
                    return Ok(());
                }
                Ok(None) => {}
                // One that does not answer now is not asked again for this stream.
                Err(error) => self.note(&error.to_string()),
            }
        }
        Err(match self.fault.take() {
            Some(reason) => FetchError::Unavailable { digest: self.digest.clone(), reason },
            None => FetchError::Nowhere { digest: self.digest.clone() },
        })
    }

    /// The next bytes; `None` at the end of the range.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        while self.next < self.end {
            self.connect().await?;
            let Some(source) = &mut self.current else { continue };
            let fault = match source.stream.next().await {
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(Ok(chunk)) if chunk.len() as u64 <= self.end - self.next => {
                    self.next += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Some(Ok(_)) => "more bytes than asked for".to_owned(),
                Some(Err(error)) => error,
                None => "ended early".to_owned(),
            };
            self.note(&fault);
            match self.current.take() {
                // A disk that failed once is not asked again: it may fail at the same byte for ever.
                Some(Source { peer: None, .. }) => self.here = false,
                Some(Source { peer: Some(candidate), .. }) if candidate.attempts_left > 0 => {
                    self.candidates.push_back(candidate);
                }
                Some(_) | None => {}
            }
        }
        Ok(None)
    }

    fn note(&mut self, fault: &str) {
        tracing::warn!(digest = %self.digest, at = self.next, fault, "a source of a blob failed");
        self.fault = Some(fault.to_owned());
    }
}
