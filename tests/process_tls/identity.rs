//! What a request carries about its connection, seen by a handler behind the real accept loop.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use rustls::version::{TLS12, TLS13};
use tercet::config::{ClientAuth, Limits, ListenerTls};
use tercet::ops::Metrics;
use tercet::server::{
    ClientCertificate, Scheme, Server, ServerLimits, ServerParts, TlsSource, TlsSpec,
};
use tercet::worker::Workers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::authority::{Authority, Issued};
use crate::process::connect;

async fn tell(request: Request) -> String {
    let scheme = request.extensions().get::<Scheme>().unwrap().as_str();
    let name = request.extensions().get::<ClientCertificate>();
    format!("{scheme} {}", name.map_or("nobody", |certificate| certificate.0.as_str()))
}

async fn serve(tls: Option<TlsSpec>) -> (String, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let parts = ServerParts {
        listener,
        router: Router::new().route("/", get(tell)),
        tls: tls.map(|spec| TlsSource::load(spec).unwrap()),
        limits: ServerLimits::registry(&Limits::default()),
        metrics: Arc::new(Metrics::new().unwrap()),
    };
    (address, Server::start(&Workers::new(), parts))
}

async fn ask(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> String {
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.rsplit("\r\n").next().unwrap().to_owned()
}

#[tokio::test]
async fn a_request_knows_its_scheme_and_the_name_in_its_clients_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    authority.issue("server").write(dir.path());
    let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let ca = clients.write(&dir.path().join("clients.pem"));
    let tls = ListenerTls {
        certificate: certificate.clone(),
        key: key.clone(),
        client_ca: Some(ca.clone()),
        client_auth: ClientAuth::Optional,
    };
    let (address, _server) = serve(Some(TlsSpec::listener("registry", &tls))).await;
    let named = clients.issue("builder");
    let nameless = clients.issue_with("x", |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
    });
    for version in [&TLS12, &TLS13] {
        let ask_as = async |identity: Option<&Issued>| {
            let config = authority.client(&[version], identity);
            ask(connect(&address, config).await.unwrap()).await
        };
        assert_eq!(ask_as(None).await, "https nobody");
        assert_eq!(ask_as(Some(&named)).await, "https builder");
        assert_eq!(ask_as(Some(&nameless)).await, "https nobody");
    }

    let (address, _server) = serve(None).await;
    assert_eq!(ask(tokio::net::TcpStream::connect(&address).await.unwrap()).await, "http nobody");

    // A replica's name is not a client's: what one replica passes on to another must not be taken
    // for a request of somebody whose certificate says `tercet-0`.
    let spec = TlsSpec::replicas(&ca, &certificate, &key);
    let (address, _server) = serve(Some(spec)).await;
    let config = authority.client(&[&TLS13], Some(&clients.issue("tercet-0")));
    assert_eq!(ask(connect(&address, config).await.unwrap()).await, "https nobody");
}
