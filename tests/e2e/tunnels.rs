//! Tunnels in cannelloni's protocol: many clients on one port, two gateways over a network that fails, and what is left behind.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use cangw::tunnel::codec;
use cangw_tests::frame::{BRS, Frame};
use cangw_tests::module;
use cangw_tests::namespace::Namespace;
use cangw_tests::site::Site;
use serde_json::Value;

use crate::topologies::SILENCE;

/// Much longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// `CAN_RTR_FLAG`
const REMOTE: u32 = 0x4000_0000;

/// What is asked of tunnels.
trait Tunnels {
    fn tunnel(&self, name: &str) -> Value;
    fn until(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value;
    fn client(&self, from: &str, to: u16) -> UdpSocket;
}

impl Tunnels for Site {
    /// A tunnel as `cangw status` shows it.
    fn tunnel(&self, name: &str) -> Value {
        let answer = self.cangw("status --json");
        assert_eq!(answer.code, 0, "{answer:?}");
        let status: Value = serde_json::from_str(&answer.stdout).expect("JSON");
        // Topologies of all gateways of this machine.
        let mut all = status.as_array().expect("topologies").iter();
        let own = all
            .find(|topology| topology["name"] == self.name)
            .expect("it is up");
        let tunnels = own["tunnels"].as_array().expect("tunnels").iter();
        let mut found = tunnels.filter(|tunnel| tunnel["name"] == name);
        found.next().cloned().unwrap_or_default()
    }

    /// Waits until a tunnel is so.
    fn until(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let tunnel = self.tunnel(name);
            if is(&tunnel) {
                return tunnel;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{what}: {tunnel:#}\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn client(&self, from: &str, to: u16) -> UdpSocket {
        self.gateway.enter(|| {
            let socket = UdpSocket::bind((from, 0)).expect("a socket");
            let to: SocketAddr = ([127, 0, 0, 1], to).into();
            socket.connect(to).expect("an address");
            socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
            socket
        })
    }
}

/// A datagram as cannelloni sends it: a head, and frames.
fn send(client: &UdpSocket, number: u8, frames: &[Frame]) {
    let mut datagram = vec![2, 0, number, 0, frames.len() as u8];
    for frame in frames {
        let bytes = frame.bytes();
        datagram.extend_from_slice(&frame.id().to_be_bytes());
        if frame.is_fd() {
            datagram.extend_from_slice(&[bytes[4] | 0x80, bytes[5]]);
        } else {
            datagram.push(bytes[4]);
        }
        if frame.id() & REMOTE == 0 {
            datagram.extend_from_slice(frame.data());
        }
    }
    client.send(&datagram).expect("a datagram is sent");
}

/// The frames of the next datagrams, until there are so many.
fn receive(client: &UdpSocket, count: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    while frames.len() < count {
        let mut bytes = [0; 2000];
        let read = client.recv(&mut bytes).expect("a datagram");
        codec::decode_datagram(&bytes[..read], &mut frames).expect("a datagram");
    }
    let as_ours = |frame: &codec::Frame| Frame::from_bytes(frame.socket_bytes());
    frames.iter().map(as_ours).collect()
}

/// Whether nothing comes.
fn is_silent(client: &UdpSocket) -> bool {
    client.set_read_timeout(Some(SILENCE)).expect("a socket");
    let silent = client.recv(&mut [0; 2000]).is_err();
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    silent
}

fn peers(tunnel: &Value, state: &str) -> usize {
    let peers = tunnel["peers"].as_array().map_or(&[][..], Vec::as_slice);
    peers.iter().filter(|peer| peer["state"] == state).count()
}

const SERVER: &str = "[tunnel.bench]\nbus = \"body\"\nlisten = \"udp://127.0.0.1:20000\"\nclients = [\"127.0.0.0/8\"]\nflush = \"1ms\"\nmax_clients = 10\n";

#[test]
fn ten_clients_on_one_server_hear_each_other() {
    let mut site = Site::new("car", SERVER);
    site.start();
    let engine = site.engine();
    let clients: Vec<UdpSocket> = (0..10).map(|_| site.client("127.0.0.1", 20000)).collect();
    site.until("bench", "it listens", |tunnel| {
        tunnel["error"].is_null() && !tunnel.is_null()
    });
    for (n, client) in clients.iter().enumerate() {
        let frame = Frame::classic(0x100 + n as u32, &[n as u8]);
        send(client, 0, std::slice::from_ref(&frame));
        assert_eq!(engine.receive(), frame);
        for earlier in &clients[..n] {
            assert_eq!(receive(earlier, 1), std::slice::from_ref(&frame));
        }
    }
    // All kinds of frames from each to all others.
    for (n, client) in clients.iter().enumerate() {
        let frames = [
            Frame::classic(0x8000_0000 | n as u32, &[1; 8]),
            Frame::remote(0x300, 4),
            Frame::fd(0x301, BRS, &[n as u8; 64]),
        ];
        send(client, 1, &frames);
        for frame in &frames {
            assert_eq!(engine.receive().bare(), frame.bare());
        }
        for (other, socket) in clients.iter().enumerate() {
            if other != n {
                let seen = receive(socket, frames.len());
                let bare = seen.iter().map(Frame::bare);
                assert!(bare.eq(frames.iter().map(Frame::bare)), "{other}: {seen:?}");
            }
        }
    }
    engine.send(&Frame::classic(0x7FF, &[]));
    for client in &clients {
        assert_eq!(receive(client, 1), [Frame::classic(0x7FF, &[])]);
    }
    assert!(clients.iter().all(is_silent), "nobody hears itself");
    // There is no place for another, and none for strangers.
    send(&site.client("127.0.0.1", 20000), 0, &[]);
    site.gateway.ip("addr add 10.9.9.9/32 dev lo");
    send(&site.client("10.9.9.9", 20000), 0, &[]);
    let tunnel = site.until("bench", "all came", |tunnel| {
        tunnel["turned_away"] == 1 && tunnel["strangers"] == 1
    });
    assert_eq!(peers(&tunnel, "connected"), 10);
    for peer in tunnel["peers"].as_array().expect("peers") {
        let counters = &peer["counters"];
        // Of each of the others three frames, the first of those that came later, and the ECU's.
        let later = 9 - peer["number"].as_u64().expect("a number");
        assert_eq!(counters["sent"], 27 + later + 1, "{peer}");
        assert_eq!(counters["received"], 4, "{peer}");
        assert_eq!(counters["lost"], 0, "{peer}");
    }
    let status = site.cangw("status").stdout;
    assert!(
        status.contains("  tunnel bench: udp://127.0.0.1:20000, bus car.body"),
        "{status}"
    );
    assert!(status.contains(": connected, sent 28, "), "{status}");
    // A daemon that was killed leaves its ports; the next takes them away, and the clients come again.
    site.daemon = None;
    assert_eq!(site.ports().len(), 10);
    site.start();
    site.until("bench", "it listens", |tunnel| {
        tunnel["error"].is_null() && !tunnel.is_null()
    });
    send(&clients[7], 2, &[Frame::classic(0x123, &[7])]);
    assert_eq!(engine.receive(), Frame::classic(0x123, &[7]));
    assert_eq!(site.ports(), ["bench.0"]);
    // Somebody takes the port away: the client has another with its next datagram.
    Namespace::of_others("car").ip("link del bench.0");
    site.until("bench", "it is gone", |tunnel| {
        peers(tunnel, "connected") == 0
    });
    send(&clients[7], 3, &[Frame::classic(0x124, &[8])]);
    let seen = engine.receive_within(PATIENCE);
    assert_eq!(
        seen,
        Some(Frame::classic(0x124, &[8])),
        "{:#}\n{}",
        site.tunnel("bench"),
        site.log()
    );
    let log = site.daemon.take().expect("a daemon").stop();
    assert_eq!(site.ports(), [""; 0], "{log}");
}

#[test]
fn what_passes_is_limited_by_the_bus() {
    let mut site = Site::new("car", "");
    site.start();
    let engine = site.engine();
    let add = "tunnel add lab --bus body --listen udp://127.0.0.1:20001 --client 127.0.0.1 --flush 1ms --allow 100-1FF,18FEF100 --filter 700";
    let added = site.cangw(add);
    assert_eq!(added.code, 0, "{added:?}");
    let again = site.cangw(add);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("there is a tunnel lab"), "{again:?}");
    for (wrong, message) in [
        (
            "tunnel add x --bus body --listen udp://127.0.0.1:1",
            "clients",
        ),
        ("tunnel add x --bus nobody --connect udp://h", "nobody"),
        (
            "tunnel add much-too-long-a-name --bus body --connect udp://h",
            "11 letters",
        ),
        (
            "tunnel add x --bus body --connect ftp://h",
            "udp://10.0.0.7:20000",
        ),
        ("tunnel remove x", "no tunnel x"),
    ] {
        let answer = site.cangw(wrong);
        assert!(
            answer.code != 0 && answer.stderr.contains(message),
            "{answer:?}"
        );
    }
    let client = site.client("127.0.0.1", 20001);
    let mut number = 0;
    let mut passes = |site: &Site| {
        site.until("lab", "it listens", |tunnel| {
            tunnel["error"].is_null() && !tunnel.is_null()
        });
        let extended = |id: u32| Frame::classic(0x8000_0000 | id, &[]);
        let frames = [
            Frame::classic(0x123, &[1]),
            Frame::classic(0x200, &[2]),
            extended(0x18FE_F100),
            extended(0x18FE_F200),
        ];
        send(&client, number, &frames);
        number += 1;
        assert_eq!(engine.receive(), frames[0]);
        assert_eq!(engine.receive(), frames[2]);
        assert_eq!(engine.receive_within(SILENCE), None);
        engine.send(&Frame::classic(0x701, &[]));
        engine.send(&Frame::classic(0x700, &[3]));
        assert_eq!(receive(&client, 1), [Frame::classic(0x700, &[3])]);
        assert!(is_silent(&client));
    };
    passes(&site);
    // It is kept.
    site.daemon.take().expect("a daemon").stop();
    site.start();
    passes(&site);
    let counters = site.tunnel("lab")["peers"][0]["counters"].clone();
    assert_eq!(
        (&counters["denied"], &counters["filtered"]),
        (&2.into(), &1.into()),
        "{counters}"
    );
    let list = site.cangw("tunnel list").stdout;
    assert!(
        list.starts_with("tunnel lab: udp://127.0.0.1:20001, bus car.body\n"),
        "{list}"
    );
    assert_eq!(site.cangw("tunnel remove lab").code, 0);
    assert_eq!(site.cangw("tunnel list --json").stdout, "[]\n");
    assert_eq!(site.ports(), [""; 0]);
}

/// Two gateways with a cable between them, which is pulled for a while.
fn over_a_cable(transport: &str) {
    const OUTAGE: Duration = Duration::from_secs(4);
    const MAX_AGE: Duration = Duration::from_millis(500);
    let tunnel = |rest: &str| {
        let age = MAX_AGE.as_millis();
        format!("[tunnel.link]\nbus = \"body\"\nmax_age = \"{age}ms\"\nstale = \"1s\"\n{rest}\n")
    };
    let flush = if transport == "tcp" {
        ""
    } else {
        "flush = \"1ms\""
    };
    let mut car = Site::new(
        "car",
        &tunnel(&format!(
            "listen = \"{transport}://10.0.0.1:20000\"\nclients = [\"10.0.0.2\"]\n{flush}"
        )),
    );
    let mut dyno = Site::new(
        "dyno",
        &tunnel(&format!(
            "connect = \"{transport}://10.0.0.1:20000\"\n{flush}"
        )),
    );
    car.gateway.ip(&format!(
        "link add eth0 type veth peer name eth0 netns {}\naddr add 10.0.0.1/24 dev eth0\nlink set eth0 up",
        dyno.gateway.name()
    ));
    dyno.gateway
        .ip("addr add 10.0.0.2/24 dev eth0\nlink set eth0 up");
    car.start();
    dyno.start();
    let (left, right) = (car.engine(), dyno.engine());
    dyno.until("link", "it has its port", |tunnel| {
        tunnel["error"].is_null() && peers(tunnel, "connected") + peers(tunnel, "init") == 1
    });
    // A server knows a client by UDP when it has said something.
    let begin = Instant::now();
    while left.receive_within(SILENCE).is_none() {
        right.send(&Frame::classic(0x7F0, &[]));
        assert!(
            begin.elapsed() < PATIENCE,
            "{:#}\n{}\n{}",
            dyno.tunnel("link"),
            dyno.log(),
            car.log()
        );
    }
    thread::sleep(SILENCE);
    let _ = left.drain();
    for (from, to) in [(&left, &right), (&right, &left)] {
        for frame in [
            Frame::classic(0x123, &[1, 2, 3]),
            Frame::fd(0x321, BRS, &[9; 48]),
            Frame::classic(0x98FE_F100, &[]),
        ] {
            from.send(&frame);
            assert_eq!(to.receive().bare(), frame.bare());
        }
    }
    for site in [&car, &dyno] {
        site.until("link", "it is connected", |tunnel| {
            peers(tunnel, "connected") == 1
        });
    }
    // Both sides go on while nobody hears them.
    car.gateway.ip("link set eth0 down");
    let begin = Instant::now();
    let mut number = 0u8;
    while begin.elapsed() < OUTAGE {
        left.send(&Frame::classic(0x200, &[number]));
        right.send(&Frame::classic(0x200, &[number]));
        number += 1;
        thread::sleep(Duration::from_millis(50));
    }
    // The last ones may come, as long as they are young.
    thread::sleep(MAX_AGE);
    for site in [&car, &dyno] {
        site.until("link", "it is stale", |tunnel| {
            peers(tunnel, "connected") == 0
        });
    }
    let _ = left.drain();
    let _ = right.drain();
    car.gateway.ip("link set eth0 up");
    for (from, to) in [(&right, &left), (&left, &right)] {
        let begin = Instant::now();
        let fresh = Frame::classic(0x201, &[]);
        loop {
            from.send(&fresh);
            match to.receive_within(SILENCE) {
                Some(frame) => {
                    assert_eq!(frame, fresh, "nothing of the outage is sent again");
                    break;
                }
                None => assert!(
                    begin.elapsed() < PATIENCE,
                    "{:#}\n{}",
                    dyno.tunnel("link"),
                    dyno.log()
                ),
            }
        }
        thread::sleep(SILENCE);
        assert!(to.drain().iter().all(|frame| *frame == fresh));
    }
    for site in [&car, &dyno] {
        let tunnel = site.until("link", "it is connected", |tunnel| {
            peers(tunnel, "connected") == 1
        });
        let counters = &tunnel["peers"][0]["counters"];
        let gone = ["too_old", "unsent", "unanswered", "unconfirmed"]
            .map(|name| counters[name].as_u64().unwrap_or(0));
        println!("{transport} {}: {counters}", site.name);
        // A server has no client by TCP or SCTP when nobody is there.
        let is_server = transport != "udp" && site.name == "car";
        assert!(
            is_server || gone.iter().sum::<u64>() >= u64::from(number) / 2,
            "{counters}"
        );
    }
}

#[test]
fn udp_over_a_cable_that_is_pulled() {
    over_a_cable("udp");
}

#[test]
fn tcp_over_a_cable_that_is_pulled() {
    over_a_cable("tcp");
}

#[test]
fn web_sockets_over_a_cable_that_is_pulled() {
    over_a_cable("ws");
}

#[test]
fn sctp_over_a_cable_that_is_pulled() {
    module::load("sctp", &[]);
    over_a_cable("sctp");
}
