//! What a load is to be like.

use std::{fmt, str::FromStr, time::Duration};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::content::TAIL_BYTES;

/// More connections than this are a test of the machine.
const CLIENTS_MAX: usize = 4_096;
/// Threads of the load.
const THREADS_MAX: usize = 64;
/// The longest measurement of one target.
const TIME_MAX: Duration = Duration::from_secs(3_600);
/// Operations that an open loop may begin: each that finds no client costs a little even if it is never sent.
const OPEN_OPERATIONS_MAX: f64 = 100_000_000.0;
/// Layers of the image.
const LAYERS_MAX: usize = 64;

/// What the clients do. See `docs/src/load.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// GET of one layer, the layers in turn (or of any path).
    Pull,
    /// GET of the manifest by its tag.
    Manifest,
    /// A blob that nobody has yet, or a whole image of such blobs.
    Push,
    /// PUT of a known manifest under a tag.
    Tags,
    /// All of these, in given shares.
    Mixed,
    /// All clients pull the whole image at once, on new connections.
    Storm,
}

impl Workload {
    /// Its word on the command line and in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Manifest => "manifest",
            Self::Push => "push",
            Self::Tags => "tags",
            Self::Mixed => "mixed",
            Self::Storm => "storm",
        }
    }

    /// Whether there has to be an image before it begins.
    pub(super) fn needs_image(self) -> bool {
        self != Self::Push
    }
}

/// What one operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Pull,
    Manifest,
    Push,
    Tag,
    Storm,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Manifest => "manifest",
            Self::Push => "push",
            Self::Tag => "tag",
            Self::Storm => "storm",
        }
    }
}

/// One server, or several that are measured as one: clients spread over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadTarget {
    /// Its name in reports.
    pub name: String,
    /// Base URLs, one for each server.
    pub urls: Vec<String>,
    /// Processes of the servers on this machine, whose processor time counts.
    pub pids: Vec<u32>,
}

impl FromStr for LoadTarget {
    type Err = String;

    /// From `[NAME=]URL[+URL…]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, urls) = match text.split_once('=') {
            Some((name, urls)) if !name.contains("://") => (name.to_owned(), urls),
            _ => (String::new(), text),
        };
        let urls: Vec<String> =
            urls.split('+').map(|url| url.trim_end_matches('/').to_owned()).collect();
        for url in &urls {
            check_url(url)?;
        }
        let first = urls.first().map_or("", String::as_str);
        let name = match name.is_empty() {
            true => first.split_once("://").map_or(first, |(_, host)| host).to_owned(),
            false => name,
        };
        Ok(Self { name, urls, pids: Vec::new() })
    }
}

fn check_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("{text} is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("{text} is no base URL: begin it with https:// or http://"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || !url.username().is_empty() {
        return Err(format!("{text} is no base URL: it ends with the host and the port"));
    }
    Ok(())
}

/// What a load asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image with layers of these sizes in bytes, which the load pushes first.
    Made(Vec<usize>),
    /// An image that is there already.
    Existing {
        /// Its repository.
        repository: String,
        /// Its tag.
        tag: String,
    },
    /// Any paths, the one after the other. What lies there is not looked into.
    Paths(Vec<String>),
}

/// What a push pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushUnit {
    /// One blob; the sizes of the layers in turn.
    Blob,
    /// All layers, a config, and a manifest under a new tag.
    Image,
}

/// What happens to the bodies of pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// Their bytes are counted; the number must be right.
    Counted,
    /// They are hashed too, and the digest must be right. Costs the client half a second per gigabyte.
    Hashed,
}

/// When an operation begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as the client's last one has ended: the load slows down with the server.
    Closed,
    /// So many per second, whatever the server does. Latencies count from when an operation was due.
    Open {
        /// Operations per second, all clients together.
        per_second: f64,
    },
}

/// What becomes of the data that servers have left in the memory of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It is written when the kernel comes to it.
    Left,
    /// It is written before each measurement (`sync(2)`): no target pays for what another one has put off.
    Synced,
}

/// Shares of the operations of [`Workload::Mixed`], in any unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Of layers that are pulled.
    pub pull: u32,
    /// Of manifests that are pulled.
    pub manifest: u32,
    /// Of pushes.
    pub push: u32,
    /// Of tags that are set.
    pub tags: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { pull: 30, manifest: 60, push: 5, tags: 5 }
    }
}

impl Mix {
    fn shares(&self) -> [(Kind, u32); 4] {
        [
            (Kind::Pull, self.pull),
            (Kind::Manifest, self.manifest),
            (Kind::Push, self.push),
            (Kind::Tag, self.tags),
        ]
    }

    /// The kinds that have a share.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.shares().into_iter().filter(|(_, share)| *share > 0).map(|(kind, _)| kind).collect()
    }

    /// The kind that a random number stands for.
    pub(super) fn draw(&self, random: u64) -> Kind {
        let shares = self.shares();
        let sum: u64 = shares.iter().map(|(_, share)| u64::from(*share)).sum();
        let mut left = random % sum.max(1);
        for (kind, share) in shares {
            match left.checked_sub(u64::from(share)) {
                Some(rest) => left = rest,
                None => return kind,
            }
        }
        Kind::Manifest
    }
}

impl FromStr for Mix {
    type Err = String;

    /// From `pull=30,manifest=60,push=5,tags=5`; what is not named has no share.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut mix = Self { pull: 0, manifest: 0, push: 0, tags: 0 };
        for part in text.split(',') {
            let wrong = || format!("{part:?} is no share, such as pull=30");
            let (name, share) = part.split_once('=').ok_or_else(wrong)?;
            let share = share.parse().map_err(|_| wrong())?;
            match name {
                "pull" => mix.pull = share,
                "manifest" => mix.manifest = share,
                "push" => mix.push = share,
                "tags" => mix.tags = share,
                _ => return Err(wrong()),
            }
        }
        if mix.kinds().is_empty() {
            return Err("nothing has a share".to_owned());
        }
        Ok(mix)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pull, manifest, push, tags } = self;
        write!(formatter, "pull={pull},manifest={manifest},push={push},tags={tags}")
    }
}

/// A whole load: what is done, to whom, how hard and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// What the clients do.
    pub workload: Workload,
    /// Measured one after the other, in another order in each round.
    pub targets: Vec<LoadTarget>,
    /// How often each target is measured.
    pub rounds: usize,
    /// PEM of the only authorities to believe. HTTPS needs it.
    pub ca: Option<Vec<u8>>,
    /// Where the load pushes to, unless [`Source::Existing`] names another one.
    pub repository: String,
    /// What is pulled. The sizes of pushed layers are those of [`Source::Made`].
    pub source: Source,
    /// What a push pushes.
    pub unit: PushUnit,
    /// Bytes of the chunks of a push; without it a blob is sent in one piece.
    pub chunk: Option<usize>,
    /// Number of tag names in use; without it every operation sets a new one.
    pub tags: Option<u64>,
    /// Shares of [`Workload::Mixed`].
    pub mix: Mix,
    /// What happens to the bodies of pulls.
    pub bodies: Bodies,
    /// When an operation begins.
    pub pace: Pace,
    /// Operations under way at a time, each with a connection of its own. A client of a storm has up to three.
    pub clients: usize,
    /// Threads that the clients share.
    pub threads: usize,
    /// How long each target is measured: no operation begins later.
    pub time: Duration,
    /// Most operations of each measurement. Of a storm: most storms.
    pub operations_max: Option<u64>,
    /// The same load before each measurement, which does not count. Any but none is one storm.
    pub warm_up: Duration,
    /// A request that has no whole answer by then has failed.
    pub deadline: Duration,
    /// What all random choices are drawn from.
    pub seed: u64,
    /// What happens to what was written and is not on the disk yet.
    pub rest: Rest,
}

impl LoadOptions {
    /// What makes no sense about this, in words.
    pub fn problem(&self) -> Option<String> {
        let Self { workload, pace, source, .. } = self;
        let storm = *workload == Workload::Storm;
        let path = matches!(source, Source::Paths(_));
        let wrong = [
            (self.targets.is_empty(), "there is no target"),
            (!(1..=CLIENTS_MAX).contains(&self.clients), "--clients is between 1 and 4096"),
            (!(1..=THREADS_MAX).contains(&self.threads), "--threads is between 1 and 64"),
            (self.rounds == 0 || self.rounds > 1_000, "--rounds is between 1 and 1000"),
            (self.time.is_zero() || self.time > TIME_MAX, "--seconds is between 1 and 3600"),
            (self.warm_up > TIME_MAX, "--warm-up is at most 3600"),
            (
                self.deadline.is_zero() || self.deadline > TIME_MAX,
                "--deadline is between 1 and 3600",
            ),
            (self.chunk == Some(0), "--chunk is at least one byte"),
            (self.tags == Some(0), "--tags is at least 1"),
            (storm && *pace != Pace::Closed, "a storm has no --rate: all clients begin at once"),
            (path && *workload != Workload::Pull, "--path is for pull: it is no image"),
            (path && self.bodies == Bodies::Hashed, "--verify needs a digest, and --path has none"),
            (self.needs_ca() && self.ca.is_none(), "an https:// target needs --ca"),
        ];
        let wrong = wrong.into_iter().find(|(is_so, _)| *is_so).map(|(_, why)| why.to_owned());
        wrong.or_else(|| self.wrong_pace()).or_else(|| self.wrong_source())
    }

    fn needs_ca(&self) -> bool {
        let mut urls = self.targets.iter().flat_map(|target| &target.urls);
        urls.any(|url| url.starts_with("https://"))
    }

    fn wrong_pace(&self) -> Option<String> {
        let Pace::Open { per_second } = self.pace else { return None };
        let most = OPEN_OPERATIONS_MAX / self.time.max(self.warm_up).as_secs_f64();
        // Not "<=": of NaN neither is true.
        let right = per_second > 0.0 && per_second <= most;
        (!right).then(|| format!("--rate is above 0 and, for so many seconds, at most {most:.0}"))
    }

    fn wrong_source(&self) -> Option<String> {
        match &self.source {
            Source::Paths(paths) => {
                let wrong = paths.iter().find(|path| !is_path(path));
                let wrong = wrong.map(|path| {
                    format!("{path:?} is no path: begin it with / and encode what is not ASCII")
                });
                wrong.or_else(|| paths.is_empty().then(|| "there is no path".to_owned()))
            }
            Source::Made(sizes) if sizes.is_empty() || sizes.len() > LAYERS_MAX => {
                Some("--layers are between 1 and 64 sizes".to_owned())
            }
            Source::Made(sizes) if sizes.iter().any(|size| *size < TAIL_BYTES) => {
                Some(format!("a layer has at least {TAIL_BYTES} bytes, which make it unique"))
            }
            _ => None,
        }
    }

    /// The kinds of operations that there will be.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        match self.workload {
            Workload::Pull => vec![Kind::Pull],
            Workload::Manifest => vec![Kind::Manifest],
            Workload::Push => vec![Kind::Push],
            Workload::Tags => vec![Kind::Tag],
            Workload::Mixed => self.mix.kinds(),
            Workload::Storm => vec![Kind::Storm],
        }
    }

    /// The sizes of the layers that are pushed; a load of an image that is there already pushes small ones.
    pub(super) fn layers(&self) -> Vec<usize> {
        match &self.source {
            Source::Made(sizes) => sizes.clone(),
            Source::Existing { .. } | Source::Paths(_) => vec![16 << 10],
        }
    }
}

/// Whether it can stand in a request line as it is.
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A load that makes sense.
    pub(in crate::load) fn options() -> LoadOptions {
        LoadOptions {
            workload: Workload::Pull,
            targets: vec!["http://127.0.0.1:5000".parse().unwrap()],
            rounds: 1,
            ca: None,
            repository: "load".to_owned(),
            source: Source::Made(vec![100]),
            unit: PushUnit::Blob,
            chunk: None,
            tags: None,
            mix: Mix::default(),
            bodies: Bodies::Counted,
            pace: Pace::Closed,
            clients: 2,
            threads: 1,
            time: Duration::from_secs(1),
            operations_max: None,
            warm_up: Duration::ZERO,
            deadline: Duration::from_secs(5),
            seed: 7,
            rest: Rest::Left,
        }
    }

    #[test]
    fn a_target_has_a_name_and_one_or_more_urls() {
        let three: LoadTarget = "tercet=http://a:1+http://b:2/+https://[::1]:3".parse().unwrap();
        assert_eq!(three.name, "tercet");
        assert_eq!(three.urls, ["http://a:1", "http://b:2", "https://[::1]:3"]);
        let plain: LoadTarget = "http://127.0.0.1:8080/".parse().unwrap();
        assert_eq!((plain.name.as_str(), plain.urls.len()), ("127.0.0.1:8080", 1));
        for wrong in ["", "a", "a=", "ftp://a", "http://a/v2", "http://a?b=c", "http://me@a", "a=b"]
        {
            assert!(wrong.parse::<LoadTarget>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_mix_is_drawn_by_its_shares() {
        let mix: Mix = "pull=1,push=3".parse().unwrap();
        assert_eq!(mix.kinds(), [Kind::Pull, Kind::Push]);
        let drawn: Vec<Kind> = (0..5).map(|random| mix.draw(random)).collect();
        assert_eq!(drawn, [Kind::Pull, Kind::Push, Kind::Push, Kind::Push, Kind::Pull]);
        assert_eq!(Mix::default().to_string().parse::<Mix>(), Ok(Mix::default()));
        for wrong in ["", "pull", "pull=x", "pull=0", "pull=1,dance=2"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(options().problem(), None);
        let refused = |change: fn(&mut LoadOptions)| {
            let mut options = options();
            change(&mut options);
            assert!(options.problem().is_some(), "{options:?}");
        };
        refused(|options| options.targets.clear());
        refused(|options| options.clients = 0);
        refused(|options| options.time = Duration::ZERO);
        refused(|options| options.pace = Pace::Open { per_second: f64::NAN });
        refused(|options| options.pace = Pace::Open { per_second: 1e12 });
        refused(|options| options.source = Source::Made(vec![1]));
        refused(|options| options.source = Source::Paths(Vec::new()));
        refused(|options| options.source = Source::Paths(vec!["file".to_owned()]));
        refused(|options| options.source = Source::Paths(vec!["/a".to_owned(), "/a b".to_owned()]));
        refused(|options| options.targets = vec!["https://a".parse().unwrap()]);
        refused(|options| {
            options.source = Source::Paths(vec!["/file".to_owned()]);
            options.bodies = Bodies::Hashed;
        });
        refused(|options| {
            options.workload = Workload::Storm;
            options.pace = Pace::Open { per_second: 1.0 };
        });
    }
}
