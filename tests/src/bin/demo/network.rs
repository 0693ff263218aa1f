//! The gateway's namespace, those of the ECUs, and what was sent and received in each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cangw_tests::frame::Frame;
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;

/// The ECUs, by the gateway's interface that leads to them.
const ECUS: [&str; 4] = ["engine", "brakes", "dash", "diag"];
/// The gateway's own interface.
const APP: &str = "app";

/// Frames by identifier.
pub type Counts = BTreeMap<u32, u64>;

struct Station {
    /// Closed before the namespace goes.
    sender: CanSocket,
    receiver: CanSocket,
    sent: Counts,
    received: Counts,
    _namespace: Option<Namespace>,
}

/// Everything; gone when dropped.
pub struct Network {
    stations: BTreeMap<&'static str, Station>,
    pub gateway: Namespace,
}

impl Network {
    pub fn new() -> Self {
        let gateway = Namespace::new("demo-gateway");
        gateway.ip(&format!(
            "link add {APP} type vcan\nlink set {APP} up\n\
             link add trailer type vxcan peer name trailer-far"
        ));
        let mut stations = BTreeMap::new();
        for name in ECUS {
            let namespace = Namespace::new(&format!("demo-{name}"));
            gateway.ip(&format!(
                "link add {name} type vxcan peer name can0 netns {}\nlink set {name} up",
                namespace.name()
            ));
            namespace.ip("link set can0 up");
            stations.insert(name, Station::new("can0", Some(namespace), &gateway));
        }
        stations.insert(APP, Station::new(APP, None, &gateway));
        Self { stations, gateway }
    }

    /// Sends a frame from an ECU.
    pub fn send(&mut self, name: &str, frame: &Frame) {
        let station = self.stations.get_mut(name).expect("an ECU of this network");
        station.sender.send(frame);
        *station.sent.entry(frame.id()).or_default() += 1;
    }

    /// Counts what has arrived; what the dashboard received is returned.
    pub fn receive(&mut self) -> Vec<Frame> {
        let mut dashboard = Vec::new();
        for (name, station) in &mut self.stations {
            for frame in station.receiver.drain() {
                // A receiver sees what is sent beside it, too.
                if station.sent.contains_key(&frame.id()) {
                    continue;
                }
                *station.received.entry(frame.id()).or_default() += 1;
                if *name == "dash" {
                    dashboard.push(frame);
                }
            }
        }
        dashboard
    }

    /// Waits until this many frames have arrived, but not for ever.
    pub fn wait_for(&mut self, frames: u64) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            let _ = self.receive();
            let arrived: u64 = self
                .stations
                .values()
                .flat_map(|s| s.received.values())
                .sum();
            if arrived >= frames {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Frames sent so far.
    pub fn sent(&self) -> u64 {
        self.stations.values().flat_map(|s| s.sent.values()).sum()
    }

    /// What a station sent; nothing where there is none.
    pub fn sent_by(&self, name: &str) -> Counts {
        self.stations
            .get(name)
            .map(|s| s.sent.clone())
            .unwrap_or_default()
    }

    /// What a station received; nothing where there is none.
    pub fn received_by(&self, name: &str) -> Counts {
        self.stations
            .get(name)
            .map(|s| s.received.clone())
            .unwrap_or_default()
    }
}

impl Station {
    fn new(interface: &str, namespace: Option<Namespace>, gateway: &Namespace) -> Self {
        let place = namespace.as_ref().unwrap_or(gateway);
        Self {
            sender: CanSocket::open(place, interface).deaf(),
            receiver: CanSocket::open(place, interface),
            sent: Counts::new(),
            received: Counts::new(),
            _namespace: namespace,
        }
    }
}
