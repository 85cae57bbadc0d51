//! Clients: each asks one replica at a time, any of them, and remembers what it was told.

use std::sync::Arc;
use std::time::Duration;

use tercet_raft::TransportError;

use crate::net::{Answer, Ask, DATAGRAM_BYTES_MAX, Net, PORT};
use crate::node::manifest_digest;
use crate::op::{Op, Told};
use crate::world::{World, now};

const DEADLINE: Duration = Duration::from_millis(2_800);
/// Between two looks at whether the group has formed.
const FORMING_PAUSE: Duration = Duration::from_millis(20);
const TAGS: usize = 3;
const CONTENTS: usize = 24;

/// Runs one client until the faults are over.
pub(crate) async fn run(world: World, number: usize, replicas: Vec<String>) -> turmoil::Result {
    let net = Arc::new(Net::bind(world.clone(), format!("c{number}"), PORT).await?);
    let reader = Arc::clone(&net);
    tokio::spawn(async move {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        // Nobody asks a client.
        while reader.receive(&mut buffer).await.is_ok() {}
    });
    let mut values = (number as u64 + 1) * 10_000;
    let mut images: Vec<(u8, u64)> = Vec::new();
    let mut stored: Vec<u8> = Vec::new();
    let mut last_value = 0;
    while !world.formed() {
        tokio::time::sleep(FORMING_PAUSE).await;
    }
    while !world.healing() {
        tokio::time::sleep(Duration::from_millis(world.below(150) as u64 + 10)).await;
        let tag = world.below(TAGS) as u8;
        values += 1;
        let op = match world.below(20) {
            0..7 => Op::Read { tag },
            7..11 => Op::Put { tag, value: values },
            11 => Op::PutIfMatch { tag, value: values, expected: last_value },
            12 => Op::PutIfAbsent { tag, value: values },
            13 => Op::Delete { tag },
            14..17 => Op::PushBlob { content: world.below(CONTENTS) as u8 },
            17..19 => match stored.pop() {
                Some(content) => Op::PushImage { content, value: values },
                None => continue,
            },
            _ => match images.pop() {
                Some((content, value)) => Op::DeleteImage { content, value },
                None => continue,
            },
        };
        if let Op::DeleteImage { value, .. } = &op {
            // From here on nobody may rely on it, whatever comes of this.
            world.lock().seen.kept.remove(value);
        }
        let Some(replica) = replicas.get(world.below(replicas.len())) else { continue };
        let told = ask(&world, &net, replica, op.clone()).await;
        match (&op, &told) {
            (Op::Read { .. }, Told::Value(Some(value))) => last_value = *value,
            (Op::PushBlob { content }, Told::Done) => stored.push(*content),
            (Op::PushImage { content, value }, Told::Done) => {
                world.lock().seen.kept.insert(*value, *content);
                images.push((*content, *value));
            }
            _ => {}
        }
    }
    Ok(())
}

async fn ask(world: &World, net: &Net, replica: &str, op: Op) -> Told {
    let began = now();
    let number = {
        let mut inner = world.lock();
        if let Op::Put { value, .. }
        | Op::PutIfMatch { value, .. }
        | Op::PutIfAbsent { value, .. }
        | Op::PushImage { value, .. } = &op
        {
            inner.seen.values.insert(manifest_digest(*value), *value);
        }
        inner.counts.operations += 1;
        inner.history.begin(op.clone(), began)
    };
    let told = match net.ask(replica, Ask::Client(op.clone()), DEADLINE).await {
        Ok(Answer::Told(told)) => told,
        Ok(other) => Told::Unknown(format!("{other:?}")),
        Err(TransportError::NotSent(why)) => Told::NotDone(why),
        Err(error) => Told::Unknown(error.to_string()),
    };
    world.note(|| format!("#{number} {op:?} by {replica}: {told:?}"));
    let mut inner = world.lock();
    let counts = &mut inner.counts;
    match &told {
        Told::Unknown(_) => counts.unknown += 1,
        Told::NotDone(_) | Told::Stale => counts.refused += 1,
        _ => counts.acknowledged += 1,
    }
    inner.history.end(number, now(), told.clone());
    told
}
