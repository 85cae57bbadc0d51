#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::super::bench::Bench;
use super::*;
use crate::command::Command;

fn admit(name: &str, node_id: NodeId) -> Command {
    Command::AdmitMember { name: name.to_owned(), node_id }
}

fn remove(name: &str, node_id: NodeId) -> Command {
    Command::RemoveMember { name: name.to_owned(), node_id }
}

fn leave(name: &str, node_id: NodeId, leaving: Leaving) -> Command {
    Command::SetLeaving { name: name.to_owned(), node_id, leaving }
}

fn id(bench: &Bench, name: &str) -> Option<NodeId> {
    bench.meta().member(name).unwrap().map(|member| member.node_id)
}

#[test]
fn a_removed_id_never_comes_back_and_its_name_may() {
    let bench = Bench::new();
    assert_eq!(bench.apply_at(1, admit("a", 11)), Outcome::Done);
    assert!(!bench.meta().any_removed().unwrap());
    // A log may hold the command twice: whoever proposed it did not hear of the first.
    for at_ms in [2, 3] {
        assert_eq!(bench.apply_at(at_ms, remove("a", 11)), Outcome::Done);
    }
    assert_eq!(id(&bench, "a"), None);
    assert!(bench.meta().retired(11).unwrap() && bench.meta().removed(11).unwrap());
    assert!(bench.meta().any_removed().unwrap());
    let refused = bench.apply_at(4, admit("a", 11));
    assert!(matches!(&refused, Outcome::Refused(why) if why.contains("TERCET-M04")), "{refused}");
    assert_eq!(bench.apply_at(5, admit("a", 12)), Outcome::Done);
    assert_eq!(id(&bench, "a"), Some(12));
    assert!(bench.meta().removed(11).unwrap());
}

#[test]
fn removing_what_the_name_does_not_stand_for_changes_nothing() {
    let bench = Bench::new();
    bench.apply_at(1, admit("a", 11));
    bench.apply_at(1, admit("b", 21));
    bench.apply_at(2, admit("a", 12));
    let before = bench.everything();
    // The name has moved on: the id that is meant is retired already, the one that has it is not meant.
    assert_eq!(bench.apply_at(3, remove("a", 11)), Outcome::Done);
    assert_eq!(bench.apply_at(3, remove("a", 21)), Outcome::NotFound);
    assert_eq!(bench.apply_at(3, remove("c", 31)), Outcome::NotFound);
    assert_eq!(bench.everything(), before);
    assert!(!bench.meta().removed(11).unwrap());
    let refused = bench.apply_at(4, admit("a", 11));
    assert!(matches!(&refused, Outcome::Refused(why) if why.contains("TERCET-M01")), "{refused}");
}

#[test]
fn a_mark_of_leaving_belongs_to_one_disk() {
    let bench = Bench::new();
    bench.apply_at(1, admit("a", 11));
    assert_eq!(bench.apply_at(2, leave("a", 12, Leaving::Yes)), Outcome::NotFound);
    assert_eq!(bench.apply_at(2, leave("b", 11, Leaving::Yes)), Outcome::NotFound);
    assert!(!bench.meta().leaving("a").unwrap());
    for _ in 0..2 {
        assert_eq!(bench.apply_at(3, leave("a", 11, Leaving::Yes)), Outcome::Done);
        assert!(bench.meta().leaving("a").unwrap());
    }
    for _ in 0..2 {
        assert_eq!(bench.apply_at(4, leave("a", 11, Leaving::No)), Outcome::Done);
        assert!(!bench.meta().leaving("a").unwrap());
    }
    // Neither a successor nor a newcomer of the same name inherits it.
    bench.apply_at(5, leave("a", 11, Leaving::Yes));
    bench.apply_at(6, admit("a", 12));
    assert!(!bench.meta().leaving("a").unwrap());
    bench.apply_at(7, leave("a", 12, Leaving::Yes));
    bench.apply_at(8, remove("a", 12));
    assert!(!bench.meta().leaving("a").unwrap());
    assert_eq!(bench.apply_at(9, leave("a", 12, Leaving::Yes)), Outcome::NotFound);
}
