//! Virtual buses: what they lose, how many there can be, and what others take from them.

use std::thread;

use cangw::kernel::pins::Pins;
use cangw_tests::frame::Frame;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::tool::{Cangw, json};
use serde_json::Value;

use crate::clean::programs;
use crate::topologies::{SILENCE, TWO_BUSES, Up, call};

/// The kernel's broadcast ends at a port that is down.
#[test]
fn what_a_bus_loses_is_counted() {
    let gateway = Namespace::new("topology");
    let up = Up::new(&gateway, TWO_BUSES);
    let engine = CanSocket::open(&up.ecu("engine"), "can0");
    let brakes = CanSocket::open(&up.ecu("brakes"), "can0");
    let lost = || json(&gateway, "status --json")[0]["buses"]["powertrain"]["lost"].clone();
    let frame = Frame::classic(0x700, &[1]);
    engine.send(&frame);
    assert_eq!(brakes.receive(), frame);
    assert_eq!(lost(), 0);
    // The first port of the second bus.
    let buses = Namespace::of_others("car");
    buses.ip("link set gateway1 down");
    for _ in 0..3 {
        engine.send(&frame);
    }
    thread::sleep(SILENCE);
    assert_eq!(brakes.drain(), []);
    assert_eq!(lost(), 3);
    let status = Cangw::Ours.must(&gateway, "status");
    assert!(status.contains("tester:can1, lost 3\n"), "{status}");
    // A bus that has grown has another program, and counts on.
    buses.ip("link set gateway1 up");
    let ecus = (0..8).map(|n| format!("[ecu.more{n}]\ninterfaces = {{ can0 = \"powertrain\" }}\n"));
    up.change(&(TWO_BUSES.to_owned() + &ecus.collect::<String>()));
    engine.send(&frame);
    assert_eq!(brakes.receive(), frame);
    assert_eq!(lost(), 3);
    buses.ip("link set gateway1 down");
    engine.send(&frame);
    thread::sleep(SILENCE);
    assert_eq!(lost(), 4);
}

/// What the tables of a bus in the namespace `car` say of its programs is gone: they are of another build.
fn forget_build(buses: &Namespace) {
    let pins = buses.enter(|| Pins::open(false).expect("pins").expect("bpffs"));
    let map = pins.path("+hubs");
    let map = map.to_str().expect("a text");
    let entries = buses.output("bpftool", &["-j", "map", "dump", "pinned", map]);
    let entries: Value = serde_json::from_str(&entries).expect("JSON");
    for entry in entries.as_array().expect("entries") {
        let mut command = vec!["map", "delete", "pinned", map, "key"];
        let key = entry["key"].as_array().expect("bytes");
        command.extend(key.iter().map(|byte| byte.as_str().expect("a byte")));
        let _ = buses.output("bpftool", &command);
    }
}

#[test]
fn a_bus_gets_what_somebody_took_and_new_programs() {
    let gateway = Namespace::new("topology");
    let up = Up::new(&gateway, TWO_BUSES);
    let engine = CanSocket::open(&up.ecu("engine"), "can0");
    let dashboard = CanSocket::open(&up.ecu("dashboard"), "can0");
    let pass = || {
        for (from, to, id, arrives) in [
            (&engine, &dashboard, 0x105, 0x105),
            (&dashboard, &engine, 0x294, 0x394),
        ] {
            from.send(&Frame::classic(id, &[1]));
            assert_eq!(to.receive(), Frame::classic(arrives, &[1]));
        }
    };
    pass();
    let buses = Namespace::of_others("car");
    let mended = |step: &str| {
        assert_eq!(call(&gateway, "diff", TWO_BUSES).stdout, step);
        up.change(TWO_BUSES);
        assert_eq!(call(&gateway, "diff", TWO_BUSES).stdout, "");
        pass();
    };
    // The port of the bus powertrain.
    for port in ["gateway0", "gateway1"] {
        let _ = buses.output("tc", &["filter", "del", "dev", port, "ingress"]);
    }
    let all = "~ programs and filters of bus body\n~ programs and filters of bus powertrain\n";
    mended(all);
    let ids = || -> Vec<String> {
        let number = |line: &String| line.split(':').next().map(str::to_owned);
        let ours = programs(&gateway).into_iter();
        let hubs = ours.filter(|line| line.contains("name cangw_hub "));
        hubs.filter_map(|line| number(&line)).collect()
    };
    let before = ids();
    assert_eq!(before.len(), 2, "{before:?}");
    forget_build(&buses);
    mended(all);
    let after = ids();
    assert!(
        after.iter().all(|id| !before.contains(id)),
        "{before:?} {after:?}"
    );
}

/// A tracepoint takes 64 programs only.
#[test]
fn a_topology_can_have_many_buses() {
    let gateway = Namespace::new("topology");
    let mut text = "version = 1\nname = \"car\"\n".to_owned();
    for number in 0..70 {
        text += &format!("[bus.bus{number}]\n");
    }
    text += "[ecu.one]\ninterfaces = { can0 = \"bus69\" }\n";
    let up = Up::new(&gateway, &text);
    let one = CanSocket::open(&up.ecu("one"), "can0");
    let bus = CanSocket::open(&gateway, "bus69");
    one.send(&Frame::classic(0x123, &[1]));
    assert_eq!(bus.receive(), Frame::classic(0x123, &[1]));
}

/// An ECU with interfaces on two buses has rules of its own between them: tc redirects its frames, which XDP would leave alone at the bus. A flood, each
/// frame once, at every port, in order.
#[test]
fn an_ecu_can_be_a_gateway() {
    const FRAMES: u32 = 5000;
    let gateway = Namespace::new("topology");
    let gate = "[ecu.gate]\ninterfaces = { can0 = \"body\", can1 = \"powertrain\" }\n";
    let up = Up::new(&gateway, &(TWO_BUSES.to_owned() + gate));
    let ecu = up.ecu("gate");
    Cangw::Ours.must(&ecu, "-A -s can0 -d can1 -f 600:700");
    let sender = CanSocket::open(&up.ecu("dashboard"), "can0").deaf();
    let receivers =
        ["engine", "brakes"].map(|name| CanSocket::open(&up.ecu(name), "can0").listening_to(0x600));
    let on_gateway = CanSocket::open(&gateway, "powertrain").listening_to(0x600);
    thread::scope(|scope| {
        scope.spawn(|| {
            cangw_tests::sys::pin_to_cpu(0).expect("a processor");
            for number in 0..FRAMES {
                sender.send(&Frame::classic(0x600, &number.to_be_bytes()));
            }
        });
        for receiver in receivers.iter().chain([&on_gateway]) {
            scope.spawn(move || {
                for number in 0..FRAMES {
                    assert_eq!(receiver.receive().data(), number.to_be_bytes());
                }
                assert_eq!(receiver.receive_within(SILENCE), None);
            });
        }
    });
    Cangw::Ours.must(&ecu, "-F");
}
