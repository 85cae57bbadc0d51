//! Records of the disk: the tables of the state, and the Raft log with its commands.

use tercet_storage::{
    AwaitedBlobRecord, BlobLinkRecord, BlobRecord, CodecError, CollectionHoldsRecord,
    FeatureLevelRecord, ImmutableTagsRecord, ManifestLinkRecord, ManifestRecord, MemberRecord,
    PullRecord, ReferrerRecord, RepositoryRecord, RetentionRecord, TagRecord, TokenKeysRecord,
    codec, schemas,
};

use crate::{Verdict, check_error, seal::seal};

/// Schema ids of the tables, and of the Raft log. Only appended: the corpus chooses by position.
const IDS: [u16; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 101, 102, 103, 104, 105, 9, 10, 11, 12, 13, 14, 15];

/// Input: a record with its envelope; or one byte that chooses a schema, and then a payload.
pub fn record(data: &[u8]) -> Verdict {
    let mut taken = envelope(data);
    if let Some((choice, payload)) = data.split_first()
        && let Some(id) = IDS.get(usize::from(*choice) % IDS.len())
    {
        taken |= envelope(&seal(*id, 1, payload));
        taken |= envelope(&seal(*id, 2, payload));
        // From a newer program: refused, never read as if it were of this one.
        let newer = seal(*id, 3, payload);
        assert_eq!(tables(&newer) + tercet_raft::fuzzing::records(&newer).len(), 0);
    }
    Verdict::any([taken])
}

/// Whether the bytes are a record.
fn envelope(bytes: &[u8]) -> bool {
    let accepted = tables(bytes);
    let log = tercet_raft::fuzzing::records(bytes);
    assert!(accepted + log.len() <= 1, "one record, two meanings");
    let taken = accepted + log.len() > 0;
    for written in log {
        // A map may have been out of order in what was read; what was written is not.
        assert_eq!(tercet_raft::fuzzing::records(&written), [written], "not what was written");
    }
    if accepted > 0 {
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(tables(&longer), 0, "a byte behind the record goes unnoticed");
    }
    taken
}

/// How many tables take these bytes for a record of theirs.
fn tables(bytes: &[u8]) -> usize {
    macro_rules! read {
        ($($schema:ident => $record:ty),+ $(,)?) => {
            [$(match codec::decode::<$record>(schemas::$schema, bytes) {
                Ok(value) => {
                    let written = codec::encode(schemas::$schema, &value).expect("read, so it fits");
                    assert_eq!(codec::decode::<$record>(schemas::$schema, &written), Ok(value));
                    1
                }
                Err(error) => refused(&error),
            }),+].into_iter().sum()
        };
    }
    read! {
        REPOSITORY => RepositoryRecord,
        TAG => TagRecord,
        MANIFEST => ManifestRecord,
        MANIFEST_LINK => ManifestLinkRecord,
        BLOB => BlobRecord,
        BLOB_LINK => BlobLinkRecord,
        REFERRER => ReferrerRecord,
        MEMBER => MemberRecord,
        TOKEN_KEYS => TokenKeysRecord,
        IMMUTABLE_TAGS => ImmutableTagsRecord,
        AWAITED_BLOB => AwaitedBlobRecord,
        PULL => PullRecord,
        RETENTION => RetentionRecord,
        FEATURE_LEVEL => FeatureLevelRecord,
        COLLECTION_HOLDS => CollectionHoldsRecord,
    }
}

fn refused(error: &CodecError) -> usize {
    check_error(error);
    0
}
