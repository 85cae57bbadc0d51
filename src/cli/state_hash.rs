//! `tercet state-hash`: do all replicas have the same state?

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::join_all;

use super::admin::{AdminClient, Question};
use super::print;
use crate::admin::state_hash::StateHashAnswer;
use crate::exit::{Exit, Failure};
use crate::ops::status::Status;

/// Replicas that are written to are rarely at the same index when they are asked: they are asked again.
const ROUNDS: usize = 5;
const ROUND_PAUSE: Duration = Duration::from_millis(300);
/// For the digest of one member: some hundred gigabytes of metadata.
const ASK_MAX: Duration = Duration::from_secs(1_800);

/// Compare the replicated state of the members: equal index, equal digest
#[derive(Debug, Args)]
pub(super) struct StateHashArgs {
    #[command(flatten)]
    question: Question,
    /// Ask this member only; repeat it for several [default: all members]
    #[arg(long, value_name = "NAME")]
    of: Vec<String>,
}

pub(super) async fn run(args: StateHashArgs) -> Result<(), Failure> {
    let client = args.question.connect().await?;
    let members = if args.of.is_empty() {
        let status: Status = client.get_json("/admin/members").await?;
        status.members.into_iter().map(|member| member.name).collect()
    } else {
        args.of
    };
    let (mut answers, mut silent) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        if round > 0 {
            tokio::time::sleep(ROUND_PAUSE).await;
        }
        (answers, silent) = (Vec::new(), Vec::new());
        for (member, asked) in
            members.iter().zip(join_all(members.iter().map(|member| ask(&client, member))).await)
        {
            match asked {
                Ok(answer) => answers.push(answer),
                Err(failure) => silent.push((member, failure)),
            }
        }
        match judge(&answers) {
            Judgement::Different(_) => break,
            Judgement::Same if silent.is_empty() => break,
            _ => {}
        }
    }
    args.question.print(&answers, |answers| table(answers))?;
    match judge(&answers) {
        Judgement::Different(what) => Err(Failure::new(Exit::Data, what)),
        // The others were compared, and the table above says that they agree; but not all were.
        _ if !silent.is_empty() => {
            let silent: Vec<String> =
                silent.iter().map(|(member, failure)| format!("{member}: {failure}")).collect();
            Err(Failure::new(
                Exit::Unavailable,
                format!("no state from {} (ask only the others with `--of`)", silent.join("; ")),
            ))
        }
        Judgement::Apart => Err(Failure::new(
            Exit::Unavailable,
            "the members are of different versions or at different entries of the log, so their states cannot be compared: ask again when fewer writes come",
        )),
        Judgement::Same => Ok(()),
    }
}

/// Asks until the digest is there: a large state takes longer than one answer.
async fn ask(client: &AdminClient, member: &str) -> Result<StateHashAnswer, Failure> {
    let start = Instant::now();
    let mut path = format!("/admin/state-hash?member={member}");
    loop {
        let answer: StateHashAnswer = client.get_json(&path).await?;
        if answer.state.is_some() {
            return Ok(answer);
        }
        if start.elapsed() > ASK_MAX {
            return Err(Failure::new(
                Exit::Unavailable,
                format!(
                    "{member} has not told its state within {ASK_MAX:?}: look at its disk, or stop it and use `tercet fsck`"
                ),
            ));
        }
        path = format!("/admin/state-hash?member={member}&number={}", answer.number);
    }
}

/// What the answers say together.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// All at one entry, and the same.
    Same,
    /// Two at one entry are not the same.
    Different(String),
    /// Not all at one entry, and no contradiction among those that are.
    Apart,
}

fn judge(answers: &[StateHashAnswer]) -> Judgement {
    let mut by_place: BTreeMap<(u64, u64, &str), &StateHashAnswer> = BTreeMap::new();
    for answer in answers {
        let Some(state) = &answer.state else { return Judgement::Apart };
        let place = (state.applied, state.term, answer.version.as_str());
        let Some(first) = by_place.get(&place) else {
            by_place.insert(place, answer);
            continue;
        };
        if first.state.as_ref().is_some_and(|first| first.digest == state.digest) {
            continue;
        }
        let first_tables = first.state.iter().flat_map(|first| &first.tables);
        let differ: Vec<&str> = first_tables
            .zip(&state.tables)
            .filter(|(one, other)| one != other)
            .map(|(one, _)| one.table.as_str())
            .collect();
        return Judgement::Different(format!(
            "{} and {} have different states at entry {} (tables: {}): this must never be. Keep copies of both disks, find out with a third replica or with `tercet fsck` which one is right, and empty the other: it rejoins and copies everything",
            first.name,
            answer.name,
            state.applied,
            differ.join(", ")
        ));
    }
    if by_place.len() > 1 { Judgement::Apart } else { Judgement::Same }
}

fn table(answers: &[StateHashAnswer]) -> String {
    let mut rows = vec![["NAME", "VERSION", "TERM", "APPLIED", "STATE"].map(ToOwned::to_owned)];
    for answer in answers {
        let Some(state) = &answer.state else { continue };
        rows.push([
            answer.name.clone(),
            answer.version.clone(),
            state.term.to_string(),
            state.applied.to_string(),
            state.digest.to_string(),
        ]);
    }
    let mut text = print::columns(&rows);
    if judge(answers) == Judgement::Same {
        text.push_str("\n\nthe same on all of them");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tercet_raft::StateHash;
    use tercet_storage::{Algorithm, Digest, TableHash};

    use super::*;

    fn answer(name: &str, version: &str, applied: u64, content: &str) -> StateHashAnswer {
        let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
        let tags = TableHash { table: "tags".into(), records: 1, digest: digest.clone() };
        let state = StateHash { applied, term: 2, digest, tables: vec![tags] };
        let (name, version) = (name.to_owned(), version.to_owned());
        StateHashAnswer { name, version, number: 1, state: Some(state) }
    }

    #[test]
    fn only_states_of_one_entry_are_compared() {
        let same = [answer("a", "1", 7, "x"), answer("b", "1", 7, "x")];
        assert_eq!(judge(&same), Judgement::Same);
        assert!(table(&same).ends_with("the same on all of them"), "{}", table(&same));
        let apart = [answer("a", "1", 7, "x"), answer("b", "1", 8, "y")];
        assert_eq!(judge(&apart), Judgement::Apart);
        let versions = [answer("a", "1", 7, "x"), answer("b", "2", 7, "y")];
        assert_eq!(judge(&versions), Judgement::Apart);
        // One that is behind does not hide two that contradict each other.
        let wrong = [answer("a", "1", 7, "x"), answer("b", "1", 6, "w"), answer("c", "1", 7, "y")];
        let Judgement::Different(what) = judge(&wrong) else { panic!("{:?}", judge(&wrong)) };
        let begin = "a and c have different states at entry 7 (tables: tags)";
        assert!(what.starts_with(begin), "{what}");
    }
}
