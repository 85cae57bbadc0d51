//! The conformance suites of the OCI distribution specification.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, create_dir},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::tools::Tool;

/// What the suite of the main branch can be told to try. It leaves out what is not switched on.
const SWITCHES: [&str; 31] = [
    "API_PING",
    "API_PULL",
    "API_PUSH",
    "API_BLOBS_ATOMIC",
    "API_BLOBS_DELETE",
    "API_BLOBS_DIGEST_HEADER",
    "API_BLOBS_MOUNT_ANONYMOUS",
    "API_BLOBS_UPLOAD_CANCEL",
    "API_MANIFESTS_ATOMIC",
    "API_MANIFESTS_DELETE",
    "API_MANIFESTS_DIGEST_HEADER",
    "API_MANIFESTS_TAG_PARAM",
    "API_TAGS_ATOMIC",
    "API_TAGS_DELETE",
    "API_TAGS_LIST",
    "API_REFERRER",
    "DATA_IMAGE",
    "DATA_INDEX",
    "DATA_INDEX_LIST",
    "DATA_SPARSE",
    "DATA_ARTIFACT",
    "DATA_SUBJECT",
    "DATA_SUBJECT_MISSING",
    "DATA_ARTIFACT_LIST",
    "DATA_SUBJECT_LIST",
    "DATA_DATA_FIELD",
    "DATA_NONDISTRIBUTABLE",
    "DATA_CUSTOM_FIELDS",
    "DATA_NO_LAYERS",
    "DATA_EMPTY_BLOB",
    "DATA_SHA512",
];

/// The versions of the specification that the suite of the main branch is run for.
const MAIN_VERSIONS: [&str; 2] = ["1.1", "dev"];

/// Cases of the older suite that stand for another registry's answer: of each pair one is skipped.
const ALTERNATIVES: [&str; 4] = [
    "Get tag name from environment",
    "Cross-mounting of nonexistent blob should yield session id",
    "Cross-mounting without from, and automatic content discovery disabled should return a 202",
    "Populate registry with test tags (no push)",
];

/// A suite that is there to be run.
#[derive(Clone, Debug)]
pub struct Conformance {
    program: Tool,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The last one before its redesign, for version 1.1, pinned in `chaos/conformance`.
    Older,
    /// Of the specification's main branch, for a version of it.
    Main(&'static str),
}

/// What a suite found.
#[derive(Debug, Default)]
pub struct Report {
    /// How many cases had which end.
    pub counts: BTreeMap<String, usize>,
    /// Those that did not pass, each with its end.
    pub not_passed: Vec<String>,
}

impl Conformance {
    /// All that this machine has: the older suite wherever there is Go, and the one of the specification's
    /// main branch for each version, where it could be had. Says what is missing and why.
    pub fn find_all() -> Result<Vec<Self>> {
        let older = Tool::find_go_built("oci-conformance-1.1")?;
        let main = Tool::find_go_built("oci-conformance")?;
        ensure!(
            older.is_some() || main.is_none(),
            "only the suite of the main branch is there: run chaos/setup.sh, which builds the older one"
        );
        let older = older.map(|program| Self { program, kind: Kind::Older });
        let main = main.iter().flat_map(|program| {
            MAIN_VERSIONS
                .map(|version| Self { program: program.clone(), kind: Kind::Main(version) })
        });
        Ok(older.into_iter().chain(main).collect())
    }

    /// Runs everything that the suite has against the registry at this `host:port`, in repositories that
    /// start with `prefix`.
    pub async fn run(&self, host: &str, prefix: &str) -> Result<Report> {
        let folder = TempDir::new()?;
        let results = folder.path().join("results");
        create_dir(&results)?;
        let program = self.program.clone().at_home(folder.path());
        let program = match self.kind {
            Kind::Older => older(program, host, prefix, &results),
            Kind::Main(version) => main_branch(program, host, prefix, version, &results),
        };
        // A suite that found something ends with an error; what it found is in its results.
        let ended = program.run(&[]).await;
        let cases = fs::read_to_string(results.join("junit.xml"));
        let cases = match (cases, ended) {
            (Ok(cases), _) => cases,
            (Err(_), Err(ended)) => return Err(ended.context("the suite left no results")),
            (Err(missing), Ok(_)) => return Err(missing).context("the suite left no results"),
        };
        let mut report = Report::default();
        report.read_cases(&cases)?;
        if let Kind::Main(_) = self.kind {
            report.read_summary(&fs::read_to_string(results.join("results.yaml"))?)?;
        }
        Ok(report)
    }
}

impl fmt::Display for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Older => f.write_str("older suite, version 1.1"),
            Kind::Main(version) => write!(f, "suite of the main branch, version {version}"),
        }
    }
}

impl Report {
    /// Reads the end of every case out of a report in JUnit's XML.
    fn read_cases(&mut self, xml: &str) -> Result<()> {
        // In text, `<` is escaped: this can only be a tag.
        for case in xml.split("<testcase ").skip(1) {
            let tag = case.split_once('>').map_or(case, |(tag, _)| tag);
            let name = attribute(tag, "name").context("a case without a name")?;
            let status = attribute(tag, "status").context("a case without a status")?;
            let alternative = ALTERNATIVES.iter().any(|other| name.ends_with(other));
            let status = if alternative && status == "skipped" { "alternative" } else { status };
            self.count(name, status);
        }
        ensure!(!self.counts.is_empty(), "the suite's report has no cases: {xml}");
        Ok(())
    }

    /// Reads the ends of the summary, which also knows what was not tried at all.
    fn read_summary(&mut self, yaml: &str) -> Result<()> {
        let lines = yaml.lines().skip_while(|line| *line != "apis:");
        let ends: Vec<_> =
            lines.filter_map(|line| line.strip_prefix("  ")?.split_once(": ")).collect();
        ensure!(ends.len() > 20, "the suite's summary has only {ends:?}");
        for (name, end) in ends {
            if end != "Pass" {
                self.not_passed.push(format!("{name}: {end}"));
            }
        }
        Ok(())
    }

    fn count(&mut self, name: &str, status: &str) {
        *self.counts.entry(status.to_owned()).or_default() += 1;
        if !matches!(status, "passed" | "alternative") {
            self.not_passed.push(format!("{name}: {status}"));
        }
    }

    /// An error that lists what did not pass.
    pub fn all_passed(&self) -> Result<()> {
        let passed = self.counts.get("passed").copied().unwrap_or_default();
        ensure!(self.not_passed.is_empty(), "not passed:\n{}", self.not_passed.join("\n"));
        ensure!(passed > 0, "nothing was tried");
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> =
            self.counts.iter().map(|(status, count)| format!("{count} {status}")).collect();
        f.write_str(&counts.join(", "))
    }
}

fn main_branch(program: Tool, host: &str, prefix: &str, version: &str, results: &Path) -> Tool {
    let mut program = program
        .with("OCI_REGISTRY", host)
        .with("OCI_TLS", "disabled")
        .with("OCI_VERSION", version)
        .with("OCI_REPO1", format!("{prefix}/repo1"))
        .with("OCI_REPO2", format!("{prefix}/repo2"))
        .with("OCI_RESULTS_DIR", results);
    for switch in SWITCHES {
        program = program.with(&format!("OCI_{switch}"), "true");
    }
    program
}

fn older(program: Tool, host: &str, prefix: &str, results: &Path) -> Tool {
    let mut program = program
        .with("OCI_ROOT_URL", format!("http://{host}"))
        .with("OCI_NAMESPACE", format!("{prefix}/one"))
        .with("OCI_CROSSMOUNT_NAMESPACE", format!("{prefix}/two"))
        .with("OCI_REPORT_DIR", results);
    for switch in [
        "OCI_TEST_PULL",
        "OCI_TEST_PUSH",
        "OCI_TEST_CONTENT_DISCOVERY",
        "OCI_TEST_CONTENT_MANAGEMENT",
        "OCI_AUTOMATIC_CROSSMOUNT",
    ] {
        program = program.with(switch, "1");
    }
    program
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("{name}=\"");
    // The first attribute has nothing before it, and none may be taken for the end of another's name.
    let rest = match tag.strip_prefix(&start) {
        Some(rest) => rest,
        None => tag.split_once(&format!(" {start}"))?.1,
    };
    rest.split_once('"').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn what_did_not_pass_is_found() {
        let mut report = Report::default();
        let xml = r#"<testsuites><testsuite name="x"><testcase name="a/b" classname="" status="passed">
            <system-err>&lt;testcase name="c" status="failure"></system-err></testcase>
            <testcase name="d" classname="status" time="1" status="skipped"></testcase></testsuite>"#;
        report.read_cases(xml).unwrap();
        assert_eq!(report.to_string(), "1 passed, 1 skipped");
        assert_eq!(report.not_passed, ["d: skipped"]);
        assert!(report.all_passed().is_err());
    }

    #[test]
    fn an_untried_part_is_found_in_the_summary() {
        let mut yaml = String::from("config:\n  tls: disabled\napis:\n");
        for number in 0..30 {
            yaml.push_str(&format!("  Part {number}: Pass\n"));
        }
        yaml.push_str("data:\n  Sparse: Disabled\n");
        let mut report = Report::default();
        report.read_summary(&yaml).unwrap();
        assert_eq!(report.not_passed, ["Sparse: Disabled"]);
    }
}
