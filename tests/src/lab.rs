//! A namespace with CAN interfaces, a socket that watches each of them, and a way to know that all frames have arrived.

use std::collections::BTreeMap;
use std::fs;

use crate::backlog::Backlog;
use crate::frame::{EFF, Frame};
use crate::namespace::Namespace;
use crate::socket::{ANY, CanSocket};
use crate::sys;

/// More than the hops of a frame while max-hops is 1: the gateway's, and one across a pair.
const ROUNDS: usize = 3;
/// An interface without rules.
const FENCE: &str = "fence";

/// Not an identifier that a test sends, in its upper bits.
const FENCE_ID: u32 = EFF | 0x0FEC_E000;

/// An interface, or a pair.
#[derive(Clone, Copy)]
pub enum Link {
    /// One that loops frames back, with this name.
    Vcan(&'static str),
    /// Two ends; the name of the second is that of the first and `p`. Both are in the same namespace, because can-gw
    /// confuses interfaces of different namespaces that have the same number.
    Vxcan(&'static str),
    /// A controller of the guest, borrowed from the first namespace.
    Hardware(&'static str),
}

/// The interfaces and their watchers.
pub struct Lab {
    pub namespace: Namespace,
    borrowed: Vec<&'static str>,
    watchers: BTreeMap<String, CanSocket>,
    senders: BTreeMap<String, CanSocket>,
    fence: (CanSocket, CanSocket),
    rounds: usize,
    _backlog: Backlog,
    seen: BTreeMap<String, Vec<Frame>>,
}

impl Lab {
    /// Makes the interfaces, with the MTU of CAN FD where they are virtual, and up.
    ///
    /// # Panics
    /// When the kernel cannot.
    #[must_use]
    pub fn new(label: &str, links: &[Link]) -> Self {
        let namespace = Namespace::new(label);
        // The kernel keeps a queue of received frames for each processor, in order. With one processor only, a frame that is
        // sent later arrives later, whatever its interface.
        sys::pin_to_cpu(0).expect("a thread may choose its processor");
        let mut names = vec![FENCE.to_owned()];
        let mut batch = format!("link add {FENCE} type vcan\n");
        let mut borrowed = Vec::new();
        for link in links {
            match link {
                Link::Vcan(name) => {
                    batch += &format!("link add {name} type vcan\n");
                    names.push((*name).to_owned());
                }
                Link::Vxcan(name) => {
                    batch += &format!("link add {name} type vxcan peer name {name}p\n");
                    names.extend([(*name).to_owned(), format!("{name}p")]);
                }
                Link::Hardware(name) => borrowed.push(*name),
            }
        }
        for name in &names {
            batch += &format!("link set {name} mtu 72 up\n");
        }
        namespace.ip(&batch);
        for name in &borrowed {
            borrow(&namespace, name);
            names.push((*name).to_owned());
        }
        if !borrowed.is_empty() {
            interrupts_to_first_cpu(&borrowed);
        }
        let open = |name: &String| (name.clone(), CanSocket::open(&namespace, name));
        let sender = |name: &String| (name.clone(), CanSocket::open(&namespace, name).deaf());
        let fence = (sender(&names[0]).1, CanSocket::open(&namespace, FENCE));
        names.remove(0);
        Self {
            borrowed,
            watchers: names.iter().chain([&ANY.to_owned()]).map(open).collect(),
            senders: names.iter().map(sender).collect(),
            seen: BTreeMap::new(),
            namespace,
            fence,
            rounds: ROUNDS,
            _backlog: Backlog::raise(),
        }
    }

    /// Frames may make this many hops more than usual.
    pub fn allow_hops(&mut self, hops: usize) {
        self.rounds = ROUNDS + hops;
    }

    /// Sends a frame from a local socket of an interface, and waits until all its copies have arrived, if all interfaces on its
    /// way are virtual.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn send(&self, interface: &str, frame: &Frame) {
        self.post(interface, frame);
        self.fence();
    }

    /// Sends a frame from a local socket of an interface, without waiting.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn post(&self, interface: &str, frame: &Frame) {
        self.senders[interface].send(frame);
    }

    /// Waits until frames on virtual interfaces have arrived wherever they go. Each round lets them make a hop.
    fn fence(&self) {
        let (sender, receiver) = &self.fence;
        for round in 0..self.rounds {
            let frame = Frame::classic(FENCE_ID | round as u32, &[]);
            sender.send(&frame);
            assert_eq!(receiver.receive(), frame, "on the fence");
        }
    }

    fn is_fence(&self, frame: &Frame) -> bool {
        (0..self.rounds).any(|round| frame.id() == FENCE_ID | round as u32)
    }

    /// Waits as [`Self::send`] does, and collects what has arrived.
    fn collect(&mut self) {
        self.fence();
        for (name, watcher) in &self.watchers {
            let mut frames = watcher.drain();
            if name == ANY {
                frames.retain(|frame| !self.is_fence(frame));
                // In which order different interfaces see a frame means nothing.
                frames.sort();
            }
            assert_eq!(watcher.lost(), 0, "{name}: the watcher lost frames");
            if !frames.is_empty() {
                self.seen.entry(name.clone()).or_default().extend(frames);
            }
        }
    }

    /// Sends a frame on one interface and waits until it is seen on another, which need not be virtual.
    ///
    /// # Panics
    /// When it does not come.
    pub fn relay(&mut self, from: &str, to: &str, frame: &Frame) {
        self.senders[from].send(frame);
        while self.wait(to) != *frame {}
    }

    /// Waits until a frame, whatever it is, is seen on an interface.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait(&mut self, interface: &str) -> Frame {
        let frame = self.watchers[interface].receive();
        let seen = self.seen.entry(interface.to_owned()).or_default();
        seen.push(frame.clone());
        frame
    }

    /// The frames seen on each interface since the last call, in order; those of a socket on all of them, sorted, as [`ANY`].
    pub fn take(&mut self) -> BTreeMap<String, Vec<Frame>> {
        self.collect();
        std::mem::take(&mut self.seen)
    }

    /// The frames seen on one interface since the last call, in order; those of the others are forgotten.
    #[must_use]
    pub fn take_on(&mut self, interface: &str) -> Vec<Frame> {
        self.take().remove(interface).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.borrowed {
            // Without this it would come back some time after the namespace is gone.
            let back = format!("link set {name} down\nlink set {name} netns 1\n");
            if std::thread::panicking() {
                let _ = self
                    .namespace
                    .command("sh")
                    .args(["-c", "printf \"$0\" | ip -force -batch -", &back])
                    .output();
            } else {
                self.namespace.ip(&back);
            }
        }
    }
}

fn borrow(namespace: &Namespace, name: &str) {
    let moved = std::process::Command::new("ip")
        .args(["link", "set", name, "netns", namespace.name()])
        .output()
        .expect("`ip` runs");
    assert!(
        moved.status.success(),
        "no CAN controller {name} (`cargo xtask vm --can-hw` has four): {}",
        String::from_utf8_lossy(&moved.stderr)
    );
    namespace.ip(&format!(
        "link set {name} type can bitrate 500000\nlink set {name} up\n"
    ));
}

/// Makes controllers deliver their frames on the processor that everything here waits for.
fn interrupts_to_first_cpu(names: &[&str]) {
    let table = fs::read_to_string("/proc/interrupts").expect("the kernel lists its interrupts");
    for line in table.lines() {
        let users = line.split([' ', ',']).filter(|word| !word.is_empty());
        if users.clone().any(|user| names.contains(&user)) {
            let number = line.trim().split(':').next().unwrap_or_default();
            let file = format!("/proc/irq/{number}/smp_affinity");
            fs::write(&file, "1").unwrap_or_else(|e| panic!("{file}: {e}"));
        }
    }
}
