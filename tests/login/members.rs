//! The authenticator with a real Raft group of one and a clock that the test sets: keys that are not
//! there yet, that are replaced, and tokens that outlive them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use tempfile::TempDir;
use tercet::auth::{
    AccessControl, Authenticated, AuthenticationError, Grants, IssueError, Prepared, Principal,
    RequestFacts, StartParts,
};
use tercet::config::{Config, Robot, Sources};
use tercet::ops::Metrics;
use tercet::peer;
use tercet::worker::Workers;
use tercet_raft::{
    BootstrapOptions, Command, Consensus, FEATURE_LEVEL, InitialMember, MemberKind, Outcome,
    RaftTiming, ReplicaNode, StartOptions, Transport, bootstrap,
};
use tercet_storage::{Clock, DataDir, Headroom, HeadroomOptions, Secret};
use tokio::sync::{mpsc, watch};

use crate::replica::{hash, line};

const ADDRESS: &str = "http://127.0.0.1:9";
const NOW_MS: u64 = 1_795_341_600_000;

struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct Member {
    control: Arc<AccessControl>,
    consensus: Consensus,
    clock: Arc<SetClock>,
    _dir: TempDir,
}

impl Member {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let htpasswd = dir.path().join("htpasswd");
        std::fs::write(&htpasswd, line("alice", "wonderland")).unwrap();
        let mut config = Config::default();
        config.access.htpasswd = Some(htpasswd);
        config.access.robots = vec![Robot {
            name: "brief".to_owned(),
            secret_bcrypt: hash("brief"),
            // Ten minutes after NOW_MS.
            expires: Some("2026-11-22T10:10:00Z".to_owned()),
        }];
        let clock = Arc::new(SetClock(AtomicU64::new(NOW_MS)));
        let metrics = Arc::new(Metrics::new().unwrap());
        let consensus = group_of_one(&dir, Arc::clone(&clock), &metrics).await;
        let prepared = Prepared::load(&config, Sources::default()).await.unwrap();
        let control = prepared.start(StartParts {
            consensus: consensus.clone(),
            clock: Arc::<SetClock>::clone(&clock),
            metrics,
            workers: Workers::new(),
        });
        Self { control, consensus, clock, _dir: dir }
    }

    async fn rotate(&self, expected: Option<&str>, key_id: &str, keep: Duration) {
        let command = Command::RotateTokenKey {
            expected: expected.map(str::to_owned),
            key_id: key_id.to_owned(),
            secret: Secret::new(rand::random()),
            keep_ms: u64::try_from(keep.as_millis()).unwrap(),
        };
        assert_eq!(self.consensus.propose(command).await.unwrap(), Outcome::Done);
    }

    fn pass(&self, time: Duration) {
        self.clock.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn issue(&self, principal: &Principal) -> Result<String, IssueError> {
        let issued = self.control.authenticator.issue(principal, &Grants::default())?;
        Ok(issued.token)
    }

    async fn show(&self, header: &str) -> Result<Authenticated, AuthenticationError> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_str(header).unwrap());
        let facts = RequestFacts { headers: &headers, remote: None, client_certificate: None };
        self.control.authenticator.authenticate(&facts).await
    }

    async fn accepts(&self, token: &str) -> bool {
        match self.show(&format!("Bearer {token}")).await {
            Ok(_) => true,
            Err(AuthenticationError::Refused { .. }) => false,
            Err(other) => panic!("{other}"),
        }
    }
}

async fn group_of_one(dir: &TempDir, clock: Arc<SetClock>, metrics: &Arc<Metrics>) -> Consensus {
    let peers = peer::Client::new(peer::ClientOptions {
        tls: None,
        stall: Duration::from_secs(1),
        metrics: Arc::clone(metrics),
    })
    .unwrap();
    let transport: Arc<dyn Transport> = Arc::new(peer::PeerTransport::new(peers.clone()));
    let clock: Arc<dyn Clock> = clock;
    let data = DataDir::new(dir.path().join("data"));
    std::fs::create_dir_all(data.root()).unwrap();
    let members = || vec![InitialMember { name: "one".to_owned(), address: ADDRESS.to_owned() }];
    let (progress, _told) = watch::channel(String::new());
    let (_invite, invited) = watch::channel(None);
    let identity = bootstrap(BootstrapOptions {
        data: &data,
        own_name: "one",
        kind: MemberKind::Voter,
        initial_members: &members(),
        transport: &transport,
        clock: &clock,
        progress: &progress,
        invited: &invited,
    })
    .await
    .unwrap();
    let (committed_blobs, _committed) = mpsc::channel(16);
    let headroom = Headroom::open(&data, HeadroomOptions::default()).unwrap();
    let consensus = Consensus::start(StartOptions {
        data,
        identity,
        node: ReplicaNode {
            name: "one".to_owned(),
            address: ADDRESS.to_owned(),
            kind: MemberKind::Voter,
            zone: None,
        },
        feature_level: FEATURE_LEVEL,
        initial_members: members(),
        timing: RaftTiming::default(),
        transport,
        clock,
        headroom,
        committed_blobs,
    })
    .await
    .unwrap();
    consensus.write_barrier().await.unwrap();
    consensus
}

fn alice() -> Principal {
    Principal::User("alice".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_made_before_there_is_a_key() {
    let member = Member::start().await;
    assert!(matches!(member.issue(&alice()), Err(IssueError::Unavailable(_))));
    member.rotate(None, "k1", Duration::ZERO).await;
    assert!(member.accepts(&member.issue(&alice()).unwrap()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_of_an_old_key_counts_until_the_key_is_forgotten() {
    let member = Member::start().await;
    let hour = Duration::from_secs(3600);
    member.rotate(None, "k1", hour).await;
    let old = member.issue(&alice()).unwrap();
    member.pass(Duration::from_secs(10));
    member.rotate(Some("k1"), "k2", hour).await;
    assert!(member.accepts(&old).await, "its key has a successor, and is kept");
    let new = member.issue(&alice()).unwrap();
    assert!(member.accepts(&new).await);
    member.pass(Duration::from_secs(10));
    // Now only ten seconds are kept, less than since k1 got its successor.
    member.rotate(Some("k2"), "k3", Duration::from_secs(5)).await;
    assert!(!member.accepts(&old).await, "its key is gone");
    assert!(member.accepts(&new).await, "its key got its successor just now");
    assert!(member.accepts(&member.issue(&alice()).unwrap()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_ends_with_its_time_with_its_user_and_with_its_robot() {
    let member = Member::start().await;
    member.rotate(None, "k1", Duration::ZERO).await;
    let robot = Principal::Robot("brief".to_owned());
    let (alices, nobodys) =
        (member.issue(&alice()).unwrap(), member.issue(&Principal::User("gone".into())).unwrap());
    assert!(member.accepts(&alices).await);
    assert!(!member.accepts(&nobodys).await, "the user does not exist");
    member.pass(Duration::from_secs(300 + 61));
    assert!(!member.accepts(&alices).await, "expired");
    // At nine minutes the robot gets a token for five, and lives for one more.
    member.pass(Duration::from_secs(9 * 60 - 361));
    let robots = member.issue(&robot).unwrap();
    assert!(member.accepts(&robots).await);
    let password = "Basic cm9ib3Q6YnJpZWY6YnJpZWY=";
    assert_eq!(member.show(password).await.unwrap().principal, robot);
    member.pass(Duration::from_secs(61));
    assert!(!member.accepts(&robots).await, "the robot has expired");
    assert!(member.show(password).await.is_err(), "remembered as right, and expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_a_minute_behind_accepts_and_one_that_is_two_does_not() {
    let member = Member::start().await;
    member.rotate(None, "k1", Duration::ZERO).await;
    member.pass(Duration::from_secs(1000));
    let token = member.issue(&alice()).unwrap();
    member.clock.0.fetch_sub(60_000, Ordering::SeqCst);
    assert!(member.accepts(&token).await);
    member.clock.0.fetch_sub(60_000, Ordering::SeqCst);
    assert!(!member.accepts(&token).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_counts_where_there_is_no_header() {
    let member = Member::start().await;
    let (none, mut header) = (HeaderMap::new(), HeaderMap::new());
    header.insert("authorization", HeaderValue::from_static("Basic YWxpY2U6d29uZGVybGFuZA=="));
    let ask = async |headers, client_certificate| {
        let facts = RequestFacts { headers, remote: None, client_certificate };
        member.control.authenticator.authenticate(&facts).await.map(|asked| asked.principal)
    };
    let builder = Principal::Certificate("builder".to_owned());
    assert_eq!(ask(&none, None).await, Ok(Principal::Anonymous));
    assert_eq!(ask(&none, Some("builder")).await, Ok(builder));
    assert_eq!(ask(&header, Some("builder")).await, Ok(alice()));
    let mut wrong = HeaderMap::new();
    wrong.insert("authorization", HeaderValue::from_static("Basic YWxpY2U6d3Jvbmc="));
    assert!(ask(&wrong, Some("builder")).await.is_err());
}
