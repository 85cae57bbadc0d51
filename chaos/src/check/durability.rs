//! Whether everything acknowledged is still there, byte for byte, on every replica (I1, I2, I4).

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};

use crate::{
    client::RegistryClient,
    digest::Hasher,
    workload::{Invariant, Kept, Ledger, Reading},
};

/// Of one digest, with all replicas up: far more than a healthy cluster needs.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
const AT_ONCE: usize = 4;

/// Pulls everything that the ledger keeps from every one of these replicas, and writes into the ledger what is
/// lost or wrong. Returns how many pulls that were.
pub(crate) async fn check_kept(ledger: &Ledger, clients: &[RegistryClient]) -> usize {
    let kept = ledger.kept();
    let pairs: Vec<(usize, &RegistryClient, &Kept)> = clients
        .iter()
        .enumerate()
        .flat_map(|(index, client)| kept.iter().map(move |kept| (index, client, kept)))
        .collect();
    let count = pairs.len();
    stream::iter(pairs)
        .map(|(index, client, kept)| check_one(ledger, index, client, kept))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<()>>()
        .await;
    count
}

async fn check_one(ledger: &Ledger, index: usize, client: &RegistryClient, kept: &Kept) {
    let start = Instant::now();
    let name = format!("{}@{}", kept.repository, kept.reference);
    loop {
        let said = match ledger.read(client, kept).await {
            Reading::Found(answer) => {
                let mut hasher = Hasher::like(&kept.digest);
                hasher.update(&answer.body);
                let found = hasher.finish();
                if found != kept.digest {
                    ledger
                        .lost(format!("replica {index} gives {found} for {name} {}", kept.digest));
                }
                return;
            }
            Reading::Absent => {
                ledger.lost(format!("replica {index} has lost {name} {}", kept.digest));
                return;
            }
            // Wrong bytes are in the ledger already.
            Reading::Wrong => return,
            Reading::Refused(status) => format!("it answers {status}"),
            Reading::Unreachable(reason) => reason,
        };
        if start.elapsed() > PATIENCE {
            ledger.violated(
                Invariant::I1,
                format!("replica {index} does not give {name} within {PATIENCE:?}: {said}"),
            );
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
