//! Federations on Zenoh: three gateways on a network, one that is cut off, and strangers.

mod modes;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use cangw_tests::frame::{BRS, Frame};
use cangw_tests::namespace::Namespace;
use cangw_tests::site::Site;
use cangw_tests::socket::CanSocket;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;

use crate::topologies::SILENCE;

/// Much longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than the lease.
const OUTAGE: Duration = Duration::from_secs(20);
/// Seconds after which a host is lost.
const LEASE: u64 = 4;

/// Keys of a host whose certificate an [`Authority`] signs.
const FILES: &str = "certificate = \"own.pem\"\nkey = \"own.key\"\nca = \"ca.pem\"";

/// Those who vouch for hosts.
struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self(Issuer::new(params, key), certificate)
    }

    /// Writes a certificate for a host with an address into its folder.
    fn sign(&self, site: &Site, host: &str, address: &str) {
        self.sign_for(site, host, &[address]);
    }

    /// The same for a host with several addresses.
    fn sign_for(&self, site: &Site, host: &str, addresses: &[&str]) {
        let addresses: Vec<String> = addresses.iter().map(|a| (*a).to_owned()).collect();
        let mut params = CertificateParams::new(addresses).expect("names");
        params.distinguished_name.push(DnType::CommonName, host);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        for (file, text) in [
            ("ca.pem", &self.1),
            ("own.pem", &certificate.pem()),
            ("own.key", &key.serialize_pem()),
        ] {
            fs::write(site.folder.join(file), text).expect("a file can be written");
        }
    }
}

/// Hosts on one network, each with an address that ends in its number.
struct Net {
    wire: Namespace,
    sites: Vec<Site>,
}

impl Net {
    fn new(federations: &[(&str, &str)]) -> Self {
        let wire = wire("wire");
        let one = |(place, (name, more)): (usize, &(&str, &str))| {
            let (number, site) = (place + 1, site(name, &format!("{FILES}\n{more}")));
            plug(&wire, number, &site, "eth0", &format!("10.0.0.{number}"));
            site
        };
        let sites = federations.iter().enumerate().map(one).collect();
        Self { wire, sites }
    }
}

/// A network for hosts.
fn wire(name: &str) -> Namespace {
    let wire = Namespace::new(name);
    wire.ip("link add br0 type bridge\nlink set br0 up");
    wire
}

/// A host of a federation, whose table has these keys.
fn site(name: &str, keys: &str) -> Site {
    Site::new(
        name,
        &format!(
            "[federation]\nrealm = \"plant\"\nlease = \"{LEASE}s\"\nmax_age = \"500ms\"\n{keys}"
        ),
    )
}

/// Plugs a host into a network, there as `pNUMBER`.
fn plug(wire: &Namespace, number: usize, site: &Site, interface: &str, address: &str) {
    wire.ip(&format!(
        "link add p{number} type veth peer name {interface} netns {}\nlink set p{number} master br0 up",
        site.gateway.name()
    ));
    site.gateway.ip(&format!(
        "addr add {address}/24 dev {interface}\nlink set {interface} up\nlink set lo up"
    ));
}

/// What `cangw peers` says there.
fn peers(site: &Site) -> Value {
    let answer = site.cangw("peers --json");
    assert_eq!(answer.code, 0, "{answer:?}\n{}", site.log());
    let all: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    all[0].clone()
}

fn host<'a>(report: &'a Value, name: &str) -> Option<&'a Value> {
    let hosts = report["hosts"].as_array()?;
    hosts.iter().find(|host| host["host"] == name)
}

/// Waits until a host is in a state.
fn until(site: &Site, name: &str, state: &str) -> Value {
    let begin = Instant::now();
    loop {
        let report = peers(site);
        if let Some(host) = host(&report, name).filter(|host| host["state"] == state) {
            return host.clone();
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "{name} {state}: {report:#}\n{}",
            site.log()
        );
        thread::sleep(Duration::from_millis(100));
    }
}

fn is_silent(socket: &CanSocket) -> bool {
    socket.receive_within(SILENCE).is_none()
}

const BUS: &str = "[federation.bus.body]\nallow = [\"100-3FF\", \"00000000-1FFFFFFF\"]\nrealtime = [\"0C8-1FF\"]\n";

#[test]
fn three_hosts_share_a_bus() {
    let hosts = "hosts = [\"left\", \"mid\", \"right\"]\n";
    let of = |name: &str, more: &str| format!("host = \"{name}\"\n{hosts}{more}\n{BUS}");
    let mut net = Net::new(&[
        ("left", &of("left", "listen = [\"tls://10.0.0.1\"]")),
        (
            "mid",
            &of(
                "mid",
                "listen = [\"tls://10.0.0.2\"]\nconnect = [\"tls://10.0.0.1\"]",
            ),
        ),
        (
            "right",
            &of(
                "right",
                "connect = [\"tls://10.0.0.1\", \"tls://10.0.0.2\"]",
            ),
        ),
    ]);
    let authority = Authority::new();
    let names = ["left", "mid", "right"];
    for (place, site) in net.sites.iter_mut().enumerate() {
        authority.sign(site, names[place], &format!("10.0.0.{}", place + 1));
        site.start();
    }
    for (place, site) in net.sites.iter().enumerate() {
        for (_, name) in names
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != place)
        {
            let host = until(site, name, "connected");
            assert_eq!(host["buses"][0], "body");
            assert!(
                host["delay_us"].as_u64().is_some_and(|delay| delay > 0),
                "{host}"
            );
        }
    }
    let engines: Vec<CanSocket> = net.sites.iter().map(Site::engine).collect();
    // Each frame reaches all others once, in order, and not its sender.
    for (place, engine) in engines.iter().enumerate() {
        for number in 0..100_u8 {
            engine.send(&Frame::classic(0x200 + place as u32, &[number]));
            thread::sleep(Duration::from_millis(2));
        }
        for frame in [
            Frame::fd(0x301, BRS, &[place as u8; 64]),
            Frame::classic(0x98FE_F100, &[]),
            Frame::remote(0x302, 4),
            // Ahead of others, and one that may not come in.
            Frame::classic(0x101, &[1]),
            Frame::classic(0x7FF, &[]),
        ] {
            engine.send(&frame);
        }
    }
    for (place, engine) in engines.iter().enumerate() {
        let begin = Instant::now();
        let mut seen = Vec::new();
        while seen.len() < 2 * 104 && begin.elapsed() < PATIENCE {
            seen.extend(engine.receive_within(SILENCE));
        }
        for other in (0..3).filter(|other| *other != place) {
            let of_other = seen
                .iter()
                .filter(|frame| frame.id() == 0x200 + other as u32);
            let numbers: Vec<u8> = of_other.map(|frame| frame.data()[0]).collect();
            assert!(
                numbers.iter().copied().eq(0..100),
                "{place} of {other}: {numbers:?}"
            );
        }
        for (id, count) in [
            (0x301, 2),
            (0x98FE_F100, 2),
            (0x4000_0302, 2),
            (0x101, 2),
            (0x200 + place as u32, 0),
        ] {
            let found = seen.iter().filter(|frame| frame.id() == id).count();
            assert_eq!(
                found,
                count,
                "{place}: {id:X}: {seen:?}\n{:#}",
                peers(&net.sites[place])
            );
        }
        assert!(is_silent(engine), "{place}");
        let report = peers(&net.sites[place]);
        for other in (0..3).filter(|other| *other != place) {
            let received = &host(&report, names[other]).expect("a host")["received"]["body"];
            for (counter, count) in [
                ("received", 105),
                ("lost", 0),
                ("repeated", 0),
                ("foreign", 0),
            ] {
                assert_eq!(received[counter], count, "{report:#}");
            }
        }
        let sent = &report["buses"]["body"]["sent"];
        assert_eq!(
            (&sent["sent"], &sent["denied"]),
            (&105.into(), &2.into()),
            "{report:#}"
        );
    }
    an_outage(&net, &engines);
    let status = net.sites[0].cangw("status").stdout;
    assert!(
        status.contains("  federation plant: host left, topology left"),
        "{status}"
    );
    for site in &mut net.sites {
        site.daemon.take().expect("a daemon").stop();
        assert_eq!(site.ports(), [""; 0]);
    }
}

/// One of the three is cut off for a while.
fn an_outage(net: &Net, engines: &[CanSocket]) {
    let before = peers(&net.sites[0]);
    net.wire.ip("link set p3 down");
    let begin = Instant::now();
    let mut lost_after = None;
    let mut number = 0_u8;
    while begin.elapsed() < OUTAGE {
        for engine in engines {
            engine.send(&Frame::classic(0x220, &[number]));
        }
        number += 1;
        thread::sleep(Duration::from_millis(150));
        if lost_after.is_none() {
            let report = peers(&net.sites[0]);
            let is_lost = host(&report, "right").is_some_and(|host| host["state"] == "lost");
            lost_after = is_lost.then(|| begin.elapsed());
        }
    }
    let lost_after = lost_after.expect("it is lost");
    println!("lost after {lost_after:?}, with a lease of {LEASE} s");
    let report = peers(&net.sites[0]);
    assert_eq!(
        report["buses"]["body"]["lost_hosts"][0], "right",
        "{report:#}"
    );
    // The other two go on: in order, no frame twice, and the few that can be missing are counted.
    for (place, (site, engine)) in net.sites.iter().zip(engines).take(2).enumerate() {
        let seen = engine.drain();
        let numbers: Vec<u8> = seen.iter().map(|frame| frame.data()[0]).collect();
        let report = peers(site);
        let other = host(&report, ["mid", "left"][place]).expect("it is known");
        let received = &other["received"]["body"];
        let missing = u64::from(number) - numbers.len() as u64;
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(missing <= 10, "{numbers:?}: {report:#}");
        let gone =
            received["lost"].as_u64().unwrap_or(0) + received["too_old"].as_u64().unwrap_or(0);
        // The last ones are known to be missing when another has come.
        assert!(
            gone <= missing && missing - gone <= 2,
            "{numbers:?}: {report:#}"
        );
    }
    assert!(
        engines[2].drain().is_empty(),
        "nothing comes through a cable that is pulled"
    );
    // The last ones may come, as long as they are young.
    thread::sleep(Duration::from_secs(1));
    net.wire.ip("link set p3 up");
    for (place, name) in [(0, "right"), (1, "right"), (2, "left"), (2, "mid")] {
        until(&net.sites[place], name, "connected");
    }
    for engine in engines {
        let seen = engine.drain();
        assert!(
            seen.is_empty(),
            "nothing of the outage is sent again: {seen:?}"
        );
    }
    // Once everybody has heard everybody, each frame comes once again.
    for (from, engine) in engines.iter().enumerate() {
        let begin = Instant::now();
        let probe = Frame::classic(0x230 + from as u32, &[]);
        let mut deaf: Vec<usize> = (0..3).filter(|to| *to != from).collect();
        while !deaf.is_empty() {
            engine.send(&probe);
            deaf.retain(|to| {
                engines[*to]
                    .receive_within(SILENCE)
                    .is_none_or(|frame| frame != probe)
            });
            assert!(
                begin.elapsed() < PATIENCE,
                "{from} to {deaf:?}: {:#}",
                peers(&net.sites[from])
            );
        }
        thread::sleep(SILENCE);
        for (to, other) in engines.iter().enumerate() {
            let seen = other.drain();
            assert!(
                seen.iter().all(|frame| *frame == probe) && (to != from || seen.is_empty()),
                "{seen:?}"
            );
        }
    }
    let after = peers(&net.sites[0]);
    let of = |report: &Value| {
        let received = &host(report, "right").expect("it is known")["received"]["body"];
        ["lost", "too_old"]
            .map(|counter| received[counter].as_u64().unwrap_or(0))
            .iter()
            .sum::<u64>()
    };
    let gone = of(&after) - of(&before);
    assert!(
        gone >= u64::from(number) - 2,
        "{gone} of {number} are counted: {after:#}"
    );
}

#[test]
fn strangers_are_refused() {
    let of = |name: &str, more: &str| format!("host = \"{name}\"\n{more}\n{BUS}");
    let listen = "hosts = [\"left\", \"right\"]\nlisten = [\"tls://10.0.0.1\"]";
    let connect = "connect = [\"tls://10.0.0.1\"]";
    let mut net = Net::new(&[
        ("left", &of("left", listen)),
        ("right", &of("right", connect)),
        // Of another authority; of the same, but not named; named, but under another name; with a name that is taken.
        ("forged", &of("right", connect)),
        ("unnamed", &of("unnamed", connect)),
        ("liar", &of("left", connect)),
    ]);
    let (authority, other) = (Authority::new(), Authority::new());
    authority.sign(&net.sites[0], "left", "10.0.0.1");
    authority.sign(&net.sites[1], "right", "10.0.0.2");
    other.sign(&net.sites[2], "right", "10.0.0.3");
    // It trusts the right ones, who do not trust it.
    fs::write(net.sites[2].folder.join("ca.pem"), &authority.1).expect("a file can be written");
    authority.sign(&net.sites[3], "unnamed", "10.0.0.4");
    authority.sign(&net.sites[4], "right", "10.0.0.5");
    for site in &mut net.sites {
        site.start();
    }
    until(&net.sites[0], "right", "connected");
    until(&net.sites[1], "left", "connected");
    let engines: Vec<CanSocket> = net.sites.iter().map(Site::engine).collect();
    let begin = Instant::now();
    let mut number = 0;
    while begin.elapsed() < Duration::from_secs(10) {
        engines
            .iter()
            .skip(2)
            .for_each(|engine| engine.send(&Frame::classic(0x300, &[number])));
        engines[1].send(&Frame::classic(0x200, &[number]));
        number = number.wrapping_add(1);
        thread::sleep(Duration::from_millis(200));
    }
    let seen = engines[0].drain();
    assert!(seen.len() > 20, "{}", seen.len());
    assert!(seen.iter().all(|frame| frame.id() == 0x200), "{seen:?}");
    let report = peers(&net.sites[0]);
    let hosts = report["hosts"].as_array().expect("hosts");
    assert!(
        hosts.iter().all(|host| host["host"] == "right"),
        "{report:#}"
    );
    for stranger in &engines[2..] {
        let heard = stranger.drain();
        assert!(heard.iter().all(|frame| frame.id() == 0x300), "{heard:?}");
    }
}

#[test]
fn a_name_is_one_host_s() {
    let of = |more: &str| format!("host = \"same\"\n{more}\n{BUS}");
    let mut net = Net::new(&[
        ("first", &of("listen = [\"tls://10.0.0.1\"]")),
        ("second", &of("connect = [\"tls://10.0.0.1\"]")),
    ]);
    let authority = Authority::new();
    for (place, site) in net.sites.iter_mut().enumerate() {
        authority.sign(site, "any", &format!("10.0.0.{}", place + 1));
    }
    net.sites[0].start();
    let begin = Instant::now();
    while !peers(&net.sites[0])["error"].is_null() {
        assert!(begin.elapsed() < PATIENCE, "{}", net.sites[0].log());
        thread::sleep(Duration::from_millis(100));
    }
    net.sites[1].start();
    loop {
        let error = peers(&net.sites[1])["error"].to_string();
        if error.contains("in the federation as host same already") {
            break;
        }
        assert!(
            begin.elapsed() < 2 * PATIENCE,
            "{error}\n{}",
            net.sites[1].log()
        );
        thread::sleep(Duration::from_millis(100));
    }
    assert!(peers(&net.sites[0])["error"].is_null(), "the first goes on");
    assert!(is_silent(&net.sites[1].engine()));
}
