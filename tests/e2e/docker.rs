//! CAN networks of containers, with a real dockerd.

mod kills;
mod ports;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cangw::containers::fabric::HIDDEN;
use cangw_tests::docker::{DRIVER, Docker, IMAGE, call};
use cangw_tests::frame::{BRS, Frame};
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::tool::Cangw;
use serde_json::{Value, json};

use crate::clean::programs;

/// How long a frame may take that should not come.
const SILENCE: Duration = Duration::from_millis(300);

/// What there is of networks.
pub fn networks(docker: &Docker<'_>) -> Vec<Value> {
    let answer = docker.cangw("networks --json");
    assert_eq!(answer.code, 0, "{answer:?}");
    let networks: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    networks.as_array().expect("a list").clone()
}

/// Sees to it that nothing of container networks is there: no bus, port, pin, program or interface, and nothing is remembered.
pub fn is_gone(docker: &Docker<'_>, namespace: &Namespace) {
    assert_eq!(networks(docker), [Value::Null; 0]);
    assert!(
        !Path::new("/run/netns").join(HIDDEN).exists(),
        "a namespace is left"
    );
    let links = namespace.output("ip", &["-brief", "link"]);
    let left: Vec<&str> = links
        .lines()
        .filter(|line| line.starts_with("cg") || line.contains("can"))
        .collect();
    assert_eq!(left, [""; 0]);
    for _ in 0..100 {
        if programs(namespace).is_empty() && !Path::new("/sys/fs/bpf/cangw").exists() {
            return;
        }
        // Programs end a moment after their last user.
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("left: {:?}", programs(namespace));
}

/// A socket of a container that gets everything and nothing of its own.
pub fn socket(container: &Namespace, interface: &str) -> CanSocket {
    CanSocket::open(container, interface).without_loopback()
}

/// Waits for something that surely comes.
pub fn wait(mut is_so: impl FnMut() -> bool) {
    for _ in 0..200 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("it does not come");
}

/// A frame from one reaches all others, once, and nobody else.
fn reaches(from: &CanSocket, frame: &Frame, to: &[&CanSocket], silent: &[&CanSocket]) {
    from.send(frame);
    for socket in to {
        assert_eq!(socket.receive().bare(), frame.bare());
    }
    for socket in to.iter().chain(silent).chain([&from]) {
        assert_eq!(socket.receive_within(SILENCE), None);
    }
}

#[test]
fn containers_speak_on_their_networks() {
    let namespace = Namespace::new("docker");
    let docker = Docker::start(&namespace, &[]);
    for (options, reason) in [
        ("plain", "--ipam-driver null"),
        (
            "--ipam-driver null -o fb=true plain",
            "there is no option fb",
        ),
        ("--ipam-driver null -o bus=body plain", "cangw up FILE"),
        (
            "--ipam-driver null -o host_if=sixteen-letters- plain",
            "name for an interface",
        ),
    ] {
        let refused = docker.run(&format!("network create --driver cangw {options}"));
        assert_ne!(refused.code, 0);
        assert!(refused.stderr.contains(reason), "{refused:?}");
    }
    is_gone(&docker, &namespace);
    docker.must("network create --driver cangw --ipam-driver null classic");
    docker.must("network create --driver cangw --ipam-driver null -o fd=true -o prefix=bus fast");
    let refused = docker.run(&format!(
        "run --network classic --mac-address 02:00:00:00:00:01 {IMAGE} sleep 1"
    ));
    assert!(
        refused.stderr.contains("leave --mac-address out"),
        "{refused:?}"
    );

    let [a, b, c] = ["aa", "bb", "cc"].map(|name| docker.container(name, "classic"));
    let sockets = [&a, &b, &c].map(|container| socket(container, "can0"));
    let [on_a, on_b, on_c] = [&sockets[0], &sockets[1], &sockets[2]];
    let classic = Frame::classic(0x123, &[1, 2, 3]);
    reaches(on_a, &classic, &[on_b, on_c], &[]);
    let refused = on_a.try_send(&Frame::fd(0x123, 0, &[0; 64]));
    assert!(refused.is_err(), "a classic interface takes no FD frame");

    // At run time, beside the first, and to another network.
    for name in ["aa", "bb"] {
        docker.must(&format!("network connect fast {name}"));
    }
    let [fast_a, fast_b] = [&a, &b].map(|container| socket(container, "bus0"));
    let fd = Frame::fd(0x7FF, BRS, &[7; 64]);
    reaches(&fast_a, &fd, &[&fast_b], &[on_a, on_b, on_c]);
    reaches(on_c, &classic, &[on_a, on_b], &[&fast_a, &fast_b]);
    docker.must("network disconnect classic bb");
    reaches(on_a, &classic, &[on_c], &[&fast_b]);
    assert!(
        !b.output("ip", &["-brief", "link"]).contains("can0"),
        "it is there"
    );

    // An ordinary network, in either order of connecting.
    docker.must("network create ordinary");
    docker.must("network connect ordinary aa");
    docker.must(&format!(
        "run --detach --network ordinary --name dd {IMAGE} nc -ll -p 80 -e echo hello"
    ));
    docker.must("network connect classic dd");
    let d = docker.namespace_of("dd");
    let on_d = socket(&d, "can0");
    reaches(on_a, &classic, &[on_c, &on_d], &[]);
    let address =
        docker.must("inspect --format {{.NetworkSettings.Networks.ordinary.IPAddress}} dd");
    assert_eq!(
        a.output("busybox", &["nc", "-w", "5", &address, "80"]),
        "hello\n"
    );
    docker.must("network disconnect ordinary aa");
    reaches(&on_d, &classic, &[on_a, on_c], &[]);

    let counted = networks(&docker);
    let ports = counted
        .iter()
        .flat_map(|network| network["ports"].as_array().expect("a list"));
    let interfaces: Vec<&str> = ports
        .filter_map(|port| port["interface"].as_str())
        .collect();
    assert_eq!(interfaces.len(), 5, "{counted:?}");
    // One that runs.
    docker.must("rm --force cc");
    reaches(on_a, &classic, &[&on_d], &[]);
    let refused = docker.run("network rm classic");
    assert_ne!(refused.code, 0, "it is in use");
    reaches(on_a, &classic, &[&on_d], &[]);
    docker.must("rm --force aa bb dd");
    docker.must("network rm classic fast ordinary");
    is_gone(&docker, &namespace);
    let doctor = |arguments: &str| {
        let answer = docker.cangw(&format!("doctor {arguments}"));
        (answer.code, answer.stdout)
    };
    let nothing = "nothing was left behind\n".to_owned();
    assert_eq!(doctor(""), (0, nothing.clone()));
    // What Docker does not know, as when it was killed before it wrote that down; and rules of a namespace that died with them.
    let driver = Path::new(DRIVER);
    let unknown = json!({ "NetworkID": "ab".repeat(32) });
    assert_eq!(call(driver, "CreateNetwork", &unknown), json!({}));
    // One that is not flushed when it goes.
    namespace.ip("netns add dead");
    let dead = Namespace::of_others("dead");
    dead.ip("link add vcan0 type vcan\nlink add vcan1 type vcan\nlink set vcan0 up");
    Cangw::Ours.must(&dead, "-A -s vcan0 -d vcan1");
    namespace.ip("netns del dead");
    drop(dead);
    // The kernel takes its time for the namespace.
    wait(|| doctor("").1.contains("! /sys/fs/bpf/cangw/"));
    let (code, found) = doctor("");
    assert_eq!(code, 1);
    assert!(
        found.contains("! network abababababab, which Docker does not have\n"),
        "{found}"
    );
    let (code, fixed) = doctor("--fix");
    assert_eq!((code, fixed), (0, found.replace('!', "-")));
    assert_eq!(doctor(""), (0, nothing));
    is_gone(&docker, &namespace);
}

const TOPOLOGY: &str = r#"
version = 1
name = "car"

[bus.body]

[bus.chassis]

[ecu.engine]
interfaces = { can0 = "body" }

[[route]]
from = "body"
to = "chassis"
id = ["123"]
"#;

/// Containers on a topology's bus, beside its ECUs and behind its routes, also after the topology went and came.
#[test]
fn containers_are_on_a_bus_of_a_topology() {
    let namespace = Namespace::new("docker");
    let file = std::env::temp_dir().join(format!("cangw-car-{}.toml", std::process::id()));
    fs::write(&file, TOPOLOGY).expect("a file can be written");
    let path = file.to_str().expect("a path of letters");
    let mut docker = Docker::start(&namespace, &[path]);
    for (bus, options) in [("body", ""), ("car.chassis", "-o fd=true -o host_if=tool0")] {
        let name = bus.trim_start_matches("car.");
        docker.must(&format!(
            "network create --driver cangw --ipam-driver null -o bus={bus} {options} {name}"
        ));
    }
    let on_body = docker.container("body1", "body");
    let on_chassis = docker.container("chassis1", "chassis");
    let engine = Namespace::of_others("car.engine");
    let look = || {
        let engine = socket(&engine, "can0");
        let body = socket(&on_body, "can0");
        let chassis = socket(&on_chassis, "can0");
        let tool = socket(&namespace, "tool0");
        reaches(
            &engine,
            &Frame::classic(0x123, &[1]),
            &[&body, &chassis, &tool],
            &[],
        );
        reaches(
            &body,
            &Frame::classic(0x123, &[2]),
            &[&engine, &chassis, &tool],
            &[],
        );
        reaches(
            &body,
            &Frame::classic(0x124, &[2]),
            &[&engine],
            &[&chassis, &tool],
        );
        reaches(
            &chassis,
            &Frame::fd(0x123, 0, &[3; 64]),
            &[&tool],
            &[&engine, &body],
        );
    };
    look();
    // The topology stays as it is, and so do the containers, when it is looked at again.
    let diff = docker.cangw(&format!("diff {path}"));
    assert_eq!((diff.code, diff.stdout.as_str()), (0, ""), "{diff:?}");
    drop(docker.cangwd.take());
    let down = docker.cangw("down car");
    assert_eq!(down.code, 0, "{down:?}");
    assert!(
        !on_body.output("ip", &["-brief", "link"]).contains("can0"),
        "its bus is gone"
    );
    docker.start_cangwd(&[path]);
    let engine = Namespace::of_others("car.engine");
    let is_back =
        |container: &Namespace| container.output("ip", &["-brief", "link"]).contains("can0");
    wait(|| is_back(&on_body) && is_back(&on_chassis));
    let (engine, body) = (socket(&engine, "can0"), socket(&on_body, "can0"));
    let chassis = socket(&on_chassis, "can0");
    reaches(
        &engine,
        &Frame::classic(0x123, &[4]),
        &[&body, &chassis],
        &[],
    );
    docker.must("rm --force body1 chassis1");
    docker.must("network rm body chassis");
    let down = docker.cangw("down car");
    assert_eq!(down.code, 0, "{down:?}");
    drop(docker.cangwd.take());
    let _ = docker.cangw("down car");
    is_gone(&docker, &namespace);
    let _ = fs::remove_file(&file);
}

/// The image that `cargo xtask image` has made.
fn image() -> PathBuf {
    let this = std::env::current_exe().expect("a process knows its executable");
    let tars = this
        .ancestors()
        .map(|folder| folder.join("image/cangw-car.tar"));
    tars.into_iter()
        .find(|tar| tar.is_file())
        .expect("there is an image: `cargo xtask image` makes it")
}

/// The example: five containers of an image without a registry, two buses, a gateway, and a display by TCP.
#[test]
fn containers_are_a_small_car() {
    let namespace = Namespace::new("docker");
    let docker = Docker::start(&namespace, &[]);
    docker.must(&format!("import {} cangw-car", image().display()));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/containers/compose.yaml");
    docker.compose(&file, "--project-name car up --detach");
    let dashboard = || docker.must("logs car-dashboard-1");
    wait(|| {
        let shown = dashboard();
        ["open", "locked"].iter().all(|state| {
            shown
                .lines()
                .any(|line| line.contains("rpm") && line.ends_with(state))
        })
    });
    let address = docker.must(
        "inspect --format {{.NetworkSettings.Networks.car_display.IPAddress}} car-dashboard-1",
    );
    let shown = namespace.output("busybox", &["nc", "-w", "5", &address, "8080"]);
    assert!(shown.contains(" km/h  doors "), "{shown}");
    // What is on each bus: the gateway lets two identifiers pass, in one direction.
    let on = |interface: &str| {
        let socket = CanSocket::open(&namespace, interface);
        std::thread::sleep(Duration::from_secs(1));
        let ids = socket.drain().into_iter().map(|frame| frame.id());
        ids.collect::<BTreeSet<u32>>()
    };
    assert_eq!(on("powertrain0"), BTreeSet::from([0x0C8, 0x1A0]));
    assert_eq!(
        on("body0"),
        BTreeSet::from([0x320]),
        "what rules send there is not heard again on the host"
    );
    let ports = networks(&docker);
    let ports = ports
        .iter()
        .flat_map(|network| network["ports"].as_array().expect("a list"));
    let kept = ports.map(|port| port["over_rate"].as_u64().expect("a number"));
    assert_eq!(kept.sum::<u64>(), 0);
    docker.compose(&file, "--project-name car down --timeout 5");
    assert_eq!(docker.cangw("rule list").stdout, "");
    is_gone(&docker, &namespace);
}
