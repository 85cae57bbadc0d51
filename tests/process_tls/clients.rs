//! What clients can negotiate.

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authority::Authority;
use crate::process::{Replica, connect, first_of};
use crate::until;

#[tokio::test]
async fn both_versions_and_both_protocols_are_spoken() {
    let authority = Authority::new();
    let replica = Replica::with_tls(&authority, "").await;
    for (version, seen) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        for (offered, chosen) in [
            (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
            (&[b"http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let mut config = authority.client(&[version], None);
            config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
            let stream = connect(&replica.registry, config).await.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.protocol_version(), Some(seen));
            assert_eq!(session.alpn_protocol(), chosen);
        }
        // What nobody speaks here is refused, not served as something else.
        let mut config = authority.client(&[version], None);
        config.alpn_protocols = vec![b"gopher".to_vec()];
        assert!(connect(&replica.registry, config).await.is_err());
    }
}

#[tokio::test]
async fn requests_are_answered_over_both_protocols() {
    let authority = Authority::new();
    let replica = Replica::with_tls(&authority, "").await;
    let url = format!("https://{}/v2/", replica.registry);
    let answer = authority.http(None).get(&url).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    let answer = authority.http1().get(&url).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_11));
    // Who trusts another authority does not come in.
    assert!(Authority::new().http(None).get(&url).send().await.is_err());
}

#[tokio::test]
async fn the_whole_chain_is_sent() {
    let authority = Authority::new();
    let mut replica = Replica::new();
    let issued = authority.issue_through_another("registry");
    issued.write(replica.dir.path());
    replica.start(&replica.tls_section("registry"));
    replica.ready().await;
    assert_eq!(replica.shown_to(&authority).await, Some(first_of(&issued)));
}

/// What a server says first on HTTP/2: the window of each stream, and that of the connection.
async fn windows(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> (u32, u32) {
    const SETTINGS: u8 = 4;
    const WINDOW_UPDATE: u8 = 8;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    // RFC 9113, 6.9.2: what both begin with.
    let (mut of_stream, mut of_connection) = (None, 65_535);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.unwrap();
        match head[3] {
            SETTINGS if length > 0 => {
                of_stream = payload.chunks(6).find_map(|setting| {
                    let id = u16::from_be_bytes([setting[0], setting[1]]);
                    let value = u32::from_be_bytes(setting[2..6].try_into().unwrap());
                    (id == INITIAL_WINDOW_SIZE).then_some(value)
                });
            }
            WINDOW_UPDATE => {
                of_connection += u32::from_be_bytes(payload[..4].try_into().unwrap());
                return (of_stream.unwrap(), of_connection);
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_push_over_http2_is_not_held_up_by_small_windows() {
    let authority = Authority::new();
    let replica = Replica::with_tls(&authority, "").await;
    let mut config = authority.client(&[&TLS13], None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut stream = connect(&replica.registry, config).await.unwrap();
    let seen = tokio::time::timeout(crate::HANG, windows(&mut stream)).await.expect("it hangs");
    assert_eq!(seen, (4 << 20, 8 << 20));
}

/// Handshakes of the second of two connections with one client configuration.
async fn second_handshake(replica: &Replica, config: rustls::ClientConfig) -> HandshakeKind {
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&replica.registry, config.clone()).await.unwrap();
        let request = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        // The tickets of TLS 1.3 come with the answer.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
    }
    kinds[1]
}

#[tokio::test]
async fn sessions_are_resumed_unless_a_certificate_would_not_be_asked_for_again() {
    let authority = Authority::new();
    let replica = Replica::with_tls(&authority, "").await;
    for version in [&TLS12, &TLS13] {
        let kind = second_handshake(&replica, authority.client(&[version], None)).await;
        assert_eq!(kind, HandshakeKind::Resumed, "{version:?}");
    }
    let mut asking = Replica::new();
    authority.issue("registry").write(asking.dir.path());
    let ca = authority.write(&asking.path("clients.pem"));
    asking.start(&format!("{}client_ca = {ca:?}\n", asking.tls_section("registry")));
    asking.ready().await;
    let client = authority.issue("client");
    for version in [&TLS12, &TLS13] {
        let config = authority.client(&[version], Some(&client));
        assert_eq!(second_handshake(&asking, config).await, HandshakeKind::Full, "{version:?}");
    }
}

#[tokio::test]
async fn client_certificates_are_optional_or_required_and_of_the_right_authority() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (known, unknown) = (clients.issue("builder"), Authority::new().issue("builder"));
    let old =
        clients.issue_with("builder", |params| params.not_after = rcgen::date_time_ymd(2021, 2, 3));
    for (how, nobody) in [("optional", true), ("required", false)] {
        let mut replica = Replica::new();
        authority.issue("registry").write(replica.dir.path());
        let ca = clients.write(&replica.path("clients.pem"));
        replica.start(&format!(
            "{}client_ca = {ca:?}\nclient_auth = \"{how}\"\n",
            replica.tls_section("registry")
        ));
        replica.ready().await;
        let url = format!("https://{}/v2/", replica.registry);
        let let_in = async |identity| {
            let answer = authority.http(identity).get(&url).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        };
        assert_eq!(let_in(None).await, nobody, "{how}");
        assert!(let_in(Some(&known)).await, "{how}");
        assert!(!let_in(Some(&unknown)).await, "{how}");
        assert!(!let_in(Some(&old)).await, "{how}");
        // With TLS 1.3 a client hears of it before it is counted.
        let failed = "tercet_tls_handshake_failures_total{listener=\"registry\"}";
        until("both failures", async || (replica.metric(failed).await >= Some(2.0)).then_some(()))
            .await;
    }
}
