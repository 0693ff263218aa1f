//! Clients that are wrong, many, fast, or deaf.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cangw_tests::keeper::Keeper;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use serde_json::{Value, json};

use super::{PATIENCE, Served, answer, connect};
use crate::flood::{beside, flood_through};
use crate::topologies::TWO_BUSES;

/// Requests that are wrong in many ways, from a generator that always makes the same ones.
fn malformed(number: u64) -> Vec<u8> {
    const GOOD: [&str; 8] = [
        r#"{"id": "rule_add", "data": {"document": {"version": 1, "rule": [{"source": "body", "target": "powertrain"}]}}}"#,
        r#"{"id": "rule_replace", "data": {"old": {"source": "body", "target": "powertrain"}, "new": {"source": "a", "target": "b"}}}"#,
        r#"{"id": "up", "data": {"file": "x", "text": "version = 1\nname = \"x\"\n"}}"#,
        r#"{"id": "open_socket", "data": {"ecu": "engine", "interface": "can0"}}"#,
        r#"{"id": "interface_set", "data": {"interface": "body", "change": {"exclusive": true}}}"#,
        r#"{"id": "rule_test", "data": {"source": "body", "frame": "123#"}}"#,
        r#"{"id": "settings_set", "data": {"settings": {"max_hops": 1, "log": false}}}"#,
        r#"{"id": "stats", "data": {}, "api": 1}"#,
    ];
    let mut random = fastrand::Rng::with_seed(number);
    let mut bytes = GOOD[random.usize(..GOOD.len())].as_bytes().to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..bytes.len());
        match random.u8(..4) {
            0 => bytes[at] = random.u8(..),
            1 => bytes.truncate(at.max(1)),
            2 => bytes.insert(at, random.u8(..)),
            _ => {
                let piece = bytes[at..].to_vec();
                bytes.extend(piece);
            }
        }
    }
    bytes.retain(|byte| *byte != b'\n');
    bytes
}

/// Each is answered, whatever it is.
fn wrong_requests(socket: &Path) {
    let mut answers = 0;
    for number in 0..1000 {
        let request = malformed(number);
        let mut client = connect(socket);
        let _ = client.write_all(&[&request[..], b"\n"].concat());
        let _ = client.shutdown(Shutdown::Write);
        let mut text = String::new();
        client.read_to_string(&mut text).expect("an answer");
        for line in text.lines() {
            let answer: Value = serde_json::from_str(line).expect("JSON");
            let is_whole = answer["success"] == true || answer["error"].is_string();
            assert!(is_whole, "{}: {line}", String::from_utf8_lossy(&request));
            answers += 1;
        }
    }
    assert_eq!(answers, 1000);
}

/// Each is served, or told why not.
fn many_clients(socket: &Path) {
    const CLIENTS: usize = 200;
    let all: Vec<UnixStream> = (0..CLIENTS).map(|_| connect(socket)).collect();
    for mut client in &all {
        // One that was refused may be closed already.
        let _ = client.write_all(b"{\"id\": \"version\"}\n");
    }
    let mut done = 0;
    for client in &all {
        let answer = answer(client.try_clone().expect("a copy"));
        if answer["success"] == true {
            done += 1;
        } else {
            let error = answer["error"].as_str().expect("a reason");
            assert!(error.contains("no more at once"), "{error}");
        }
    }
    println!("of {CLIENTS} clients at once, {done} were served");
    assert!((64..=128).contains(&done));
}

fn too_fast_and_too_much(socket: &Path) {
    const MANY: usize = 400;
    let mut fast = connect(socket);
    let burst = b"{\"id\": \"version\"}\n".repeat(MANY);
    fast.write_all(&burst).expect("many requests");
    let _ = fast.shutdown(Shutdown::Write);
    let mut text = String::new();
    fast.read_to_string(&mut text).expect("answers");
    assert_eq!(text.lines().count(), MANY, "each is answered");

    let mut much = connect(socket);
    let chunk = vec![b'x'; 1 << 20];
    let sent = (0..8)
        .take_while(|_| much.write_all(&chunk).is_ok())
        .count();
    assert!(sent < 8, "a request without end is cut off");
}

/// Until its socket takes no more answers; then it is left.
fn never_reads(socket: &Path) {
    let mut client = connect(socket);
    client.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let requests = b"{\"id\": \"stats\"}\n".repeat(20);
    let begin = Instant::now();
    while client.write_all(&requests).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "it is left");
        thread::sleep(Duration::from_millis(50));
    }
}

/// 1,000 malformed requests, 200 clients at once, one that sends too fast, one that never reads, one that sends too much; and frames pass.
#[test]
fn nobody_harms_the_daemon_or_the_frames() {
    let _keeper = Keeper::begin();
    let gateway = Namespace::new("api");
    let with_route = TWO_BUSES.replace("\"0C8\"", "\"123\"");
    let served = Served::new(&gateway, &with_route);
    let engine = CanSocket::open(&Namespace::of_others("car.engine"), "can0").deaf();
    let dashboard = CanSocket::open(&Namespace::of_others("car.dashboard"), "can0");
    let (before, _) = served.resources();
    let socket = &served.socket;
    let harm = || {
        wrong_requests(socket);
        many_clients(socket);
        too_fast_and_too_much(socket);
        never_reads(socket);
    };
    let sent = beside(harm, |done| {
        flood_through(&gateway, (&engine, &dashboard), done)
    });
    println!("{sent} frames meanwhile");
    let status = served.ask(r#"{"id": "status"}"#);
    let route = &status["data"][0]["routes"][0];
    assert_eq!(route["handled"], sent, "{status:#}");
    assert_eq!(
        served.ask(r#"{"id": "health"}"#)["data"]["errors"],
        json!([])
    );
    // Descriptors are closed a moment after their clients.
    let begin = Instant::now();
    loop {
        let (after, memory) = served.resources();
        if after <= before {
            println!("{before} descriptors before, {after} after, {memory} KiB");
            assert!(memory < 256 << 10, "{memory} KiB");
            return;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "{before} descriptors before, {after} after"
        );
        thread::sleep(Duration::from_millis(100));
    }
}
