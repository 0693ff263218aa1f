//! Tunnels over loopback. Their ports are sockets whose other ends the test has: the kernel's buses are in the end-to-end tests.

mod streams;
mod web;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use super::board::{Counters, PeerReport};
use super::codec::tests::{classic as frame, datagram};
use super::codec::{Frame, HEAD, decode_datagram};
use super::config::TunnelTable;
use super::wires::Wires;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

struct Lab {
    wires: Arc<Wires>,
    running: Running,
}

impl Lab {
    fn start(toml: &str) -> Self {
        let table: TunnelTable =
            toml::from_str(&format!("bus = \"body\"\n{toml}")).expect("a table");
        let wires = Arc::new(Wires::default());
        let tunnel = table.check().expect("a tunnel");
        let running = Running::start("test", tunnel, Arc::clone(&wires) as Arc<dyn Ports>);
        Self {
            wires,
            running: running.expect("it starts"),
        }
    }

    fn peer(&self, number: u32) -> PeerReport {
        wait("a peer", || {
            let peers = self.running.report("").peers;
            peers.into_iter().find(|peer| peer.number == number)
        })
    }

    /// Waits until the counters of a peer are so.
    fn until(&self, number: u32, what: &str, is: impl Fn(&PeerReport) -> bool) {
        let begin = Instant::now();
        loop {
            let peer = self.peer(number);
            if is(&peer) {
                return;
            }
            assert!(begin.elapsed() < LONG, "{what}: {peer:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A port of loopback that nobody has.
fn free_port() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.local_addr().expect("an address").port()
}

fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket
        .connect((Ipv4Addr::LOCALHOST, port))
        .expect("an address");
    socket.set_read_timeout(Some(LONG)).expect("a socket");
    socket
}

fn receive(socket: &UdpSocket) -> (u8, Vec<Frame>) {
    let mut bytes = [0; 2000];
    let read = socket.recv(&mut bytes).expect("a datagram");
    let mut frames = Vec::new();
    let number = decode_datagram(&bytes[..read], &mut frames).expect("a datagram");
    (number, frames)
}

#[test]
fn datagrams_of_several_clients_come_and_go() {
    let port = free_port();
    let lab = Lab::start(&format!(
        "listen = \"udp://127.0.0.1:{port}\"\nclients = [\"127.0.0.0/8\"]\nflush = \"1ms\"\nmax_clients = 2"
    ));
    wait("it listens", || {
        lab.running.report("").error.is_none().then_some(())
    });
    let clients = [client(port), client(port)];
    for (number, client) in (0..).zip(&clients) {
        wait("a port", || {
            let _ = client.send(&datagram(0, &[frame(0x100 + number, &[1])]));
            thread::sleep(Duration::from_millis(20));
            lab.wires.find(number).map(drop)
        });
        assert_eq!(lab.wires.receive(number), frame(0x100 + number, &[1]));
        lab.wires.send(number, &frame(0x200 + number, &[2, 3]));
        assert_eq!(receive(client), (0, vec![frame(0x200 + number, &[2, 3])]));
    }
    // There is no place for a third, and what is none is counted.
    let third = client(port);
    third.send(&datagram(0, &[])).expect("it is sent");
    wait("no place", || {
        (lab.running.report("").turned_away > 0).then_some(())
    });
    clients[1].send(b"hello").expect("it is sent");
    lab.until(1, "malformed", |peer| {
        peer.counters.malformed == 1 && peer.counters.sent == 1
    });
    assert_eq!(lab.peer(0).state, PeerState::Connected);
}

#[test]
fn strangers_get_nothing() {
    let port = free_port();
    let lab = Lab::start(&format!(
        "listen = \"udp://127.0.0.1:{port}\"\nclients = [\"127.0.0.2\"]"
    ));
    let stranger = client(port);
    wait("a stranger", || {
        let _ = stranger.send(&datagram(0, &[frame(1, &[])]));
        (lab.running.report("").strangers > 0).then_some(())
    });
    assert_eq!(lab.running.report("").peers, []);
    assert!(lab.wires.find(0).is_none());
}

/// A network that loses, repeats and moves datagrams: a million frames, and the counters say to the piece what it did.
#[test]
fn a_million_frames_over_a_bad_network() {
    const PACKED: usize = 112;
    const LUMP: usize = 16 * PACKED;
    const DATAGRAMS: usize = 1_000_000_usize.div_ceil(PACKED);
    let (near, far) = (free_port(), free_port());
    let sender = Lab::start(&format!(
        "connect = \"udp://127.0.0.1:{near}\"\nflush = \"1ms\"\nmax_age = \"60s\""
    ));
    let receiver = Lab::start(&format!(
        "listen = \"udp://127.0.0.1:{far}\"\nclients = [\"127.0.0.1\"]"
    ));
    let network = UdpSocket::bind((Ipv4Addr::LOCALHOST, near)).expect("a socket");
    network.set_read_timeout(Some(LONG)).expect("a socket");
    let out = client(far);
    wait("it listens", || {
        let _ = out.send(b"");
        (receiver.running.report("").strangers > 0).then_some(())
    });
    let bus = sender.wires.end(0);
    let total = Arc::new(AtomicUsize::new(0));
    let arrived = Arc::clone(&total);
    let feed = thread::spawn(move || {
        for n in 0..1_000_000usize {
            // What the network's own socket has no room for is another test's.
            if n % LUMP == 0 {
                wait("the network", || (arrived.load(Relaxed) == n).then_some(()));
            }
            let frame = frame(0x123, &n.to_be_bytes());
            bus.send(frame.socket_bytes()).expect("a frame is taken");
        }
    });
    let mut random = 1u64;
    let mut chance = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % 100
    };
    let (mut lost, mut twice, mut moved, mut frames_lost) = (0, 0, 0, 0);
    let mut seen = 0;
    let mut held: Option<Vec<u8>> = None;
    let mut first = true;
    while total.load(Relaxed) < 1_000_000 {
        let mut bytes = [0; 2000];
        let read = network.recv(&mut bytes).expect("a datagram");
        let count = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        let total = total.fetch_add(count, Relaxed) + count;
        seen += 1;
        let bytes = bytes[..read].to_vec();
        // Both ends arrive as they are, so that whatever is missing is seen to be.
        let is_end = first || total == 1_000_000;
        first = false;
        let fate = if is_end { 99 } else { chance() };
        let send = |bytes: &[u8]| {
            out.send(bytes).expect("it is sent");
        };
        match fate {
            0 => {
                lost += 1;
                frames_lost += count;
            }
            1 => {
                twice += 1;
                send(&bytes);
                send(&bytes);
            }
            2 if held.is_none() => {
                moved += 1;
                held = Some(bytes);
                continue;
            }
            _ => send(&bytes),
        }
        // One that is held comes behind the next that is not lost.
        if fate != 0
            && let Some(late) = held.take()
        {
            send(&late);
        }
        if seen % 64 == 0 {
            // A network is not faster than its far end here; what that has no room for is another test's.
            let sent = seen - lost;
            wait("the far end", || {
                let peers = receiver.running.report("").peers;
                let came = peers
                    .first()
                    .map_or(0, |peer| peer.counters.received_datagrams);
                (came + 64 >= sent).then_some(())
            });
        }
        drain(&receiver);
    }
    feed.join().expect("the feed");
    let received = 1_000_000 - frames_lost as u64;
    let begin = Instant::now();
    let counters = loop {
        drain(&receiver);
        let counters = receiver.peer(0).counters;
        if counters.received == received || begin.elapsed() > LONG {
            break counters;
        }
    };
    println!("{seen} datagrams, {lost} lost, {twice} twice, {moved} moved");
    assert!(seen >= DATAGRAMS as u64 && lost > 20 && twice > 20 && moved > 20);
    let wanted = Counters {
        received,
        received_datagrams: seen - lost + twice,
        lost,
        late: moved,
        duplicates: twice,
        ..Counters::default()
    };
    assert_eq!(counters, wanted);
    let sent = sender.peer(0).counters;
    assert_eq!(
        (sent.sent, sent.sent_datagrams, sent.too_old, sent.no_room),
        (1_000_000, seen, 0, 0)
    );
}

/// Takes what has come out of a tunnel off its port.
fn drain(lab: &Lab) {
    if let Some(end) = lab.wires.find(0) {
        let mut bytes = [std::mem::MaybeUninit::uninit(); 72];
        while end
            .recv_with_flags(&mut bytes, libc::MSG_DONTWAIT)
            .is_ok_and(|read| read > 0)
        {}
    }
}

#[test]
fn a_silent_peer_is_stale_and_heartbeats_keep_it() {
    let port = free_port();
    let lab = Lab::start(&format!(
        "listen = \"udp://127.0.0.1:{port}\"\nclients = [\"127.0.0.1\"]\nstale = \"300ms\""
    ));
    wait("it listens", || {
        lab.running.report("").error.is_none().then_some(())
    });
    let beating = Lab::start(&format!(
        "connect = \"udp://127.0.0.1:{port}\"\nheartbeat = \"50ms\""
    ));
    lab.until(0, "connected", |peer| peer.state == PeerState::Connected);
    thread::sleep(SECOND);
    assert_eq!(lab.peer(0).state, PeerState::Connected);
    drop(beating);
    lab.until(0, "stale", |peer| peer.state == PeerState::Stale);
    assert_eq!(lab.peer(0).counters.received, 0);
}

#[test]
fn tables_are_checked() {
    let check = |toml: &str| {
        let table: TunnelTable =
            toml::from_str(&format!("bus = \"body\"\n{toml}")).expect("a table");
        table.check()
    };
    for (toml, key) in [
        ("", ""),
        ("listen = \"udp://0.0.0.0\"", "clients"),
        (
            "listen = \"udp://localhost\"\nclients = [\"::/0\"]",
            "listen",
        ),
        (
            "listen = \"udp://0.0.0.0\"\nclients = [\"10.0.0.0/33\"]",
            "clients",
        ),
        (
            "listen = \"udp://0.0.0.0\"\nclients = [\"::1\"]\nmax_clients = 0",
            "max_clients",
        ),
        ("connect = \"udp://h\"\nclients = [\"::1\"]", "clients"),
        ("connect = \"udp://h:0\"", "connect"),
        (
            "connect = \"udp://h\"\nlisten = \"tcp://0.0.0.0\"",
            "listen",
        ),
        (
            "connect = \"tcp://h\"\nlisten = \"tcp://0.0.0.0\"",
            "listen",
        ),
        ("connect = \"tcp://h\"\nsort = true", "sort"),
        ("connect = \"udp://h\"\nmtu = 500", "mtu"),
        ("connect = \"tcp://h\"\nca = \"x\"", "ca"),
        ("connect = \"wss://h\"\nkey = \"x\"", "certificate"),
        (
            "listen = \"wss://0.0.0.0\"\nclients = [\"::/0\"]",
            "certificate",
        ),
        ("connect = \"ws://h\"\norigins = [\"https://x\"]", "origins"),
        ("connect = \"ws://h\"\nheartbeat = \"1s\"", "heartbeat"),
        ("connect = \"udp://h\"\nmax_age = \"0s\"", "max_age"),
        (
            "connect = \"udp://h\"\nflush_ids = { \"12\" = \"1ms\" }",
            "flush_ids",
        ),
    ] {
        assert_eq!(check(toml).map_err(|(key, _)| key), Err(key), "{toml}");
    }
    let tunnel = check("connect = \"udp://[fd00::7]\"\nflush_ids = { \"1F0\" = \"500us\" }")
        .expect("a tunnel");
    assert_eq!(tunnel.endpoint(), "udp://[fd00::7]:20000");
    let packing = tunnel.packing("fd00::7".parse().expect("an address"));
    assert_eq!(packing.payload, 1452);
    assert_eq!(
        packing.flush_ids,
        BTreeMap::from([(0x1F0, Duration::from_micros(500))])
    );
    for bad in [
        "udp:/h",
        "upd://h",
        "udp://",
        "udp://h:",
        "udp://h:99999",
        "udp://::1",
        "udp://[::1",
        "udp://a b",
    ] {
        assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
    }
}

#[test]
fn a_datagram_holds_112_full_frames() {
    let own = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    own.set_read_timeout(Some(LONG)).expect("a socket");
    let to = own.local_addr().expect("an address");
    let lab = Lab::start(&format!(
        "connect = \"udp://{to}\"\nsort = true\nflush = \"200ms\""
    ));
    let ids: Vec<u32> = (0..130).map(|n| (n * 37) % 130).collect();
    for id in &ids {
        lab.wires.send(0, &frame(*id, &[0; 8]));
    }
    let mut bytes = [0; 2000];
    let read = own.recv(&mut bytes).expect("a datagram");
    assert_eq!(
        read,
        HEAD + 112 * 13,
        "1472 bytes have no room for another one"
    );
    let mut frames = Vec::new();
    assert_eq!(decode_datagram(&bytes[..read], &mut frames), Ok(0));
    assert!(frames.is_sorted_by_key(Frame::plain_id));
    let (number, rest) = receive(&own);
    assert_eq!((number, frames.len() + rest.len()), (1, 130));
}
