//! `cangw probe`: what this kernel and these interfaces can do, found out by doing it in a namespace of its own.

use cangw_common::frame::FrameType;
use serde::Serialize;

use super::output;
use crate::error::{Error, Result};
use crate::kernel::filter::{self, Action, End, Plan, Qdisc};
use crate::kernel::link::{self, Link};
use crate::kernel::listeners::Receivers;
use crate::kernel::netlink::Netlink;
use crate::kernel::syscall;
use crate::kernel::{bpf, pins};
use crate::rule::kind_name;

/// Something that was tried.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    /// Why it does not work; `None` when it does.
    problem: Option<String>,
    /// What is impossible without it.
    needed_for: &'static str,
}

/// What an interface can carry.
#[derive(Serialize)]
struct Device {
    name: String,
    kind: String,
    mtu: u32,
    classic: bool,
    fd: bool,
    xl: bool,
    up: bool,
    note: Option<String>,
}

#[derive(Serialize)]
struct Probe {
    kernel: String,
    findings: Vec<Finding>,
    interfaces: Vec<Device>,
    note: Option<String>,
}

pub(super) fn run(json: bool) -> Result<()> {
    let mut findings = vec![
        finding(
            "capabilities",
            "everything but --help",
            crate::capability::require("the gateway"),
        ),
        finding("bpffs", "keeping rules between calls", pins::mounted()),
        finding(
            "network namespace cookie",
            "keeping the rules of namespaces apart",
            pins::namespace_cookie().map(drop),
        ),
    ];
    findings.extend(in_own_namespace(try_kernel).unwrap_or_else(|e| {
        vec![finding(
            "a network namespace for trying",
            "this probe",
            Err(e),
        )]
    }));
    let interfaces = Netlink::open()
        .and_then(|netlink| link::list(&netlink))?
        .into_iter()
        .filter(|l| l.is_can)
        .map(device)
        .collect();
    let probe = Probe {
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        findings,
        interfaces,
        note: can_gw(),
    };
    if json {
        output::json(&probe)
    } else {
        print(&probe)
    }
}

fn print(probe: &Probe) -> Result<()> {
    output::print(|out| {
        writeln!(out, "Linux {}", probe.kernel)?;
        for f in &probe.findings {
            match &f.problem {
                None => writeln!(out, "  yes  {}", f.what)?,
                Some(problem) => writeln!(
                    out,
                    "  NO   {}: {problem} (needed for {})",
                    f.what, f.needed_for
                )?,
            }
        }
        for d in &probe.interfaces {
            let mut types = String::from("classic");
            for (can, name) in [(d.fd, ", FD"), (d.xl, ", XL")] {
                if can {
                    types.push_str(name);
                }
            }
            let state = if d.up { "up" } else { "down" };
            write!(
                out,
                "{} ({}, {state}): mtu {}, carries {types}",
                d.name, d.kind, d.mtu
            )?;
            match &d.note {
                Some(note) => writeln!(out, "; {note}")?,
                None => writeln!(out)?,
            }
        }
        if let Some(note) = &probe.note {
            writeln!(out, "Note: {note}")?;
        }
        Ok(())
    })
}

fn finding(what: &'static str, needed_for: &'static str, result: Result<()>) -> Finding {
    Finding {
        what,
        problem: result.err().map(|e| e.to_string()),
        needed_for,
    }
}

fn device(link: Link) -> Device {
    let mut notes = Vec::new();
    for kind in FrameType::ALL {
        if link.mtu < kind.mtu() {
            notes.push(format!(
                "CAN {} needs mtu {}",
                kind_name(kind).to_uppercase(),
                kind.mtu()
            ));
        }
    }
    if !link.is_virtual() {
        notes.push(if bpf::drivers_leave_no_prefix() {
            "engine tc is to be preferred, because XDP bypasses the queue of a real device".into()
        } else {
            "engine tc only: on this kernel a driver's private bytes stand before its frames, and XDP would send them along".into()
        });
    }
    let note = (!notes.is_empty()).then(|| notes.join("; "));
    Device {
        classic: link.mtu >= FrameType::Classic.mtu(),
        fd: link.mtu >= FrameType::Fd.mtu(),
        xl: link.mtu >= FrameType::Xl.mtu(),
        name: link.name,
        kind: link.kind,
        mtu: link.mtu,
        up: link.up,
        note,
    }
}

/// Whether the kernel's own can-gw has rules, which are in the way of ours.
fn can_gw() -> Option<String> {
    Receivers::read()
        .is_ok_and(|receivers| receivers.has_can_gw())
        .then(|| "the kernel's can-gw has rules in this network namespace, too: on a source of both, it gets only the frames that are left to local sockets, and forwards them a second time; `cangw import` takes its rules over".into())
}

/// Does something in a new network namespace, which is gone afterwards.
fn in_own_namespace<T: Send>(what: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                // Of this thread only, which ends with the closure.
                syscall::leave_namespace()
                    .map_err(|e| Error::io("create a network namespace (CAP_SYS_ADMIN)", e))?;
                Ok(what())
            })
            .join()
            .unwrap_or_else(|_| {
                Err(Error::io(
                    "probe",
                    std::io::Error::other("the probe failed"),
                ))
            })
    })
}

/// Tries every part on the loopback interface.
fn try_kernel() -> Vec<Finding> {
    const LOOPBACK: u32 = 1;
    let netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(e) => return vec![finding("rtnetlink", "everything", Err(e))],
    };
    let send = Plan {
        runs: vec![vec![Action::Send {
            ifindex: LOOPBACK,
            rule: 0,
        }]],
        end: End::Deliver,
    };
    let echo = Plan {
        runs: vec![vec![
            Action::Tag(0),
            Action::Echo {
                ifindex: LOOPBACK,
                rule: 0,
            },
            Action::Untag,
        ]],
        end: End::Deliver,
    };
    let mut programs = bpf::Trial::load();
    let (tc, loads, redirect_err, probes) = match &mut programs {
        Ok(trial) => (
            trial.tc_fd().and_then(|fd| {
                Qdisc::Clsact.add(&netlink, LOOPBACK)?;
                filter::attach(&netlink, LOOPBACK, fd)
            }),
            Ok(()),
            trial.tracepoint(),
            trial.probes(),
        ),
        Err(e) => {
            let again = || {
                Err(Error::Bpf {
                    what: "the programs".into(),
                    message: e.to_string(),
                })
            };
            (again(), again(), again(), again())
        }
    };
    let tc_works = tc.is_ok();
    let list = |plan: &Plan, handle| {
        if tc_works {
            filter::add_list(&netlink, LOOPBACK, handle, plan)
        } else {
            Err(Error::Unsupported {
                what: "tc with cls_bpf".into(),
                remedy: "see above".into(),
            })
        }
    };
    vec![
        finding("eBPF programs load", "everything", loads),
        finding("tc: clsact and cls_bpf", "the tc engine", tc),
        finding("tc: fw filter and mirred", "the tc engine", list(&send, 1)),
        finding("tc: skbedit", "echo (-e)", list(&echo, 2)),
        finding(
            "generic XDP",
            "the XDP engine",
            programs.and_then(|mut t| t.attach_xdp(LOOPBACK)),
        ),
        finding(
            "tracepoint xdp:xdp_redirect_err",
            "counting what XDP loses, and so for the XDP engine",
            redirect_err,
        ),
        finding(
            "probes on can.ko",
            "sparing the copies for local sockets while none listens; without, every frame is copied",
            probes,
        ),
        finding(
            "ifb",
            "virtual buses to which rules lead",
            link::try_create(&netlink, "ifb"),
        ),
        finding("vcan", "virtual buses", link::try_create(&netlink, "vcan")),
        finding(
            "vxcan",
            "buses between network namespaces",
            link::try_create(&netlink, "vxcan"),
        ),
    ]
}
