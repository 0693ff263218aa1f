//! Pairs of interfaces with a gateway between them.
//!
//!     sender ── a0 ══ a1 ── gateway ── b0 ══ r0 ── receiver
//!                                   └─ b1 ══ r1 ── receiver …

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use cangw::containers::options::{Given, PortOptions};
use cangw::kernel::filter::reentry;
use cangw::kernel::hub::Hub;
use cangw::kernel::netlink::Netlink;
use cangw::kernel::pins::Pins;
use cangw_tests::can_gw::{CanGw, Change};
use cangw_tests::diff::rule::{Crc8, DATA, ID, Modification, Operation, Rule, Span};
use cangw_tests::namespace::Namespace;
use cangw_tests::socket::CanSocket;
use cangw_tests::tool::Cangw;

use crate::cases::{Case, Gateway};

/// Where frames enter.
const SOURCE: &str = "a1";
/// Where they leave: one for each port of the largest hub but one.
const TARGETS: [&str; 31] = [
    "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9", "b10", "b11", "b12", "b13", "b14",
    "b15", "b16", "b17", "b18", "b19", "b20", "b21", "b22", "b23", "b24", "b25", "b26", "b27",
    "b28", "b29", "b30",
];
/// Name of the virtual bus.
const BUS: &str = "bench";
/// Above the numbers that the kernel gives out here.
const FIRST_INDEX: u32 = 100;

/// A namespace that is ready for a case.
pub struct Scene {
    namespace: Namespace,
    pub sender: CanSocket,
    pub receivers: Vec<CanSocket>,
    forwarder: Option<Forwarder>,
    _listener: Option<CanSocket>,
}

impl Scene {
    pub fn new(case: &Case) -> Self {
        let namespace = Namespace::new("bench");
        let targets = &TARGETS[..case.targets as usize];
        let mut links = format!("link add {SOURCE} index {FIRST_INDEX} type vxcan peer name a0\n");
        let mut names = vec!["a0".to_owned(), SOURCE.to_owned()];
        for (number, target) in targets.iter().enumerate() {
            let index = FIRST_INDEX + 1 + number as u32;
            let _ = writeln!(
                links,
                "link add {target} index {index} type vxcan peer name r{number}"
            );
            names.extend([(*target).to_owned(), format!("r{number}")]);
        }
        for name in names {
            let _ = writeln!(links, "link set {name} mtu 72 up");
        }
        namespace.ip(&links);
        // To another identifier, so that only the copy is measured and not what somebody does with it.
        let listener = case
            .is_heard()
            .then(|| CanSocket::open(&namespace, SOURCE).listening_to(0x7FE));
        let forwarder = install(&namespace, case, targets);
        let receivers = (0..targets.len()).map(|n| CanSocket::open(&namespace, &format!("r{n}")));
        let sender = CanSocket::open(&namespace, "a0").deaf();
        Self {
            sender: if case.shared {
                sender
            } else {
                sender.without_loopback()
            },
            receivers: receivers.collect(),
            namespace,
            forwarder,
            _listener: listener,
        }
    }

    /// Frames that have arrived at the far ends of all targets since they were made.
    pub fn arrived(&self) -> u64 {
        let text = self
            .namespace
            .enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))
            .expect("/proc has the interfaces");
        let received = |line: &str| {
            let (name, counters) = line.split_once(':')?;
            // The first number is bytes, the second frames.
            name.trim_start()
                .strip_prefix('r')
                .and_then(|_| counters.split_whitespace().nth(1)?.parse::<u64>().ok())
        };
        text.lines().filter_map(received).sum()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.forwarder.take());
        self.namespace.enter(|| {
            if let Some(pins) = Pins::open(false).expect("bpffs can be read") {
                Hub::new(&pins, BUS).delete().expect("a bus can be removed");
            }
        });
        Cangw::Ours.must(&self.namespace, "-F");
    }
}

fn install(namespace: &Namespace, case: &Case, targets: &[&'static str]) -> Option<Forwarder> {
    let rules = rules(case, targets);
    match case.gateway {
        Gateway::None => {}
        Gateway::Kernel => {
            let _ = namespace.output("tc", &["qdisc", "add", "dev", SOURCE, "clsact"]);
            let filter = format!(
                "filter add dev {SOURCE} ingress matchall action mirred egress redirect dev {}",
                targets[0]
            );
            let _ = namespace.output("tc", &filter.split(' ').collect::<Vec<_>>());
        }
        Gateway::Forwarder => return Some(Forwarder::start(namespace, targets[0])),
        Gateway::CanGw => {
            let indices = (FIRST_INDEX..).zip([&[SOURCE], targets].concat());
            let names: BTreeMap<u32, &'static str> = indices.collect();
            namespace.enter(|| {
                let can_gw = CanGw::open(names).expect("a netlink socket");
                for rule in &rules {
                    let answer = can_gw.change(Change::Add(rule)).expect("can-gw answers");
                    assert_eq!(answer, 0, "can-gw and {}", rule.options());
                }
            });
        }
        Gateway::Bus => make_bus(namespace, targets, false),
        Gateway::LimitedBus => make_bus(namespace, targets, true),
        Gateway::Tc | Gateway::TcUnheard | Gateway::TcExclusive | Gateway::XdpExclusive => {
            if matches!(case.gateway, Gateway::TcExclusive | Gateway::XdpExclusive) {
                Cangw::Ours.must(namespace, "interface set a1 exclusive on");
            }
            let engine = if case.gateway == Gateway::XdpExclusive {
                "xdp"
            } else {
                "tc"
            };
            Cangw::Ours.must(namespace, &format!("interface set a1 engine {engine}"));
            let text: String = rules.iter().map(|rule| rule.options() + "\n").collect();
            let file = std::env::temp_dir().join(format!("cangw-bench-{}", std::process::id()));
            std::fs::write(&file, text).expect("the temporary folder can be written");
            Cangw::Ours.must(namespace, &format!("rule load {}", file.display()));
            let _ = std::fs::remove_file(file);
        }
    }
    None
}

/// Makes all interfaces ports of a virtual bus.
fn make_bus(namespace: &Namespace, targets: &[&str], limited: bool) {
    let options = [
        ("fd", "true"),
        ("allow", "100-1FF"),
        ("filter", "100-1FF"),
        ("rate", "1000000/s"),
    ];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let options = PortOptions::parse(&options.into(), &Given::new()).expect("they are right");
    let limits = options.limits(72).filter(|_| limited);
    namespace.enter(|| {
        let pins = Pins::open(true).expect("bpffs is there").expect("a folder");
        let bus = Hub::new(&pins, BUS);
        let ports = 1 + targets.len() as u32;
        bus.create(ports).expect("a bus can be made");
        let all: Vec<u32> = (FIRST_INDEX..FIRST_INDEX + ports).collect();
        for index in &all {
            bus.add(*index, limits.as_ref()).expect("it has room");
        }
        // As every bus has it, for frames that tc redirects to its ports.
        let netlink = Netlink::open().expect("a netlink socket");
        reentry::set(&netlink, &all).expect("ports can have filters");
    });
}

fn rules(case: &Case, targets: &[&'static str]) -> Vec<Rule> {
    let filters: Vec<_> = if case.is_hub() {
        vec![None]
    } else {
        case.kind
            .filters(case.rules)
            .into_iter()
            .map(Some)
            .collect()
    };
    let for_target = |target: &&'static str| {
        let rule = |filter| Rule {
            fd: case.fd,
            filter,
            ..changing(case, Rule::new(SOURCE, target))
        };
        filters.iter().copied().map(rule).collect::<Vec<_>>()
    };
    targets.iter().flat_map(for_target).collect()
}

/// Another identifier, a byte less, and a checksum over seven bytes, where the case asks for that.
fn changing(case: &Case, rule: Rule) -> Rule {
    if !case.changes {
        return rule;
    }
    let modification = |operation, elements, id, data: u64| {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&data.to_be_bytes());
        Modification {
            operation,
            elements,
            id,
            len: 0,
            flags: 0,
            data: bytes,
        }
    };
    let mut table = Box::new([0; 256]);
    for (number, byte) in (0..=255).zip(table.iter_mut()) {
        *byte = number;
    }
    Rule {
        modifications: vec![
            modification(Operation::Set, ID, 0x124, 0),
            modification(Operation::And, DATA, 0, 0x00FF_FFFF_FFFF_FFFF),
        ],
        crc8: Some(Crc8 {
            span: Span {
                from: 0,
                to: 6,
                result: 7,
                init: 0xFF,
            },
            final_xor: 0xFF,
            table,
        }),
        ..rule
    }
}

/// What people write by hand, in a thread of its own.
struct Forwarder {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    fn start(namespace: &Namespace, target: &str) -> Self {
        let from = CanSocket::open(namespace, SOURCE);
        let to = CanSocket::open(namespace, target).deaf();
        let ends = Arc::new(AtomicBool::new(false));
        let until = ends.clone();
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Some(frame) = from.receive_within(Duration::from_millis(100)) {
                    to.send(&frame);
                }
            }
        });
        Self {
            ends,
            thread: Some(thread),
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // When it panicked, it said why.
            let _ = thread.join();
        }
    }
}
