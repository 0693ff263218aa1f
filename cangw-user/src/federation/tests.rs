//! Federations in memory. Zenoh on real networks and real buses is in the end-to-end tests.

use std::io::Read as _;
use std::thread;

use super::config::FederationTable;
use super::memory::{End, Net};
use super::report::{HostReport, HostState, Received};
use super::*;
use crate::tunnel::codec::tests::classic;
use crate::tunnel::tests::wait;
use crate::tunnel::wires::Wires;

/// A host with one bus.
struct Host {
    wires: Arc<Wires>,
    running: Running,
}

impl Host {
    fn start(net: &Net, name: &str, more: &str) -> Self {
        let text =
            format!("host = \"{name}\"\nscout = true\n{more}\n[bus.body]\nrealtime = [\"0C8\"]");
        let table: FederationTable = toml::from_str(&text).expect("a table");
        let federation = table.check("car").expect("a federation");
        let wires = Arc::new(Wires::default());
        let ports = Arc::clone(&wires) as Arc<dyn Ports>;
        let ports = PortsOf::from([("body".to_owned(), ports)]);
        let net = net.clone();
        let open = async move |federation: Arc<Federation>| -> std::result::Result<(End, Session), EngineError> {
            Ok(net.open(&federation.host))
        };
        let running = Running::start_by("car", federation, ports, open);
        Self {
            wires,
            running: running.expect("it starts"),
        }
    }

    fn send(&self, id: u32, number: u8) {
        self.wires.send(0, &classic(id, &[number]));
    }

    /// The next frame for the bus: its identifier and its first byte of data.
    fn receive(&self) -> (u32, u8) {
        let frame = self.wires.receive(0);
        (frame.id(), frame.socket_bytes()[8])
    }

    fn host(&self, name: &str) -> Option<HostReport> {
        let hosts = self.running.report().hosts;
        hosts.into_iter().find(|host| host.host == name)
    }

    fn wait_for(&self, name: &str, state: HostState) -> HostReport {
        wait(&format!("{name} {}", state.name()), || {
            self.host(name).filter(|host| host.state == state)
        })
    }

    fn received(&self, name: &str) -> Received {
        let received = self.host(name).map(|host| host.received);
        received
            .and_then(|mut all| all.remove("body"))
            .unwrap_or_default()
    }

    /// Nothing more is on its way to the bus.
    fn is_silent(&self) {
        let mut end = self.wires.end(0);
        end.set_nonblocking(true).expect("a socket");
        let more = end.read(&mut [0; 72]);
        end.set_nonblocking(false).expect("a socket");
        assert_eq!(
            more.expect_err("a frame too many").kind(),
            std::io::ErrorKind::WouldBlock
        );
    }
}

/// Hosts that know each other.
fn federation(net: &Net, names: &[&str], more: &str) -> Vec<Host> {
    let hosts: Vec<Host> = names
        .iter()
        .map(|name| Host::start(net, name, more))
        .collect();
    for host in &hosts {
        for name in names {
            if *name != host.running.context.federation.host {
                host.wait_for(name, HostState::Connected);
            }
        }
    }
    hosts
}

#[test]
fn a_frame_crosses_to_all_others_once() {
    let net = Net::default();
    let hosts = federation(&net, &["a", "b", "c"], "");
    for number in 0..100 {
        hosts[0].send(0x123, number);
        hosts[1].send(0x456, number);
    }
    for (place, host) in hosts.iter().enumerate() {
        let senders = [(0, 0x123), (1, 0x456)];
        let mut wanted: BTreeMap<u32, u8> = senders
            .iter()
            .filter(|(sender, _)| *sender != place)
            .map(|(_, id)| (*id, 0))
            .collect();
        for _ in 0..100 * wanted.len() {
            let (id, number) = host.receive();
            let next = wanted.get_mut(&id).expect("a frame of another host");
            assert_eq!(number, *next, "in order");
            *next += 1;
        }
        host.is_silent();
    }
    let report = hosts[0].running.report();
    assert_eq!(report.error, None);
    assert_eq!(report.buses["body"].sent.sent, 100);
    let about = hosts[2]
        .host("a")
        .and_then(|host| host.announcement)
        .expect("it is known");
    assert_eq!(
        (about.buses, about.machine),
        (vec!["body".to_owned()], machine())
    );
    let received = Received {
        received: 100,
        ..Received::default()
    };
    assert_eq!(hosts[2].received("a"), received);
}

#[test]
fn frames_of_real_time_have_a_way_of_their_own() {
    let net = Net::default();
    let hosts = federation(&net, &["a", "b"], "");
    for number in 0..50 {
        hosts[0].send(0x123, number);
        hosts[0].send(0xC8, number);
    }
    let all: Vec<(u32, u8)> = (0..100).map(|_| hosts[1].receive()).collect();
    for id in [0x123, 0xC8] {
        let of_id = all.iter().filter(|frame| frame.0 == id);
        assert!(of_id.map(|frame| frame.1).eq(0..50), "{all:?}");
    }
    assert_eq!(
        hosts[1].received("a").lost,
        0,
        "each way has its own numbers"
    );
    // Identifier, length and one byte of data.
    for class in engine::Class::ALL {
        assert_eq!(net.sent(class), 50 * 6, "{class:?}");
    }
}

#[test]
fn nothing_stale_comes_after_an_outage() {
    let net = Net::default();
    let hosts = federation(&net, &["a", "b", "c"], "max_age = \"100ms\"");
    hosts[0].send(0x123, 0);
    for host in &hosts[1..] {
        assert_eq!(host.receive(), (0x123, 0));
    }
    net.cut("a");
    let lost = hosts[1].wait_for("a", HostState::Lost);
    assert!(
        lost.announcement
            .is_some_and(|about| about.buses == ["body"])
    );
    assert_eq!(hosts[1].running.report().buses["body"].lost_hosts, ["a"]);
    for number in 1..=10 {
        hosts[0].send(0x123, number);
    }
    wait("frames to be sent", || {
        (hosts[0].running.report().buses["body"].sent.sent == 11).then_some(())
    });
    thread::sleep(Duration::from_millis(200));
    // The network has kept them, and brings them now.
    net.mend("a");
    for host in &hosts[1..] {
        host.wait_for("a", HostState::Connected);
    }
    hosts[0].send(0x123, 11);
    for host in &hosts[1..] {
        assert_eq!(host.receive(), (0x123, 11));
        let received = host.received("a");
        assert_eq!((received.too_old, received.lost), (10, 0), "{received:?}");
        host.is_silent();
    }
    assert!(
        hosts[1].running.report().buses["body"]
            .lost_hosts
            .is_empty()
    );
}

#[test]
fn a_name_is_one_host_s() {
    let net = Net::default();
    let first = federation(&net, &["a", "b"], "");
    let second = Host::start(&net, "a", "");
    let error = wait("an error", || {
        let error = second.running.report().error;
        error.filter(|error| error.contains("already"))
    });
    let session = first[0].running.report().session;
    assert!(
        error.contains(&session) && error.contains(&machine()),
        "{error}"
    );
    assert_eq!(
        first[1].host("a").map(|host| host.state),
        Some(HostState::Connected)
    );
    // It takes part when the other is gone.
    drop(first);
    wait("the name", || {
        second.running.report().error.is_none().then_some(())
    });
}

#[test]
fn a_host_that_begins_anew_is_the_same_host() {
    let net = Net::default();
    let mut hosts = federation(&net, &["a", "b"], "");
    hosts[0].send(0x123, 1);
    assert_eq!(hosts[1].receive(), (0x123, 1));
    let again = {
        drop(hosts.remove(0));
        hosts[0].wait_for("a", HostState::Lost);
        Host::start(&net, "a", "")
    };
    hosts[0].wait_for("a", HostState::Connected);
    again.send(0x123, 2);
    assert_eq!(hosts[0].receive(), (0x123, 2));
    let received = wait("both to be counted", || {
        let received = hosts[0].received("a");
        (received.received == 2).then_some(received)
    });
    assert_eq!((received.restarts, received.lost), (1, 0));
}

/// What a host that means harm can do: it has a name, and the messages are its own.
#[test]
fn messages_of_any_kind_do_no_harm() {
    use engine::{Class, Line as _};
    let net = Net::default();
    let hosts = federation(&net, &["a", "b"], "");
    let own = hosts[1]
        .host("a")
        .and_then(|host| host.announcement)
        .expect("it is known")
        .session;
    let line = |name: &str| {
        let (end, session) = net.open(name);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        (runtime.block_on(end.dial("body")).expect("a line"), session)
    };
    let (line, session) = line("a");
    let frame = [0, 0, 1, 0x23, 1, 9];
    let head = |origin, number| {
        wire::Head {
            origin,
            number,
            time: clock::now(),
        }
        .encode()
    };
    let send = |head: &[u8], frames: &[u8]| line.send(Class::Normal, head, frames.to_vec());
    send(b"", &frame).expect("it is sent");
    send(&head(session, 0), b"abc").expect("it is sent");
    send(&head(session, 0), &frame).expect("it is sent");
    send(&head(own.parse().expect("a session"), 7), &frame).expect("it is sent");
    send(&head(own.parse().expect("a session"), 7), &frame).expect("it is sent");
    assert_eq!(hosts[1].receive(), (0x123, 9));
    let received = wait("all to be counted", || {
        let received = hosts[1].received("a");
        (received.received == 1).then_some(received)
    });
    assert_eq!(
        (received.malformed, received.foreign, received.repeated),
        (2, 1, 1),
        "{received:?}"
    );
    hosts[1].is_silent();
}
