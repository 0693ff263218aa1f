//! Listener-aware forwarding: probes on can.ko keep count of who listens on an interface, so that frames are copied only for someone.
//!
//! A wrong count in one direction costs time, in the other frames. So everything that is not certain reads as "someone listens".

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aya::programs::links::FdLink;
use aya::programs::{KProbe, ProbeKind, TracePoint};
use aya::{Ebpf, EbpfLoader};
use cangw_common::abi::{self, PROBES_LOST, UNCOUNTED};

use super::bpf::{self, failed, replace};
use super::btf::Btf;
use super::pins::{self, Pins};
use super::syscall;
use super::words::Words;
use crate::error::{Error, Result};

/// What can.ko keeps for all network namespaces in `/proc/net`, a file for each way of finding receivers (net/can/proc.c).
const RECEIVERS: [&str; 6] = [
    "rcvlist_all",
    "rcvlist_fil",
    "rcvlist_inv",
    "rcvlist_sff",
    "rcvlist_eff",
    "rcvlist_err",
];
/// The interface of those who listen on all.
const ANY: &str = "any";
/// How can-gw calls itself among the receivers.
const CAN_GW_IDENT: &str = "gw";
/// Function by which can-gw receives.
const CAN_GW_FUNCTION: &str = "can_can_gw_rcv";
/// A call of `can_rx_register` that began before the listeners are looked at ends within this time. It only takes a lock and memory.
const QUIET: Duration = Duration::from_millis(10);
/// How often listeners are counted that change meanwhile.
const TRIES: usize = 5;
/// The probes, and the functions at whose entries they are. The last one serves [`super::fan_out`].
const PROBES: [(&str, &str); 3] = [
    ("cangw_listen", "can_rx_register"),
    ("cangw_unlisten", "can_rx_unregister"),
    ("cangw_closing", "dev_map_notification"),
];
/// The program that tells when the probes are gone.
const LOADED: &str = "cangw_can_loaded";

impl Words {
    /// Forgets who listens on the interface in a slot, or on all: frames are copied until they are counted.
    pub fn forget(&self, slot: Option<u32>) {
        self.listeners_of(slot).store(UNCOUNTED, Ordering::SeqCst);
    }

    /// How many listen on an interface; `None` when it is not known.
    #[must_use]
    pub fn listeners(&self, slot: u32) -> Option<u32> {
        let of = |slot| abi::listeners(self.listeners_of(slot).load(Ordering::SeqCst));
        Some(of(Some(slot))? + of(None)?)
    }
}

/// Attaches the probes if they are not there, and counts the listeners of interfaces (given by slot and name) whose count is not known or
/// not true.
///
/// # Errors
/// Why the kernel cannot; frames are copied then.
pub fn sync(pins: &Pins, interfaces: &[(u32, &str)]) -> Result<()> {
    let words = Words::open(pins)?;
    let load = |slot| words.listeners_of(slot).load(Ordering::SeqCst);
    let each = interfaces.iter().map(|(slot, name)| (Some(*slot), *name));
    let interfaces: Vec<(Option<u32>, &str)> = [(None, ANY)].into_iter().chain(each).collect();
    if !are_attached(pins) || load(None) & PROBES_LOST != 0 {
        attach(pins)?;
        for &(slot, _) in &interfaces {
            words.forget(slot);
        }
    }
    for _ in 0..TRIES {
        if words.can_gw().load(Ordering::SeqCst) == 0 && Receivers::read()?.has_can_gw() {
            words
                .can_gw()
                .store(address(CAN_GW_FUNCTION)?, Ordering::SeqCst);
        }
        let before: Vec<u64> = interfaces.iter().map(|&(slot, _)| load(slot)).collect();
        let receivers = Receivers::read()?;
        let agrees = |(word, (_, name)): (&u64, &(Option<u32>, &str))| {
            abi::listeners(*word) == Some(receivers.of(name))
        };
        if before.iter().zip(&interfaces).all(agrees) {
            return Ok(());
        }
        std::thread::sleep(QUIET);
        let receivers = Receivers::read()?;
        for (&word, (slot, name)) in before.iter().zip(&interfaces) {
            // If anything happened since, not even the count before is to be trusted.
            let _ = words.listeners_of(*slot).compare_exchange(
                word,
                abi::counted(word, receivers.of(name)),
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
        }
    }
    Ok(())
}

/// Whether the probes are attached, or were until can.ko was loaded anew.
#[must_use]
pub fn are_attached(pins: &Pins) -> bool {
    let mut programs = PROBES.iter().map(|(name, _)| *name).chain([LOADED]);
    programs.all(|name| pins.path(&link_of(name)).exists())
}

/// Where the kernel keeps what the programs read: their variables, and the members of which they are the offsets.
const OFFSETS: [(&str, (&str, &str)); 10] = [
    ("COOKIE_OFFSET", ("net", "net_cookie")),
    ("IFINDEX_OFFSET", ("net_device", "ifindex")),
    ("TYPE_OFFSET", ("net_device", "type")),
    ("NET_OFFSET", ("net_device", "nd_net")),
    ("SKB_DEV", ("sk_buff", "dev")),
    ("SKB_LEN", ("sk_buff", "len")),
    ("SKB_DATA", ("sk_buff", "data")),
    ("SKB_PROTOCOL", ("sk_buff", "protocol")),
    ("SKB_MARK", ("sk_buff", "mark")),
    ("SKB_IIF", ("sk_buff", "skb_iif")),
];

/// What the probes have to know: the network namespace, and [`OFFSETS`].
pub struct Known {
    cookie: u64,
    offsets: [u64; OFFSETS.len()],
}

impl Known {
    /// Finds it out for this network namespace and this kernel.
    ///
    /// # Errors
    /// When the kernel has no type information.
    pub fn find() -> Result<Self> {
        /// The kernel stays the same, and its type information is several megabytes.
        static FOUND: OnceLock<[u64; OFFSETS.len()]> = OnceLock::new();
        let offsets = match FOUND.get() {
            Some(offsets) => *offsets,
            None => {
                let offsets = Btf::of_kernel()?.offsets(OFFSETS.map(|(_, member)| member))?;
                *FOUND.get_or_init(|| offsets)
            }
        };
        Ok(Self {
            cookie: pins::namespace_cookie()?,
            offsets,
        })
    }

    /// Lets the programs of a loader know it.
    pub fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader.override_global("NET_COOKIE", &self.cookie, true);
        for ((name, _), offset) in OFFSETS.iter().zip(&self.offsets) {
            loader.override_global(name, offset, true);
        }
    }
}

/// Loads the probes and pins them, to be attached later.
///
/// # Errors
/// When the kernel has no such programs.
pub fn pin(pins: &Pins, ebpf: &mut Ebpf) -> Result<()> {
    load(ebpf)?;
    for (name, _) in PROBES {
        let program: &mut KProbe = bpf::program(ebpf, name)?;
        replace(pins, &pin_of(name), |path| {
            program.pin(path).map_err(failed("pin a probe"))
        })?;
    }
    let program: &mut TracePoint = bpf::program(ebpf, LOADED)?;
    replace(pins, &pin_of(LOADED), |path| {
        program.pin(path).map_err(failed("pin a probe"))
    })
}

/// Whether the kernel lets probes attach.
///
/// # Errors
/// Why it does not.
pub fn try_out(ebpf: &mut Ebpf) -> Result<()> {
    load(ebpf)?;
    load_can()?;
    Receivers::read()?;
    attach_loaded(bpf::program(ebpf, LOADED)?)?;
    for (name, function) in PROBES {
        attach_probe(bpf::program(ebpf, name)?, function)?;
    }
    Ok(())
}

fn load(ebpf: &mut Ebpf) -> Result<()> {
    for (name, _) in PROBES {
        let program: &mut KProbe = bpf::program(ebpf, name)?;
        program.load().map_err(failed("load a probe"))?;
    }
    let program: &mut TracePoint = bpf::program(ebpf, LOADED)?;
    program.load().map_err(failed("load a tracepoint program"))
}

/// Attaches the probes that are pinned, in place of those that were.
fn attach(pins: &Pins) -> Result<()> {
    load_can()?;
    // First the one that tells when the others are gone. It does not go with them, and an event takes a program only once.
    if !pins.path(&link_of(LOADED)).exists() {
        let mut loaded =
            TracePoint::from_pin(pins.path(&pin_of(LOADED))).map_err(failed("open a probe"))?;
        keep(pins, LOADED, attach_loaded(&mut loaded)?)?;
    }
    for (name, function) in PROBES {
        let mut probe = KProbe::from_pin(pins.path(&pin_of(name)), ProbeKind::Entry)
            .map_err(failed("open a probe"))?;
        keep(pins, name, attach_probe(&mut probe, function)?)?;
    }
    Ok(())
}

fn keep(pins: &Pins, name: &str, link: FdLink) -> Result<()> {
    replace(pins, &link_of(name), |path| {
        link.pin(path).map(drop).map_err(failed("pin a probe"))
    })
}

fn attach_loaded(program: &mut TracePoint) -> Result<FdLink> {
    let id = program
        .attach("module", "module_load")
        .map_err(failed("attach to the tracepoint module:module_load"))?;
    let link = program.take_link(id).map_err(failed("keep a probe"))?;
    link.try_into().map_err(failed("keep a probe"))
}

fn attach_probe(program: &mut KProbe, function: &str) -> Result<FdLink> {
    let id = program
        .attach(function, 0)
        .map_err(failed(format!("attach a probe to the function {function}")))?;
    let link = program.take_link(id).map_err(failed("keep a probe"))?;
    link.try_into().map_err(failed("keep a probe"))
}

/// Loads can.ko, whose functions are probed.
fn load_can() -> Result<()> {
    syscall::can_socket().map_err(|e| Error::io("open a CAN socket", e))
}

fn pin_of(program: &str) -> String {
    format!("program_{program}")
}

fn link_of(program: &str) -> String {
    format!("link_{program}")
}

/// Who listens, as can.ko shows it.
#[derive(Default)]
pub struct Receivers {
    by_interface: HashMap<String, u32>,
    /// Interfaces of which can-gw receives frames. It is not counted.
    can_gw: HashSet<String>,
}

impl Receivers {
    /// Reads them for this thread's network namespace.
    ///
    /// # Errors
    /// When can.ko is not loaded or does not show them.
    pub fn read() -> Result<Self> {
        let mut receivers = Self::default();
        for list in RECEIVERS {
            let path = format!("/proc/thread-self/net/can/{list}");
            let text = std::fs::read_to_string(&path)
                .map_err(|e| Error::io(format!("read who listens from {path}"), e))?;
            text.lines().for_each(|line| receivers.add(line));
        }
        Ok(receivers)
    }

    /// Adds a line of the form `can0 123 7FF <function> <data> <matches> <ident>`.
    fn add(&mut self, line: &str) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[interface, id, _, _, _, _, ident] = fields.as_slice() else {
            return;
        };
        if id == "can_id" {
            return;
        }
        if ident == CAN_GW_IDENT {
            self.can_gw.insert(interface.to_owned());
        } else {
            *self.by_interface.entry(interface.to_owned()).or_default() += 1;
        }
    }

    /// Whether the kernel's can-gw has a rule for frames of an interface.
    #[must_use]
    pub fn can_gw_on(&self, interface: &str) -> bool {
        self.can_gw.contains(interface)
    }

    /// Whether the kernel's can-gw has any rule.
    #[must_use]
    pub fn has_can_gw(&self) -> bool {
        !self.can_gw.is_empty()
    }

    /// How many listen on an interface, or with "any" on all. (On an interface of that name seem to listen too many, which does no harm.)
    #[must_use]
    pub fn of(&self, interface: &str) -> u32 {
        self.by_interface.get(interface).copied().unwrap_or(0)
    }
}

/// Address of a function of the kernel.
fn address(function: &str) -> Result<u64> {
    const KALLSYMS: &str = "/proc/kallsyms";
    let unreadable = |e| Error::io(format!("read {KALLSYMS}"), e);
    let file = std::fs::File::open(KALLSYMS).map_err(unreadable)?;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(unreadable)?;
        let mut fields = line.split_whitespace();
        let address = fields.next();
        if fields.nth(1) == Some(function)
            && let Some(address) = address.and_then(|a| u64::from_str_radix(a, 16).ok())
            && address != 0
        {
            return Ok(address);
        }
    }
    Err(Error::Unsupported {
        what: format!("the address of {function} in {KALLSYMS}"),
        remedy: "set the sysctl kernel.kptr_restrict to 0 or 1".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::Receivers;

    #[test]
    fn listeners_are_counted_without_can_gw_and_headers() {
        let text = "\nreceive list 'rx_sff':\n  (any: no entry)\n  device   can_id   can_mask  function  userdata   matches  ident\n   \
                    vcan0     123   c00007ff  ffffffffc0a01230  ffff888102a3b400         7  raw\n   \
                    vcan0     124   c00007ff  ffffffffc0a01230  ffff888102a3b400         0  gw\n   \
                    any       125   c00007ff  ffffffffc0a01230  ffff888102a3b400         0  bcm\n   \
                    vcan1     123   c00007ff  ffffffffc0a01230\n";
        let mut receivers = Receivers::default();
        text.lines().for_each(|line| receivers.add(line));
        assert_eq!(receivers.of("vcan0"), 1);
        assert_eq!(receivers.of("any"), 1);
        assert_eq!(receivers.of("vcan1"), 0);
        assert!(receivers.can_gw_on("vcan0") && !receivers.can_gw_on("vcan1"));
    }
}
