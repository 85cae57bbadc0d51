//! Which changes of the files come into use, and what is told about the others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::config::ListenerTls;
use crate::server::tls::TlsSpec;

struct Pair {
    certificate: String,
    key: String,
}

fn pair_until(year: i32) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    Pair { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn pair() -> Pair {
    pair_until(3000)
}

struct Files<'a>(&'a Path);

impl Files<'_> {
    fn tls(&self) -> ListenerTls {
        ListenerTls {
            certificate: self.0.join("tls.crt"),
            key: self.0.join("tls.key"),
            ..ListenerTls::default()
        }
    }

    fn write(&self, certificate: &str, key: &str) {
        std::fs::write(self.0.join("tls.crt"), certificate).unwrap();
        std::fs::write(self.0.join("tls.key"), key).unwrap();
    }

    fn follower(&self) -> Follower {
        let source = TlsSource::load(TlsSpec::listener("registry", &self.tls())).unwrap();
        Follower::new(source, Arc::new(Metrics::new().unwrap()))
    }
}

impl Follower {
    fn counts(&self) -> (u64, u64) {
        let of =
            |counters: &prometheus::IntCounterVec| counters.with_label_values(&["registry"]).get();
        (of(&self.metrics.tls_reloads), of(&self.metrics.tls_reload_failures))
    }

    fn expiry(&self) -> i64 {
        self.metrics.tls_certificate_expiry.with_label_values(&["registry"]).get()
    }
}

#[tokio::test]
async fn a_new_pair_is_used_at_once_and_an_unchanged_one_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files(dir.path());
    let (old, new) = (pair(), pair_until(3001));
    files.write(&old.certificate, &old.key);
    let mut follower = files.follower();
    let (before, expiry) = (follower.source.server_config(), follower.expiry());
    follower.look().await;
    assert!(Arc::ptr_eq(&before, &follower.source.server_config()));
    files.write(&new.certificate, &new.key);
    follower.look().await;
    assert!(!Arc::ptr_eq(&before, &follower.source.server_config()));
    assert_eq!(follower.counts(), (1, 0));
    assert!(follower.expiry() > expiry);
}

#[tokio::test]
async fn a_half_written_pair_is_neither_used_nor_told() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files(dir.path());
    let (old, new) = (pair(), pair());
    files.write(&old.certificate, &old.key);
    let mut follower = files.follower();
    files.write(&new.certificate, &old.key);
    follower.look().await;
    assert_eq!(follower.counts(), (0, 0));
    files.write(&new.certificate, &new.key);
    follower.look().await;
    assert_eq!(follower.counts(), (1, 0));
}

#[tokio::test]
async fn bad_files_are_told_once_for_each_content_and_the_old_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files(dir.path());
    let old = pair();
    files.write(&old.certificate, &old.key);
    let mut follower = files.follower();
    let before = follower.source.server_config();
    for (certificate, failures) in
        [("no certificate".to_owned(), 1), (pair_until(2001).certificate, 2)]
    {
        files.write(&certificate, &old.key);
        for _ in 0..5 {
            follower.look().await;
        }
        assert_eq!(follower.counts(), (0, failures));
    }
    std::fs::remove_file(dir.path().join("tls.key")).unwrap();
    for _ in 0..5 {
        follower.look().await;
    }
    assert_eq!(follower.counts(), (0, 3));
    assert!(Arc::ptr_eq(&before, &follower.source.server_config()));
    // The old files, back again, are nothing new.
    files.write(&old.certificate, &old.key);
    follower.look().await;
    assert_eq!(follower.counts(), (0, 3));
}

#[tokio::test]
async fn a_certificate_that_is_early_is_used_when_its_time_comes() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files(dir.path());
    let old = pair();
    files.write(&old.certificate, &old.key);
    let mut follower = files.follower();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2500, 1, 1);
    params.not_after = rcgen::date_time_ymd(2501, 1, 1);
    files.write(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem());
    let contents = Contents::read(&follower.source.spec);
    for _ in 0..3 {
        follower.judge(contents.clone(), SystemTime::now());
    }
    assert_eq!(follower.counts(), (0, 1));
    let then = SystemTime::from(rcgen::date_time_ymd(2500, 6, 1));
    follower.judge(contents, then);
    assert_eq!(follower.counts(), (1, 1));
}

#[tokio::test]
async fn the_certificate_in_use_stays_when_it_expires() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files(dir.path());
    let old = pair();
    files.write(&old.certificate, &old.key);
    let mut follower = files.follower();
    let contents = Contents::read(&follower.source.spec);
    let later = SystemTime::from(rcgen::date_time_ymd(3000, 6, 1));
    follower.judge(contents.clone(), later);
    assert!(follower.expiry_told);
    assert!(follower.source.uses(&contents));
    assert_eq!(follower.counts(), (0, 0));
}

#[tokio::test]
async fn a_secret_that_kubernetes_swaps_by_a_symbolic_link_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (pair(), pair());
    for (version, pair) in [("..1", &old), ("..2", &new)] {
        let folder = dir.path().join(version);
        std::fs::create_dir(&folder).unwrap();
        Files(&folder).write(&pair.certificate, &pair.key);
    }
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
    };
    link("..1", "..data");
    link("..data/tls.crt", "tls.crt");
    link("..data/tls.key", "tls.key");
    let mut follower = Files(dir.path()).follower();
    link("..2", "..data_tmp");
    std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    follower.look().await;
    assert_eq!(follower.counts(), (1, 0));
}
