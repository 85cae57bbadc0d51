//! Mutual TLS over real sockets.

use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::peer::{PeerError, PeerTls, TlsFiles};

/// An authority that signs certificates for replicas.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Files of a replica at `host` that trusts `trusted`.
    fn replica(&self, dir: &Path, host: &str, trusted: &Authority) -> PeerTls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = TlsFiles {
            ca: dir.join("ca.pem"),
            certificate: dir.join("replica.pem"),
            key: dir.join("replica.key"),
        };
        std::fs::write(&files.ca, &trusted.pem).unwrap();
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        PeerTls::load(&files).unwrap()
    }
}

async fn serve_tls(router: Router, tls: &PeerTls) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = tls.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(tls.server_config());
            let router = router.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let service = TowerToHyperService::new(router);
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

fn tls_client(tls: PeerTls) -> Client {
    let metrics = Arc::new(Metrics::new().unwrap());
    let options = ClientOptions { tls: Some(tls), stall: STALL, metrics };
    let client = Client::new(options).unwrap();
    client.set_identity(CLUSTER, 1);
    client
}

#[tokio::test]
async fn only_certificates_of_the_own_authority_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (Authority::new(), Authority::new());
    let server = own.replica(dir.path(), "127.0.0.1", &own);

    let replica = Replica::start("one", 7).await;
    let content = content(1_000_000);
    let blob = put(&replica.blobs, &content).await;
    let address = serve_tls(router(replica.state.clone()), &server).await;
    let at =
        |scheme: &str| Peer { address: format!("{scheme}://{address}"), ..replica.peer.clone() };
    let has = async |client: Client, peer: &Peer| client.has_blob(peer, &blob).await;

    let member = tls_client(own.replica(dir.path(), "127.0.0.1", &own));
    assert_eq!(has(member.clone(), &at("https")).await.unwrap(), Some(1_000_000));
    let fetched = member.fetch_blob(&at("https"), &blob, 1_000_000, None).await.unwrap().unwrap();
    let chunks: Vec<_> = fetched.stream.map(Result::unwrap).collect().await;
    assert!(chunks.concat() == content);

    // Signed by another authority, though it trusts ours.
    let stranger = tls_client(other.replica(dir.path(), "127.0.0.1", &own));
    assert!(has(stranger, &at("https")).await.is_err());
    // Ours, but it does not trust the server.
    let distrustful = tls_client(own.replica(dir.path(), "127.0.0.1", &other));
    let error = has(distrustful, &at("https")).await.unwrap_err();
    assert!(matches!(error, PeerError::NotSent { .. }), "{error}");
    // No certificate at all.
    let mut roots = rustls::RootCertStore::empty();
    let pem = own.pem.as_bytes();
    for certificate in
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::pem_slice_iter(
            pem,
        )
    {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let anonymous = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let anonymous =
        reqwest::Client::builder().tls_backend_preconfigured(anonymous).no_proxy().build().unwrap();
    assert!(anonymous.get(format!("https://{address}/peer/hello")).send().await.is_err());
    // Plain HTTP, from a client that would and one that would not.
    assert!(has(client(1), &at("http")).await.is_err());
    let error = has(member, &at("http")).await.unwrap_err().to_string();
    assert!(error.contains("https://"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_host_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let own = Authority::new();
    let elsewhere = own.replica(dir.path(), "192.0.2.7", &own);
    let replica = Replica::start("one", 7).await;
    let address = serve_tls(router(replica.state.clone()), &elsewhere).await;
    let peer = Peer { address: format!("https://{address}"), ..replica.peer.clone() };
    let member = tls_client(own.replica(dir.path(), "127.0.0.1", &own));
    let error = member.has_blob(&peer, &digest(b"x")).await.unwrap_err();
    assert!(matches!(error, PeerError::NotSent { .. }), "{error}");
}

#[tokio::test]
async fn new_files_are_used_by_both_ends_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    std::fs::create_dir(&here).unwrap();
    std::fs::create_dir(&there).unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let replica = Replica::start("one", 7).await;
    let server = old.replica(&here, "127.0.0.1", &old);
    let dials = old.replica(&there, "127.0.0.1", &old);
    let address = serve_tls(router(replica.state.clone()), &server).await;
    let peer = Peer { address: format!("https://{address}"), ..replica.peer.clone() };
    let asks = async |client: &Client| client.has_blob(&peer, &digest(b"x")).await;
    let client = tls_client(dials.clone());
    asks(&client).await.unwrap();

    let workers = Workers::new();
    for tls in [&server, &dials] {
        let (source, metrics) = (tls.source(), Arc::new(Metrics::new().unwrap()));
        workers.spawn("tls-files", |stop| source.follow(metrics, stop));
    }
    // Writes the files; what it returns would be used by a replica that starts now.
    let started_later = new.replica(&there, "127.0.0.1", &new);
    new.replica(&here, "127.0.0.1", &new);
    let changed = async {
        // A client of its own each time: an open connection stays as it began.
        while asks(&tls_client(started_later.clone())).await.is_err()
            || asks(&tls_client(dials.clone())).await.is_err()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), changed).await.expect("never changed");
    // What was dialled before goes on over the connection that is open.
    asks(&client).await.unwrap();
    assert!(workers.shutdown(Duration::from_secs(5)).await.is_empty());
}
