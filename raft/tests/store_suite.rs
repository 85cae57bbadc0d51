//! openraft's own conformance suite, against our stores.
#![allow(clippy::unwrap_used)]

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use tercet_raft::stores::{LogStore, Machine, TypeConfig};
use tercet_storage::DataDir;
use tokio::sync::mpsc;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let data = DataDir::new(dir.path());
        let log = LogStore::open(&data.log()).unwrap();
        let machine = Machine::open(&data, mpsc::channel(16).0).unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn the_stores_pass_openrafts_suite() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(Builder)).unwrap();
}
