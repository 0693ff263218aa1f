//! Hosts that do not name each other: behind a router, and found by multicast.

use std::fs;

use super::{
    Authority, BUS, CanSocket, Duration, FILES, Frame, Instant, LEASE, PATIENCE, SILENCE, Site,
    host, peers, plug, site, thread, until, wire,
};

/// Frames of each host.
const FRAMES: u8 = 50;

/// Each host's frames reach all others once, in order, and not itself.
fn all_hear_all(sites: &[&Site], base: u32) {
    let engines: Vec<CanSocket> = sites.iter().map(|site| site.engine()).collect();
    for number in 0..FRAMES {
        for (place, engine) in (0..).zip(&engines) {
            engine.send(&Frame::classic(base + place, &[number]));
        }
        thread::sleep(Duration::from_millis(5));
    }
    for (place, engine) in (0..).zip(&engines) {
        let begin = Instant::now();
        let mut seen = Vec::new();
        let wanted = (sites.len() - 1) * usize::from(FRAMES);
        while seen.len() < wanted && begin.elapsed() < PATIENCE {
            seen.extend(engine.receive_within(SILENCE));
        }
        seen.extend(engine.receive_within(SILENCE));
        for other in 0..sites.len() as u32 {
            let of_other = seen.iter().filter(|frame| frame.id() == base + other);
            let numbers: Vec<u8> = of_other.map(|frame| frame.data()[0]).collect();
            let wanted = 0..if other == place { 0 } else { FRAMES };
            assert!(
                numbers.iter().copied().eq(wanted),
                "{place} of {other}: {numbers:?}\n{:#}",
                peers(sites[place as usize])
            );
        }
    }
}

#[test]
fn hosts_behind_a_router_share_a_bus() {
    let hosts = "hosts = [\"left\", \"hub\", \"right\"]\nrouters = [\"hub\"]";
    let of = |name: &str, more: &str| {
        site(
            name,
            &format!("host = \"{name}\"\n{FILES}\n{hosts}\n{more}\n{BUS}"),
        )
    };
    let client = |address: &str| format!("mode = \"client\"\nconnect = [\"tls://{address}\"]");
    let router = "mode = \"router\"\nlisten = [\"tls://10.0.0.1\", \"tls://10.0.1.1\"]";
    let mut sites = [
        of("left", &client("10.0.0.1")),
        of("hub", router),
        of("right", &client("10.0.1.1")),
    ];
    // The router is the only one on both networks, and forwards no packets.
    let (one, other) = (wire("one"), wire("other"));
    plug(&one, 1, &sites[0], "eth0", "10.0.0.2");
    plug(&one, 2, &sites[1], "eth0", "10.0.0.1");
    plug(&other, 1, &sites[1], "eth1", "10.0.1.1");
    plug(&other, 2, &sites[2], "eth0", "10.0.1.2");
    let authority = Authority::new();
    authority.sign(&sites[0], "left", "10.0.0.2");
    authority.sign_for(&sites[1], "hub", &["10.0.0.1", "10.0.1.1"]);
    authority.sign(&sites[2], "right", "10.0.1.2");
    sites.iter_mut().for_each(Site::start);
    let all_are_there = |sites: &[Site]| {
        for (at, name) in [
            (0, "hub"),
            (0, "right"),
            (1, "left"),
            (1, "right"),
            (2, "left"),
            (2, "hub"),
        ] {
            until(&sites[at], name, "connected");
        }
    };
    all_are_there(&sites);
    all_hear_all(&sites.each_ref(), 0x200);

    // Without the router nobody hears anybody, and what they say meanwhile is not told later.
    sites[1].daemon.take().expect("a daemon").stop();
    let begin = Instant::now();
    let engines: Vec<CanSocket> = [0, 2].map(|at: usize| sites[at].engine()).into();
    until(&sites[0], "right", "lost");
    until(&sites[2], "left", "lost");
    assert!(
        begin.elapsed() < PATIENCE / 2 + Duration::from_secs(LEASE),
        "{:?}",
        begin.elapsed()
    );
    engines[0].send(&Frame::classic(0x210, &[]));
    engines[1].send(&Frame::classic(0x211, &[]));
    // When it is back, it shares no bus, and only carries what the others say.
    let topology = sites[1].folder.join("topology.toml");
    let written = fs::read_to_string(&topology).expect("a file");
    fs::write(&topology, written.replace(BUS, "")).expect("it can be written");
    sites[1].start();
    all_are_there(&sites);
    thread::sleep(SILENCE);
    for engine in &engines {
        assert_eq!(
            engine.drain(),
            [],
            "what was said while the router was away"
        );
    }
    all_hear_all(&[&sites[0], &sites[2]], 0x220);
}

#[test]
fn hosts_find_each_other_by_multicast() {
    let names = ["alpha", "beta", "gamma"];
    let net = wire("wire");
    // Nobody asks for groups there, which a bridge would wait for.
    net.ip("link set br0 type bridge mcast_snooping 0");
    let mut sites = names.map(|name| {
        let number = 1 + names.iter().position(|n| *n == name).expect("a name");
        let address = format!("10.0.0.{number}");
        let keys =
            format!("host = \"{name}\"\nscout = true\nlisten = [\"tcp://{address}\"]\n{BUS}");
        let site = site(name, &keys);
        plug(&net, number, &site, "eth0", &address);
        site.gateway.ip("route add 224.0.0.0/4 dev eth0");
        site
    });
    sites.iter_mut().for_each(Site::start);
    for site in &sites {
        for name in names.iter().filter(|name| **name != site.name) {
            let found = until(site, name, "connected");
            assert_eq!(found["buses"][0], "body");
        }
    }
    all_hear_all(&sites.each_ref(), 0x240);
    // A host that ends is gone at once, without the lease.
    sites[2].daemon.take().expect("a daemon").stop();
    until(&sites[0], "gamma", "lost");
    let report = peers(&sites[0]);
    assert_eq!(
        host(&report, "beta").expect("it is known")["state"],
        "connected"
    );
    all_hear_all(&[&sites[0], &sites[1]], 0x250);
}
