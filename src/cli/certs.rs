//! `tercet certs`: an authority and certificates for replicas, listeners and clients.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::print;
use crate::exit::{Exit, Failure, OrExit};

/// Years that a certificate is valid. Long, because nothing renews it by itself, and a cluster
/// whose certificates expire together stops.
const VALID_YEARS: i32 = 10;
/// Who may read a key.
const KEY_MODE: u32 = 0o600;
/// Who may read a certificate.
const CERTIFICATE_MODE: u32 = 0o644;

/// Make certificates for the traffic between replicas, and for listeners and clients
#[derive(Debug, Subcommand)]
pub(super) enum CertsCommand {
    /// Make a key and a certificate, and the authority first if there is none yet
    ///
    /// The same command serves [peer.tls], [registry.tls], [ops.tls], [webhook.tls] and clients that
    /// authenticate with a certificate. Whoever has a certificate of the authority in peer.tls.ca can
    /// act as a replica, so give listeners and clients an authority of their own: another --dir.
    New(NewArgs),
}

#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// Directory for ca.pem, ca.key, NAME.pem and NAME.key
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Name of the replica, listener or client; the common name of the certificate
    #[arg(long, value_name = "NAME")]
    name: String,
    /// DNS name or IP address under which others reach it; may be repeated
    #[arg(long = "host", value_name = "HOST", required = true, num_args = 1..)]
    hosts: Vec<String>,
}

pub(super) fn run(command: &CertsCommand) -> Result<(), Failure> {
    let CertsCommand::New(args) = command;
    crate::config::check_replica_name(&args.name)
        .map_err(|problem| Failure::new(Exit::Usage, problem))?;
    if args.name == "ca" {
        let message = "`ca` is the name of the authority's own files; name the replica otherwise";
        return Err(Failure::new(Exit::Usage, message));
    }
    new(args).or_exit(Exit::Io)
}

fn new(args: &NewArgs) -> anyhow::Result<()> {
    let certificate_path = args.dir.join(format!("{}.pem", args.name));
    let key_path = args.dir.join(format!("{}.key", args.name));
    for path in [&certificate_path, &key_path] {
        ensure!(
            !path.exists(),
            "{} is there already and is not overwritten; remove it, or choose another --name",
            path.display()
        );
    }
    std::fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot create {}", args.dir.display()))?;
    let authority = open_or_create_authority(&args.dir)?;

    let mut params = CertificateParams::new(args.hosts.clone())
        .context("--host takes a DNS name or an IP address")?;
    params.distinguished_name.push(DnType::CommonName, args.name.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Every replica is both ends: it dials the others and is dialled by them.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params)?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    create(&key_path, &key.serialize_pem(), KEY_MODE)?;
    create(&certificate_path, &certificate.pem(), CERTIFICATE_MODE)?;

    print::line(&format!(
        "wrote {} and {}\n\n[peer.tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n\n\
         or, with an authority that is not the replicas', [registry.tls], [ops.tls] or [webhook.tls] \
         with certificate and key",
        certificate_path.display(),
        key_path.display(),
        args.dir.join("ca.pem"),
        certificate_path,
        key_path
    ));
    Ok(())
}

fn open_or_create_authority(dir: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let (certificate_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
    match (certificate_path.exists(), key_path.exists()) {
        (true, true) => {
            let key = KeyPair::from_pem(&read(&key_path)?)
                .with_context(|| format!("{} holds no private key", key_path.display()))?;
            Issuer::from_ca_cert_pem(&read(&certificate_path)?, key)
                .with_context(|| format!("{} holds no certificate", certificate_path.display()))
        }
        (false, false) => {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "Tercet authority");
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            set_validity(&mut params)?;
            let certificate = params.self_signed(&key)?;
            create(&key_path, &key.serialize_pem(), KEY_MODE)?;
            create(&certificate_path, &certificate.pem(), CERTIFICATE_MODE)?;
            print::line(&format!(
                "made an authority: {} and {}",
                certificate_path.display(),
                key_path.display()
            ));
            Ok(Issuer::new(params, key))
        }
        (true, false) => bail!(
            "{} is there but {} is not; bring the key, or use another --dir for a new authority",
            certificate_path.display(),
            key_path.display()
        ),
        (false, true) => bail!(
            "{} is there but {} is not; bring the certificate, or use another --dir for a new \
             authority",
            key_path.display(),
            certificate_path.display()
        ),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file that must not exist. The mode is set as it is created, so that a key is never
/// readable by others, not even for a moment.
fn create(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(
        |mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        },
    );
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// From yesterday, because clocks differ.
fn set_validity(params: &mut CertificateParams) -> anyhow::Result<()> {
    const DAY_SECONDS: u64 = 24 * 3_600;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let (year, month, day) = civil_date(now / DAY_SECONDS - 1)?;
    params.not_before = rcgen::date_time_ymd(year, month, day);
    // The 28th is in every month; the day itself may not be, ten years on.
    params.not_after = rcgen::date_time_ymd(year + VALID_YEARS, month, day.min(28));
    Ok(())
}

/// The date of a day counted from 1970-01-01, by walking the years and months.
fn civil_date(mut days: u64) -> anyhow::Result<(i32, u8, u8)> {
    let leap = |year: i32| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    for year in 1970..9999 {
        let february = if leap(year) { 29 } else { 28 };
        for (month, length) in (1_u8..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
        {
            if days < length {
                return Ok((year, month, u8::try_from(days)? + 1));
            }
            days -= length;
        }
    }
    bail!("the clock of this machine is beyond the year 9999")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn args(dir: &Path, name: &str) -> NewArgs {
        NewArgs {
            dir: dir.to_owned(),
            name: name.to_owned(),
            hosts: vec!["127.0.0.1".into(), "localhost".into()],
        }
    }

    #[test]
    fn one_authority_signs_every_replica() {
        let dir = tempfile::tempdir().unwrap();
        new(&args(dir.path(), "tercet-0")).unwrap();
        let authority = read(&dir.path().join("ca.pem")).unwrap();
        new(&args(dir.path(), "tercet-1")).unwrap();
        assert_eq!(read(&dir.path().join("ca.pem")).unwrap(), authority);
        for name in ["tercet-0", "tercet-1"] {
            let files = crate::peer::TlsFiles {
                ca: dir.path().join("ca.pem"),
                certificate: dir.path().join(format!("{name}.pem")),
                key: dir.path().join(format!("{name}.key")),
            };
            crate::peer::PeerTls::load(&files).unwrap();
        }
    }

    #[test]
    fn keys_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        new(&args(dir.path(), "tercet-0")).unwrap();
        for key in ["ca.key", "tercet-0.key"] {
            let mode = std::fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, KEY_MODE, "{key}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        new(&args(dir.path(), "tercet-0")).unwrap();
        let before = read(&dir.path().join("tercet-0.key")).unwrap();
        let refusal = new(&args(dir.path(), "tercet-0")).unwrap_err().to_string();
        assert!(refusal.contains("not overwritten"), "{refusal}");
        assert_eq!(read(&dir.path().join("tercet-0.key")).unwrap(), before);
    }

    #[test]
    fn half_an_authority_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        new(&args(dir.path(), "tercet-0")).unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(new(&args(dir.path(), "tercet-1")).is_err());
        assert!(!dir.path().join("tercet-1.key").exists());
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(civil_date(0).unwrap(), (1970, 1, 1));
        assert_eq!(civil_date(19_782).unwrap(), (2024, 2, 29));
        assert_eq!(civil_date(20_088).unwrap(), (2024, 12, 31));
    }
}
