//! Captures through the daemon.

use std::io::{BufRead as _, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use cangw::api::client::Client;
use cangw::capture::line::{Line, Told, Verdict};
use cangw::capture::{Capture, Format};
use cangw_tests::daemon::Daemon;
use cangw_tests::frame::Frame;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::sys;
use cangw_tests::tool::Cangw;

use super::{Groups, NOBODY, PATIENCE, READERS, Served};
use crate::topologies::TWO_BUSES;

/// A capture, begun by a user with a group.
fn begin(served: &Served<'_>, group: u32, capture: &Capture) -> Result<UnixStream, String> {
    let socket = &served.socket;
    sys::as_user(NOBODY, group, || {
        let client = Client::connect(socket);
        let stream = client.and_then(|mut client| client.capture(capture));
        stream.map(UnixStream::from).map_err(|e| e.to_string())
    })
}

/// Everything that comes until the capture is gone.
fn end(stream: UnixStream) -> (Vec<Line>, u64) {
    stream.shutdown(Shutdown::Write).expect("it is connected");
    let (mut lines, mut lost) = (Vec::new(), 0);
    for line in BufReader::new(stream).lines() {
        match serde_json::from_str(&line.expect("a line")).expect("JSON") {
            Told::Frame(line) => lines.push(line),
            Told::Lost { events } => lost = events,
        }
    }
    (lines, lost)
}

/// Whoever may look may capture. A client that does not read, and one that is gone, harm nobody.
#[test]
fn captures_are_for_those_who_may_look() {
    let _groups = Groups::new();
    let gateway = Namespace::new("api");
    let served = Served::new(&gateway, TWO_BUSES);
    let wanted = Capture {
        interfaces: vec!["powertrain".into(), "body".into()],
        ..Capture::default()
    };
    let error = begin(&served, NOBODY, &wanted).expect_err("nobody may look");
    assert!(error.contains("is for root and members"), "{error}");
    let wrong = Capture {
        interfaces: vec!["nothing".into()],
        ..Capture::default()
    };
    let error = begin(&served, READERS, &wrong).expect_err("there is no such interface");
    assert!(error.contains("nothing"), "{error}");
    let deaf = begin(&served, READERS, &wanted).expect("a capture");
    let gone = begin(
        &served,
        READERS,
        &Capture {
            format: Format::Log,
            ..wanted.clone()
        },
    );
    drop(gone.expect("a capture"));
    let reads = begin(&served, READERS, &wanted).expect("a capture");
    let sender = CanSocket::open(&Namespace::of_others("car.engine"), "can0");
    sender.send(&Frame::classic(0x0C8, &[1]));
    sender.send(&Frame::classic(0x7FF, &[1]));
    thread::sleep(Duration::from_millis(500));
    let (lines, lost) = end(reads);
    assert_eq!(lost, 0);
    let gist: Vec<(&str, &str, Verdict)> = lines
        .iter()
        .map(|line| (line.interface.as_str(), line.frame.as_str(), line.verdict))
        .collect();
    assert_eq!(
        gist,
        [
            ("powertrain", "0C8#01", Verdict::Forwarded),
            ("body", "0C8#01", Verdict::Sent),
            ("powertrain", "7FF#01", Verdict::Unmatched),
        ]
    );
    drop(deaf);
    // One that is gone is seen when it is written to, or at once.
    let begun = Instant::now();
    while captures(&gateway) > 0 {
        assert!(begun.elapsed() < PATIENCE, "captures stay");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Ring buffers that the gateway knows.
fn captures(gateway: &Namespace) -> usize {
    let text = gateway.output("bpftool", &["-j", "map", "show"]);
    let maps: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let maps = maps.as_array().expect("a list");
    maps.iter()
        .filter(|map| map["type"] == "ringbuf" && map["name"] == "capture")
        .count()
}

/// A daemon that is killed leaves nothing that the next call does not clear away.
#[test]
fn a_killed_daemon_leaves_no_capture() {
    let gateway = Namespace::new("api");
    let socket = format!("/tmp/cangw-api-{}.sock", std::process::id());
    let mut daemon = Daemon::start(&gateway, &["--socket", &socket]);
    Cangw::Ours.must(&gateway, "settings max-hops 2");
    let mut client = Client::connect(socket.as_ref()).expect("a daemon");
    let stream = client.capture(&Capture::default()).expect("a capture");
    assert_eq!(captures(&gateway), 1);
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    drop(stream);
    Cangw::Ours.must(&gateway, "settings reset");
    Cangw::Ours.must(&gateway, "-F");
    assert_eq!(captures(&gateway), 0);
    assert!(
        !std::path::Path::new("/sys/fs/bpf/cangw").exists(),
        "something is left"
    );
    let _ = std::fs::remove_file(socket);
}

/// The name of a bus that is a device stands for it.
#[test]
fn a_bus_is_captured_by_its_name() {
    let gateway = Namespace::new("api");
    gateway.ip("link add dev9 type vcan\nlink set dev9 up");
    let topology = "version = 1\nname = \"car\"\n[bus.left]\n[bus.right]\ndevice = \"dev9\"\n\
        [ecu.engine]\ninterfaces = { can0 = \"left\" }\n[[route]]\nfrom = \"right\"\nto = \"left\"\n";
    let served = Served::new(&gateway, topology);
    let wanted = Capture {
        interfaces: vec!["right".into()],
        ..Capture::default()
    };
    let mut client = Client::connect(&served.socket).expect("a daemon");
    let stream = client.capture(&wanted).expect("a capture");
    CanSocket::open(&gateway, "dev9").send(&Frame::classic(0x123, &[1]));
    thread::sleep(Duration::from_millis(300));
    let (lines, _) = end(stream.into());
    let verdicts: Vec<(&str, Verdict)> = lines
        .iter()
        .map(|line| (line.interface.as_str(), line.verdict))
        .collect();
    assert_eq!(
        verdicts,
        [("dev9", Verdict::Local), ("dev9", Verdict::Forwarded)]
    );
}
