//! Files that do not do, each with the sentence that the operator gets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};

use super::super::source::TlsSource;
use super::super::spec::TlsSpec;
use crate::config::{ClientAuth, ListenerTls};

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A certificate and its key, in PEM.
fn pair(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn refusal(certificate: &Path, key: &Path, client_ca: Option<PathBuf>) -> String {
    let tls = ListenerTls {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        client_ca,
        client_auth: ClientAuth::Optional,
    };
    TlsSource::load(TlsSpec::listener("registry", &tls)).unwrap_err().to_string()
}

#[test]
fn every_refusal_names_key_file_and_reason() {
    let dir = Dir::new();
    let (certificate, key) = pair(|_| {});
    let good = dir.write("good.pem", &certificate);
    let good_key = dir.write("good.key", &key);
    let other_key = dir.write("other.key", &pair(|_| {}).1);
    let old = pair(|params| params.not_after = rcgen::date_time_ymd(2021, 2, 3));
    let (old, old_key) = (dir.write("old.pem", &old.0), dir.write("old.key", &old.1));
    let early = pair(|params| params.not_before = rcgen::date_time_ymd(2999, 2, 3));
    let (early, early_key) = (dir.write("early.pem", &early.0), dir.write("early.key", &early.1));
    let empty = dir.write("empty.pem", "");
    let cut = dir.write("cut.pem", &certificate[..certificate.len() / 2]);
    let huge = dir.write("huge.pem", &"x".repeat(2 << 20));
    let missing = dir.0.path().join("missing.pem");
    for (certificate, key, client_ca, setting, file, reason) in [
        (&missing, &good_key, None, "certificate", &missing, "no such file"),
        (&empty, &good_key, None, "certificate", &empty, "holds no certificate"),
        (&good_key, &good_key, None, "certificate", &good_key, "holds no certificate"),
        (&cut, &good_key, None, "certificate", &cut, "is not PEM"),
        (&huge, &good_key, None, "certificate", &huge, "larger than 1024 KiB"),
        (&old, &old_key, None, "certificate", &old, "expired on Feb  3 00:00:00 2021"),
        (&early, &early_key, None, "certificate", &early, "valid from Feb  3 00:00:00 2999"),
        (&good, &missing, None, "key", &missing, "no such file"),
        (&good, &good, None, "key", &good, "holds no private key"),
        (&good, &other_key, None, "key", &other_key, "is not the key of the certificate in"),
        (&good, &good_key, Some(&missing), "client_ca", &missing, "no such file"),
        (&good, &good_key, Some(&empty), "client_ca", &empty, "holds no certificate"),
    ] {
        let text = refusal(certificate, key, client_ca.cloned());
        let begin = format!("registry.tls.{setting}: {}: ", file.display());
        assert!(text.starts_with(&begin) && text.contains(reason), "{reason}: {text}");
    }
}

#[test]
fn keys_of_every_common_form_are_taken() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
    for (certificate, key) in
        [("rsa.pem", "rsa-pkcs8.key"), ("rsa.pem", "rsa-pkcs1.key"), ("ec.pem", "ec-sec1.key")]
    {
        let tls = ListenerTls {
            certificate: folder.join(certificate),
            key: folder.join(key),
            ..ListenerTls::default()
        };
        TlsSource::load(TlsSpec::listener("ops", &tls)).unwrap();
    }
}
