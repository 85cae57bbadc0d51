//! TLS of a listener: files become a configuration, and change files become the next one.

mod build;
mod certificate;
mod error;
mod files;
mod peers;
mod reload;
mod source;
mod spec;

pub use error::{TlsFault, TlsFileError};
pub(crate) use peers::{dial_config, dial_nobody};
pub use source::TlsSource;
pub use spec::TlsSpec;
