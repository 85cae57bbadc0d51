//! I1: everything acknowledged is still there, byte for byte, on every replica.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};

use crate::{
    client::{Answer, RegistryClient},
    digest::Hasher,
    workload::{Invariant, Kept, Ledger, Reading},
};

/// Of one digest, with all replicas up: far more than a healthy cluster needs.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
const AT_ONCE: usize = 4;

impl Ledger {
    /// Something acknowledged is gone.
    pub(crate) fn lost(&self, what: String) {
        self.count(|counts| counts.lost += 1);
        self.violated(Invariant::I1, what);
    }
}

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
    // Of nothing at all nothing is shown.
    if count > 0 {
        ledger.checked(Invariant::I1);
    }
    count
}

async fn check_one(ledger: &Ledger, index: usize, client: &RegistryClient, kept: &Kept) {
    let name = format!("{}@{}", kept.repository, kept.reference);
    match surely(async || ledger.read(client, kept).await).await {
        Sure::Found(answer) => {
            let mut hasher = Hasher::like(&kept.digest);
            hasher.update(&answer.body);
            let found = hasher.finish();
            if found != kept.digest {
                ledger.lost(format!("replica {index} gives {found} for {name} {}", kept.digest));
            }
        }
        Sure::Absent => ledger.lost(format!("replica {index} has lost {name} {}", kept.digest)),
        // Wrong bytes are in the ledger already.
        Sure::Wrong => {}
        Sure::Never(said) => ledger.violated(
            Invariant::I1,
            format!("replica {index} does not give {name} within {PATIENCE:?}: {said}"),
        ),
    }
}

/// The answer of a replica that is well, after whatever it said before.
pub(super) enum Sure {
    Found(Answer),
    /// A sure "not there".
    Absent,
    /// The ledger has it.
    Wrong,
    /// It said neither, to the end of the patience.
    Never(String),
}

/// Reads again and again until that says something for sure.
pub(super) async fn surely(read: impl AsyncFn() -> Reading) -> Sure {
    let start = Instant::now();
    loop {
        let said = match read().await {
            Reading::Found(answer) => return Sure::Found(answer),
            Reading::Absent => return Sure::Absent,
            Reading::Wrong => return Sure::Wrong,
            Reading::Refused(status) => format!("it answers {status}"),
            Reading::Unreachable(reason) => reason,
        };
        if start.elapsed() > PATIENCE {
            return Sure::Never(said);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
