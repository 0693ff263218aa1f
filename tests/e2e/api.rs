//! The control socket: who may do what there, what it does, and that nobody harms it or the frames.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cangw::api::client::Client;
use cangw::api::service::Event;
use cangw::api::{methods, service};
use cangw_tests::daemon::Daemon;
use cangw_tests::frame::Frame;
use cangw_tests::keeper::Keeper;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::tool::{Answer, Cangw, Listed, json as printed};
use openmetrics_parser::openmetrics::parse_openmetrics;
use openmetrics_parser::{LabelSet, MetricNumber, OpenMetricsValue};
use serde_json::{Value, json};

use crate::daemon::{Down, File};
use crate::flood::{beside, flood_through};
use crate::topologies::{TWO_BUSES, call};

/// Much longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(60);
/// A user without rights, and groups that no machine has.
const NOBODY: u32 = 65534;
const CHANGERS: u32 = 64_001;
const READERS: u32 = 64_002;

/// A daemon with a control socket.
struct Served<'a> {
    gateway: &'a Namespace,
    daemon: Daemon,
    socket: PathBuf,
    _file: Option<File>,
    _down: Down<'a>,
}

impl<'a> Served<'a> {
    fn new(gateway: &'a Namespace, topology: &str) -> Self {
        Self::with(gateway, Some(File::new(topology)))
    }

    fn with(gateway: &'a Namespace, file: Option<File>) -> Self {
        let socket = PathBuf::from(format!("/tmp/cangw-api-{}.sock", std::process::id()));
        let path = socket.to_str().expect("a text").to_owned();
        let mut arguments = vec!["--socket", &path];
        arguments.extend(file.as_ref().map(File::path));
        Self {
            gateway,
            daemon: Daemon::start(gateway, &arguments),
            socket,
            _file: file,
            _down: Down(gateway),
        }
    }

    /// The answer to a line, on a connection of its own.
    fn ask(&self, request: &str) -> Value {
        let mut client = connect(&self.socket);
        client
            .write_all(format!("{request}\n").as_bytes())
            .expect("a request");
        answer(client)
    }

    /// `cangw` as a user with a group, through the daemon.
    fn cangw(&self, group: u32, arguments: &str) -> Answer {
        let mut command = self.gateway.command("setpriv");
        command
            .args([
                "--reuid",
                &NOBODY.to_string(),
                "--regid",
                &NOBODY.to_string(),
            ])
            .args(["--groups", &group.to_string()])
            .arg(Cangw::Ours.path())
            .args(arguments.split_whitespace())
            .env("CANGW_SOCKET", &self.socket);
        command.output().expect("setpriv runs").into()
    }

    /// Open descriptors of the daemon, and the kilobytes of memory that it has.
    fn resources(&self) -> (usize, u64) {
        let process = PathBuf::from(format!("/proc/{}", self.daemon.id()));
        let descriptors = fs::read_dir(process.join("fd")).expect("descriptors");
        let status = fs::read_to_string(process.join("status")).expect("a status");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let memory = line.and_then(|l| l.trim().split(' ').next()?.parse().ok());
        (descriptors.count(), memory.expect("a number"))
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

fn connect(socket: &Path) -> UnixStream {
    let client = UnixStream::connect(socket).expect("the daemon takes clients");
    client
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket can wait");
    client
}

/// The next line from the daemon.
fn answer(client: UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(client)
        .read_line(&mut line)
        .expect("an answer");
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
}

/// The groups of the daemon's clients, in this guest.
struct Groups;

impl Groups {
    fn new() -> Self {
        let own = Path::new("/tmp/cangw-test-group");
        let mut text = fs::read_to_string("/etc/group").expect("there are groups");
        text += &format!("cangw:x:{CHANGERS}:\ncangw-read:x:{READERS}:\n");
        fs::write(own, text).expect("a file can be written");
        mount(&["--bind", "/tmp/cangw-test-group", "/etc/group"]);
        Self
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("/etc/group").status();
        let _ = fs::remove_file("/tmp/cangw-test-group");
    }
}

fn mount(arguments: &[&str]) {
    let status = Command::new("mount").args(arguments).status();
    assert!(status.expect("mount runs").success(), "{arguments:?}");
}

#[test]
fn groups_say_who_may_do_what() {
    let _groups = Groups::new();
    let gateway = Namespace::new("api");
    let served = Served::new(&gateway, TWO_BUSES);
    const ADD: &str = "rule add -s body -d powertrain -f 111:7FF";
    for (group, looks, changes) in [
        (NOBODY, false, false),
        (READERS, true, false),
        (CHANGERS, true, true),
    ] {
        for (words, may) in [
            ("rule list", looks),
            ("stats --json", looks),
            ("status", looks),
            ("settings show", looks),
            (ADD, changes),
            ("interface set body exclusive on", changes),
            ("settings max-hops 2", changes),
            ("sync", changes),
            ("down car", changes),
        ] {
            let answer = served.cangw(group, words);
            assert_eq!(answer.code == 0, may, "{group}: {words}: {answer:?}");
            if !may {
                let reason = "is for root and members of the group cangw";
                assert!(answer.stderr.contains(reason), "{words}: {answer:?}");
            }
        }
        let there = Cangw::Ours.list(&gateway).len();
        assert_eq!(there, if changes { 1 } else { 3 }, "{group}");
    }
    assert_eq!(call(&gateway, "up", TWO_BUSES).code, 0);
}

/// A socket of an ECU comes to a process that could not open it, and sends.
#[test]
fn an_unprivileged_client_gets_the_socket_of_an_ecu() {
    let _groups = Groups::new();
    let gateway = Namespace::new("api");
    let served = Served::new(&gateway, TWO_BUSES);
    let receiver = CanSocket::open(&Namespace::of_others("car.brakes"), "can0");
    let program = std::env::current_exe().expect("a program");
    let run = |group: u32, ecu: &str| -> Answer {
        // This test's own executable, as another user.
        let mut command = gateway.command("setpriv");
        command
            .args([
                "--reuid",
                &NOBODY.to_string(),
                "--regid",
                &NOBODY.to_string(),
            ])
            .args(["--groups", &group.to_string()])
            .arg(&program)
            .args(["--exact", "api::as_a_client", "--ignored", "--nocapture"])
            .env("CANGW_SOCKET", &served.socket)
            .env("ECU", ecu);
        command.output().expect("setpriv runs").into()
    };
    let answer = run(CHANGERS, "engine");
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(receiver.receive(), Frame::classic(0x123, &[1, 2, 3]));
    for (group, ecu, reason) in [
        (
            READERS,
            "engine",
            "is for root and members of the group cangw",
        ),
        (
            NOBODY,
            "engine",
            "is for root and members of the group cangw",
        ),
        (CHANGERS, "motor", "motor does not name one ECU"),
    ] {
        let answer = run(group, ecu);
        assert_ne!(answer.code, 0, "{answer:?}");
        let said = answer.stdout + &answer.stderr;
        assert!(said.contains(reason), "{said}");
    }
}

/// What a client does, for the test above: no test by itself.
#[test]
#[ignore = "a part of another test, which runs it as another user"]
fn as_a_client() {
    let socket = std::env::var_os("CANGW_SOCKET").expect("a test calls this");
    let ecu = std::env::var("ECU").expect("a test calls this");
    let mut client = Client::connect(Path::new(&socket)).expect("a daemon");
    let socket = client
        .open_socket(&ecu, "can0", false)
        .unwrap_or_else(|e| panic!("{e}"));
    CanSocket::from(socket).send(&Frame::classic(0x123, &[1, 2, 3]));
}

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
        let _ = client.shutdown(std::net::Shutdown::Write);
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
    let _ = fast.shutdown(std::net::Shutdown::Write);
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

/// `cangw` changes the gateway through the daemon, and a topology that it brings up is kept.
#[test]
fn cangw_goes_through_the_daemon() {
    let gateway = Namespace::new("api");
    let served = Served::with(&gateway, None);
    let cangw = |words: &str| -> Answer {
        let mut command = Cangw::Ours.command(&gateway);
        command
            .args(words.split_whitespace())
            .env("CANGW_SOCKET", &served.socket);
        command.output().expect("cangw runs").into()
    };
    let file = "/tmp/cangw-api.toml";
    fs::write(file, TWO_BUSES).expect("a file can be written");
    let answer = cangw(&format!("up {file}"));
    assert!(answer.stderr.contains("+ ECU engine\n"), "{answer:?}");
    assert_eq!(cangw(&format!("diff {file}")).stdout, "");
    // The daemon makes it again.
    gateway.ip("link del body");
    let begin = Instant::now();
    while !call(&gateway, "diff", TWO_BUSES).stdout.is_empty() {
        assert!(begin.elapsed() < PATIENCE, "{}", served.daemon.log());
        thread::sleep(Duration::from_millis(50));
    }
    // Errors are those of cangw itself, with its exit codes.
    for words in [
        "-D -s body -d powertrain",
        "-A -s body -d nothing",
        "rule test -s body --frame x",
    ] {
        let (direct, through) = (Cangw::Ours.run(&gateway, words), cangw(words));
        assert_eq!(direct, through, "{words}");
        assert_ne!(direct.code, 0, "{words}");
    }
    let answer = cangw("down car");
    assert!(answer.stderr.contains("- ECU engine\n"), "{answer:?}");
    thread::sleep(Duration::from_millis(300));
    assert!(!Path::new("/run/netns/car").exists(), "it is kept no more");
    let _ = fs::remove_file(file);
}

/// What happens comes to clients that listen.
#[test]
fn events_are_told() {
    let gateway = Namespace::new("api");
    let served = Served::new(&gateway, TWO_BUSES);
    let client = Client::connect(&served.socket).expect("a daemon");
    let mut events = client.events().expect("events");
    let mut until = |what: &str, is_it: &dyn Fn(&Event) -> bool| {
        let found = events.any(|event| is_it(&event.expect("an event")));
        assert!(found, "no more events: {what}");
    };
    // Nobody knows when the first look is made, with which the others are compared.
    let mut number = 0;
    let appears = |name: String| gateway.ip(&format!("link add {name} type vcan"));
    thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        scope.spawn(move || {
            while told.recv_timeout(Duration::from_secs(1)).is_err() {
                number += 1;
                appears(format!("new{number}"));
            }
        });
        until(
            "an interface",
            &|event| matches!(event, Event::Interface { name, present: true, up: false, .. } if name.starts_with("new")),
        );
        tell.send(()).expect("a thread");
    });
    gateway.ip("link set body down");
    until(
        "it goes down",
        &|event| matches!(event, Event::Interface { name, up: false, .. } if name == "body"),
    );
    gateway.ip("link set body up");
    Cangw::Ours.must(&gateway, "-A -s body -d powertrain -f 111:7FF");
    until(
        "a rule",
        &|event| matches!(event, Event::Rule { rule, present: true, waiting_for: None } if rule.contains("111:7FF")),
    );
    Cangw::Ours.must(&gateway, "-D -s body -d powertrain -f 111:7FF");
    until(
        "a rule is gone",
        &|event| matches!(event, Event::Rule { rule, present: false, .. } if rule.contains("111:7FF")),
    );
    // The route of the fuel level takes 10 frames a second.
    let engine = CanSocket::open(&Namespace::of_others("car.engine"), "can0");
    for _ in 0..50 {
        engine.send(&Frame::classic(0x1F0, &[1]));
    }
    until(
        "frames above a rate",
        &|event| matches!(event, Event::Overload { rule, frames } if rule.contains("--rate 10/s") && *frames > 0),
    );
}

/// What a strict parser reads is what `cangw stats` says.
#[test]
fn metrics_are_the_counters() {
    let gateway = Namespace::new("api");
    let _down = Down(&gateway);
    let file = File::new(TWO_BUSES);
    let port = "127.0.0.1:9465";
    let path = "/tmp/cangw-metrics.sock";
    let refused = Daemon::spawn(&gateway, &[file.path(), "--metrics", "0.0.0.0:9465"]).wait();
    assert!(!refused.success());
    for address in [port, path] {
        let _daemon = Daemon::start(&gateway, &[file.path(), "--metrics", address]);
        let engine = CanSocket::open(&Namespace::of_others("car.engine"), "can0");
        let dashboard = CanSocket::open(&Namespace::of_others("car.dashboard"), "can0");
        for id in [0xC8, 0xC8, 0x1F0, 0x700] {
            engine.send(&Frame::classic(id, &[1]));
        }
        for _ in 0..3 {
            let _ = dashboard.receive();
        }
        let text = gateway.enter(|| scrape(address, "/metrics"));
        let stats = printed(&gateway, "stats --json");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("application/openmetrics-text"), "{head}");
        let metrics = parse_openmetrics(body).unwrap_or_else(|e| panic!("{e}:\n{body}"));
        let value = |family: &str, labels: &[(&str, &str)]| -> u64 {
            let family = &metrics.families[family];
            let is_it = |set: &LabelSet| {
                let mut labels = labels.iter();
                labels.all(|(name, value)| set.get_label_value(name) == Some(value))
            };
            let mut samples = family.iter_samples();
            let sample = samples.find(|s| s.get_labelset().is_ok_and(|set| is_it(&set)));
            let number = match &sample.expect("a sample").value {
                OpenMetricsValue::Counter(counter) => &counter.value,
                OpenMetricsValue::Gauge(number) => number,
                other => panic!("{other:?}"),
            };
            match number {
                MetricNumber::Int(number) => *number as u64,
                MetricNumber::Float(number) => *number as u64,
            }
        };
        let rules = stats["rules"].as_array().expect("rules");
        assert_eq!(rules.len(), 3);
        let listed = Cangw::Ours.list(&gateway);
        for (rule, Listed { rule: text, .. }) in rules.iter().zip(&listed) {
            for result in [
                "handled",
                "dropped_refused",
                "dropped_over_rate",
                "skipped_origin",
            ] {
                let labels = [
                    ("rule", text.trim_end()),
                    ("topology", "car"),
                    ("result", result),
                ];
                let found = value("cangw_rule_frames", &labels);
                assert_eq!(Value::from(found), rule[result], "{labels:?}");
            }
        }
        for interface in stats["interfaces"].as_array().expect("interfaces") {
            let name = interface["name"].as_str().expect("a name");
            for (reason, frames) in interface["reasons"].as_object().expect("reasons") {
                let labels = [("interface", name), ("reason", reason)];
                let found = value("cangw_interface_frames", &labels);
                assert_eq!(Value::from(found), *frames, "{labels:?}");
            }
        }
        assert!(
            value(
                "cangw_link_frames",
                &[("interface", "body"), ("direction", "tx")]
            ) >= 3
        );
        assert_eq!(value("cangw_rules", &[("state", "in force")]), 3);
        assert!(value("cangw_filters", &[("interface", "powertrain")]) > 1);
        assert_eq!(value("cangw_link_up", &[("interface", "body")]), 1);
        assert_eq!(value("cangw_topologies", &[]), 1);
        let other = gateway.enter(|| scrape(address, "/"));
        assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
    }
    let _ = fs::remove_file(path);
}

/// What comes by HTTP from an address or a path.
fn scrape(address: &str, page: &str) -> String {
    let request = format!("GET {page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    if address.starts_with('/') {
        let mut stream = UnixStream::connect(address).expect("a server");
        stream.write_all(request.as_bytes()).expect("a request");
        stream.read_to_string(&mut text).expect("a page");
    } else {
        let mut stream = TcpStream::connect(address).expect("a server");
        stream.write_all(request.as_bytes()).expect("a request");
        stream.read_to_string(&mut text).expect("a page");
    }
    text
}

/// The exchanges in docs/api.md.
#[test]
fn the_documented_exchanges_are_real() {
    let gateway = Namespace::new("api");
    let served = Served::new(&gateway, TWO_BUSES);
    let text = include_str!("../../docs/api.md");
    let mut methods = std::collections::BTreeSet::new();
    for block in text.split("```exchange\n").skip(1) {
        let block = block.split("```").next().expect("a block");
        let lines: Vec<&str> = block.lines().collect();
        for exchange in lines.chunks(2) {
            let [request, expected] = exchange else {
                panic!("a request without an answer: {exchange:?}");
            };
            let answer = served.ask(request);
            let expected: Value = serde_json::from_str(expected).expect("JSON");
            assert!(
                is_like(&answer, &expected),
                "{request}\nis answered\n{answer}\nand not\n{expected}"
            );
            let request: Value = serde_json::from_str(request).expect("JSON");
            methods.insert(request["id"].as_str().expect("a method").to_owned());
        }
    }
    let all = methods::ALL.iter().chain(service::ALL);
    for (method, _) in all {
        assert!(
            methods.contains(*method) || *method == "rule_flush",
            "{method} is documented"
        );
    }
}

/// Whether a value is as in the documentation, where `…` stands for what is left out.
fn is_like(value: &Value, expected: &Value) -> bool {
    const REST: &str = "…";
    match (value, expected) {
        (_, Value::String(text)) if text == REST => true,
        (Value::String(value), Value::String(text)) => match text.split_once(REST) {
            Some((begin, end)) => value.starts_with(begin) && value.ends_with(end),
            None => value == text,
        },
        (Value::Array(values), Value::Array(expected)) => {
            let rest = expected.last().is_some_and(|last| last == REST);
            let known = expected.len() - usize::from(rest);
            (values.len() == known || rest && values.len() >= known)
                && values
                    .iter()
                    .zip(&expected[..known])
                    .all(|(v, e)| is_like(v, e))
        }
        (Value::Object(values), Value::Object(expected)) => {
            let rest = expected.contains_key(REST);
            let mut known = expected.iter().filter(|(key, _)| *key != REST);
            // What an error has beside its text is no part of most examples.
            let rest = rest || expected.get("success") == Some(&Value::Bool(false));
            (rest || values.len() == expected.len())
                && known.all(|(key, e)| values.get(key).is_some_and(|v| is_like(v, e)))
        }
        _ => value == expected,
    }
}
