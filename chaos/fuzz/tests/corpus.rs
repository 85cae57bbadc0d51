//! The committed corpus, and bounded changes to it, through every fuzz target on a stable toolchain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::time::Instant;

use tercet_fuzz::{Mutator, TARGETS, Verdict};

/// Changed inputs per file.
const MUTATIONS: u64 = 1_000;
/// Snapshots write files: one for so many of the others.
const SNAPSHOTS_ONE_IN: u64 = 100;
/// Another number of changed inputs, for a long run without a nightly toolchain.
const MUTATIONS_VARIABLE: &str = "TERCET_FUZZ_MUTATIONS";

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Inputs that are too large for the repository.
fn large(target: &str) -> Vec<(String, Vec<u8>)> {
    let hex = "ab".repeat(32);
    let layer = format!("{{\"digest\":\"sha256:{hex}\",\"size\":1}}");
    let manifest = |layers: &str| {
        format!("{{\"schemaVersion\":2,\"config\":{layer},\"layers\":[{layers}]}}").into_bytes()
    };
    let inputs: Vec<(&str, Vec<u8>)> = match target {
        "manifest" => vec![
            ("as many layers as fit", manifest(&vec![layer.as_str(); 40_000].join(","))),
            ("100000 empty layers", manifest(&vec!["{}"; 100_000].join(","))),
            ("nested lists", format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).into_bytes()),
            (
                "nested objects in an unknown member",
                format!(
                    "{{\"x\":{}1{},\"schemaVersion\":2}}",
                    "{\"a\":".repeat(10_000),
                    "}".repeat(10_000)
                )
                .into_bytes(),
            ),
            (
                "a member of the wrong type, three megabytes long",
                format!("{{\"schemaVersion\":\"{}\"}}", "9".repeat(3 << 20)).into_bytes(),
            ),
            (
                "a type of three megabytes",
                format!("{{\"schemaVersion\":2,\"mediaType\":\"{}\"}}", "t".repeat(3 << 20))
                    .into_bytes(),
            ),
            ("4 MiB and one byte", vec![b' '; (4 << 20) + 1]),
            (
                "a number of a million digits",
                [b"{\"schemaVersion\":", [b'9'; 1 << 20].as_slice(), b"}"].concat(),
            ),
        ],
        "path" => vec![
            ("60 KiB of slashes", "/".repeat(60_000).into_bytes()),
            ("60 KiB of blobs", format!("/v2{}", "/blobs".repeat(10_000)).into_bytes()),
            ("60 KiB of escapes", format!("/v2/{}/tags/list", "%2e".repeat(20_000)).into_bytes()),
            ("20000 parameters", format!("/v2/?{}", "n=1&".repeat(20_000)).into_bytes()),
        ],
        "range" => vec![
            ("10000 ranges", format!("bytes={}0-0", "0-0,".repeat(10_000)).into_bytes()),
            ("10000 overlapping ranges", format!("bytes={}-1", "0-,".repeat(10_000)).into_bytes()),
            ("10000 suffixes", format!("bytes={}-1", "-5,".repeat(10_000)).into_bytes()),
            ("a megabyte of digits", format!("bytes=0-{}", "9".repeat(1 << 20)).into_bytes()),
        ],
        "reference" => vec![
            ("a megabyte", "a".repeat(1 << 20).into_bytes()),
            ("a megabyte of digest", format!("sha256:{}", "a".repeat(1 << 20)).into_bytes()),
            ("a megabyte of algorithm", format!("{}:00", "é".repeat(1 << 19)).into_bytes()),
        ],
        "record" | "frame" | "snapshot" => vec![
            ("a megabyte of zeros", vec![0; 1 << 20]),
            ("a megabyte of ones", vec![0xff; 1 << 20]),
        ],
        "token" => vec![
            ("a megabyte", "a".repeat(1 << 20).into_bytes()),
            ("a megabyte of dots", ".".repeat(1 << 20).into_bytes()),
            ("10000 scopes", "repository:a:pull ".repeat(10_000).into_bytes()),
            ("10000 users", "a:b\n".repeat(10_000).into_bytes()),
            (
                "claims of a megabyte",
                format!(
                    "{{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\"}}\n\"{}\"",
                    "a".repeat(1 << 20)
                )
                .into_bytes(),
            ),
        ],
        _ => Vec::new(),
    };
    inputs.into_iter().map(|(name, input)| (name.to_owned(), input)).collect()
}

/// One test for each target, so that they run side by side and a failure names its own.
macro_rules! corpora {
    ($($target:ident),+ $(,)?) => {
        $(
            #[test]
            fn $target() {
                run(stringify!($target));
            }
        )+

        #[test]
        fn every_target_is_run() {
            let mut here = vec![$(stringify!($target)),+];
            here.sort_unstable();
            let mut there: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            there.sort_unstable();
            assert_eq!(here, there);
        }
    };
}

corpora!(frame, manifest, path, range, record, reference, snapshot, token);

/// A record that nobody told the target about is one that nobody fuzzes.
#[test]
fn every_golden_record_is_taken() {
    for folder in ["storage", "raft"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for entry in fs::read_dir(root.join(folder).join("tests/golden")).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            assert_eq!(tercet_fuzz::record(&bytes), Verdict::Taken, "{}", path.display());
        }
    }
}

fn run(name: &'static str) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).expect("a known target").1;
    let files = corpus(name);
    assert!(files.len() >= 10, "the corpus of {name} has {} files", files.len());
    let began = Instant::now();
    let try_input = |what: String, input: &[u8]| {
        // The input must be known when the target panics.
        std::panic::catch_unwind(|| target(input)).unwrap_or_else(|_| {
            let shown = &input[..input.len().min(2_000)];
            panic!("{name}, {what}: {}\n{shown:?}", String::from_utf8_lossy(shown));
        })
    };
    let wanted = std::env::var(MUTATIONS_VARIABLE).ok();
    let wanted = wanted.map_or(MUTATIONS, |count| count.parse().expect(MUTATIONS_VARIABLE));
    let mutations = if name == "snapshot" { wanted / SNAPSHOTS_ONE_IN } else { wanted };
    let (mut inputs, mut taken) = (0, 0);
    for (number, (file, input)) in files.iter().enumerate() {
        taken += u64::from(try_input(file.clone(), input) == Verdict::Taken);
        let mut mutator = Mutator::new(number as u64 + 1);
        for round in 0..mutations {
            let other = &files[(number + round as usize) % files.len()].1;
            try_input(format!("{file}, mutation {round}"), &mutator.mutate(input, other));
        }
        inputs += 1 + mutations;
    }
    assert!(taken >= 5, "only {taken} files of {name} are more than refused");
    let large = large(name);
    for (what, input) in &large {
        try_input(what.clone(), input);
    }
    println!(
        "{name}: {inputs} inputs of {} files, of which {taken} are taken, and {} large ones in {:?}",
        files.len(),
        large.len(),
        began.elapsed()
    );
}
