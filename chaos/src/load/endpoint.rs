//! Where a server is, and how to get a connection to it.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, ensure};
use reqwest::Url;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{io::BufReader, net::TcpStream};
use tokio_rustls::TlsConnector;

use super::{failure::Failure, wire::Wire};

/// What is read of the socket at once under TLS. rustls itself asks for 4 KiB at a time: the client would spend its
/// time in system calls, and be slower than the server.
const TLS_READ_BYTES: usize = 64 * 1024;

/// One server of a target.
pub(crate) struct Endpoint {
    address: SocketAddr,
    /// The value of `Host`.
    pub(super) host: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Endpoint {
    /// Resolves a base URL's name, once: name servers are not what is measured.
    pub(crate) fn new(base: &str, ca: Option<&[u8]>) -> Result<Self> {
        let url = Url::parse(base).with_context(|| format!("{base} is no URL"))?;
        let addresses =
            url.socket_addrs(|| None).with_context(|| format!("look up the address of {base}"))?;
        let address = addresses.first().with_context(|| format!("{base} has no address"))?;
        let name = url.host_str().with_context(|| format!("{base} has no host"))?;
        let host = match url.port() {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        };
        let tls = match url.scheme() {
            "https" => {
                let name = name.trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(name)
                    .with_context(|| format!("{base} has no name for a certificate"))?;
                Some((connector(ca.with_context(|| format!("{base} needs a CA"))?)?, name))
            }
            _ => None,
        };
        Ok(Self { address: *address, host, tls })
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Wire, Failure> {
        let socket = TcpStream::connect(self.address).await.map_err(|_| Failure::Connect)?;
        socket.set_nodelay(true).map_err(|_| Failure::Connect)?;
        let Some((connector, name)) = &self.tls else { return Ok(Wire::Plain(socket)) };
        let socket = BufReader::with_capacity(TLS_READ_BYTES, socket);
        let stream = connector.connect(name.clone(), socket).await.map_err(|_| Failure::Tls)?;
        Ok(Wire::Tls(Box::new(stream)))
    }
}

/// TLS 1.3 only: a figure of one version beside a figure of another compares nothing.
fn connector(ca: &[u8]) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate.context("read the CA")?).context("use the CA")?;
    }
    ensure!(!roots.is_empty(), "the CA file holds no certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
