//! `cangwd`: what it keeps true, and what it leaves alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cangw::kernel::pins::Pins;
use cangw::state::State;
use cangw_tests::daemon::Daemon;
use cangw_tests::frame::Frame;
use cangw_tests::keeper::Keeper;
use cangw_tests::lab::{Lab, Link};
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::tool::{Cangw, json};
use serde_json::Value;

use crate::flood::{beside, flood_through};
use crate::topologies::{TWO_BUSES, call, traces};

/// Much longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(60);
/// The route of [`TWO_BUSES`] for the frames of a flood.
const WITH_ROUTE: (&str, &str) = ("\"0C8\"", "\"123\"");

/// A file that a daemon reads.
pub struct File(pub PathBuf);

impl File {
    pub fn new(text: &str) -> Self {
        let name = format!("cangw-daemon-{}.toml", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("a file can be written");
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("a text")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The topology `car` goes down when the test ends in whichever way.
pub struct Down<'a>(pub &'a Namespace);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let _ = Cangw::Ours.run(self.0, "down car");
    }
}

/// Waits until something holds, and says how long that took.
fn until(what: &str, daemon: &Daemon, mut holds: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}\n{}", daemon.log());
        thread::sleep(Duration::from_millis(5));
    }
    begin.elapsed()
}

/// Whether everything is as in the file.
fn is_up(gateway: &Namespace, text: &str) -> bool {
    let answer = call(gateway, "diff", text);
    answer.code == 0 && answer.stdout.is_empty()
}

#[test]
fn it_makes_a_topology_and_leaves_it() {
    let gateway = Namespace::new("daemon");
    let _down = Down(&gateway);
    let before = traces(&gateway);
    let file = File::new(TWO_BUSES);
    let mut daemon = Daemon::start(&gateway, &[file.path()]);
    assert!(is_up(&gateway, TWO_BUSES), "{}", daemon.log());
    for _ in 0..3 {
        daemon.wait_for("WATCHDOG=1");
    }
    let log = daemon.stop();
    assert!(log.contains("+ ECU engine"), "{log}");
    assert!(is_up(&gateway, TWO_BUSES));

    // The next one goes on with it.
    let daemon = Daemon::start(&gateway, &[file.path(), "--teardown"]);
    assert!(!daemon.log().contains("car: "), "{}", daemon.log());
    daemon.stop();
    assert_eq!(traces(&gateway), before);
}

#[test]
fn a_new_file_is_taken_up_whole_or_not_at_all() {
    let gateway = Namespace::new("daemon");
    let _down = Down(&gateway);
    let file = File::new(TWO_BUSES);
    let mut daemon = Daemon::start(&gateway, &[file.path()]);

    file.write(&TWO_BUSES.replace("[bus.body]", "[bus.bodi]"));
    daemon.signal(libc::SIGHUP);
    daemon.wait_for("READY=1");
    let log = daemon.log();
    assert!(
        log.contains(&format!("{}, line ", file.path())) && log.contains("body"),
        "{log}"
    );
    assert!(is_up(&gateway, TWO_BUSES));

    let more = TWO_BUSES.to_owned() + "[ecu.more]\ninterfaces = { can0 = \"body\" }\n";
    file.write(&more);
    daemon.signal(libc::SIGHUP);
    until("the new ECU is there", &daemon, || is_up(&gateway, &more));

    // A topology under another name: the old one goes.
    let other = TWO_BUSES.replace("\"car\"", "\"truck\"");
    file.write(&other);
    daemon.signal(libc::SIGHUP);
    until("the other topology is up", &daemon, || {
        is_up(&gateway, &other) && !Path::new("/run/netns/car").exists()
    });
    drop(daemon);
    Cangw::Ours.must(&gateway, "down truck");

    file.write("version = 1\n");
    let mut daemon = Daemon::spawn(&gateway, &[file.path()]);
    assert!(!daemon.wait().success());
    assert!(daemon.log().contains(file.path()), "{}", daemon.log());
}

#[test]
fn what_vanishes_of_a_topology_comes_back() {
    let gateway = Namespace::new("daemon");
    let before = traces(&gateway);
    let _down = Down(&gateway);
    let file = File::new(TWO_BUSES);
    let daemon = Daemon::start(&gateway, &[file.path()]);
    let engine = Namespace::of_others("car.engine");
    // Keeps the namespace of its ECU alive.
    let program = CanSocket::open(&Namespace::of_others("car.dashboard"), "can0");
    let remove = |what: &str| match what {
        "the interface of an ECU" => engine.ip("link del can0"),
        "an ECU" => gateway.ip("netns del car.brakes"),
        "an ECU with a program" => gateway.ip("netns del car.dashboard"),
        "the gateway's interface" => gateway.ip("link del body"),
        _ => gateway.ip("netns del car"),
    };
    for what in [
        "the interface of an ECU",
        "an ECU",
        "an ECU with a program",
        "the gateway's interface",
        "the namespace of the buses",
    ] {
        remove(what);
        let time = until(what, &daemon, || is_up(&gateway, TWO_BUSES));
        println!("{what} is back after {time:?}");
    }
    let sender = CanSocket::open(&engine, "can0");
    let receiver = CanSocket::open(&Namespace::of_others("car.dashboard"), "can0");
    let frame = Frame::classic(0x0C8, &[1]);
    sender.send(&frame);
    assert_eq!(receiver.receive(), frame);
    drop((engine, program, sender, receiver, daemon));
    Cangw::Ours.must(&gateway, "down car");
    assert_eq!(traces(&gateway), before);
}

/// A frame that is sent again and again until it comes out at the far end; how long that took.
fn until_forwarded(daemon: &Daemon, sender: &CanSocket, receiver: &CanSocket) -> Duration {
    let frame = Frame::classic(0x123, &[7]);
    until("a frame is forwarded", daemon, || {
        sender.send(&frame);
        receiver.receive_within(Duration::from_millis(20)) == Some(frame.clone())
    })
}

#[test]
fn a_route_waits_for_its_interface_and_counts_meanwhile() {
    let lab = Lab::new("daemon", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    let namespace = &lab.namespace;
    Cangw::Ours.must(namespace, "-A -s x0 -d x1 -f 123:7FF");
    let daemon = Daemon::start(namespace, &[]);
    let sender = CanSocket::open(namespace, "x0p");
    namespace.ip("link del x1");
    let rule = || Cangw::Ours.run(namespace, "stats --json").stdout;
    let rule = || -> Value {
        let report: Value = serde_json::from_str(&rule()).expect("JSON");
        report["rules"][0].clone()
    };
    until("the rule waits", &daemon, || rule()["waiting_for"] == "x1");
    let before = rule();
    for _ in 0..10 {
        sender.send(&Frame::classic(0x123, &[1]));
    }
    let after = rule();
    let count = |rule: &Value, name: &str| rule[name].as_u64().expect("a count");
    assert_eq!(
        count(&after, "dropped_waiting"),
        count(&before, "dropped_waiting") + 10,
        "{after:#}"
    );
    assert_eq!(count(&after, "handled"), count(&before, "handled"));

    namespace
        .ip("link add x1 type vxcan peer name x1p\nlink set x1 mtu 72 up\nlink set x1p mtu 72 up");
    let receiver = CanSocket::open(namespace, "x1p");
    let time = until_forwarded(&daemon, &sender, &receiver);
    println!("the route is in force again after {time:?}");
    assert_eq!(rule()["waiting_for"], Value::Null);
}

#[test]
fn a_device_may_come_later() {
    const TOPOLOGY: &str = "version = 1\nname = \"car\"\n\
        [bus.left]\n[bus.right]\ndevice = \"late\"\n\
        [ecu.engine]\ninterfaces = { can0 = \"left\" }\n\
        [[route]]\nfrom = \"left\"\nto = \"right\"\n";
    let gateway = Namespace::new("daemon");
    let _down = Down(&gateway);
    let file = File::new(TOPOLOGY);
    // A person is told.
    let answer = call(&gateway, "up", TOPOLOGY);
    assert_ne!(answer.code, 0, "{answer:?}");
    assert!(answer.stderr.contains("late"), "{answer:?}");
    let daemon = Daemon::start(&gateway, &[file.path()]);
    assert!(
        daemon.log().contains("1 of 1 rules wait"),
        "{}",
        daemon.log()
    );
    gateway.ip("link add late type vxcan peer name far\nlink set far up");
    let sender = CanSocket::open(&Namespace::of_others("car.engine"), "can0");
    let receiver = CanSocket::open(&gateway, "far");
    until_forwarded(&daemon, &sender, &receiver);
}

/// Somebody takes a device down again and again; the daemon wins in the end.
#[test]
fn a_device_that_is_taken_down_comes_up() {
    const TOPOLOGY: &str =
        "version = 1\nname = \"car\"\n[bus.left]\n[bus.right]\ndevice = \"disputed\"\n";
    let gateway = Namespace::new("daemon");
    let _down = Down(&gateway);
    gateway.ip("link add disputed type vcan");
    let file = File::new(TOPOLOGY);
    let daemon = Daemon::start(&gateway, &[file.path()]);
    for _ in 0..20 {
        gateway.ip("link set disputed down");
        thread::sleep(Duration::from_millis(20));
    }
    until("the device is up", &daemon, || is_up(&gateway, TOPOLOGY));
}

/// A controller is taken from its driver and given back, as when an adapter is plugged out and in: the new interface is not set up at all.
#[test]
fn a_controller_is_set_up_again() {
    const DRIVER: &str = "/sys/bus/pci/drivers/kvaser_pci";
    const TOPOLOGY: &str = "version = 1\nname = \"car\"\n\
        [bus.left]\n[bus.right]\ndevice = \"can0\"\nbitrate = 500000\n\
        [ecu.engine]\ninterfaces = { can0 = \"left\" }\n\
        [[route]]\nfrom = \"left\"\nto = \"right\"\n";
    let device = fs::read_link("/sys/class/net/can0/device").expect("the guest has a controller");
    let address = device.file_name().expect("an address").to_owned();
    let address = address.to_str().expect("a text");
    let lab = Lab::new("daemon", &[Link::Hardware("can0"), Link::Hardware("can1")]);
    let gateway = &lab.namespace;
    let _down = Down(gateway);
    let file = File::new(TOPOLOGY);
    let daemon = Daemon::start(gateway, &[file.path()]);
    let sender = CanSocket::open(&Namespace::of_others("car.engine"), "can0");
    let receiver = CanSocket::open(gateway, "can1");
    until_forwarded(&daemon, &sender, &receiver);
    let tell = |what: &str| fs::write(format!("{DRIVER}/{what}"), address);
    tell("unbind").expect("a driver lets go");
    until("the rule waits", &daemon, || {
        json(gateway, "rule list --json")[0]["waiting_for"] == "can0"
    });
    tell("bind").expect("a driver takes a device");
    let move_here = format!("ip link set can0 netns {}", gateway.name());
    let moved = std::process::Command::new("sh")
        .args(["-c", &move_here])
        .status();
    assert!(moved.expect("ip runs").success());
    let time = until_forwarded(&daemon, &sender, &receiver);
    println!("a controller is on its bus again after {time:?}");
}

#[test]
fn filters_that_somebody_takes_come_back() {
    let lab = Lab::new("daemon", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    let namespace = &lab.namespace;
    let tc = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let _ = namespace.output("tc", &words);
    };
    const ADD: &str = "qdisc add dev x0 ingress";
    // Somebody else's qdisc, to begin with.
    tc("qdisc add dev x0 clsact");
    Cangw::Ours.must(namespace, "-A -s x0 -d x1 -f 123:7FF");
    let daemon = Daemon::start(namespace, &[]);
    let sender = CanSocket::open(namespace, "x0p");
    let receiver = CanSocket::open(namespace, "x1p");
    for changes in [
        &["qdisc del dev x0 clsact"][..],
        &["qdisc del dev x0 ingress"],
        &["qdisc del dev x0 ingress", ADD],
        &["filter del dev x0 ingress"],
        &["filter del dev x0 ingress pref 51713"],
    ] {
        for change in changes {
            if *change == ADD {
                // The daemon may have been faster.
                let words = change.split(' ');
                let _ = namespace.command("tc").args(words).output();
            } else {
                tc(change);
            }
        }
        let time = until_forwarded(&daemon, &sender, &receiver);
        println!("after {changes:?}: {time:?}");
        while receiver.receive_within(Duration::from_millis(20)).is_some() {}
    }
    // A qdisc with somebody else's filter stays.
    tc("filter add dev x0 ingress pref 10 protocol all matchall action ok");
    drop(daemon);
    Cangw::Ours.must(namespace, "-F");
    let left = namespace.output("tc", &["filter", "show", "dev", "x0", "ingress"]);
    assert!(left.contains("pref 10 ") && !left.contains("bpf"), "{left}");
}

/// The service manager hears nothing of a daemon that hangs.
#[test]
fn a_pass_that_hangs_is_no_sign_of_life() {
    const LONG: Duration = Duration::from_secs(2);
    let gateway = Namespace::new("daemon");
    let _down = Down(&gateway);
    let file = File::new(TWO_BUSES);
    let mut daemon = Daemon::start(&gateway, &[file.path()]);
    daemon.wait_for("WATCHDOG=1");
    let lock = fs::File::open("/run/cangw.lock").expect("topologies have a lock");
    lock.lock().expect("it can be held");
    // Unless a pass is about to begin in any case, which then hangs before the signal is seen.
    daemon.signal(libc::SIGHUP);
    thread::sleep(LONG);
    assert!(!daemon.is_alive_within(LONG), "{}", daemon.log());
    drop(lock);
    daemon.wait_for("WATCHDOG=1");
    assert!(is_up(&gateway, TWO_BUSES));
}

/// Reloads, kills and other interfaces, and each frame arrives once, in order.
#[test]
fn a_route_loses_no_frame_whatever_becomes_of_the_daemon() {
    const RELOADS: usize = 100;
    const KILLS: usize = 20;
    let _keeper = Keeper::begin();
    let gateway = Namespace::new("daemon");
    let _down = Down(&gateway);
    let with_route = TWO_BUSES.replace(WITH_ROUTE.0, WITH_ROUTE.1);
    let other = with_route.replace("rate = \"10/s\"", "rate = \"20/s\"");
    let file = File::new(&with_route);
    let start = || Daemon::start(&gateway, &[file.path()]);
    let mut daemon = start();
    let engine = CanSocket::open(&Namespace::of_others("car.engine"), "can0").deaf();
    let dashboard = CanSocket::open(&Namespace::of_others("car.dashboard"), "can0");
    let disturb = || {
        for round in 0..KILLS {
            for reload in 0..RELOADS / KILLS {
                file.write(if reload % 2 == 0 { &other } else { &with_route });
                daemon.signal(libc::SIGHUP);
                daemon.wait_for("READY=1");
            }
            gateway.ip("link add unrelated type vcan\nlink set unrelated up");
            // Anywhere in what follows from that.
            thread::sleep(Duration::from_millis(7 * round as u64));
            // SIGKILL, and nothing is cleaned up.
            daemon = start();
            gateway.ip("link del unrelated");
        }
    };
    let begin = Instant::now();
    let sent = beside(disturb, |done| {
        flood_through(&gateway, (&engine, &dashboard), done)
    });
    println!("{sent} frames in {:?}", begin.elapsed());
    let status = json(&gateway, "status --json");
    assert_eq!(status[0]["routes"][0]["handled"], sent, "{status:#}");
    assert_eq!(status[0]["routes"][0]["dropped"], 0, "{status:#}");
}

/// Programs of another build are replaced beside a flood.
#[test]
fn an_upgrade_replaces_the_programs() {
    let _keeper = Keeper::begin();
    let lab = Lab::new("daemon", &[Link::Vxcan("x0"), Link::Vxcan("x1")]);
    let namespace = &lab.namespace;
    Cangw::Ours.must(namespace, "-A -s x0 -d x1 -f 123:7FF");
    let change = |state: fn(&mut State)| {
        namespace.enter(|| {
            let pins = Pins::open(true).expect("pins").expect("bpffs");
            let mut old = State::read(&pins).expect("a state");
            state(&mut old);
            old.write(&pins).expect("a state can be written");
            old.programs
        })
    };
    let ours = change(|_| {});
    let sender = CanSocket::open(namespace, "x0p").deaf();
    let receiver = CanSocket::open(namespace, "x1p");
    let upgrade = || {
        for _ in 0..3 {
            change(|state| state.programs ^= 1);
            let log = Daemon::start(namespace, &[]).stop();
            assert!(log.contains("replaced the programs"), "{log}");
        }
    };
    let sent = beside(upgrade, |done| {
        flood_through(namespace, (&sender, &receiver), done)
    });
    assert_eq!(change(|_| {}), ours);
    let rules = Cangw::Ours.list(namespace);
    assert_eq!((rules[0].handled, rules[0].dropped), (sent, 0));
}
