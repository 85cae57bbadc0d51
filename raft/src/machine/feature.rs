//! What every member of the cluster understands.

use tercet_storage::{FeatureLevelRecord, Meta, MetaBatch, StorageError};

use crate::outcome::Outcome;

/// Raises the level; never lowers it.
pub(super) fn set(
    batch: &mut MetaBatch<'_>,
    level: u32,
    version: String,
) -> Result<Outcome, StorageError> {
    let current = Meta(&*batch).feature_level()?.map_or(1, |record| record.level);
    if level > current {
        batch.put_feature_level(&FeatureLevelRecord { level, version })?;
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::bench::Bench;
    use super::*;
    use crate::command::Command;

    #[test]
    fn the_level_only_rises() {
        let bench = Bench::new();
        assert!(bench.meta().feature_level().unwrap().is_none());
        for (level, version, expected) in [
            (1, "0.0.9", None),
            (2, "0.1.0", Some((2, "0.1.0"))),
            (2, "0.1.1", Some((2, "0.1.0"))),
            (1, "0.0.9", Some((2, "0.1.0"))),
        ] {
            let command = Command::SetFeatureLevel { level, version: version.to_owned() };
            assert_eq!(bench.apply_at(1, command), Outcome::Done);
            let record = bench.meta().feature_level().unwrap();
            let expected = expected.map(|(level, version): (u32, &str)| FeatureLevelRecord {
                level,
                version: version.to_owned(),
            });
            assert_eq!(record, expected);
        }
    }
}
