//! `verify`: a judge of a cluster that this program has not started.
//!
//! It remembers what was acknowledged in a ledger of its own, pulls all of it again from every replica in each later
//! run, does a little work, and checks the histories of its tags across all runs.

mod book;
mod recall;
mod work;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    check::{check_tags, check_unknowns},
    client::{Login, RegistryClient},
    report::{Report, Verdict, judge, reason},
    workload::{Invariant, Kept, Ledger},
};
use book::{Access, Book, Durable, Entry, KeptImage};
use recall::{Given, Recalled, recall};
use work::{Clock, Worker, work};

/// What is checked of a cluster from outside.
const INVARIANTS: [Invariant; 6] =
    [Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I4, Invariant::I7, Invariant::I10];
/// Of the operations that a run was asked to do. If fewer are acknowledged it has shown nothing: a cluster that hardly
/// does anything has no occasion to break a promise.
const FLOOR_SHARE: f64 = 0.1;
/// A client gives up on an answer after this.
const CLIENT_PATIENCE: Duration = Duration::from_secs(15);

/// What a verification asks, and of whom.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Base URLs of the replicas' registries.
    pub targets: Vec<String>,
    /// Where the ledger is.
    pub ledger: PathBuf,
    /// Who to log in as.
    pub login: Option<Login>,
    /// PEM of the only authority to believe; else the system's.
    pub ca: Option<Vec<u8>>,
    /// The repositories below this are the verification's own.
    pub repository: String,
    /// What everything random is drawn from.
    pub seed: u64,
    /// How much it does.
    pub work: Work,
    /// How long a replica may take to give something that is kept.
    pub patience: Duration,
    /// What it may change.
    pub mode: Mode,
    /// Whether every replica has to answer.
    pub strictness: Strictness,
}

/// Bounds of the work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// For how long.
    pub time: Duration,
    /// Operations per second, all clients together.
    pub rate: f64,
    /// Images of one run.
    pub images_max: u64,
    /// Bytes of new layers of one run.
    pub bytes_max: u64,
    /// The largest layer.
    pub layer_max: usize,
}

/// What a verification may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reads only; nothing is added to the ledger either.
    CheckOnly,
    /// Also pushes.
    Work,
    /// Also deletes the images of earlier runs, once they were checked.
    WorkAndPrune,
}

/// How much must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// A replica that does not answer may be down, as long as another one gives everything.
    SomeAnswer,
    /// Without an answer of each replica nothing is shown.
    AllAnswer,
}

/// One replica of somebody else's.
#[derive(Debug)]
struct Target {
    name: String,
    client: RegistryClient,
}

/// Verifies a cluster. What is wrong with it is in the report.
///
/// # Errors
/// If the ledger cannot be used, or a target cannot be asked as it is meant.
pub async fn verify(options: &VerifyOptions) -> Result<Report> {
    let start = Instant::now();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let access = match options.mode {
        Mode::CheckOnly => Access::Read,
        Mode::Work | Mode::WorkAndPrune => Access::Append,
    };
    let mut book = Book::open(&options.ledger, access)?;
    if book.torn > 0 {
        println!("the ledger's last line was not whole ({} bytes): it never counted", book.torn);
    }
    let ledger: Arc<Ledger> = Arc::default();
    let targets = Arc::new(targets(options, &ledger)?);
    let version = greet(&targets).await?;
    let earlier: Vec<Kept> = book.images.iter().flat_map(kept).collect();
    let (runs, images) = (book.runs, book.images.clone());
    for ((repository, tag), history) in std::mem::take(&mut book.histories) {
        for operation in history {
            ledger.record(&repository, &tag, operation);
        }
    }
    println!("{runs} earlier runs have kept {} images", images.len());
    let mut recalled = recall(&ledger, &targets, &earlier, options.patience).await;
    let worker = Arc::new(Worker {
        ledger: Arc::clone(&ledger),
        targets: Arc::clone(&targets),
        clock: Clock::after(book.last),
        // Another ledger on the same cluster has other names, and sets none of these tags.
        repository: match &book.id {
            Some(id) => format!("{}/{id}", options.repository),
            None => options.repository.clone(),
        },
        run: runs + 1,
        seed: options.seed,
        bounds: options.work,
        mode: options.mode,
        book: Arc::new(book),
        prepared: AtomicBool::new(false),
        images: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    });
    if runs > 0 || options.mode != Mode::CheckOnly {
        worker.read_all().await?;
    }
    let mut worked = Worked::default();
    let mut new = Vec::new();
    if options.mode != Mode::CheckOnly {
        worker.begin().await?;
        let (began, before) = (Instant::now(), acknowledged(&ledger));
        new = work(Arc::clone(&worker)).await?;
        worked.seconds = began.elapsed().as_secs_f64();
        worked.acknowledged = acknowledged(&ledger).saturating_sub(before);
        recalled.add(recall(&ledger, &targets, &new, options.patience).await);
        worker.read_all().await?;
        if options.mode == Mode::WorkAndPrune {
            worker.prune(&images).await?;
        }
    }
    let tags = check_tags(&ledger);
    let mut unsure = recalled.unsure.clone();
    unsure.extend(tags.unsure.iter().cloned());
    unsure.extend(silent(options, &targets, &recalled));
    let items = earlier.len() + new.len();
    unsure.extend(idle(options, items, worked, &new));
    let requests = check_unknowns(&ledger, None).await;

    let violations = ledger.violations();
    let mut reasons: Vec<String> =
        violations.iter().map(|(invariant, what)| reason(*invariant, what)).collect();
    let verdict = if !reasons.is_empty() {
        Verdict::Violated
    } else if unsure.is_empty() {
        Verdict::Held
    } else {
        Verdict::Void
    };
    reasons.extend(unsure);
    let mut figures = figures(runs, &earlier, &new, &targets, &recalled);
    figures.insert("requests".to_owned(), requests.into());
    Ok(Report {
        scenario: "verify".to_owned(),
        hypothesis: "everything that this cluster has acknowledged is there, on every replica"
            .to_owned(),
        fault: "none of its own".to_owned(),
        seed: options.seed,
        length: "verify".to_owned(),
        version,
        started_unix_s: started.as_secs(),
        verdict,
        reasons,
        invariants: judge(&INVARIANTS, &violations, verdict),
        acknowledged_per_second: worked.per_second(),
        operations: ledger.counts(),
        tags_checked: tags.tags,
        tag_operations: tags.operations,
        checked_pulls: recalled.pulls(),
        figures,
        timeline: ledger.recorder().timeline(),
        seconds: start.elapsed().as_secs_f64(),
        ..Report::default()
    })
}

fn targets(options: &VerifyOptions, ledger: &Ledger) -> Result<Vec<Target>> {
    ensure!(!options.targets.is_empty(), "a verification needs a target");
    let target = |url: &String| {
        let client = RegistryClient::external(url, options.ca.as_deref(), options.login.clone())?
            .patient_for(CLIENT_PATIENCE)
            .recorded(ledger.recorder(), url);
        Ok(Target { name: url.clone(), client })
    };
    options.targets.iter().map(target).collect()
}

/// Sees whether the targets are registries and know us. Returns what they say they are.
async fn greet(targets: &[Target]) -> Result<String> {
    let mut version = None;
    for target in targets {
        let Ok(answer) = target.client.get("/v2/").await else {
            println!("{} does not answer", target.name);
            continue;
        };
        ensure!(
            !matches!(answer.status, 401 | 403),
            "{} wants another login: {}",
            target.name,
            answer.describe()
        );
        ensure!(
            answer.status == 200 || answer.status >= 500,
            "{} is no registry: {}",
            target.name,
            answer.describe()
        );
        version = version.or_else(|| answer.header("server").map(str::to_owned));
    }
    Ok(version.unwrap_or_else(|| "a cluster that does not say its version".to_owned()))
}

/// What must be there of an image.
fn kept(image: &KeptImage) -> Vec<Kept> {
    let one = |reference: &str, digest: &str, manifest| Kept {
        repository: image.repository.clone(),
        reference: reference.to_owned(),
        digest: digest.to_owned(),
        manifest,
    };
    let mut all =
        vec![one(&image.manifest, &image.manifest, true), one(&image.tag, &image.manifest, true)];
    all.extend(image.blobs.iter().map(|digest| one(digest, digest, false)));
    all
}

/// Targets that gave nothing at all, where each has to.
fn silent(options: &VerifyOptions, targets: &[Target], recalled: &Recalled) -> Vec<String> {
    if options.strictness == Strictness::SomeAnswer {
        return Vec::new();
    }
    let with = targets.iter().zip(&recalled.targets).filter(|(_, given)| given.silent > 0);
    with.map(|(target, given)| {
        format!("{} did not answer for {} things", target.name, given.silent)
    })
    .collect()
}

/// What was done beside the checks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Worked {
    acknowledged: u64,
    seconds: f64,
}

impl Worked {
    fn per_second(self) -> f64 {
        if self.seconds > 0.0 { self.acknowledged as f64 / self.seconds } else { 0.0 }
    }
}

fn acknowledged(ledger: &Ledger) -> u64 {
    let counts = ledger.counts();
    counts.acknowledged_writes + counts.acknowledged_reads
}

/// Why a run in which nothing was wrong shows nothing.
fn idle(options: &VerifyOptions, items: usize, worked: Worked, new: &[Kept]) -> Option<String> {
    if items == 0 {
        return Some("nothing was kept before, and nothing was acknowledged now".to_owned());
    }
    if options.mode == Mode::CheckOnly || options.work.time.is_zero() {
        return None;
    }
    if new.is_empty() {
        return Some("no image was acknowledged in this run".to_owned());
    }
    let floor = options.work.rate * FLOOR_SHARE;
    (worked.per_second() < floor).then(|| {
        format!(
            "{:.1} acknowledged operations per second are fewer than {floor:.1}, a tenth of what was to be done",
            worked.per_second()
        )
    })
}

fn figures(
    runs: u64,
    earlier: &[Kept],
    new: &[Kept],
    targets: &[Target],
    recalled: &Recalled,
) -> BTreeMap<String, Value> {
    let mut figures = BTreeMap::from([
        ("earlier runs".to_owned(), runs.into()),
        ("kept by earlier runs".to_owned(), earlier.len().into()),
        ("kept by this run".to_owned(), new.len().into()),
        ("given by a replica".to_owned(), recalled.found.into()),
    ]);
    for (target, given) in targets.iter().zip(&recalled.targets) {
        let Given { given, broken, refused, silent } = given;
        let text =
            format!("{given} given, {broken} wrong or gone, {refused} refused, {silent} silent");
        figures.insert(format!("from {}", target.name), text.into());
    }
    figures
}

impl Worker {
    /// The book says that a run begins before anything of it is in it.
    async fn begin(&self) -> Result<()> {
        let entry = Entry::Run {
            number: self.run,
            seed: self.seed,
            at: self.clock.now(),
            repository: self.repository.clone(),
            targets: self.targets.iter().map(|target| target.name.clone()).collect(),
        };
        self.note(entry, Durable::Now).await
    }

    /// Deletes images of earlier runs. From before each request on they need not be there.
    async fn prune(&self, images: &[KeptImage]) -> Result<()> {
        let mut deleted = 0_u64;
        for image in images {
            self.note(Entry::Deleting { manifest: image.manifest.clone() }, Durable::Now).await?;
            let path = format!("/v2/{}/manifests/{}", image.repository, image.manifest);
            for target in self.targets.iter() {
                let answer = target.client.delete(&path).await;
                let gone = answer.as_ref().is_ok_and(|answer| answer.status == 404);
                if self.ledger.judge_write(answer, &[202]).is_acknowledged() || gone {
                    deleted += 1;
                    break;
                }
            }
        }
        println!("{deleted} images of earlier runs are deleted");
        Ok(())
    }
}

/// Reads a login's password from a file: its first line.
///
/// # Errors
/// If there is none.
pub fn read_password(path: &std::path::Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let line = text.lines().next().unwrap_or_default();
    ensure!(!line.is_empty(), "{} has no password in its first line", path.display());
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(rate: f64, seconds: u64, mode: Mode) -> VerifyOptions {
        VerifyOptions {
            targets: Vec::new(),
            ledger: PathBuf::new(),
            login: None,
            ca: None,
            repository: String::new(),
            seed: 1,
            work: Work {
                time: Duration::from_secs(seconds),
                rate,
                images_max: 1,
                bytes_max: 1,
                layer_max: 1,
            },
            patience: Duration::ZERO,
            mode,
            strictness: Strictness::SomeAnswer,
        }
    }

    #[test]
    fn hardly_any_work_shows_nothing() {
        let new = [Kept {
            repository: "a".into(),
            reference: "b".into(),
            digest: "sha256:b".into(),
            manifest: true,
        }];
        let work = options(20.0, 30, Mode::Work);
        let worked = |acknowledged| Worked { acknowledged, seconds: 30.0 };
        assert_eq!(idle(&work, 1, worked(300), &new), None);
        assert_eq!(idle(&work, 1, worked(60), &new), None);
        assert!(idle(&work, 1, worked(59), &new).is_some());
        assert!(idle(&work, 9, worked(300), &[]).is_some());
        assert!(idle(&work, 0, worked(300), &new).is_some());
        // Who was to check alone has not been idle.
        assert_eq!(idle(&options(20.0, 30, Mode::CheckOnly), 1, worked(0), &[]), None);
        assert_eq!(idle(&options(20.0, 0, Mode::Work), 1, worked(0), &[]), None);
    }
}
