//! What comes in through the peer port, apart from bodies of blobs and snapshots.

use tercet::peer::server::fuzzing as http;
use tercet_raft::fuzzing as raft;

use crate::{Verdict, seal::seal};

/// Schema ids of the eight requests, and of the answers.
const IDS: [u16; 9] = [201, 202, 203, 204, 205, 206, 207, 208, 210];

/// Input: a message with its envelope, a JSON body or a query; or one byte that chooses a message's
/// schema, and then its payload.
pub fn frame(data: &[u8]) -> Verdict {
    let mut taken = message(data);
    if let Some((choice, payload)) = data.split_first()
        && let Some(id) = IDS.get(usize::from(*choice) % IDS.len())
    {
        taken |= message(&seal(*id, 1, payload));
        taken |= message(&seal(*id, 2, payload));
        let newer = seal(*id, 3, payload);
        assert!(raft::requests(&newer).is_empty() && raft::answers(&newer).is_empty());
    }
    for body in http::bodies(data) {
        taken = true;
        assert!(http::bodies(&body).contains(&body), "a body changes when it is passed on");
    }
    if let Ok(query) = std::str::from_utf8(data) {
        taken |= http::queries(query) > 0;
    }
    Verdict::any([taken])
}

/// Whether the bytes are a message.
fn message(bytes: &[u8]) -> bool {
    let requests = raft::requests(bytes);
    assert!(requests.len() <= 1, "one message, two meanings");
    let mut taken = !requests.is_empty();
    for written in requests {
        assert_eq!(raft::requests(&written), [written], "not what was written");
    }
    // The answers share a schema: which one is meant follows from the question.
    for written in raft::answers(bytes) {
        taken = true;
        assert!(raft::answers(&written).contains(&written), "not what was written");
    }
    taken
}
