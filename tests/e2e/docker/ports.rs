//! Limits of ports, and many of them: as Docker asks for them, and as Podman does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use cangw::containers::fabric::HIDDEN;
use cangw::kernel::hub::{Hub, MAX_PORTS};
use cangw::kernel::pins::Pins;
use cangw_tests::daemon::Daemon;
use cangw_tests::docker::{CONTROL, DRIVER, Docker};
use cangw_tests::frame::Frame;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::tool::{Answer, Cangw};
use serde_json::{Value, json};

use super::{SILENCE, is_gone, networks, socket};
use crate::clean::programs;

/// A container speaks as itself only; whatever is kept back is counted and seen.
#[test]
fn a_container_cannot_speak_as_another() {
    let namespace = Namespace::new("docker");
    let docker = Docker::start(&namespace, &[]);
    docker.must("network create --driver cangw --ipam-driver null -o fd=true car");
    let engine = docker.container("engine", "none");
    docker.must("network disconnect none engine");
    docker.must(
        "network connect --driver-opt allow=100-10F+18DAF110 --driver-opt rate=1/h car engine",
    );
    let listener = docker.container("listener", "car");
    docker.must("run --detach --network none --name old box sleep 900");
    docker.must("network disconnect none old");
    docker.must("network connect --driver-opt fd=false --driver-opt filter=100 car old");
    let old = docker.namespace_of("old");
    let (from, to, old) = (
        socket(&engine, "can0"),
        socket(&listener, "can0"),
        socket(&old, "can0"),
    );

    for id in [0x200, 0x0FF, 0x110, 0x98DA_F111, 0x8000_0100] {
        from.send(&Frame::classic(id, &[1]));
    }
    assert_eq!(to.receive_within(SILENCE), None);
    // Two in a burst, then one an hour.
    for id in [0x10F, 0x98DA_F110, 0x100] {
        from.send(&Frame::classic(id, &[2]));
    }
    assert_eq!([to.receive().id(), to.receive().id()], [0x10F, 0x98DA_F110]);
    assert_eq!(to.receive_within(SILENCE), None);
    assert_eq!(old.receive_within(SILENCE), None);
    to.send(&Frame::fd(0x100, 0, &[3; 12]));
    to.send(&Frame::classic(0x100, &[4]));
    assert_eq!(old.receive().data(), [4]);
    assert_eq!((from.receive().is_fd(), from.receive().id()), (true, 0x100));

    let wanted = |denied, over_rate, filtered, too_large| json!({ "denied": denied, "over_rate": over_rate, "filtered": filtered, "too_large": too_large });
    let kept = |port: &Value| {
        let kept =
            ["denied", "over_rate", "filtered", "too_large"].map(|key| (key, port[key].clone()));
        serde_json::to_value(BTreeMap::from(kept)).expect("JSON")
    };
    let found = networks(&docker);
    let find = |ports: &Value, sent: u64, received: u64| {
        let ports = ports.as_array().expect("a list").iter();
        let mut found = ports.filter(|port| port["sent"] == sent && port["received"] == received);
        found
            .next()
            .unwrap_or_else(|| panic!("{sent} {received}: {found:?}"))
            .clone()
    };
    let ports = &found[0]["ports"];
    assert_eq!(kept(&find(ports, 8, 2)), wanted(5, 1, 0, 0));
    assert_eq!(kept(&find(ports, 2, 2)), wanted(0, 0, 0, 0));
    assert_eq!(kept(&find(ports, 0, 1)), wanted(0, 0, 2, 1));
    // The same by the API, in `cangw top` and in the metrics.
    let mut stream = UnixStream::connect(CONTROL).expect("a socket");
    stream
        .write_all(b"{\"id\": \"networks\"}\n")
        .expect("a request");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(&stream), &mut line)
        .expect("an answer");
    let answer: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(answer["data"], json!(found), "{answer}");
    let top = docker.cangw("top --once").stdout;
    let rows = top
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut kept: Vec<_> = rows
        .filter(|row| row.len() == 8 && row[0].ends_with(":can0"))
        .map(|row| row[4..].join(" "))
        .collect();
    kept.sort();
    assert_eq!(kept, ["0 0 0 0", "0 0 2 1", "5 1 0 0"], "{top}");

    docker.must("rm --force engine listener old");
    docker.must("network rm car");
    is_gone(&docker, &namespace);
}

/// A call of dockerd's.
fn call(name: &str, body: &Value) -> Value {
    cangw_tests::docker::call(Path::new(DRIVER), name, body)
}

/// A driver without Docker, with one network, which goes with it.
struct Driver {
    namespace: Namespace,
    state: PathBuf,
    network: String,
    _daemon: Daemon,
}

impl Driver {
    fn start(options: &Value) -> Self {
        let namespace = Namespace::new("docker");
        let state = std::env::temp_dir().join(format!("cangw-state-{}", std::process::id()));
        let driver = Self {
            _daemon: Daemon::start_with(&namespace, &[("STATE_DIRECTORY", &state)], &["--docker"]),
            namespace,
            state,
            network: "ab".repeat(32),
        };
        let options = json!({ "com.docker.network.generic": options });
        let body = json!({ "NetworkID": driver.network, "Options": options });
        assert_eq!(call("CreateNetwork", &body), json!({}));
        driver
    }

    /// Makes a call for an endpoint, whose identifier begins so.
    fn endpoint(&self, name: &str, begin: &str, options: &Value) -> Value {
        let endpoint = format!("{begin:0<64}");
        let body = json!({ "NetworkID": self.network, "EndpointID": endpoint, "Options": options });
        call(name, &body)
    }

    fn create(&self, number: usize) -> Value {
        self.endpoint("CreateEndpoint", &format!("{number:012x}"), &json!({}))
    }

    /// A socket on the interface of an endpoint, which is on the host as long as no container has it.
    fn socket(&self, begin: &str) -> CanSocket {
        socket(&self.namespace, &format!("cg{begin}"))
    }

    /// Interfaces of endpoints.
    fn interfaces(&self) -> usize {
        let links = self.namespace.output("ip", &["-brief", "link"]);
        links.matches("cg").count()
    }

    fn delete_network(&self) {
        let body = json!({ "NetworkID": self.network });
        assert_eq!(call("DeleteNetwork", &body), json!({}));
        assert_eq!(self.interfaces(), 0);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

/// Fifty endpoints are fifty entries of one map, and three programs.
#[test]
fn fifty_endpoints_are_fifty_entries() {
    const MANY: usize = 50;
    let driver = Driver::start(&json!({}));
    let namespace = &driver.namespace;
    let before = programs(namespace).len();
    let begin = Instant::now();
    for number in 0..MANY {
        assert_eq!(driver.create(number), json!({}));
    }
    let took = begin.elapsed();
    println!("{MANY} endpoints were made in {:.2} s", took.as_secs_f64());
    // Each growth of the map had programs of its own, which end with it.
    for _ in 0..100 {
        if programs(namespace).len() == before {
            break;
        }
        std::thread::sleep(SILENCE);
    }
    assert_eq!(programs(namespace).len(), before);
    let hidden = Namespace::of_others(HIDDEN);
    let (ports, room) = hidden.enter(|| {
        let pins = Pins::open(false).expect("pins").expect("pins");
        let hub = Hub::new(&pins, &driver.network[..12]);
        (
            hub.ports().expect("ports").len(),
            hub.room().expect("a map"),
        )
    });
    assert_eq!((ports, room), (MANY, 64));
    // A frame from one reaches all others, once.
    let sockets: Vec<CanSocket> = (0..MANY)
        .map(|number| driver.socket(&format!("{number:012x}")))
        .collect();
    sockets[7].send(&Frame::classic(0x123, &[1]));
    for (number, socket) in sockets.iter().enumerate() {
        let wanted = (number != 7).then(|| Frame::classic(0x123, &[1]));
        if let Some(wanted) = wanted {
            assert_eq!(socket.receive(), wanted, "{number}");
        }
        assert_eq!(socket.try_receive(), None, "{number}");
    }
    driver.delete_network();
}

/// A bus has an end, which is told; whoever did not get on it leaves nothing.
#[test]
fn a_full_bus_says_so() {
    let driver = Driver::start(&json!({}));
    for number in 0..MAX_PORTS {
        assert_eq!(driver.create(number), json!({}));
    }
    for _ in 0..2 {
        let answer = driver.create(MAX_PORTS);
        let error = answer["Err"].as_str().unwrap_or_default();
        assert!(
            error.contains("256") && error.contains("divide the bus"),
            "{answer}"
        );
        assert_eq!(driver.interfaces(), MAX_PORTS);
    }
    let seventh = format!("{:012x}", 7);
    let gone = driver.endpoint("DeleteEndpoint", &seventh, &json!({}));
    assert_eq!(gone, json!({}));
    assert_eq!(driver.create(MAX_PORTS), json!({}));
    driver.delete_network();
}

/// Classic, FD and XL interfaces are on one bus; each counts the frames that it cannot take.
#[test]
fn interfaces_for_all_frames_are_on_one_bus() {
    let driver = Driver::start(&json!({ "xl": "true" }));
    let endpoint = |begin: &str, options| driver.endpoint("CreateEndpoint", begin, &options);
    // Identifiers have hexadecimal digits.
    let (classic, fd, xl) = ("c1a551cc1a55", "fdfdfdfdfdfd", "eeeeeeeeeeee");
    assert_eq!(endpoint(xl, json!({})), json!({}));
    assert_eq!(
        endpoint(fd, json!({ "xl": "false", "fd": "true" })),
        json!({})
    );
    assert_eq!(endpoint(classic, json!({ "xl": "false" })), json!({}));
    let [on_classic, on_fd, on_xl] = [classic, fd, xl].map(|begin| driver.socket(begin));
    let frames = [
        Frame::classic(0x100, &[1]),
        Frame::fd(0x101, 0, &[2; 32]),
        Frame::xl(0x102, 0, 0, &[3; 1000]),
    ];
    for frame in &frames {
        on_xl.send(frame);
    }
    assert_eq!(on_fd.receive(), frames[0]);
    assert_eq!(on_fd.receive(), frames[1]);
    assert_eq!(on_classic.receive(), frames[0]);
    on_classic.send(&frames[0]);
    assert_eq!(
        [on_fd.receive(), on_xl.receive()],
        [frames[0].clone(), frames[0].clone()]
    );
    for socket in [&on_classic, &on_fd, &on_xl] {
        assert_eq!(socket.receive_within(SILENCE), None);
    }
    let mut command = Cangw::Ours.command(&driver.namespace);
    let output = command
        .args(["networks"])
        .env("STATE_DIRECTORY", &driver.state)
        .output();
    let text = Answer::from(output.expect("cangw runs")).stdout;
    for line in [
        "c1a551cc1a55:?: sent 1, received 1, too_large 2\n",
        "fdfdfdfdfdfd:?: sent 0, received 3, too_large 1\n",
        "eeeeeeeeeeee:?: sent 3, received 1\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    driver.delete_network();
}

/// Calls the plugin as netavark does.
fn netavark(namespace: &Namespace, state: &PathBuf, arguments: &[&str], input: &Value) -> Answer {
    let program = Cangw::Ours.path().with_file_name("cangw-netavark");
    let mut child = namespace
        .command(program)
        .args(arguments)
        .env("STATE_DIRECTORY", state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the plugin runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(input.to_string().as_bytes())
        .expect("it reads");
    drop(stdin);
    Answer::from(child.wait_with_output().expect("it ends"))
}

/// Podman's plugin, without a daemon.
#[test]
fn podman_gives_containers_their_networks() {
    let namespace = Namespace::new("podman");
    let state = std::env::temp_dir().join(format!("cangw-state-{}", std::process::id()));
    let containers = ["one", "two", "three"].map(|_| Namespace::new("container"));
    let network = json!({
        "name": "car", "id": "0123456789abcdef".repeat(4), "driver": "cangw", "ipv6_enabled": false, "internal": false,
        "dns_enabled": false, "options": { "fd": "true", "host_if": "host0" }, "ipam_options": { "driver": "none" }
    });
    let created = netavark(&namespace, &state, &["create"], &network);
    assert_eq!(
        serde_json::from_str::<Value>(&created.stdout).ok(),
        Some(network.clone()),
        "{created:?}"
    );
    let exec = |number: usize| {
        let options = if number == 1 {
            json!({ "allow": "100" })
        } else {
            json!({})
        };
        json!({
            "container_id": format!("c{number}"), "container_name": format!("ecu{number}"), "network": network,
            "network_options": { "interface_name": "can0", "options": options }
        })
    };
    let path = |number: usize| format!("/run/netns/{}", containers[number].name());
    for number in 0..3 {
        let answer = netavark(&namespace, &state, &["setup", &path(number)], &exec(number));
        assert_eq!(answer.code, 0, "{answer:?}");
        let said: Value = serde_json::from_str(&answer.stdout).expect("JSON");
        assert_eq!(said["interfaces"]["can0"]["mac_address"], "");
    }
    let taken = json!({ "container_id": "c9", "network": network, "network_options": { "interface_name": "can0" } });
    let refused = netavark(&namespace, &state, &["setup", &path(0)], &taken);
    assert_ne!(refused.code, 0);
    assert!(refused.stdout.contains("error"), "{refused:?}");

    let sockets = [0, 1, 2].map(|number| socket(&containers[number], "can0"));
    let host = socket(&namespace, "host0");
    let frame = Frame::fd(0x100, 0, &[1; 20]);
    sockets[1].send(&frame);
    for socket in [&sockets[0], &sockets[2], &host] {
        assert_eq!(socket.receive(), frame);
    }
    sockets[1].send(&Frame::classic(0x200, &[2]));
    assert_eq!(host.receive_within(SILENCE), None);

    for number in 0..3 {
        // Also one whose namespace is gone, and one that was taken down before.
        for path in [path(number), "/run/netns/gone".into()] {
            let answer = netavark(&namespace, &state, &["teardown", &path], &exec(number));
            assert_eq!((answer.code, answer.stdout.as_str()), (0, ""), "{answer:?}");
        }
    }
    let file = std::fs::read_to_string(state.join("networks.json")).expect("a file");
    assert!(!Path::new("/run/netns").join(HIDDEN).exists(), "{file}");
    assert!(
        !namespace
            .output("ip", &["-brief", "link"])
            .contains("host0")
    );
    let _ = std::fs::remove_dir_all(state);
}
