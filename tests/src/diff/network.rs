//! The interfaces of a contestant, and the programs that send and receive on them.
//!
//!               ┌── inner namespace ──┐      ┌─ outer namespace ─┐
//!               │ vcan0 … vcan3       │      │                   │
//!               │ p0 ═════════════════╪══════╪═ q0               │
//!               │ …    fence          │      │  …                │
//!               └─────────────────────┘      └───────────────────┘
//!
//! The kernel puts received frames into one queue for each processor, so on one processor a frame on `fence` that was sent later arrives
//! later than all others: when it has come, everything that was in the queue before has arrived.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use super::case::{INNER, OUTER};
use crate::frame::{EFF, Frame};
use crate::namespace::Namespace;
use crate::socket::PATIENCE;
use crate::sys::{self, Ready};

const FENCE: &str = "fence";
/// An interface on which nothing is sent, for a rule that keeps a gateway loaded.
pub const IDLE: &str = "idle";
const FENCE_ID: u32 = EFF | 0x0FEC_E000;
/// Above all numbers that the kernel gives out here, and different in both namespaces: can-gw confuses equal ones.
const FIRST_INDEX: u32 = 100;
/// Not in libc yet.
const CAN_RAW_JOIN_FILTERS: i32 = 6;

/// Two namespaces with everything in them.
pub struct Network {
    pub inner: Namespace,
    outer: Namespace,
    senders: BTreeMap<&'static str, OwnedFd>,
    fence: OwnedFd,
    fence_index: u32,
    inner_ear: OwnedFd,
    outer_ear: OwnedFd,
    names: BTreeMap<u32, &'static str>,
    seen: BTreeMap<&'static str, Vec<Frame>>,
}

impl Network {
    /// Makes it.
    ///
    /// # Panics
    /// When the kernel cannot.
    #[must_use]
    pub fn new(label: &str) -> Self {
        let inner = Namespace::new(label);
        let outer = Namespace::new(label);
        let mut names = BTreeMap::new();
        let mut index = FIRST_INDEX;
        let mut next = |name| {
            index += 1;
            names.insert(index, name);
            index
        };
        let mut batch =
            format!("link add {FENCE} index {FIRST_INDEX} type vcan\nlink add {IDLE} type vcan\n");
        for &name in &INNER[..4] {
            batch += &format!("link add {name} index {} type vcan\n", next(name));
        }
        for (&name, peer) in INNER[4..].iter().zip(OUTER) {
            let (this, other) = (next(name), next(peer));
            batch += &format!(
                "link add {name} index {this} type vxcan peer name {peer} index {other}\n"
            );
            batch += &format!("link set {peer} netns {}\n", outer.name());
        }
        let up = |names: &[&str]| -> String {
            let line = |name| format!("link set {name} mtu 72 up\n");
            names.iter().map(line).collect()
        };
        inner.ip(&(batch + &up(&[FENCE, IDLE]) + &up(&INNER)));
        outer.ip(&up(&OUTER));
        let mut senders = BTreeMap::new();
        for (namespace, names) in [(&inner, &INNER[..]), (&outer, &OUTER[..])] {
            for name in names {
                senders.insert(*name, sender(namespace, name));
            }
        }
        for name in OUTER {
            // The copy for neighbours could come before or after what the gateway sends back.
            sys::set_option(&senders[name], libc::SOL_CAN_RAW, libc::CAN_RAW_LOOPBACK, 0)
                .expect("a sender does without copies");
        }
        Self {
            fence: sender(&inner, FENCE),
            fence_index: FIRST_INDEX,
            inner_ear: ear(&inner),
            outer_ear: ear(&outer),
            inner,
            outer,
            senders,
            names,
            seen: BTreeMap::new(),
        }
    }

    /// The interfaces by their numbers.
    #[must_use]
    pub fn names(&self) -> &BTreeMap<u32, &'static str> {
        &self.names
    }

    /// Sends a frame, and waits until everything that follows from it has arrived. Each round of the fence lets all
    /// frames on their way go on by one hop.
    ///
    /// # Panics
    /// When the kernel refuses the frame, or when something does not arrive.
    pub fn send(&mut self, on: &'static str, frame: &Frame, rounds: u32) {
        sys::send(&self.senders[on], frame.bytes())
            .unwrap_or_else(|e| panic!("sending {frame} on {on} in {}: {e}", self.outer.name()));
        for round in 0..rounds {
            let fence = Frame::classic(FENCE_ID | round, &[]);
            sys::send(&self.fence, fence.bytes()).expect("the fence takes a frame");
            self.hear_until(&fence);
        }
    }

    /// Receives until the fence's frame comes.
    fn hear_until(&mut self, fence: &Frame) {
        loop {
            match hear(&self.inner_ear) {
                Some((index, frame)) if index == self.fence_index => {
                    assert_eq!(frame, *fence, "on the fence");
                    return;
                }
                Some((index, frame)) => self.note(index, frame),
                None => {
                    let ready = sys::wait(&self.inner_ear, Ready::Read, PATIENCE);
                    assert!(ready.is_ok_and(|is_so| is_so), "no frame came on the fence");
                }
            }
        }
    }

    fn note(&mut self, index: u32, frame: Frame) {
        let name = self.names.get(&index);
        let name = name.unwrap_or_else(|| panic!("{frame} on an unknown interface {index}"));
        self.seen.entry(name).or_default().push(frame);
    }

    /// The frames that were seen on each interface since the last call, in order.
    pub fn take(&mut self) -> BTreeMap<&'static str, Vec<Frame>> {
        while let Some((index, frame)) = hear(&self.outer_ear) {
            self.note(index, frame);
        }
        std::mem::take(&mut self.seen)
    }
}

fn socket(namespace: &Namespace, name: Option<&str>) -> OwnedFd {
    let open = || sys::can_socket(name.map_or(Ok(0), sys::interface_index)?);
    let socket = namespace.enter(open);
    let socket = socket.unwrap_or_else(|e| panic!("no raw CAN socket on {name:?}: {e}"));
    sys::set_option(&socket, libc::SOL_CAN_RAW, libc::CAN_RAW_FD_FRAMES, 1)
        .expect("a socket takes FD frames");
    socket
}

fn sender(namespace: &Namespace, name: &str) -> OwnedFd {
    let socket = socket(namespace, Some(name));
    sys::receive_nothing(&socket).expect("a socket can do without frames");
    socket
}

/// A socket that receives everything in a namespace.
fn ear(namespace: &Namespace) -> OwnedFd {
    let socket = socket(namespace, None);
    for (level, name, value) in [
        (libc::SOL_CAN_RAW, libc::CAN_RAW_ERR_FILTER, 0x1FFF_FFFF),
        // With this and one filter, can_raw does not take two copies of one frame for the same.
        (libc::SOL_CAN_RAW, CAN_RAW_JOIN_FILTERS, 1),
    ] {
        sys::set_option(&socket, level, name, value)
            .unwrap_or_else(|e| panic!("option {name} of a socket: {e}"));
    }
    socket
}

fn hear(socket: &OwnedFd) -> Option<(u32, Frame)> {
    let mut buffer = [0; 72];
    match sys::receive_from(socket, &mut buffer) {
        Ok((length, index)) => Some((index, Frame::from_bytes(&buffer[..length]))),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
        Err(e) => panic!("receiving: {e}"),
    }
}
