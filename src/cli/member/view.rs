//! What an operator is shown of a cluster before it is changed.

use std::fmt;

use crate::exit::{Exit, Failure};
use crate::ops::status::{MemberStatus, Status};

/// The voters, and how many of them must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Voters {
    names: Vec<String>,
}

impl Voters {
    /// Those of now.
    pub(super) fn of(status: &Status) -> Self {
        let voters = status.members.iter().filter(|member| votes(member));
        Self { names: voters.map(|member| member.name.clone()).collect() }
    }

    /// Without one.
    pub(super) fn without(&self, name: &str) -> Self {
        let names = self.names.iter().filter(|voter| *voter != name);
        Self { names: names.cloned().collect() }
    }

    /// With one more.
    pub(super) fn with(&self, name: &str) -> Self {
        let mut names = self.without(name).names;
        names.push(name.to_owned());
        names.sort();
        Self { names }
    }

    fn quorum(&self) -> usize {
        self.names.len() / 2 + 1
    }
}

impl fmt::Display for Voters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, quorum) = (self.names.join(", "), self.quorum());
        write!(f, "voters {names} ({quorum} of {} must answer)", self.names.len())
    }
}

/// Before and after, one under the other.
pub(super) fn before_and_after(before: &Voters, after: &Voters) -> String {
    if before == after {
        return format!("  now and afterwards: {before}");
    }
    format!("  now:        {before}\n  afterwards: {after}")
}

/// Whether a member has a vote.
pub(super) fn votes(member: &MemberStatus) -> bool {
    member.role == "leader" || member.role == "follower"
}

/// The member of a name.
pub(super) fn member<'a>(status: &'a Status, name: &str) -> Option<&'a MemberStatus> {
    status.members.iter().find(|member| member.name == name)
}

/// The member of a name, or who there is instead.
pub(super) fn known<'a>(status: &'a Status, name: &str) -> Result<&'a MemberStatus, Failure> {
    member(status, name).ok_or_else(|| {
        let names: Vec<&str> = status.members.iter().map(|member| member.name.as_str()).collect();
        let message = format!("there is no member `{name}`; there are {}", names.join(", "));
        Failure::new(Exit::Usage, message)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_change_shows_both_quorums() {
        let four = Voters { names: ["a", "b", "c", "d"].map(ToOwned::to_owned).to_vec() };
        assert_eq!(
            before_and_after(&four, &four.without("b")),
            "  now:        voters a, b, c, d (3 of 4 must answer)\n  \
             afterwards: voters a, c, d (2 of 3 must answer)"
        );
        assert_eq!(four.without("b").with("b"), four);
    }
}
