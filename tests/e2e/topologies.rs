//! Topologies: they come up, carry frames, change, and leave nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use cangw::kernel::netns::NetNs;
use cangw::kernel::pins::Pins;
use cangw::options::Policy;
use cangw::topology::marks::made;
use cangw::topology::{EcuHandle, Topology};
use cangw_tests::frame::Frame;
use cangw_tests::lab::{Lab, Link};
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::tool::{Answer, Cangw, json};
use socketcan::{CanFrame, EmbeddedFrame as _, Socket as _, StandardId};

use crate::clean::programs;
use crate::flood::{beside, flood_through};

pub const TWO_BUSES: &str = include_str!("../../examples/two-buses.toml");
const TEST_BENCH: &str = include_str!("../../examples/test-bench.toml");
const DIAGNOSTICS: &str = include_str!("../../examples/diagnostics.toml");
const TUNNELS: &str = include_str!("../../examples/tunnels.toml");
/// More ports than the smallest map has room for, and more than a tc filter has actions.
const MANY: usize = 31;
/// How long a frame may take that should not come.
pub const SILENCE: Duration = Duration::from_millis(300);

/// Calls `cangw` with a verb and a file that has this text.
pub fn call(gateway: &Namespace, verb: &str, text: &str) -> Answer {
    let path = format!("/tmp/cangw-topology-{}.toml", std::process::id());
    fs::write(&path, text).expect("a file can be written");
    let answer = Cangw::Ours.run(gateway, &format!("{verb} {path}"));
    let _ = fs::remove_file(&path);
    answer
}

/// A topology that is up, and goes down when the test ends in whichever way.
pub struct Up<'a> {
    gateway: &'a Namespace,
    topology: Topology,
}

impl<'a> Up<'a> {
    pub fn new(gateway: &'a Namespace, text: &str) -> Self {
        let topology = Topology::parse("f", text).expect("a topology");
        let up = Self { gateway, topology };
        up.change(text);
        up
    }

    pub fn change(&self, text: &str) {
        let answer = call(self.gateway, "up", text);
        assert_eq!(answer.code, 0, "{answer:#?}");
    }

    pub fn ecu(&self, name: &str) -> Namespace {
        Namespace::of_others(&format!("{}.{name}", self.topology.name))
    }

    /// A socket on each interface of each ECU, and on the gateway's of each bus where frames pass to programs; with the bus.
    fn sockets(&self) -> BTreeMap<String, (String, CanSocket)> {
        let mut sockets = BTreeMap::new();
        for (ecu, described) in &self.topology.ecus {
            let namespace = self.ecu(ecu);
            for (interface, bus) in &described.interfaces {
                let socket = CanSocket::open(&namespace, interface);
                sockets.insert(format!("{ecu}:{interface}"), (bus.clone(), socket));
            }
        }
        for (bus, described) in &self.topology.buses {
            if described.policy == Policy::Deny {
                continue;
            }
            let socket = CanSocket::open(self.gateway, bus);
            sockets.insert(format!("gateway:{bus}"), (bus.clone(), socket));
        }
        sockets
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let _ = Cangw::Ours.run(self.gateway, &format!("down {}", self.topology.name));
    }
}

/// What a topology could leave behind.
pub fn traces(gateway: &Namespace) -> (Vec<String>, String, bool) {
    let mut namespaces: Vec<String> = fs::read_dir("/run/netns")
        .expect("there are network namespaces")
        .map(|entry| entry.expect("an entry").file_name().into_string())
        .map(|name| name.expect("a text"))
        .collect();
    namespaces.sort();
    let links = gateway.output("ip", &["-br", "link"]) + &gateway.output("tc", &["qdisc"]);
    (namespaces, links, Path::new("/sys/fs/bpf/cangw").exists())
}

/// Each frame reaches every other port of its bus once, and nobody else, since no route takes its identifier.
#[test]
fn the_examples_come_up_and_go_down() {
    let gateway = Namespace::new("topology");
    let before = traces(&gateway);
    for text in [TWO_BUSES, TEST_BENCH, DIAGNOSTICS, TUNNELS] {
        let up = Up::new(&gateway, text);
        let name = up.topology.name.clone();
        assert_eq!(call(&gateway, "diff", text).stdout, "");
        let sockets = up.sockets();
        for (number, (sender, (bus, socket))) in sockets.iter().enumerate() {
            let frame = Frame::classic(0x600 + number as u32, &[number as u8]);
            socket.send(&frame);
            for (receiver, (other, socket)) in &sockets {
                if receiver == sender || other != bus {
                    continue;
                }
                assert_eq!(socket.receive(), frame, "{name}: {receiver}, from {sender}");
            }
        }
        thread::sleep(SILENCE);
        for (receiver, (_, socket)) in &sockets {
            let more = socket.drain();
            assert_eq!(more, [], "{name}: {receiver} got more than it should");
        }
        drop(sockets);
        // An ECU that is gone already is no obstacle.
        if let Some(ecu) = up.topology.ecus.keys().next() {
            let _ = gateway.output("ip", &["netns", "del", &format!("{name}.{ecu}")]);
        }
        Cangw::Ours.must(&gateway, &format!("down {name}"));
        assert_eq!(traces(&gateway), before, "{name}");
    }
    for _ in 0..100 {
        if programs(&gateway).is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("programs are left: {:?}", programs(&gateway));
}

#[test]
fn routes_lead_from_bus_to_bus() {
    let gateway = Namespace::new("topology");
    let up = Up::new(&gateway, DIAGNOSTICS);
    let sockets = up.sockets();
    let on = |name: &str| &sockets[name].1;
    let request = Frame::classic(0x7DF, &[2, 1]);
    on("tester:can0").send(&request);
    for ecu in ["engine:can0", "airbag:can0"] {
        assert_eq!(on(ecu).receive(), request, "{ecu}");
    }
    let answer = Frame::classic(0x7E8, &[3]);
    on("engine:can0").send(&answer);
    assert_eq!(on("tester:can0").receive(), answer);
    assert_eq!(on("airbag:can0").receive(), answer);
    on("tester:can0").send(&Frame::classic(0x7E1, &[]));
    thread::sleep(SILENCE);
    assert_eq!(
        on("engine:can0").drain(),
        [],
        "what no route names does not pass"
    );
    let status = json(&gateway, "status --json");
    let routes = status[0]["routes"].as_array().expect("routes");
    let handled: Vec<_> = routes.iter().map(|r| r["handled"].clone()).collect();
    assert_eq!(handled, [1, 0, 1], "{status:#}");
    let interfaces = json(&gateway, "interface list --json");
    assert_eq!(interfaces[0]["reasons"]["denied"], 1, "{interfaces:#}");
}

/// One process is two ECUs, by the library.
#[test]
fn a_program_opens_the_sockets_of_ecus() {
    let gateway = Namespace::new("topology");
    let _up = Up::new(&gateway, TWO_BUSES);
    let engine = EcuHandle::open("engine").expect("an ECU");
    let engine = engine.socket("can0").expect("a socket");
    let brakes = EcuHandle::open("car.brakes").expect("an ECU");
    let brakes = brakes.socket("can0").expect("a socket");
    let id = StandardId::new(0x123).expect("an identifier");
    let frame = CanFrame::new(id, &[1, 2, 3]).expect("a frame");
    engine.write_frame(&frame).expect("sent");
    let received = brakes.read_frame_timeout(Duration::from_secs(20));
    assert_eq!(received.expect("received").data(), [1, 2, 3]);
    for (name, message) in [
        (
            "motor",
            "motor does not name one ECU; there are car.brakes, car.dashboard",
        ),
        ("car.motor", "car.motor does not name one ECU"),
    ] {
        let error = EcuHandle::open(name)
            .err()
            .expect("no such ECU")
            .to_string();
        assert!(error.starts_with(message), "{error}");
    }
    let run = |words: &str| Cangw::Ours.run(&gateway, &format!("exec dashboard -- {words}"));
    assert!(run("ip -br link show can0").stdout.starts_with("can0@"));
    assert_eq!(run("false").code, 1);
    assert!(
        run("no-such-program")
            .stderr
            .contains("run no-such-program")
    );
}

/// What stays, stays: sockets, interfaces and counters.
#[test]
fn a_change_touches_only_what_differs() {
    let gateway = Namespace::new("topology");
    let up = Up::new(&gateway, TWO_BUSES);
    let dashboard = CanSocket::open(&up.ecu("dashboard"), "can0");
    let engine = CanSocket::open(&up.ecu("engine"), "can0");
    let frame = Frame::classic(0x105, &[1]);
    engine.send(&frame);
    assert_eq!(dashboard.receive(), frame);

    let changed = TWO_BUSES
        .replace("[ecu.brakes]", "[ecu.abs]")
        .replace("rate = \"10/s\"", "rate = \"20/s\"");
    let steps = call(&gateway, "diff", &changed).stdout;
    let expected = "+ ECU abs\n+ can0 of ECU abs on bus powertrain\n~ routes: 1 added, 1 removed\n- ECU brakes\n";
    assert_eq!(steps, expected);
    let answer = call(&gateway, "up", &changed);
    assert_eq!((answer.code, answer.stderr.as_str()), (0, expected));
    let abs = CanSocket::open(&up.ecu("abs"), "can0");
    engine.send(&frame);
    assert_eq!(dashboard.receive(), frame);
    assert_eq!(abs.receive(), frame);
    let status = json(&gateway, "status --json");
    assert_eq!(status[0]["routes"][0]["handled"], 2, "{status:#}");
    assert!(!Path::new("/run/netns/car.brakes").exists());

    // More ports than the bus had room for, while frames pass.
    let mut grown = changed.clone();
    for number in 0..MANY {
        grown += &format!("[ecu.more{number}]\ninterfaces = {{ can0 = \"powertrain\" }}\n");
    }
    up.change(&grown);
    let more: Vec<CanSocket> = (0..MANY)
        .map(|number| CanSocket::open(&up.ecu(&format!("more{number}")), "can0"))
        .collect();
    engine.send(&frame);
    for socket in [&abs, &dashboard].into_iter().chain(&more) {
        assert_eq!(socket.receive(), frame);
    }
    // What comes by a route as well.
    dashboard.send(&Frame::classic(0x294, &[2]));
    for socket in [&engine, &abs].into_iter().chain(&more) {
        assert_eq!(socket.receive(), Frame::classic(0x394, &[2]));
    }
    thread::sleep(SILENCE);
    for socket in [&engine, &abs, &dashboard].into_iter().chain(&more) {
        assert_eq!(socket.drain(), []);
    }
}

#[test]
fn a_failed_up_undoes_itself() {
    let gateway = Namespace::new("topology");
    // The last bus needs an interface name that is taken.
    gateway.ip("link add powertrain type vcan");
    let before = traces(&gateway);
    let answer = call(&gateway, "up", TWO_BUSES);
    assert_ne!(answer.code, 0);
    for part in [
        "+ interface powertrain on the gateway: ",
        "there is an interface powertrain already",
        "Everything is as it was before",
    ] {
        assert!(answer.stderr.contains(part), "{answer:?}");
    }
    assert_eq!(traces(&gateway), before);
    gateway.ip("link del powertrain");
    // Somebody else's namespace is not touched.
    let other = gateway.output("ip", &["netns", "add", "car"]);
    assert_eq!(other, "");
    let answer = call(&gateway, "up", TWO_BUSES);
    let _ = gateway.output("ip", &["netns", "del", "car"]);
    assert!(
        answer
            .stderr
            .contains("a network namespace car, which is no topology's"),
        "{answer:?}"
    );
    let other = gateway.output("ip", &["netns", "add", "car.engine"]);
    assert_eq!(other, "");
    assert_eq!(json(&gateway, "status --json"), serde_json::json!([]));
    let before = traces(&gateway);
    let answer = call(&gateway, "up", TWO_BUSES);
    assert!(
        answer
            .stderr
            .contains("a network namespace car.engine, which is no topology's"),
        "{answer:?}"
    );
    assert_eq!(traces(&gateway), before);
    Cangw::Ours.must(&gateway, "down car");
    assert_eq!(traces(&gateway), before);
    let _ = gateway.output("ip", &["netns", "del", "car.engine"]);
    // A route that the gateway refuses is the last step.
    let bad = TWO_BUSES.replace("id = [\"294\"]\n", "id = [\"294\"]\nlimit = 6\n");
    let before = traces(&gateway);
    let answer = call(&gateway, "up", &bad);
    assert!(
        answer.stderr.contains("hop limit 6 is above max-hops 1"),
        "{answer:?}"
    );
    assert_eq!(traces(&gateway), before);
}

/// Two controllers on one bus.
fn controllers() -> Lab {
    Lab::new(
        "topology",
        &[Link::Hardware("can0"), Link::Hardware("can1")],
    )
}

/// A real device gets its bit rate, only when it has another; the bus is the device.
#[test]
fn a_bus_can_be_a_real_device() {
    let lab = controllers();
    let gateway = &lab.namespace;
    let text = r#"
version = 1
name = "real"
[bus.obd]
device = "can0"
bitrate = 250000
restart_ms = 100
txqueuelen = 77
[bus.body]
[ecu.dash]
interfaces = { can0 = "body" }
[[route]]
from = "obd"
to = "body"
[[route]]
from = "body"
to = "obd"
id = ["123"]
"#;
    let details = || gateway.output("ip", &["-details", "link", "show", "can0"]);
    assert!(details().contains("bitrate 500000"), "{}", details());
    let up = Up::new(gateway, text);
    for part in ["bitrate 250000", "restart-ms 100", "qlen 77", "UP"] {
        assert!(details().contains(part), "{part}: {}", details());
    }
    assert_eq!(call(gateway, "diff", text).stdout, "");
    let faster = text.replace("250000", "500000");
    assert_eq!(call(gateway, "diff", &faster).stdout, "~ device can0\n");
    up.change(&faster);
    assert!(details().contains("bitrate 500000"), "{}", details());

    let dash = CanSocket::open(&up.ecu("dash"), "can0");
    let bus = CanSocket::open(gateway, "can1");
    let (inward, outward) = (Frame::classic(0x7DF, &[1]), Frame::classic(0x123, &[2]));
    bus.send(&inward);
    assert_eq!(dash.receive(), inward);
    dash.send(&outward);
    assert_eq!(bus.receive(), outward);

    // What the device cannot do changes nothing.
    let bad = faster.replace("500000", "10");
    let before = details();
    let answer = call(gateway, "up", &bad);
    assert!(answer.stderr.contains("~ device can0: "), "{answer:?}");
    assert!(details().contains(",UP"), "it is up again: {}", details());
    assert_eq!(
        details().contains("bitrate 500000"),
        before.contains("bitrate 500000")
    );
    Cangw::Ours.must(gateway, "down real");
    assert!(
        details().contains("bitrate 500000"),
        "a device stays as it is"
    );
}

/// Somebody who made a topology was killed in the middle: the next one goes on with what is there.
#[test]
fn what_was_interrupted_is_finished() {
    let gateway = Namespace::new("topology");
    let before = traces(&gateway);
    // Before the namespace was mounted, and before it had a bus.
    let path = Path::new("/run/netns/car");
    fs::write(path, "").expect("a file can be written");
    fs::write("/run/netns/car.engine", "").expect("a file can be written");
    let up = Up::new(&gateway, TWO_BUSES);
    Cangw::Ours.must(&gateway, "down car");
    assert_eq!(traces(&gateway), before);
    let mark = || Pins::open(true)?.expect("bpffs").mark(&made()?);
    drop(NetNs::create(path, mark).expect("a namespace can be made"));
    up.change(TWO_BUSES);
    assert_eq!(call(&gateway, "diff", TWO_BUSES).stdout, "");
    // Somebody else's rules in the namespace of the buses are no business of the buses.
    let buses = Namespace::of_others("car");
    Cangw::Ours.must(&buses, "-F");
    assert_eq!(call(&gateway, "diff", TWO_BUSES).stdout, "");
    drop((up, buses));
    assert_eq!(traces(&gateway), before);
}

/// ECUs on a real bus: each frame is once on the wire, and once at each ECU but its sender.
#[test]
fn ecus_share_a_real_bus() {
    let lab = controllers();
    let gateway = &lab.namespace;
    let text = r#"
version = 1
name = "real"
[bus.obd]
device = "can0"
[bus.body]
[ecu.dash]
interfaces = { can0 = "obd" }
[ecu.tester]
interfaces = { can0 = "obd" }
[ecu.radio]
interfaces = { can0 = "body" }
[[route]]
from = "obd"
to = "body"
id = ["100-1FF"]
[[route]]
from = "body"
to = "obd"
id = ["200"]
"#;
    let up = Up::new(gateway, text);
    let ecu = |name: &str| CanSocket::open(&up.ecu(name), "can0");
    let sockets = [
        ("wire", CanSocket::open(gateway, "can1")),
        ("dash", ecu("dash")),
        ("tester", ecu("tester")),
        ("radio", ecu("radio")),
    ];
    for (sender, id, receivers) in [
        ("wire", 0x123, &["dash", "tester", "radio"][..]),
        ("wire", 0x700, &["dash", "tester"]),
        ("dash", 0x123, &["wire", "tester", "radio"]),
        ("tester", 0x700, &["wire", "dash"]),
        ("radio", 0x200, &["wire", "dash", "tester"]),
        ("radio", 0x201, &[]),
    ] {
        let frame = Frame::classic(id, &[1, 2, 3]);
        let (_, socket) = sockets
            .iter()
            .find(|(name, _)| *name == sender)
            .expect("one");
        socket.send(&frame);
        for (name, socket) in &sockets {
            if receivers.contains(name) {
                assert_eq!(socket.receive(), frame, "{name}, from {sender}");
            }
        }
        thread::sleep(SILENCE);
        for (name, socket) in &sockets {
            assert_eq!(socket.drain(), [], "{name}, from {sender}");
        }
    }
    drop(up);
    let answer = Cangw::Ours.run(gateway, "status");
    assert_eq!(answer.stdout, "", "{answer:?}");
}

/// A route forwards while ECUs, buses and other routes come and go.
#[test]
fn a_route_loses_no_frame_while_the_topology_changes() {
    let gateway = Namespace::new("topology");
    let up = Up::new(&gateway, TWO_BUSES);
    let engine = CanSocket::open(&up.ecu("engine"), "can0").deaf();
    let dashboard = CanSocket::open(&up.ecu("dashboard"), "can0");
    // The identifier of the flood's frames.
    let with_route = TWO_BUSES.replace("\"0C8\"", "\"123\"");
    up.change(&with_route);
    // No other bus: a new program at XDP changes the kernel's dispatcher while frames pass through it, which emulated processors do not survive
    // (flood.rs).
    let other = with_route.replace("rate = \"10/s\"", "rate = \"20/s\"")
        + "[ecu.more]\ninterfaces = { can0 = \"powertrain\", can1 = \"body\" }\n\
           [[route]]\nfrom = \"body\"\nto = \"powertrain\"\nid = [\"124\"]\n";
    let change = || {
        for _ in 0..5 {
            up.change(&other);
            up.change(&with_route);
        }
    };
    let sent = beside(change, |done| {
        flood_through(&gateway, (&engine, &dashboard), done)
    });
    let status = json(&gateway, "status --json");
    assert_eq!(status[0]["routes"][0]["handled"], sent, "{status:#}");
}
