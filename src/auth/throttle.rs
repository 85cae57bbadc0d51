//! Slows guessing: after some failures each further log-in has to wait for its turn.
//!
//! Counted per address and per user. Both counts live in caches of bounded size, from which the one
//! that was used least recently falls out. Time comes in as an argument, so that tests decide what
//! time it is.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::login::Login;

/// Failures that cost nothing: people mistype.
pub(super) const FREE_FAILURES: u32 = 5;
/// Failures and attempts under way of one address that is not slowed yet; who comes beyond waits for a
/// place. Without it, all guesses of one burst would be free.
const CROWD_MAX: u32 = 16;
/// The first pause; each further failure doubles it.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause of an address.
pub(super) const ADDRESS_PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest pause of a user. Lower, because strangers can cause it.
pub(super) const USER_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Told to somebody who comes while the one permitted attempt is being checked.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Addresses, and users, that are remembered.
const RECORDS_MAX: u64 = 10_000;
/// Failures are forgotten when nothing has failed for so long.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);
/// How long an address from which a user has logged in is not held up by what strangers tried with
/// that user's name.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The counts of one replica.
pub(super) struct Throttle {
    addresses: Cache<Network, Arc<Mutex<Record>>>,
    users: Cache<Login, Arc<Mutex<Record>>>,
    known: Cache<(Login, Network), ()>,
}

/// An IPv4 address, or the /64 network that one customer of an IPv6 provider has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
            }
        })
    }
}

/// Why an attempt is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Come again after so long.
    Pause(Duration),
    /// The address has too many attempts under way; a place may be free in a moment.
    Crowded,
}

impl Held {
    /// What to tell somebody who is not let in.
    pub(super) fn retry_after(self) -> Duration {
        match self {
            Self::Pause(pause) => pause,
            Self::Crowded => BUSY_PAUSE,
        }
    }
}

#[derive(Debug, Default)]
struct Record {
    failures: u32,
    last_failure: Option<Instant>,
    /// Attempts whose password is being checked now.
    in_flight: u32,
    next: Option<Instant>,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self { addresses: records(), users: records(), known: bounded(KNOWN_FOR) }
    }

    /// Lets an attempt through, or says how long to wait before the next. Who is told to wait has cost
    /// nothing.
    pub(super) fn admit(
        &self,
        remote: Option<IpAddr>,
        login: &Login,
        now: Instant,
    ) -> Result<Attempt, Held> {
        let network = remote.map(Network::from);
        let known = network.map(|network| (login.clone(), network));
        let mut attempt = self.admit_address(remote, now)?;
        if !known.as_ref().is_some_and(|known| self.known.contains_key(known)) {
            let record = self.users.get_with(login.clone(), Default::default);
            attempt.user = Some(Place::take(record, &USER, now)?);
        }
        attempt.known = known;
        Ok(attempt)
    }

    /// The same for credentials that name nobody before they are checked.
    pub(super) fn admit_address(
        &self,
        remote: Option<IpAddr>,
        now: Instant,
    ) -> Result<Attempt, Held> {
        let address = remote.map(|remote| {
            let record = self.addresses.get_with(remote.into(), Default::default);
            Place::take(record, &ADDRESS, now)
        });
        let address = address.transpose()?;
        Ok(Attempt { address, user: None, known: None, remember: self.known.clone() })
    }
}

fn records<K: std::hash::Hash + Eq + Send + Sync + 'static>() -> Cache<K, Arc<Mutex<Record>>> {
    bounded(FORGET_AFTER)
}

fn bounded<K, V>(idle: Duration) -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    // Least recently used, not least frequently: a newcomer has to be counted from the first failure.
    Cache::builder()
        .max_capacity(RECORDS_MAX)
        .time_to_idle(idle)
        .eviction_policy(EvictionPolicy::lru())
        .build()
}

/// One attempt that is under way. It tells the counts how it ended.
pub(super) struct Attempt {
    address: Option<Place>,
    user: Option<Place>,
    known: Option<(Login, Network)>,
    remember: Cache<(Login, Network), ()>,
}

impl Attempt {
    /// The password was wrong, or the user does not exist.
    pub(super) fn failed(self, now: Instant) {
        for place in self.address.iter().chain(&self.user) {
            place.failed(now);
        }
    }

    /// The password was right. The user's count begins anew; the address keeps its own, or one who has
    /// an account could log in between guesses at others.
    pub(super) fn succeeded(self) {
        if let Some(user) = &self.user {
            let mut record = lock(&user.record);
            record.failures = 0;
            record.next = None;
        }
        if let Some(known) = &self.known {
            self.remember.insert(known.clone(), ());
        }
    }
}

/// The part of an attempt in one record.
struct Place {
    record: Arc<Mutex<Record>>,
    pause_max: Duration,
}

/// What a kind of record permits.
struct Limits {
    pause_max: Duration,
    crowd_max: u32,
}

const ADDRESS: Limits = Limits { pause_max: ADDRESS_PAUSE_MAX, crowd_max: CROWD_MAX };
/// Many machines may have one robot, and all begin at once.
const USER: Limits = Limits { pause_max: USER_PAUSE_MAX, crowd_max: u32::MAX };

impl Place {
    fn take(record: Arc<Mutex<Record>>, limits: &Limits, now: Instant) -> Result<Self, Held> {
        let mut guard = lock(&record);
        // The cache forgets who is idle. Where others log in all the time, nobody ever is.
        if guard.last_failure.is_some_and(|last| now.duration_since(last) >= FORGET_AFTER) {
            guard.failures = 0;
            guard.last_failure = None;
            guard.next = None;
        }
        if guard.failures >= FREE_FAILURES {
            let wait =
                guard.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
            if !wait.is_zero() {
                return Err(Held::Pause(wait));
            }
            // One at a time from now on, or a burst would be as good as waiting.
            if guard.in_flight > 0 {
                return Err(Held::Pause(BUSY_PAUSE));
            }
        } else if guard.failures.saturating_add(guard.in_flight) >= limits.crowd_max {
            return Err(Held::Crowded);
        }
        guard.in_flight += 1;
        drop(guard);
        Ok(Self { record, pause_max: limits.pause_max })
    }

    fn failed(&self, now: Instant) {
        let mut record = lock(&self.record);
        record.failures = record.failures.saturating_add(1);
        record.last_failure = Some(now);
        if let Some(beyond) = record.failures.checked_sub(FREE_FAILURES) {
            let pause = PAUSE_FIRST.saturating_mul(1 << beyond.min(16)).min(self.pause_max);
            record.next = Some(now + pause);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut record = lock(&self.record);
        record.in_flight = record.in_flight.saturating_sub(1);
    }
}

/// Each change is complete when the lock is let go, whatever happened to its holder.
fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn user(name: &str) -> Login {
        Login::User(name.to_owned())
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn fail(throttle: &Throttle, from: &str, name: &str, now: Instant) -> Result<(), Duration> {
        let admitted = throttle.admit(address(from), &user(name), now);
        admitted.map(|attempt| attempt.failed(now)).map_err(Held::retry_after)
    }

    #[test]
    fn an_address_that_guesses_waits_longer_and_longer_up_to_a_bound() {
        let throttle = Throttle::new();
        let mut now = Instant::now();
        // A new name each time: it is the address that is slowed.
        for attempt in 0..FREE_FAILURES {
            fail(&throttle, "192.0.2.1", &format!("user{attempt}"), now).unwrap();
        }
        for (attempt, pause) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
            let pause = Duration::from_secs(pause);
            let name = format!("other{attempt}");
            assert_eq!(fail(&throttle, "192.0.2.1", &name, now), Err(pause));
            let early = now + pause - Duration::from_millis(1);
            assert_eq!(fail(&throttle, "192.0.2.1", &name, early), Err(Duration::from_millis(1)));
            now += pause;
            fail(&throttle, "192.0.2.1", &name, now).unwrap();
        }
        fail(&throttle, "192.0.2.2", "other0", now).unwrap();
    }

    #[test]
    fn a_user_whose_password_many_addresses_guess_waits_five_seconds_at_most() {
        let throttle = Throttle::new();
        let mut now = Instant::now();
        let mut host = 0;
        let mut guess = |now| {
            host += 1;
            fail(&throttle, &format!("198.51.100.{host}"), "alice", now)
        };
        for _ in 0..FREE_FAILURES {
            guess(now).unwrap();
        }
        for pause in [1, 2, 4, 5, 5] {
            assert_eq!(guess(now), Err(Duration::from_secs(pause)));
            now += Duration::from_secs(pause);
            guess(now).unwrap();
        }
        fail(&throttle, "203.0.113.1", "bob", now).unwrap();
    }

    #[test]
    fn strangers_do_not_hold_up_a_user_where_that_user_has_logged_in_before() {
        let throttle = Throttle::new();
        let now = Instant::now();
        throttle.admit(address("203.0.113.1"), &user("alice"), now).ok().unwrap().succeeded();
        for host in 1..=FREE_FAILURES {
            fail(&throttle, &format!("198.51.100.{host}"), "alice", now).unwrap();
        }
        assert!(fail(&throttle, "198.51.100.9", "alice", now).is_err());
        throttle.admit(address("203.0.113.1"), &user("alice"), now).ok().unwrap().succeeded();
    }

    #[test]
    fn a_success_ends_the_pause_of_the_user_but_not_of_the_address() {
        let throttle = Throttle::new();
        let mut now = Instant::now();
        for _ in 0..FREE_FAILURES {
            fail(&throttle, "192.0.2.1", "alice", now).unwrap();
        }
        now += Duration::from_secs(1);
        throttle.admit(address("192.0.2.1"), &user("alice"), now).ok().unwrap().succeeded();
        fail(&throttle, "192.0.2.2", "alice", now).unwrap();
        fail(&throttle, "192.0.2.1", "bob", now).unwrap();
        assert_eq!(fail(&throttle, "192.0.2.1", "bob", now), Err(Duration::from_secs(2)));
    }

    #[test]
    fn a_burst_is_no_better_than_waiting() {
        let throttle = Throttle::new();
        let mut now = Instant::now();
        for _ in 0..FREE_FAILURES {
            fail(&throttle, "192.0.2.1", "alice", now).unwrap();
        }
        now += Duration::from_secs(1);
        let first = throttle.admit(address("192.0.2.1"), &user("alice"), now).ok().unwrap();
        assert!(throttle.admit(address("192.0.2.1"), &user("alice"), now).is_err());
        assert!(throttle.admit(address("192.0.2.1"), &user("bob"), now).is_err());
        // Given up without an answer: the place is free again, and nothing was learnt.
        drop(first);
        assert!(throttle.admit(address("192.0.2.1"), &user("alice"), now).is_ok());
    }

    #[test]
    fn a_first_burst_of_one_address_is_bounded_and_good_ones_make_place() {
        let throttle = Throttle::new();
        let now = Instant::now();
        let admit = |from: &str| throttle.admit(address(from), &user("alice"), now);
        let mut burst: Vec<Attempt> =
            (0..CROWD_MAX).map(|_| admit("192.0.2.1").ok().unwrap()).collect();
        assert_eq!(admit("192.0.2.1").err(), Some(Held::Crowded));
        assert!(admit("192.0.2.2").is_ok());
        burst.pop().unwrap().succeeded();
        burst.push(admit("192.0.2.1").ok().unwrap());
        for attempt in burst {
            attempt.failed(now);
        }
        assert_eq!(fail(&throttle, "192.0.2.1", "bob", now), Err(ADDRESS_PAUSE_MAX));
    }

    #[test]
    fn failures_fade_also_where_others_log_in_all_the_time() {
        let throttle = Throttle::new();
        let start = Instant::now();
        for _ in 0..FREE_FAILURES {
            fail(&throttle, "192.0.2.1", "alice", start).unwrap();
        }
        for minute in 1..15 {
            let now = start + Duration::from_secs(60 * minute);
            throttle.admit(address("192.0.2.1"), &user("bob"), now).ok().unwrap().succeeded();
        }
        let late = start + FORGET_AFTER - Duration::from_millis(1);
        fail(&throttle, "192.0.2.1", "carol", late).unwrap();
        assert_eq!(fail(&throttle, "192.0.2.1", "carol", late), Err(Duration::from_secs(2)));
        let now = late + FORGET_AFTER;
        for attempt in 0..FREE_FAILURES {
            fail(&throttle, "192.0.2.1", &format!("u{attempt}"), now).unwrap();
        }
        assert!(fail(&throttle, "192.0.2.1", "x", now).is_err());
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let throttle = Throttle::new();
        let now = Instant::now();
        for host in 0..FREE_FAILURES {
            fail(&throttle, &format!("2001:db8:0:1::{host}"), &format!("u{host}"), now).unwrap();
        }
        assert!(fail(&throttle, "2001:db8:0:1:ffff::1", "x", now).is_err());
        assert!(fail(&throttle, "2001:db8:0:2::1", "x", now).is_ok());
        assert_eq!(
            Network::from("::ffff:192.0.2.1".parse::<IpAddr>().unwrap()),
            Network::from("192.0.2.1".parse::<IpAddr>().unwrap())
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let throttle = Throttle::new();
        let now = Instant::now();
        for number in 0..3 * RECORDS_MAX {
            let remote = Some(IpAddr::from((number as u32).to_be_bytes()));
            throttle.admit(remote, &user(&number.to_string()), now).ok().unwrap().failed(now);
        }
        throttle.addresses.run_pending_tasks();
        throttle.users.run_pending_tasks();
        assert!(throttle.addresses.entry_count() <= RECORDS_MAX);
        assert!(throttle.users.entry_count() <= RECORDS_MAX);
    }
}
