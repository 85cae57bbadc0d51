//! The proxy before a server that gives back what it gets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::{Damage, Direction, Proxy, Weather};
use crate::content::random_bytes;

const PATIENCE: Duration = Duration::from_secs(20);
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Gives back every byte. Ends with the set.
async fn echo() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut served = JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            served.spawn(async move {
                let (mut reads, mut writes) = socket.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
                let _ = writes.shutdown().await;
            });
        }
    });
    (address, tasks)
}

/// Sends everything, says that it is the end, and reads to the end.
async fn exchange(proxy: &Proxy, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(proxy.address()).await?;
    let (mut reads, mut writes) = socket.split();
    let mut answer = Vec::new();
    let send = async {
        writes.write_all(bytes).await?;
        writes.shutdown().await
    };
    let both = async { tokio::try_join!(send, reads.read_to_end(&mut answer)).map(|_| ()) };
    timeout(PATIENCE, both).await.unwrap()?;
    Ok(answer)
}

#[tokio::test]
async fn in_fair_weather_everything_passes_as_it_is() {
    let (target, _server) = echo().await;
    let proxy = Proxy::start(ANY_PORT, target, 1).unwrap();
    let bytes = random_bytes(1, 3 << 20);
    assert!(exchange(&proxy, &bytes).await.unwrap() == bytes);
    let traffic = proxy.traffic();
    assert_eq!((traffic.connections, traffic.bytes), (1, 6 << 20));
    assert_eq!((traffic.corrupted, traffic.resets), (0, 0));
}

#[tokio::test]
async fn a_delay_holds_for_each_direction_by_itself_and_ends_when_it_is_told_to() {
    let (target, _server) = echo().await;
    let proxy = Proxy::start(ANY_PORT, target, 1).unwrap();
    proxy.set(Direction::There, Weather::late(Duration::from_millis(300), Duration::ZERO));
    proxy
        .set(Direction::Back, Weather::late(Duration::from_millis(200), Duration::from_millis(50)));
    let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
    let start = Instant::now();
    socket.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    timeout(PATIENCE, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
    // The same connection, from now on without.
    proxy.clear();
    for _ in 0..20 {
        socket.write_all(b"ping").await.unwrap();
        timeout(PATIENCE, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    }
    assert_eq!(&answer, b"ping");
}

#[tokio::test]
async fn jitter_leaves_the_bytes_in_order() {
    let (target, _server) = echo().await;
    let proxy = Proxy::start(ANY_PORT, target, 1).unwrap();
    proxy.set_both(&Weather::late(Duration::from_millis(2), Duration::from_millis(2)));
    let bytes = random_bytes(2, 300_000);
    assert!(exchange(&proxy, &bytes).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_narrow_link_is_shared_by_its_connections() {
    let (target, _server) = echo().await;
    let proxy = Proxy::start(ANY_PORT, target, 1).unwrap();
    proxy.set(Direction::There, Weather::narrow(200_000));
    let bytes = random_bytes(3, 50_000);
    let start = Instant::now();
    let (one, other) = tokio::join!(exchange(&proxy, &bytes), exchange(&proxy, &bytes));
    assert!(one.unwrap() == bytes && other.unwrap() == bytes);
    assert!(start.elapsed() >= Duration::from_millis(480), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_connection_is_reset_in_the_middle_of_its_bytes() {
    let (target, _server) = echo().await;
    let proxy = Proxy::start(ANY_PORT, target, 1).unwrap();
    proxy.set(Direction::There, Weather::resetting(100_000));
    let error = exchange(&proxy, &random_bytes(4, 1 << 20)).await.unwrap_err();
    // The last is what the end of a connection that was reset before is told.
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::NotConnected];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert_eq!(proxy.traffic().resets, 1);
    // Shorter ones pass.
    assert_eq!(exchange(&proxy, b"short").await.unwrap(), b"short");

    // One that stands still is cut when it is wanted.
    proxy.clear();
    let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
    socket.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    timeout(PATIENCE, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    proxy.reset();
    let error = timeout(PATIENCE, socket.read_exact(&mut answer)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.traffic().resets, 2);
}

#[tokio::test]
async fn bytes_are_damaged_in_one_direction_and_counted() {
    let (target, _server) = echo().await;
    let proxy = Proxy::start(ANY_PORT, target, 1).unwrap();
    proxy.set(Direction::Back, Weather::corrupting(Damage::EveryByte(1_000)));
    let bytes = random_bytes(5, 100_000);
    let answer = exchange(&proxy, &bytes).await.unwrap();
    let wrong = answer.iter().zip(&bytes).filter(|(one, other)| one != other).count();
    assert_eq!((answer.len(), wrong), (100_000, 100));
    assert_eq!(proxy.traffic().corrupted, 100);
}

#[tokio::test]
async fn a_black_hole_holds_what_comes_and_gives_it_when_it_opens() {
    let (target, _server) = echo().await;
    let proxy = Proxy::start(ANY_PORT, target, 1).unwrap();
    proxy.set(Direction::Back, Weather::black_hole());
    let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
    socket.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    let nothing = timeout(Duration::from_millis(300), socket.read_exact(&mut answer)).await;
    assert!(nothing.is_err(), "it got {answer:?}");
    proxy.clear();
    timeout(PATIENCE, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"ping");
}

#[tokio::test]
async fn before_nobody_a_connection_ends_and_with_the_proxy_all_of_them() {
    let gone = TcpListener::bind(ANY_PORT).await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(ANY_PORT, gone, 1).unwrap();
    exchange(&proxy, b"anybody?").await.unwrap_err();

    let (target, _server) = echo().await;
    let proxy = Proxy::start(ANY_PORT, target, 1).unwrap();
    let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
    socket.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    timeout(PATIENCE, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    let address = proxy.address();
    drop(proxy);
    let ended = timeout(PATIENCE, socket.read(&mut answer)).await.unwrap();
    assert!(ended.is_err() || ended.unwrap() == 0);
    TcpStream::connect(address).await.unwrap_err();
}
