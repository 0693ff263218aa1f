//! `cangw dump` and `cangw trace`: nothing that happens to a frame is missing, and what is lost is counted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cangw_tests::frame::Frame;
use cangw_tests::lab::{Lab, Link};
use cangw_tests::namespace::Namespace;
use cangw_tests::recording;
use cangw_tests::socket::CanSocket;
use cangw_tests::sys;
use cangw_tests::tool::Cangw;
use serde_json::{Value, json};

const LINKS: [Link; 3] = [Link::Vxcan("x0"), Link::Vxcan("x1"), Link::Vxcan("x2")];
/// After this time, what has not happened never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A capture that runs.
struct Capture {
    child: Child,
    words: BufReader<ChildStderr>,
}

impl Capture {
    /// Starts `cangw` with arguments and waits until it captures.
    fn begin(namespace: &Namespace, arguments: &str) -> Self {
        let mut child = Cangw::Ours
            .command(namespace)
            .args(arguments.split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cangw runs");
        let mut words = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut first = String::new();
        words.read_line(&mut first).expect("a line");
        assert_eq!(first, "cangw: capturing until it is interrupted\n");
        Self { child, words }
    }

    /// Ends it: what it wrote, and how many frames and lost events it told in the end.
    fn end(mut self) -> (String, u64, u64) {
        sys::signal(self.child.id(), libc::SIGINT).expect("it runs");
        self.wait()
    }

    fn wait(&mut self) -> (String, u64, u64) {
        let mut text = String::new();
        let mut stdout = self.child.stdout.take().expect("it is piped");
        stdout.read_to_string(&mut text).expect("text");
        let mut last = String::new();
        self.words.read_to_string(&mut last).expect("text");
        let numbers: Vec<u64> = last
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        let &[frames, lost] = numbers.as_slice() else {
            panic!("no numbers: {last}");
        };
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "{status}: {last}");
        (text, frames, lost)
    }
}

/// Lines of JSON that are about frames on the given interfaces.
fn lines(text: &str, interfaces: &[&str]) -> Vec<Value> {
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    lines
        .filter(|told: &Value| told["event"] == "frame")
        .map(|mut told| told["data"].take())
        .filter(|line| interfaces.contains(&line["interface"].as_str().expect("a name")))
        .collect()
}

/// What is always the same of a line.
fn gist(line: &Value) -> Value {
    let rules = line["rules"].as_array().map_or(&[][..], Vec::as_slice);
    let rules: Vec<Value> = rules
        .iter()
        .map(|rule| json!([rule["rule"], rule["fate"]]))
        .collect();
    json!([
        line["interface"],
        line["direction"],
        line["frame"],
        line["verdict"],
        rules
    ])
}

fn is_gone(namespace: &Namespace) {
    Cangw::Ours.must(namespace, "-F");
    assert!(
        !Path::new("/sys/fs/bpf/cangw").exists(),
        "something is left"
    );
}

/// Every verdict there is, and every reason why a copy is not sent.
#[test]
fn what_becomes_of_each_frame_is_told() {
    let lab = Lab::new("capture", &[LINKS[0], LINKS[1], LINKS[2], Link::Vcan("v0")]);
    let namespace = &lab.namespace;
    namespace.ip("link add x9 type vxcan peer name x9p");
    let longer = format!(
        "-s x0 -d x1 -X -M OR:L:000.0.40.{} --id 108",
        "00".repeat(64)
    );
    let rules = [
        "-s x0 -d x1 -m SET:D:000.0.FF00000000000000 --id 100",
        "-s x0 -d x2 --id 100",
        "-s x0 -d x1 --id 101 --rate 1/h --burst 1",
        "-s x0 -d x1 --id 102 --drop 100%",
        "-s x0 -d x1 --id 103 --duplicate 100%",
        "-s x0 --drop --id 104",
        "-s v0 -d x0 --id 107",
        "-s x0 -d x9 --id 106",
        "-s x0 -d v0 -e --id 107",
        "-s v0 -d x1 --id 107",
        &longer,
        "-s x0 -d x2 -X --id 109",
        "-s x0 --pass --id 10A",
    ];
    for rule in rules {
        Cangw::Ours.must(namespace, &format!("rule add {rule}"));
    }
    Cangw::Ours.must(namespace, "interface set x0 policy deny");
    Cangw::Ours.must(namespace, "settings max-hops 2");
    namespace.ip("link set x2 down\nlink set x2 mtu 16\nlink set x2 up");
    let capture = Capture::begin(namespace, "dump --json");
    let sender = CanSocket::open(namespace, "x0p").deaf().without_loopback();
    let classic = |id| Frame::classic(id, &[0x11]);
    for id in [
        0x100, 0x101, 0x101, 0x102, 0x103, 0x104, 0x106, 0x107, 0x10A, 0x200,
    ] {
        sender.send(&classic(id));
    }
    for id in [0x108, 0x109] {
        sender.send(&Frame::fd(id, 0, &[1; 12]));
    }
    thread::sleep(Duration::from_millis(500));
    let (text, frames, lost) = capture.end();
    assert_eq!(lost, 0);
    assert_eq!(
        frames,
        lines(
            &text,
            &["x0p", "x0", "x1", "x1p", "x2", "x2p", "v0", "x9", "x9p"]
        )
        .len() as u64
    );
    let told: Vec<Value> = lines(&text, &["x0", "x1", "x2", "v0"])
        .iter()
        .map(gist)
        .collect();
    let rule = |number: usize| rules[number];
    let came = |frame: &str, verdict: &str, rules: &[(usize, &str)]| {
        let rules: Vec<Value> = rules
            .iter()
            .map(|(r, fate)| json!([rule(*r), fate]))
            .collect();
        json!(["x0", "in", frame, verdict, rules])
    };
    let left = |interface: &str, frame: &str, number: usize| {
        json!([interface, "out", frame, "sent", [[rule(number), "sent"]]])
    };
    let expected = [
        came("100#11", "forwarded", &[(1, "sent"), (0, "sent")]),
        left("x1", "100#FF", 0),
        left("x2", "100#11", 1),
        came("101#11", "forwarded", &[(2, "sent")]),
        left("x1", "101#11", 2),
        came("101#11", "not_forwarded", &[(2, "over_rate")]),
        came("102#11", "not_forwarded", &[(3, "fault")]),
        came("103#11", "forwarded", &[(4, "sent"), (4, "sent")]),
        left("x1", "103#11", 4),
        left("x1", "103#11", 4),
        came("104#11", "dropped", &[(5, "drop")]),
        came("106#11", "not_forwarded", &[(7, "not_taken")]),
        came(
            "107#11",
            "forwarded",
            &[(8, "sent"), (9, "sent"), (6, "origin")],
        ),
        left("v0", "107#11", 8),
        json!(["v0", "in", "107#11", "echo", []]),
        left("x1", "107#11", 9),
        came(
            "108##4010101010101010101010101",
            "not_forwarded",
            &[(10, "too_long")],
        ),
        came("10A#11", "passed", &[(12, "pass")]),
        came("200#11", "denied", &[]),
        came(
            "109##4010101010101010101010101",
            "not_forwarded",
            &[(11, "mtu")],
        ),
    ];
    for line in &expected {
        assert!(told.contains(line), "missing: {line}\n{told:#?}");
    }
    Cangw::Ours.must(namespace, "settings reset");
    is_gone(namespace);
}

/// With XDP, and with XDP to all targets at once, the same is told.
#[test]
fn xdp_is_captured() {
    let lab = Lab::new("capture", &LINKS);
    let namespace = &lab.namespace;
    for (rules, targets) in [
        (&["-s x0 -d x1 --id 123"][..], &["x1"][..]),
        (&["-s x0 -d x1", "-s x0 -d x2"][..], &["x2", "x1"][..]),
    ] {
        for rule in rules {
            Cangw::Ours.must(namespace, &format!("rule add {rule}"));
        }
        Cangw::Ours.must(namespace, "interface set x0 exclusive on");
        Cangw::Ours.must(namespace, "interface set x0 engine xdp");
        let capture = Capture::begin(namespace, "dump --json 123");
        let sender = CanSocket::open(namespace, "x0p").deaf().without_loopback();
        sender.send(&Frame::classic(0x123, &[1]));
        sender.send(&Frame::classic(0x124, &[1]));
        thread::sleep(Duration::from_millis(500));
        let (text, _, lost) = capture.end();
        assert_eq!(lost, 0);
        let told: Vec<Value> = lines(&text, &["x0", "x1", "x2"]).iter().map(gist).collect();
        // The newest rule is the first.
        let fates: Vec<Value> = rules
            .iter()
            .rev()
            .map(|rule| json!([rule, "sent"]))
            .collect();
        let mut expected = vec![json!(["x0", "in", "123#01", "forwarded", fates])];
        for (target, fate) in targets.iter().zip(&fates) {
            expected.push(json!([target, "out", "123#01", "sent", [fate]]));
        }
        assert_eq!(told, expected);
        is_gone(namespace);
    }
}

/// A recording at the speed at which it was made: each frame is in the file that Wireshark's own reader opens, with its verdict and its rule.
#[test]
fn a_recording_is_captured_whole() {
    let lab = Lab::new("capture", &LINKS);
    let namespace = &lab.namespace;
    let frames = recording::timed();
    let ids = recording::ids(&recording::frames());
    let mut ids: Vec<u32> = ids.into_keys().collect();
    let unnamed = ids.split_off(ids.len() / 2);
    let rule = format!("-s x0 -d x1 --id {}", recording::list(&ids));
    Cangw::Ours.must(namespace, &format!("rule add {rule}"));
    let file = std::env::temp_dir().join(format!("cangw-{}.pcapng", std::process::id()));
    let path = file.to_str().expect("a text");
    let capture = Capture::begin(namespace, &format!("dump -b x0 -b x1 -w {path}"));
    let sender = CanSocket::open(namespace, "x0p").deaf().without_loopback();
    let begin = Instant::now();
    for (time, frame) in &frames {
        thread::sleep(time.saturating_sub(begin.elapsed()));
        sender.send(frame);
    }
    thread::sleep(Duration::from_millis(500));
    let (_, shown, lost) = capture.end();
    let out = Command::new("tshark")
        .args(["-r", path, "-T", "fields"])
        .args([
            "-e",
            "frame.interface_name",
            "-e",
            "can.id",
            "-e",
            "can.len",
            "-e",
            "data.data",
        ])
        .args(["-e", "frame.packet_flags_direction", "-e", "frame.comment"])
        .output()
        .expect("tshark is installed: `cargo xtask setup` does it");
    let _ = fs::remove_file(&file);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).expect("text");
    let mut expected = Vec::new();
    for (_, frame) in &frames {
        let data: String = frame
            .data()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let row = |interface, direction, comment: &str| {
            let (id, len) = (frame.id(), frame.data().len());
            format!("{interface}\t{id}\t{len}\t{data}\t{direction}\t{comment}")
        };
        if unnamed.contains(&frame.id()) {
            expected.push(row("x0", "0x00000001", "no rule matches"));
        } else {
            expected.push(row(
                "x0",
                "0x00000001",
                &format!("forwarded: to x1 by \"{rule}\""),
            ));
            expected.push(row(
                "x1",
                "0x00000002",
                &format!("sent from x0 by \"{rule}\""),
            ));
        }
    }
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!((lost, shown), (0, expected.len() as u64));
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row, expected);
    }
    is_gone(namespace);
}

/// While nobody reads, the buffer runs full; what is shown and what is lost are together what happened.
#[test]
fn what_finds_no_room_is_counted_exactly() {
    const FRAMES: u32 = 12_000;
    /// A frame leaves by one end of a pair, comes to the other, and so again behind the gateway.
    const EVENTS: u64 = 4;
    let lab = Lab::new("capture", &LINKS);
    let namespace = &lab.namespace;
    Cangw::Ours.must(namespace, "-A -s x0 -d x1");
    let capture = Capture::begin(namespace, "dump --json --buffer 1");
    let sender = CanSocket::open(namespace, "x0p").deaf().without_loopback();
    let receiver = CanSocket::open(namespace, "x1p");
    let mut arrived = 0;
    for number in 0..FRAMES {
        sender.send(&Frame::classic(0x123, &number.to_le_bytes()));
        arrived += receiver.drain().len() as u32;
    }
    while arrived < FRAMES {
        assert_eq!(receiver.lost(), 0);
        receiver
            .receive_within(PATIENCE)
            .expect("each frame arrives");
        arrived += 1;
    }
    // Nothing has been read of it until now but what fits into the pipe.
    let (text, frames, lost) = capture.end();
    assert!(lost > 0, "the buffer was large enough for all");
    assert_eq!(frames + lost, EVENTS * u64::from(FRAMES));
    let mut fates: BTreeMap<String, u32> = BTreeMap::new();
    for line in lines(&text, &["x0"]) {
        *fates.entry(line["verdict"].to_string()).or_default() += 1;
    }
    // Nothing is told to be lost in the gateway which only the capture lost.
    assert!(
        fates
            .keys()
            .all(|verdict| verdict == "\"forwarded\"" || verdict == "\"unknown\""),
        "{fates:?}"
    );
    assert_eq!(Cangw::Ours.list(namespace)[0].handled, u64::from(FRAMES));
    is_gone(namespace);
}

/// A capture that was killed is forgotten by the next call; there is one where there are no rules, and eight at most.
#[test]
fn nothing_is_left_of_captures() {
    let lab = Lab::new("capture", &LINKS);
    let namespace = &lab.namespace;
    let (_, frames, _) = Capture::begin(namespace, "dump").end();
    assert_eq!(frames, 0);
    assert!(
        !Path::new("/sys/fs/bpf/cangw").exists(),
        "something is left"
    );
    let mut captures: Vec<Capture> = (0..8).map(|_| Capture::begin(namespace, "dump")).collect();
    let refused = Cangw::Ours.run(namespace, "dump");
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("more than 8 captures at a time"),
        "{refused:?}"
    );
    for capture in &mut captures {
        sys::signal(capture.child.id(), libc::SIGKILL).expect("it runs");
        let _ = capture.child.wait();
    }
    // Rules come and go beside one that lives.
    let capture = Capture::begin(namespace, "dump --json 123");
    Cangw::Ours.must(namespace, "-A -s x0 -d x1");
    let sender = CanSocket::open(namespace, "x0p").deaf().without_loopback();
    sender.send(&Frame::classic(0x123, &[1]));
    thread::sleep(Duration::from_millis(300));
    Cangw::Ours.must(namespace, "-F");
    sender.send(&Frame::classic(0x123, &[2]));
    Cangw::Ours.must(namespace, "-A -s x0 -d x2");
    sender.send(&Frame::classic(0x123, &[3]));
    thread::sleep(Duration::from_millis(500));
    let (text, ..) = capture.end();
    let told: Vec<Value> = lines(&text, &["x0"]).iter().map(gist).collect();
    assert_eq!(
        told,
        [
            json!(["x0", "in", "123#01", "forwarded", [["-s x0 -d x1", "sent"]]]),
            json!(["x0", "in", "123#02", "no_rules", []]),
            json!(["x0", "in", "123#03", "forwarded", [["-s x0 -d x2", "sent"]]]),
        ]
    );
    is_gone(namespace);
}

/// A frame is followed from where it came to where it left, what it became there included.
#[test]
fn a_frame_is_traced() {
    let lab = Lab::new("capture", &LINKS);
    let namespace = &lab.namespace;
    Cangw::Ours.must(
        namespace,
        "rule add -s x0 -d x1 --id 123 -m SET:I:234.0.0000000000000000",
    );
    Cangw::Ours.must(namespace, "rule add -s x0 -d x2 --id 123 --drop 100%");
    let mut capture = Capture::begin(namespace, "trace 123 -n 1");
    let sender = CanSocket::open(namespace, "x0p").deaf().without_loopback();
    sender.send(&Frame::classic(0x124, &[1]));
    sender.send(&Frame::classic(0x123, &[1]));
    let (text, frames, lost) = capture.wait();
    assert_eq!((frames, lost), (1, 0));
    let rows: Vec<&str> = text.lines().collect();
    let [came, kept, left] = rows.as_slice() else {
        panic!("{text}");
    };
    assert!(came.ends_with(") 123#01 came on x0: forwarded"), "{text}");
    assert_eq!(
        kept.trim_start(),
        "not to x2 by \"-s x0 -d x2 --id 123 --drop 100%\": by the fault --drop"
    );
    assert!(
        left.ends_with(
            " ms  left by x1 as 234#01: \"-s x0 -d x1 -m SET:I:234.0.0000000000000000 --id 123\""
        ),
        "{text}"
    );
    is_gone(namespace);
}
