//! Why the files of a listener cannot be used, in sentences that name key, file and remedy.

use std::path::PathBuf;

/// A file that TLS was configured with is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {}{fault}", of_file(path))]
pub struct TlsFileError {
    /// The key of the configuration: `registry.tls.certificate`.
    pub setting: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: TlsFault,
}

/// What can be wrong with a certificate, key or authority file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// The key of the configuration is missing or empty.
    #[error("no file is named; write the path of a PEM file")]
    Unnamed,
    /// Typically a wrong path, or a volume that is not mounted.
    #[error("there is no such file; write it, or correct the path")]
    Missing,
    /// Typically a key that belongs to root.
    #[error("this process may not read it; let its user read the file and enter the folders above")]
    Forbidden,
    /// Something else that the system said.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Larger than any certificate chain.
    #[error("is larger than {} KiB; name a file of certificates", super::files::FILE_BYTES_MAX / 1024)]
    TooLarge,
    /// Broken between its `BEGIN` and `END` lines.
    #[error("is not PEM: {0}")]
    NotPem(String),
    /// Typically a key where the certificate was meant, or DER.
    #[error("holds no certificate; name a PEM file with at least one")]
    NoCertificate,
    /// Typically a certificate where the key was meant, or a key with a pass phrase.
    #[error("holds no private key; name a PEM file with one, without a pass phrase")]
    NoKey,
    /// The first certificate is damaged.
    #[error("its first certificate cannot be used: {0}")]
    UnusableCertificate(String),
    /// An algorithm that is not supported, or a damaged key.
    #[error("its private key cannot be used: {0}")]
    UnusableKey(String),
    /// Typically one of the two files was replaced and the other was not.
    #[error("is not the key of the certificate in {}; the two files have to be of one pair", certificate.display())]
    KeyMismatch {
        /// The certificate file.
        certificate: PathBuf,
    },
    /// Too old.
    #[error("its certificate expired on {0}; renew it")]
    Expired(String),
    /// Too new, or the clock of this machine is behind.
    #[error("its certificate is valid from {0} only; wait, or set the clock of this machine")]
    NotYetValid(String),
    /// An authority that cannot vouch for anybody.
    #[error("holds an authority that cannot be used: {0}")]
    UnusableAuthority(String),
    /// The parts are good and do not fit together.
    #[error("cannot be used for TLS: {0}")]
    Unusable(String),
}

fn of_file(path: &std::path::Path) -> String {
    if path.as_os_str().is_empty() { String::new() } else { format!("{}: ", path.display()) }
}
