//! What a certificate says: how long it is valid, and whose it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

use super::error::TlsFault;

/// Authorities date certificates at the moment they sign, and clocks differ.
const EARLY_MAX: Duration = Duration::from_secs(60);
/// A common name has at most 64 characters by X.520; more than a few times that is not a name.
const COMMON_NAME_BYTES_MAX: usize = 256;

/// The time in which a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    not_before: ASN1Time,
    not_after: ASN1Time,
}

impl Validity {
    /// Reads it.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, TlsFault> {
        let parsed = parse(certificate)
            .ok_or_else(|| TlsFault::UnusableCertificate("it is damaged".to_owned()))?;
        let validity = parsed.validity();
        Ok(Self { not_before: validity.not_before, not_after: validity.not_after })
    }

    /// Refuses a certificate that is not valid now.
    pub(super) fn check(&self, now: SystemTime) -> Result<(), TlsFault> {
        if self.expired(now) {
            return Err(TlsFault::Expired(self.not_after.to_string()));
        }
        if seconds(now + EARLY_MAX) < self.not_before.timestamp() {
            return Err(TlsFault::NotYetValid(self.not_before.to_string()));
        }
        Ok(())
    }

    /// Whether its time is over.
    pub(super) fn expired(&self, now: SystemTime) -> bool {
        seconds(now) > self.not_after.timestamp()
    }

    /// Seconds from 1970 to its end.
    pub(super) fn expires(&self) -> i64 {
        self.not_after.timestamp()
    }
}

/// The common name, if there is exactly one that can be written into a rule and a log line. Which
/// of several would be meant, nothing says.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = parse(certificate)?;
    let mut names = parsed.subject().iter_common_name();
    let (only, None) = (names.next()?, names.next()) else { return None };
    let name = only.as_str().ok()?;
    let good = !name.is_empty()
        && name.len() <= COMMON_NAME_BYTES_MAX
        && !name.chars().any(char::is_control);
    good.then(|| name.to_owned())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    rest.is_empty().then_some(parsed)
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    fn day(year: i32, month: u8, day: u8) -> SystemTime {
        rcgen::date_time_ymd(year, month, day).into()
    }

    #[test]
    fn a_certificate_is_valid_from_its_first_to_its_last_second() {
        let validity = Validity::of(&certificate(|params| {
            params.not_before = rcgen::date_time_ymd(2026, 3, 1);
            params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        }))
        .unwrap();
        assert_eq!(validity.check(day(2026, 3, 15)), Ok(()));
        assert_eq!(validity.check(day(2026, 4, 1)), Ok(()));
        let after = validity.check(day(2026, 4, 1) + Duration::from_secs(1)).unwrap_err();
        assert!(after.to_string().contains("expired on Apr  1 00:00:00 2026"), "{after}");
        assert_eq!(validity.check(day(2026, 3, 1) - EARLY_MAX), Ok(()));
        let before = validity.check(day(2026, 2, 28)).unwrap_err();
        assert!(before.to_string().contains("valid from Mar  1"), "{before}");
    }

    #[test]
    fn only_a_single_plain_common_name_is_a_name() {
        let named = |names: &[&str]| {
            common_name(&certificate(|params| {
                for name in names {
                    params.distinguished_name.push(DnType::CommonName, *name);
                }
            }))
        };
        assert_eq!(named(&["builder"]).as_deref(), Some("builder"));
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[""]), None);
        assert_eq!(named(&["two\nlines"]), None);
        assert_eq!(named(&["x".repeat(300).as_str()]), None);
    }
}
