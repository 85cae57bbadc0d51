//! A local copy that breaks off in the middle of a response.

use tercet_storage::DataDir;

use super::*;
use crate::peer::read_or_go_on;

const LARGE: usize = 3 * 1024 * 1024 + 17;

#[tokio::test]
async fn a_peer_goes_on_where_the_local_file_ends_and_the_copy_is_replaced() {
    let content = content(LARGE);
    let good = Replica::start("good", 3).await;
    put(&good.blobs, &content).await;
    for range in [None, Some(1_000_000..2_500_000)] {
        let (dir, blobs) = store();
        let digest = put(&blobs, &content).await;
        let fetcher = fetcher(blobs.clone(), vec![good.peer.clone()]);
        let reader = blobs.reader(&digest, range.clone()).await.unwrap().unwrap();
        // What the reader has open loses its second half.
        let path = DataDir::new(dir.path()).blob(&digest);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(1_500_000).unwrap();
        let got = collect(read_or_go_on(&fetcher, reader)).await.unwrap();
        let wanted = match range {
            Some(range) => &content[range.start as usize..range.end as usize],
            None => &content[..],
        };
        assert!(got == wanted, "{} bytes", got.len());
        assert_eq!(fetcher.parts.metrics.read_failovers.get(), 1);
        until_held(&blobs, &digest, LARGE).await;
    }
}

#[tokio::test]
async fn wrong_bytes_that_are_out_cut_the_stream_and_the_next_one_is_right() {
    use std::os::unix::fs::FileExt as _;
    let content = content(LARGE);
    let good = Replica::start("good", 3).await;
    put(&good.blobs, &content).await;
    let (dir, blobs) = store();
    let digest = put(&blobs, &content).await;
    let fetcher = fetcher(blobs.clone(), vec![good.peer.clone()]);
    let path = DataDir::new(dir.path()).blob(&digest);
    std::fs::File::options().write(true).open(&path).unwrap().write_all_at(b"rot", 9).unwrap();
    let reader = blobs.reader(&digest, None).await.unwrap().unwrap();
    collect(read_or_go_on(&fetcher, reader)).await.unwrap_err();
    until_held(&blobs, &digest, LARGE).await;
    let reader = blobs.reader(&digest, None).await.unwrap().unwrap();
    assert!(collect(read_or_go_on(&fetcher, reader)).await.unwrap() == content);
}

#[tokio::test]
async fn without_a_good_copy_anywhere_the_stream_ends_with_an_error() {
    let content = content(LARGE);
    let (dir, blobs) = store();
    let digest = put(&blobs, &content).await;
    let fetcher = fetcher(blobs.clone(), vec![nobody("away", 4).await]);
    let reader = blobs.reader(&digest, None).await.unwrap().unwrap();
    let path = DataDir::new(dir.path()).blob(&digest);
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1_500_000).unwrap();
    collect(read_or_go_on(&fetcher, reader)).await.unwrap_err();
}
