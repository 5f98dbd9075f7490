//! Both functions over real sockets: what clients do right, and what they break off.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidelog_core::limits;
use tidelog_functions::Settings;
use tokio::net::TcpListener;

async fn start(timeout_ms: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = Settings { auto_create_partitions: 1, ..Settings::of("memory:") };
    tokio::spawn(tidelog_http::serve(listener, Arc::new(tidelog_http::app(settings)), timeout_ms));
    address
}

/// Sends bytes as they are, and reads what comes until the other side closes or is silent.
async fn send(address: SocketAddr, bytes: impl AsRef<[u8]>, shut: bool) -> String {
    let bytes = bytes.as_ref().to_vec();
    let talk = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // It may have answered and closed before all is sent.
        let _ = stream.write_all(&bytes);
        if shut {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

fn post(headers: &str, body: &str) -> String {
    format!(
        "POST /v1/topics/logs/records HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: text/plain\r\n{headers}\r\n{body}"
    )
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

async fn stored(address: SocketAddr) -> Vec<String> {
    let get = "GET /v1/topics/logs/partitions/0/records HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = send(address, get, false).await;
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let records = body["records"].as_array().unwrap();
    records.iter().map(|record| record["value"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_break_off_leave_nothing() {
    let address = start(10_000).await;
    assert_eq!(status(&send(address, post("content-length: 3\r\n", "one"), false).await), 200);
    let chunked = post("transfer-encoding: chunked\r\n", "3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(status(&send(address, chunked, false).await), 200);
    for broken in [
        post("content-length: 100\r\n", "half"),
        post("transfer-encoding: chunked\r\n", "5\r\nhal"),
        post("transfer-encoding: chunked\r\n", "zz\r\nhalf\r\n0\r\n\r\n"),
        post("content-length: -1\r\n", "half"),
        post("content-length: 3\r\ncontent-length: 4\r\n", "half"),
        "POST /v1/topics/logs/rec".to_owned(),
        "\0\0\0\0".to_owned(),
    ] {
        let answer = send(address, &broken, true).await;
        assert!([0, 400].contains(&status(&answer)), "{broken:?}: {answer}");
    }
    // The length is a lie: what is above it is another request, and no such one.
    let answer = send(address, post("content-length: 5\r\n", "three-and-more"), true).await;
    assert_eq!(status(&answer), 200);
    assert_eq!(stored(address).await, ["one", "two", "three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_a_limit_and_a_time() {
    let address = start(10_000).await;
    let large = "x".repeat(limits::HTTP_BODY_BYTES_MAX + 1);
    let answer = send(address, post(&format!("content-length: {}\r\n", large.len()), &large), false).await;
    assert!([0, 413].contains(&status(&answer)), "{answer}");
    let unending = post("transfer-encoding: chunked\r\n", &format!("{:x}\r\n{large}", large.len() * 2));
    let answer = send(address, unending, false).await;
    assert!([0, 413].contains(&status(&answer)), "{answer}");
    let address = start(1_000).await;
    let answer = send(address, post("content-length: 100\r\n", "slow"), false).await;
    assert_eq!(status(&answer), 408, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_at_once_are_all_taken() {
    let address = start(20_000).await;
    let posts = (0..64).map(|number| async move {
        let line = format!("line {number:03}");
        status(&send(address, post(&format!("content-length: {}\r\n", line.len()), &line), false).await)
    });
    assert_eq!(futures::future::join_all(posts).await, [200; 64]);
    let mut found = stored(address).await;
    found.sort();
    assert_eq!(found, (0..64).map(|number| format!("line {number:03}")).collect::<Vec<_>>());
}
