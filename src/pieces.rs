//! Content on its way to the disk: what a socket yields, joined into pieces of a useful size.
//!
//! A socket yields some tens of kilobytes at a time, and every piece costs a task on another thread that hashes and writes
//! it: to wake that thread up takes longer than its work on so few bytes.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// A piece has so many bytes, unless the content ends, or nothing more comes for a while. Whole pieces lie at addresses and
/// offsets that a disk takes without another copy.
const PIECE_BYTES: usize = 1024 * 1024;
/// One of many that are in use at the same time: with many uploads the disk is busy anyway, and memory would grow with
/// their number.
const SMALL_PIECE_BYTES: usize = 128 * 1024;
/// Pieces in use from which on new ones are small.
const LARGE_MAX: usize = 24;
/// What addresses of pieces are multiples of.
const ALIGNMENT: usize = 4096;
/// A piece of fewer bytes is copied out of its memory.
const COPIED_BELOW: usize = SMALL_PIECE_BYTES / 2;
/// How long what is there waits for more.
const LULL: Duration = Duration::from_millis(2);
/// How long it waits for a whole piece, however steadily more comes.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Joins what a stream yields. Cancel-safe: what is joined already stays for the next call.
#[derive(Debug)]
pub(crate) struct Pieces<S, E> {
    stream: S,
    joined: Option<Piece>,
    /// What came, and had no room any more.
    rest: Bytes,
    /// What came after the joined bytes: an error, or the end.
    ended: Option<Option<E>>,
}

impl<S, E> Pieces<S, E>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    pub(crate) fn of(stream: S) -> Self {
        Self { stream, joined: None, rest: Bytes::new(), ended: None }
    }

    /// The next piece; an error comes after the bytes before it.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, E>> {
        self.join_rest();
        if self.joined.is_none() {
            if let Some(ended) = self.ended.take() {
                return ended.map(Err);
            }
            match self.stream.next().await? {
                Ok(first) => self.join(first),
                Err(error) => return Some(Err(error)),
            }
        }
        self.fill(Some(LULL)).await;
        Some(Ok(self.joined.take().map(Piece::into_bytes).unwrap_or_default()))
    }

    /// Waits for `work`, and joins meanwhile what comes.
    pub(crate) async fn join_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = self.fill(None) => {}
        }
        work.await
    }

    /// Joins until there is a whole piece, the stream has ended, or, with a lull, it has yielded nothing for so long, or all of
    /// it takes too long.
    async fn fill(&mut self, lull: Option<Duration>) {
        let latest = Instant::now() + WAIT_MAX;
        self.join_rest();
        while self.ended.is_none() && !self.joined.as_ref().is_some_and(Piece::is_full) {
            let next = match lull {
                Some(lull) => {
                    let until = latest.min(Instant::now() + lull);
                    match tokio::time::timeout_at(until, self.stream.next()).await {
                        Ok(next) => next,
                        Err(_) => return,
                    }
                }
                None => self.stream.next().await,
            };
            match next {
                Some(Ok(more)) => self.join(more),
                Some(Err(error)) => self.ended = Some(Some(error)),
                None => self.ended = Some(None),
            }
        }
    }

    fn join_rest(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        self.join(rest);
    }

    fn join(&mut self, mut more: Bytes) {
        if more.is_empty() {
            return;
        }
        let joined = self.joined.get_or_insert_with(Piece::new);
        let taken = joined.extend(&more);
        self.rest = more.split_off(taken);
    }
}

/// Pieces that there are.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
/// Memory of large pieces that nobody uses: what is fresh from the allocator costs the kernel 256 pages to find and to clear.
static UNUSED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
/// Of which no more is kept.
const UNUSED_MAX: usize = 8;

/// A piece in the making.
#[derive(Debug)]
struct Piece {
    memory: Vec<u8>,
    /// Where it begins: at an aligned address.
    start: usize,
    length: usize,
    /// Bytes that it has room for.
    room: usize,
}

impl Piece {
    fn new() -> Self {
        let room = match IN_USE.fetch_add(1, Ordering::Relaxed) {
            0..LARGE_MAX => PIECE_BYTES,
            _ => SMALL_PIECE_BYTES,
        };
        let kept = if room == PIECE_BYTES { unused().pop() } else { None };
        let memory = kept.unwrap_or_else(|| vec![0; room + ALIGNMENT]);
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, length: 0, room }
    }

    fn is_full(&self) -> bool {
        self.length >= self.room
    }

    /// Takes as much as there is room for; answers how much that was.
    fn extend(&mut self, more: &[u8]) -> usize {
        let end = self.start + self.length;
        let taken = more.len().min(self.room.saturating_sub(self.length));
        if let (Some(place), Some(more)) =
            (self.memory.get_mut(end..end + taken), more.get(..taken))
        {
            place.copy_from_slice(more);
        }
        self.length += taken;
        taken
    }

    /// Its bytes. The memory is used again when the last clone of them is dropped; few bytes do not hold it until then.
    fn into_bytes(self) -> Bytes {
        let range = self.start..self.start + self.length;
        match self.length {
            few if few < COPIED_BELOW => {
                Bytes::copy_from_slice(self.memory.get(range).unwrap_or_default())
            }
            _ => Bytes::from_owner(self).slice(range),
        }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        IN_USE.fetch_sub(1, Ordering::Relaxed);
        let mut unused = unused();
        if self.room == PIECE_BYTES && unused.len() < UNUSED_MAX {
            unused.push(std::mem::take(&mut self.memory));
        }
    }
}

/// A list of memory has no half-written state that a panic could leave.
fn unused() -> MutexGuard<'static, Vec<Vec<u8>>> {
    UNUSED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cuts a stream in two: this end is polled where its bytes arrive, the other one where they are worked on.
///
/// A task that polls the body of another task's connection wakes that task for each read of the socket, and is woken by it.
/// So the body is read by whoever serves its connection, and goes over in whole pieces.
///
/// Nothing is read before the other end is asked for it: a body may be refused unread, and its client, who waits to be told to
/// go on, then never sends it (RFC 9110, section 10.1.1).
///
/// The future ends with the stream, or when nobody takes its pieces any more. If it is dropped before, the other end yields
/// an error: nobody may take half of a body for all of it.
pub(crate) fn across<S>(
    stream: S,
) -> (impl Future<Output = ()> + Send, BoxStream<'static, io::Result<Bytes>>)
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
{
    let (send, receive) = mpsc::channel::<Option<io::Result<Bytes>>>(1);
    let (ask, asked) = oneshot::channel();
    let read = async move {
        if asked.await.is_err() {
            return;
        }
        let mut pieces = Pieces::of(stream);
        loop {
            // A place first: what it waits for meanwhile is joined.
            let place = pieces.join_during(send.reserve()).await;
            let Ok(place) = place else { return };
            let next = pieces.next().await;
            let goes_on = matches!(next, Some(Ok(_)));
            place.send(next);
            if !goes_on {
                return;
            }
        }
    };
    let taken = futures_util::stream::unfold(Some((receive, Some(ask))), |ends| async move {
        let (mut receive, ask) = ends?;
        if let Some(ask) = ask {
            // If the reader is gone, so is the other channel.
            let _ = ask.send(());
        }
        match receive.recv().await {
            Some(Some(Ok(piece))) => Some((Ok(piece), Some((receive, None)))),
            Some(Some(Err(error))) => Some((Err(error), None)),
            Some(None) => None,
            None => {
                let gone = io::Error::new(io::ErrorKind::UnexpectedEof, "the client went away");
                Some((Err(gone), None))
            }
        }
    });
    (read, taken.boxed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::task::Poll;

    use super::*;
    use futures_util::stream;

    type Items = Vec<io::Result<Bytes>>;

    fn pieces(items: Items) -> Pieces<impl Stream<Item = io::Result<Bytes>> + Unpin, io::Error> {
        Pieces::of(stream::iter(items).boxed())
    }

    fn bytes(text: &'static str) -> io::Result<Bytes> {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn small_reads_are_joined_and_the_end_is_kept() {
        let mut pieces = pieces(vec![bytes("a"), bytes("b")]);
        assert_eq!(pieces.next().await.unwrap().unwrap(), "ab");
        assert!(pieces.next().await.is_none());
    }

    #[tokio::test]
    async fn bytes_before_an_error_are_not_lost() {
        let mut pieces = pieces(vec![bytes("a"), Err(io::Error::other("cut"))]);
        assert_eq!(pieces.next().await.unwrap().unwrap(), "a");
        assert!(pieces.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_piece_does_not_grow_without_end() {
        let read = Bytes::from(vec![0; 100 * 1024]);
        let mut pieces = pieces((0..640).map(|_| Ok(read.clone())).collect());
        let (mut total, mut all) = (0, Vec::new());
        while let Some(piece) = pieces.next().await {
            let piece = piece.unwrap();
            let is_whole = [PIECE_BYTES, SMALL_PIECE_BYTES].contains(&piece.len());
            assert!(is_whole || total + piece.len() == 640 * read.len());
            assert!(piece.len() < COPIED_BELOW || piece.as_ptr().align_offset(ALIGNMENT) == 0);
            total += piece.len();
            all.push(piece);
        }
        assert_eq!(total, 640 * read.len());
        // Nobody has let go of any.
        assert!(all.iter().filter(|piece| piece.len() == PIECE_BYTES).count() <= LARGE_MAX);
        assert!(all.iter().any(|piece| piece.len() == SMALL_PIECE_BYTES));
    }

    #[tokio::test]
    async fn what_is_there_does_not_wait_for_a_slow_client() {
        let slow = stream::iter([bytes("a")]).chain(stream::pending());
        let mut pieces = Pieces::of(slow.boxed());
        assert_eq!(pieces.next().await.unwrap().unwrap(), "a");
    }

    #[tokio::test]
    async fn what_is_there_does_not_wait_for_a_steady_drip() {
        let drip = stream::repeat(()).then(|()| async {
            tokio::time::sleep(LULL / 2).await;
            bytes("a")
        });
        let mut pieces = Pieces::of(drip.boxed());
        // A whole one would take minutes.
        let piece = pieces.next().await.unwrap().unwrap();
        assert!(!piece.is_empty() && piece.len() < SMALL_PIECE_BYTES);
    }

    #[tokio::test]
    async fn what_comes_during_work_is_joined_and_work_is_waited_for() {
        let mut pieces = pieces(vec![bytes("a"), bytes("b"), Err(io::Error::other("cut"))]);
        let work = async {
            tokio::task::yield_now().await;
            7
        };
        assert_eq!(pieces.join_during(work).await, 7);
        assert_eq!(pieces.next().await.unwrap().unwrap(), "ab");
        assert!(pieces.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_dropped_call_loses_nothing() {
        let late = stream::iter([bytes("a")]).chain(stream::once(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            bytes("b")
        }));
        let mut pieces = Pieces::of(late.boxed());
        // Dropped while it waits for more.
        futures_util::FutureExt::now_or_never(pieces.next());
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().await {
            all.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(all, b"ab");
    }

    async fn received(taken: BoxStream<'static, io::Result<Bytes>>) -> (Vec<u8>, bool) {
        let items: Items = taken.collect().await;
        let whole = items.iter().all(Result::is_ok);
        (items.into_iter().flatten().flatten().collect(), whole)
    }

    #[tokio::test]
    async fn a_stream_goes_across_with_its_end_and_its_error() {
        let (read, taken) = across(stream::iter([bytes("a"), bytes("b")]).boxed());
        let ((), all) = tokio::join!(read, received(taken));
        assert_eq!(all, (b"ab".to_vec(), true));
        let cut = || Err(io::Error::new(io::ErrorKind::TimedOut, "slow"));
        let (read, taken) = across(stream::iter([bytes("a"), cut()]).boxed());
        let ((), items) = tokio::join!(read, taken.collect::<Items>());
        assert_eq!(items[0].as_ref().unwrap(), "a");
        assert_eq!(items[1].as_ref().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn half_a_stream_is_never_taken_for_all_of_it() {
        let endless = stream::iter([bytes("a")]).chain(stream::pending());
        let (read, taken) = across(endless.boxed());
        let read = tokio::time::timeout(Duration::from_millis(20), read);
        let (_, got) = tokio::join!(read, received(taken));
        assert_eq!(got, (b"a".to_vec(), false));
    }

    #[tokio::test]
    async fn nothing_is_read_before_it_is_asked_for() {
        let touched = Arc::new(AtomicBool::new(false));
        let by_stream = Arc::clone(&touched);
        let body = stream::poll_fn(move |_| {
            by_stream.store(true, Ordering::Release);
            Poll::Ready(Some(bytes("a")))
        });
        let (read, taken) = across(body);
        let _ = tokio::time::timeout(Duration::from_millis(20), read).await;
        assert!(!touched.load(Ordering::Acquire));
        assert_eq!(received(taken).await, (Vec::new(), false));
    }

    #[tokio::test]
    async fn nobody_reads_for_one_who_has_gone() {
        let (read, taken) = across(stream::repeat_with(|| bytes("a")).boxed());
        drop(taken);
        read.await;
    }
}
