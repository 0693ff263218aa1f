//! The driver on a host without CAN: dockerd's calls over a real socket, with buses and ports that are names only.

mod names;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs, process};

use cangw_common::abi::HubPort;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};

use super::networks::Networks;
use super::options::{Given, NetworkOptions, PortOptions};
use super::server::serve;
use super::store::Engine;
use super::{docker, netavark};
use names::Names;

/// What dockerd 20.10 called while networks were made, containers started, connected, disconnected and removed, and what it was answered.
const TRANSCRIPT: &str = include_str!("tests/docker-20.10.jsonl");

#[derive(Clone, Debug, Deserialize)]
struct Call {
    call: String,
    body: Option<Value>,
    answer: Value,
}

fn transcript() -> Vec<Call> {
    let lines = TRANSCRIPT.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a call"))
        .collect()
}

impl Call {
    fn bytes(&self) -> Vec<u8> {
        self.body
            .as_ref()
            .map_or(Vec::new(), |body| body.to_string().into_bytes())
    }
}

/// A folder of one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("cangw-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes a call as dockerd does: without a Content-Type.
async fn call(socket: &Path, path: &str, body: Vec<u8>) -> (u16, Value) {
    let stream = UnixStream::connect(socket).await.expect("a socket");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("a server");
    tokio::spawn(connection);
    let request = Request::post(path)
        .header("Host", "")
        .body(Full::new(Bytes::from(body)))
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (status, serde_json::from_slice(&body).expect("JSON"))
}

/// A driver at a socket, which is another process's for all that it knows: everything that it remembers is in the folder.
async fn with_driver<T>(
    folder: &Folder,
    names: &Arc<Names>,
    work: impl AsyncFnOnce(&Path) -> T,
) -> T {
    let socket = folder.0.join("cangw.sock");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("a socket");
    let networks = Arc::new(Networks::new(&folder.state(), Arc::clone(names)));
    let server = tokio::spawn(serve(listener, networks));
    let result = work(&socket).await;
    server.abort();
    result
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

fn is_empty(folder: &Folder) -> bool {
    let text = fs::read_to_string(folder.state().join("networks.json")).expect("a file");
    let content: Value = serde_json::from_str(&text).expect("JSON");
    content["networks"] == json!({}) && content["endpoints"] == json!({})
}

#[test]
fn a_transcript_of_docker_is_answered_as_it_was() {
    let folder = Folder::new("transcript");
    let names = Arc::new(Names::default());
    run(with_driver(&folder, &names, async |socket| {
        for each in transcript() {
            let (status, answer) = call(socket, &each.call, each.bytes()).await;
            assert_eq!((status, answer), (200, each.answer.clone()), "{each:?}");
        }
    }));
    assert_eq!(names.all(), BTreeSet::new());
    assert!(is_empty(&folder));
    let mode = |path: PathBuf| {
        fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(folder.state()), 0o700);
    assert_eq!(mode(folder.state().join("networks.json")), 0o600);
}

#[test]
fn calls_that_come_again_and_a_driver_that_is_started_anew_change_nothing() {
    let folder = Folder::new("again");
    let names = Arc::new(Names::default());
    for each in transcript() {
        let mut found = None;
        // Each attempt has a driver of its own.
        for _ in 0..3 {
            let (_, answer) = run(with_driver(&folder, &names, async |socket| {
                call(socket, &each.call, each.bytes()).await
            }));
            assert_eq!(answer, each.answer, "{each:?}");
            let now = (
                names.all(),
                fs::read(folder.state().join("networks.json")).ok(),
            );
            if let Some(before) = found.replace(now.clone()) {
                assert_eq!(now, before, "{each:?}");
            }
        }
    }
    assert_eq!(names.all(), BTreeSet::new());
    assert!(is_empty(&folder));
}

/// Whatever the kernel refuses, nothing is left of a call that failed, and the same call succeeds when it does not.
#[test]
fn a_call_that_fails_half_way_leaves_nothing() {
    let folder = Folder::new("half-way");
    let names = Arc::new(Names::default());
    let networks = Networks::new(&folder.state(), Arc::clone(&names));
    let look = || (names.all(), remembered(&folder));
    let mut failures = 0;
    for each in transcript() {
        let removes = each.call.contains("Delete") || each.call.contains("Leave");
        for step in 0.. {
            let before = look();
            names.fail_after(step);
            let answer = docker::answer(&networks, &each.call, &each.bytes());
            let has_failed = names.fail_never();
            if !has_failed {
                assert_eq!(answer, each.answer, "{each:?}");
                break;
            }
            failures += 1;
            assert!(answer["Err"].is_string(), "{each:?} {answer}");
            if !removes {
                assert_eq!(look(), before, "{each:?}, step {step}");
            }
        }
    }
    assert!(failures > 10, "{failures}");
    assert_eq!(names.all(), BTreeSet::new());
    assert!(is_empty(&folder));
}

fn remembered(folder: &Folder) -> Option<Value> {
    let bytes = fs::read(folder.state().join("networks.json")).ok()?;
    let content: Value = serde_json::from_slice(&bytes).expect("JSON");
    // A file that was not there and one that says nothing are the same.
    (content["networks"] != json!({})).then_some(content)
}

#[test]
fn calls_in_any_order_leave_nothing_when_the_networks_go() {
    let calls = transcript();
    let networks_of = |call: &Call| call.body.as_ref()?["NetworkID"].as_str().map(str::to_owned);
    let ids: BTreeSet<String> = calls.iter().filter_map(networks_of).collect();
    let order = proptest::collection::vec(0..calls.len(), 0..80);
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(100)
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let folder = Folder::new("disorder");
    runner
        .run(&order, |order| {
            let names = Arc::new(Names::default());
            let _ = fs::remove_dir_all(folder.state());
            let networks = Networks::new(&folder.state(), Arc::clone(&names));
            for at in order {
                let each = &calls[at];
                let answer = docker::answer(&networks, &each.call, &each.bytes());
                prop_assert!(answer.is_object());
            }
            for id in &ids {
                let body = json!({ "NetworkID": id }).to_string();
                let answer =
                    docker::answer(&networks, "/NetworkDriver.DeleteNetwork", body.as_bytes());
                prop_assert_eq!(answer, json!({}));
            }
            prop_assert_eq!(names.all(), BTreeSet::new());
            prop_assert!(networks.orphans(None).expect("an answer").is_empty());
            Ok(())
        })
        .expect("any order");
}

#[test]
fn what_is_no_call_is_answered_with_a_reason() {
    let folder = Folder::new("no-call");
    let names = Arc::new(Names::default());
    run(with_driver(&folder, &names, async |socket| {
        let id = "0123456789ab";
        for (path, body, reason) in [
            (
                "/NetworkDriver.CreateNetwork",
                "".to_owned(),
                "cannot be understood",
            ),
            (
                "/NetworkDriver.CreateNetwork",
                "[]".into(),
                "cannot be understood",
            ),
            (
                "/NetworkDriver.CreateNetwork",
                json!({ "NetworkID": "../../etc" }).to_string(),
                "no identifier",
            ),
            (
                "/NetworkDriver.CreateNetwork",
                json!({ "NetworkID": "x".repeat(99) }).to_string(),
                "no identifier",
            ),
            (
                "/NetworkDriver.Join",
                json!({ "NetworkID": id, "EndpointID": id, "SandboxKey": "/x" }).to_string(),
                "docker network rm",
            ),
            (
                "/NetworkDriver.CreateEndpoint",
                json!({ "NetworkID": id, "EndpointID": id }).to_string(),
                "knows no network",
            ),
            (
                "/NetworkDriver.EndpointOperInfo",
                json!({ "NetworkID": id, "EndpointID": id }).to_string(),
                "no endpoint",
            ),
            (
                "/NetworkDriver.AllocateNetwork",
                "{}".into(),
                "--scope swarm",
            ),
            ("/NetworkDriver.Nonsense", "{}".into(), "no call"),
            ("/", "{}".into(), "no call"),
        ] {
            let (status, answer) = call(socket, path, body.clone().into_bytes()).await;
            let error = answer["Err"].as_str().unwrap_or_default();
            assert!(error.contains(reason), "{path} {body} {answer}");
            assert_eq!(status, 200);
        }
        for path in [
            "ProgramExternalConnectivity",
            "RevokeExternalConnectivity",
            "DiscoverNew",
            "DiscoverDelete",
        ] {
            let (_, answer) = call(socket, &format!("/NetworkDriver.{path}"), b"{}".to_vec()).await;
            assert_eq!(answer, json!({}));
        }
        let (status, answer) =
            call(socket, "/NetworkDriver.CreateNetwork", vec![b' '; 2 << 20]).await;
        assert_eq!(status, 400, "{answer}");
    }));
    assert_eq!(names.all(), BTreeSet::new());
}

fn given(options: &[(&str, &str)]) -> Given {
    let options = options.iter();
    options
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn options_are_checked_and_become_limits() {
    for (options, reason) in [
        (given(&[("fd", "yes")]), "true or false"),
        (given(&[("fb", "true")]), "there is no option fb"),
        (given(&[("host_if", "a/b")]), "a name for an interface"),
        (
            given(&[("host_if", "sixteencharacter")]),
            "a name for an interface",
        ),
        (given(&[("bus", "../x")]), "topology's bus"),
        (given(&[("prefix", "can0")]), "no digit at the end"),
        (given(&[("prefix", "muchtoolongone")]), "at most 12"),
        (given(&[("allow", "800")]), "identifiers"),
        (given(&[("allow", "+")]), "a list of identifiers"),
        (given(&[("filter", "1FF-100")]), "identifiers"),
        (given(&[("rate", "fast")]), "100/s"),
    ] {
        let error = NetworkOptions::parse(&options)
            .expect_err("it is wrong")
            .to_string();
        assert!(error.contains(reason), "{options:?}: {error}");
    }
    let too_many = (0..33)
        .map(|n| format!("{:08X}", n * 16))
        .collect::<Vec<_>>();
    let error = NetworkOptions::parse(&given(&[("allow", &too_many.join(","))]));
    assert!(
        error
            .expect_err("33 ranges")
            .to_string()
            .contains("at most 32")
    );
    let error = PortOptions::parse(&given(&[("bus", "x")]), &Given::new());
    assert!(
        error
            .expect_err("a network's")
            .to_string()
            .contains("one of a network")
    );

    let network = given(&[("fd", "true"), ("allow", "100-10F"), ("rate", "100/s")]);
    let port = PortOptions::parse(
        &given(&[("fd", "false"), ("filter", "200+18DAF100-18DAF1FF")]),
        &network,
    )
    .expect("good options");
    let limits: HubPort = port.limits(72).expect("limits");
    let head = |id: u32| {
        let [a, b, c, d] = id.to_ne_bytes();
        [a, b, c, d, 8, 0, 0, 0]
    };
    assert_eq!((limits.mtu, limits.interval), (16, 10_000_000));
    assert!(limits.send.has(head(0x10F)) && !limits.send.has(head(0x110)));
    assert!(limits.receive.has(head(0x200)) && !limits.receive.has(head(0x100)));
    assert!(limits.receive.has(head(0x98DA_F1AA)) && !limits.receive.has(head(0x98DA_F2AA)));
    // A port that may do everything costs nothing.
    let free = PortOptions::parse(&Given::new(), &given(&[("fd", "true")])).expect("good options");
    assert_eq!(free.limits(72), None);
}

#[test]
fn podman_is_answered_as_netavark_wants_it() {
    let folder = Folder::new("podman");
    let names = Arc::new(Names::default());
    names.add_sandbox("/run/netns/p1");
    let networks = Networks::new(&folder.state(), Arc::clone(&names));
    let network = |changes: Value| {
        let mut network = json!({
            "name": "car", "id": "aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899", "driver": "cangw",
            "network_interface": "", "created": "2026-11-20T10:00:00Z", "ipv6_enabled": false, "internal": false,
            "dns_enabled": false, "options": { "fd": "true" }, "ipam_options": { "driver": "none" }
        });
        network
            .as_object_mut()
            .expect("an object")
            .extend(changes.as_object().expect("an object").clone());
        network
    };
    let respond = |arguments: &[&str], input: &Value| {
        netavark::respond(&networks, arguments, input.to_string().as_bytes())
    };
    let info = respond(&["info"], &Value::Null)
        .expect("an answer")
        .expect("it says something");
    assert_eq!(info["api_version"], "1.0.0");
    let same = network(json!({}));
    assert_eq!(
        respond(&["create"], &same).expect("good"),
        Some(same.clone())
    );
    let default = network(json!({ "ipam_options": null }));
    assert_eq!(
        respond(&["create"], &default).expect("good"),
        Some(same.clone())
    );
    for (changes, reason) in [
        (
            json!({ "ipam_options": { "driver": "host-local" } }),
            "--ipam-driver none",
        ),
        (
            json!({ "subnets": [{ "subnet": "10.0.0.0/24" }] }),
            "--ipam-driver none",
        ),
        (json!({ "options": { "speed": "1" } }), "no option speed"),
    ] {
        let error = respond(&["create"], &network(changes))
            .expect_err("it is wrong")
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
    let exec = |options: Value| {
        json!({
            "container_id": "c0ffee", "container_name": "ecu", "port_mappings": [], "network": same,
            "network_options": options
        })
    };
    let call = exec(json!({ "interface_name": "can0", "options": { "allow": "100" } }));
    for _ in 0..2 {
        let answer = respond(&["setup", "/run/netns/p1"], &call).expect("an interface");
        assert_eq!(
            answer,
            Some(json!({ "interfaces": { "can0": { "mac_address": "", "subnets": null } } }))
        );
    }
    let there = names.all();
    assert_eq!(
        there.iter().filter(|name| name.contains("can0")).count(),
        1,
        "{there:?}"
    );
    let report = networks.report().expect("a report");
    assert_eq!(
        (
            report.len(),
            report[0].ports.len(),
            report[0].ports[0].name()
        ),
        (1, 1, "ecu:can0".into())
    );
    for (options, reason) in [
        (
            json!({ "interface_name": "can1", "static_mac": "02:00:00:00:00:01" }),
            "--mac-address",
        ),
        (
            json!({ "interface_name": "can1", "static_ips": ["10.0.0.1"] }),
            "--ip",
        ),
        (json!({ "interface_name": "a b" }), "interface's name"),
        (
            json!({ "interface_name": "can1", "options": { "xl": "true" } }),
            "does not carry",
        ),
    ] {
        let error = respond(&["setup", "/run/netns/p1"], &exec(options))
            .expect_err("it is wrong")
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
    let other = exec(json!({ "interface_name": "can0" }));
    let error = respond(&["setup", "/run/netns/gone"], &other).expect_err("nobody is there");
    assert!(
        error.to_string().contains("the container is gone"),
        "{error}"
    );
    // Its namespace may be gone, and it may be told again.
    respond(&["setup", "/run/netns/p1"], &call).expect("an interface");
    for _ in 0..2 {
        assert_eq!(
            respond(&["teardown", "/run/netns/gone"], &call).expect("fine"),
            None
        );
    }
    assert_eq!(names.all(), BTreeSet::new());
    assert!(is_empty(&folder));
}

#[test]
fn what_was_left_behind_is_found_and_removed() {
    let folder = Folder::new("doctor");
    let names = Arc::new(Names::default());
    let networks = Networks::new(&folder.state(), Arc::clone(&names));
    let answer = |call: &str, body: Value| {
        let answer = docker::answer(
            &networks,
            &format!("/NetworkDriver.{call}"),
            body.to_string().as_bytes(),
        );
        assert_eq!(answer.get("Err"), None);
    };
    let (known, unknown, lives, dead) = (
        "a".repeat(64),
        "b".repeat(64),
        "c".repeat(64),
        "d".repeat(64),
    );
    for id in [&known, &unknown] {
        answer("CreateNetwork", json!({ "NetworkID": id }));
    }
    names.add_sandbox("/run/docker/netns/1");
    for id in [&lives, &dead] {
        answer(
            "CreateEndpoint",
            json!({ "NetworkID": known, "EndpointID": id }),
        );
    }
    answer(
        "Join",
        json!({ "NetworkID": known, "EndpointID": lives, "SandboxKey": "/run/docker/netns/1" }),
    );
    names.add("bus", "eeeeeeeeeeee");
    names.add("aaaaaaaaaaaa", "pffffffffffff");
    let docker = [(known.clone(), BTreeSet::new())].into();
    let found = networks.orphans(Some(&docker)).expect("an answer");
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "network bbbbbbbbbbbb, which Docker does not have",
            "endpoint dddddddddddd of network aaaaaaaaaaaa, whose container is gone",
            "port pffffffffffff of bus aaaaaaaaaaaa, which no endpoint has",
            "bus eeeeeeeeeeee, which no network has",
        ]
    );
    // What Docker has is not known: nothing of Docker's is taken for left behind.
    let fewer = networks.orphans(None).expect("an answer");
    assert_eq!(fewer, found[2..]);
    for orphan in &found {
        networks.remove(orphan).expect("it goes");
    }
    assert_eq!(networks.orphans(Some(&docker)).expect("an answer"), []);
    let left = names.all();
    assert!(
        left.iter().any(|name| name.contains("pcccccccccccc")),
        "{left:?}"
    );
    assert_eq!(left.len(), 2, "{left:?}");
}

/// A file that cannot be read is named, and stays as it is.
#[test]
fn a_file_of_somebody_else_is_left_alone() {
    let folder = Folder::new("foreign");
    let networks = Networks::new(&folder.state(), Arc::new(Names::default()));
    fs::create_dir(folder.state()).expect("a folder");
    let file = folder.state().join("networks.json");
    for text in [
        "",
        "{",
        "[]",
        r#"{"version": 2, "networks": {}, "endpoints": {}}"#,
    ] {
        fs::write(&file, text).expect("a file");
        let id = "a".repeat(64);
        let error = networks.create_network(&id, Engine::Docker, &Given::new());
        let error = error.expect_err("it cannot be read").to_string();
        assert!(
            error.contains("networks.json: ") && error.contains("move the file away"),
            "{error}"
        );
        assert!(networks.keep().is_err() && networks.delete_network(&id).is_err());
        assert_eq!(fs::read_to_string(&file).expect("a file"), text);
    }
}
