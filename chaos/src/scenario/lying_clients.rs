//! Row 32: clients that lie, in the midst of honest ones.

use anyhow::Result;

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "lying-clients",
    rows: &[32],
    hypothesis: "no lie of a client is believed: nothing is published that is not what its name says, each lie gets its \
                 own error, and honest clients do not notice",
    fault: "clients send wrong digests and wrong lengths, bodies that are too short or too long, close in the middle, \
            name blobs that are not there, and talk nonsense, while others push and pull",
    given: "three replicas; images are pushed and pulled",
    abort: "an answer says 201 to a lie, or honest clients get no answer",
    recovery: "nothing to recover from: no lie changes anything",
    rollback: "stop the clients; what their sessions left is removed when it is idle for an hour",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I4, Invariant::I5, Invariant::I7],
    fires: &KINDS,
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const KINDS: [&str; 8] = [
    "wrong digest",
    "wrong length",
    "short body",
    "extra body",
    "early close",
    "garbage",
    "manifest of another digest",
    "manifest without blobs",
];

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    let layer_max = run.of(128 << 10, 8 << 20);
    let liars = run.of(4, 8);
    run.load(LoadOptions::images(layer_max).and_liars(liars)).await?;
    let wanted = run.of(10_u64, 400);
    let ledger = run.ledger.clone();
    let told = wait_until("every lie is told often enough", 4 * HEAL_DEADLINE, || async {
        let told = ledger.lies();
        for kind in KINDS {
            let count = told.get(kind).copied().unwrap_or_default();
            anyhow::ensure!(count >= wanted, "{kind}: {count} times so far");
        }
        Ok(told)
    })
    .await?;
    run.work().await?;
    for (kind, count) in told {
        run.faults.injected(kind, &format!("told {count} times"));
    }
    Ok(())
}
