//! The pages of the scenarios, made of what they say of themselves.

use super::{Lane, Needs, Scenario, all};

/// The first line of each page: who writes them must not overwrite any other.
pub const NOTE: &str =
    "<!-- Made by `tercet-chaos book docs/src/scenarios`: change the scenario, not this page. -->";

/// The pages by their file names, the index first.
pub fn pages() -> Vec<(String, String)> {
    let all = all();
    let pages = all.iter().map(|scenario| (format!("{}.md", scenario.name), page(scenario)));
    std::iter::once(("README.md".to_owned(), index(&all))).chain(pages).collect()
}

fn index(all: &[Scenario]) -> String {
    let mut text = format!(
        "{NOTE}\n\n# A page for each scenario\n\n\
         What each expects, what it does, when a person stops it, and how all is undone. How to run them, what is \
         checked and what a report says is in [Fault scenarios](../chaos.md). The rows are those of the project's \
         catalogue of faults. The lane says whether `make test` runs the short form (smoke) or only `make chaos` the \
         full one.\n\n| scenario | rows | lane | invariants |\n|---|---|---|---|\n"
    );
    for scenario in all {
        text.push_str(&format!(
            "| [`{0}`]({0}.md) | {1} | {2} | {3} |\n",
            scenario.name,
            rows(scenario),
            scenario.lane.word(),
            codes(scenario)
        ));
    }
    text
}

fn page(scenario: &Scenario) -> String {
    let name = scenario.name;
    let invariants: String = scenario
        .invariants
        .iter()
        .map(|invariant| format!("- **{invariant}**: {}.\n", invariant.words()))
        .collect();
    let lane = match scenario.lane {
        Lane::Smoke => "The short form is part of `make test`; `make chaos` runs the full one.",
        Lane::Full => "Only `make chaos` runs it.",
    };
    format!(
        "{NOTE}\n\n# {name}\n\n\
         Rows of the catalogue: {rows}. {lane}\n\n\
         **Given.** {given}\n\n\
         **When.** {when}\n\n\
         **Then.** {then}\n\n\
         **A person stops it** when this is seen: {abort}.\n\n\
         **Recovery.** {recovery}\n\n\
         **Rollback.** Every replica ends with the program that started it, and its folder is a temporary one{spaces}: \
         stop the program (SIGTERM or Ctrl-C). After SIGKILL the folder stays until the next run removes it. \
         {rollback}\n\n\
         ## Invariants\n\n{invariants}\n\
         The run is void if one of these never happened: {fires}; or with fewer than {floor} acknowledged \
         operations per second.\n\n\
         ## Running it\n\n\
         ```sh\ntercet-chaos run {name} --seed 7           # the short form\n\
         tercet-chaos run {name} --seed 7 --full    # the full one, with the machine for itself\n\
         make chaos SCENARIO={name} MINUTES=30      # the full one, again and again with other seeds\n```\n\n\
         {needs}\n",
        rows = rows(scenario),
        given = sentence(scenario.given),
        when = sentence(scenario.fault),
        then = sentence(scenario.hypothesis),
        abort = scenario.abort,
        recovery = sentence(scenario.recovery),
        rollback = sentence(scenario.rollback),
        spaces = match scenario.needs {
            Needs::Loopback(_) => "",
            Needs::Nothing | Needs::Root | Needs::Network =>
                "; its hosts and packet filters are in a network namespace that goes with it",
            Needs::Mounts | Needs::Fuse | Needs::NetworkAndFuse =>
                "; its hosts, packet filters and file systems are in namespaces that go with it",
        },
        fires =
            scenario.fires.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", "),
        floor = scenario.floor_per_second,
        needs = needs(scenario.needs),
    )
}

/// What the machine must have, and where the replicas are on it.
fn needs(needs: Needs) -> String {
    const HOSTED: &str = "Where there can be network namespaces (as root) each replica has one, with an address of its own; \
                          elsewhere all of them are plain processes on loopback.";
    let void = "Without that the run is void, and says why.";
    let wanted = match needs {
        Needs::Nothing => return format!("It wants what `chaos/setup.sh` installs. {HOSTED}"),
        Needs::Loopback(why) => {
            return format!(
                "It wants what `chaos/setup.sh` installs. Its replicas are plain processes on loopback, also as root: {why}."
            );
        }
        Needs::Network => {
            return format!(
                "It wants root, what `chaos/setup.sh` installs, and a kernel with network namespaces and nftables: each \
                 replica has a namespace, with an address of its own. {void}"
            );
        }
        Needs::NetworkAndFuse => {
            return format!(
                "It wants root, what `chaos/setup.sh` installs, `/dev/fuse`, and a kernel with network namespaces and \
                 nftables: each replica has a namespace, with an address of its own. {void}"
            );
        }
        Needs::Root => "root, for what the kernel gives to root alone",
        Needs::Mounts => "root, for a mount namespace",
        Needs::Fuse => "root, for a mount namespace, and `/dev/fuse`",
    };
    format!("It wants what `chaos/setup.sh` installs, and {wanted}. {void} {HOSTED}")
}

fn rows(scenario: &Scenario) -> String {
    scenario.rows.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")
}

fn codes(scenario: &Scenario) -> String {
    scenario.invariants.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// With a large letter and a full stop. A word in code stays as it is.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String =
        letters.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_all_that_a_person_needs() {
        for (file, text) in pages().into_iter().skip(1) {
            for part in [
                "**Given.**",
                "**When.**",
                "**Then.**",
                "stops it",
                "**Recovery.**",
                "**Rollback.**",
                "## Invariants",
                "## Running it",
                "--full",
            ] {
                assert!(text.contains(part), "{file} lacks {part}");
            }
            assert!(!text.contains("..\n"), "{file} has two full stops");
        }
    }

    #[test]
    fn sentences_begin_large() {
        assert_eq!(sentence("one and `two`"), "One and `two`.");
        assert_eq!(sentence("`kill` it"), "`kill` it.");
    }
}
