//! The programs as this machine's kernel loads and executes them (`BPF_PROG_TEST_RUN`), without any CAN interface.
//!
//! Needs root (CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN) and fails without. The tc program cannot be run this way: the kernel
//! gives test packets the protocol of an Ethernet header. It is loaded here and tested end to end on the test kernels.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use aya::programs::{TestRun as _, TestRunOptions};
use cangw::compile::{Compiled, Input, Interface, States, compile};
use cangw::kernel::bpf;
use cangw::kernel::maps::Maps;
use cangw::kernel::pins::Pins;
use cangw_common::abi::{self, Reason, VIRTUAL};
use cangw_common::frame::{EFF_FLAG, EFF_MASK, ERR_FLAG, FrameType, RTR_FLAG};
use cangw_common::rule::{Filter, INV_FILTER, Match};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

/// The loopback interface: test packets come from there.
const LOOPBACK: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// A BPF file system that only this thread sees.
struct Bpffs(PathBuf);

impl Bpffs {
    fn mount() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("cangw-programs-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        let c = |text: &str| CString::new(text).expect("no zero byte");
        let target = c(folder.to_str().expect("a path in UTF-8"));
        let (none, root, bpf) = (c("none"), c("/"), c("bpf"));
        // SAFETY: all strings are terminated and outlive the calls; the new mount namespace is this thread's own.
        let mounted = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(
                    none.as_ptr(),
                    root.as_ptr(),
                    std::ptr::null(),
                    libc::MS_REC | libc::MS_PRIVATE,
                    std::ptr::null(),
                ) == 0
                && libc::mount(
                    bpf.as_ptr(),
                    target.as_ptr(),
                    bpf.as_ptr(),
                    0,
                    std::ptr::null(),
                ) == 0
        };
        assert!(
            mounted,
            "mounting a BPF file system needs root: {}",
            std::io::Error::last_os_error()
        );
        Self(folder)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let target = CString::new(self.0.to_str().expect("a path in UTF-8")).expect("no zero byte");
        // SAFETY: the string is terminated.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// The programs and maps of this test.
struct Loaded {
    maps: Maps,
    xdp: aya::programs::Xdp,
    _pins: Pins,
    _bpffs: Bpffs,
}

fn load() -> Loaded {
    let bpffs = Bpffs::mount();
    let pins = Pins::open_in(bpffs.path(), true)
        .expect("the folder can be made")
        .expect("it was created");
    bpf::load(&pins, false).expect("the kernel loads the programs");
    Loaded {
        maps: Maps::open(&pins).expect("the maps are pinned"),
        xdp: bpf::xdp_program(&pins).expect("the program is pinned"),
        _pins: pins,
        _bpffs: bpffs,
    }
}

impl Loaded {
    fn install(&mut self, rules: &[Input]) -> Compiled {
        let interface = Interface {
            ifindex: LOOPBACK,
            max_hops: 1,
            flags: VIRTUAL,
        };
        let compiled = compile(interface, rules, &States::default()).expect("few rules fit");
        self.maps
            .switch(abi::slot(LOOPBACK, 0), &compiled)
            .expect("the tables can be written");
        compiled
    }

    fn run(&self, frame: &[u8]) -> u32 {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        self.xdp
            .test_run(options)
            .expect("the kernel runs the program")
            .return_value
    }

    fn sent(&self, rules: usize) -> Vec<u64> {
        let counters = self
            .maps
            .rules(rules as u32)
            .expect("the counters can be read");
        counters.iter().map(|c| c.sent).collect()
    }

    fn reason(&self, reason: Reason) -> u64 {
        self.maps
            .reasons(abi::slot(LOOPBACK, 0))
            .expect("the counters can be read")
            .0[reason as usize]
    }
}

fn bytes(kind: FrameType, id: u32) -> Vec<u8> {
    let mut frame = vec![
        0;
        if kind == FrameType::Xl {
            15
        } else {
            kind.mtu() as usize
        }
    ];
    frame[..4].copy_from_slice(&id.to_ne_bytes());
    if kind == FrameType::Xl {
        frame[4] = 0x80;
        frame[6..8].copy_from_slice(&3u16.to_ne_bytes());
    } else {
        frame[4] = 8;
    }
    frame
}

fn rule(slot: u32, kind: FrameType, id: u32, mask: u32) -> Input {
    let predicate = Filter { id, mask }.predicate();
    let matching = Match { kind, predicate };
    Input {
        iif_tx_ok: true,
        ..Input::new(slot, matching, LOOPBACK, LOOPBACK)
    }
}

fn kinds() -> impl Strategy<Value = FrameType> {
    prop_oneof![3 => Just(FrameType::Classic), 2 => Just(FrameType::Fd), 1 => Just(FrameType::Xl)]
}

fn ids() -> impl Strategy<Value = u32> {
    (
        prop_oneof![
            0u32..4,
            0x120u32..0x124,
            any::<u32>().prop_map(|v| v & EFF_MASK)
        ],
        0u32..8,
    )
        .prop_map(|(id, flags)| match flags {
            0..3 => EFF_FLAG | id,
            3 => EFF_FLAG | RTR_FLAG | id,
            4 => RTR_FLAG | id & 0x7FF,
            5 => ERR_FLAG | id,
            _ => id & 0x7FF,
        })
}

fn filters() -> impl Strategy<Value = (u32, u32)> {
    let masks = prop_oneof![
        Just(0u32),
        Just(0x7FF),
        Just(0xC000_07FF),
        Just(0x700),
        Just(0xDFFF_FFFF),
        Just(EFF_MASK),
        Just(0x83FF_FF00),
        Just(ERR_FLAG | 0xFF),
        any::<u32>(),
    ];
    (ids(), masks, 0u32..6).prop_map(|(id, mask, invert)| {
        (
            id & !ERR_FLAG | if invert == 0 { INV_FILTER } else { 0 },
            mask,
        )
    })
}

/// The program redirects exactly the frames that the tables give a rule, and counts for the first rule of the list; the tables themselves are
/// compared with a scan of all rules by the tests of `cangw::compile`.
#[test]
fn the_program_looks_up_what_the_tables_say() {
    let mut loaded = load();
    let mut runner = TestRunner::new(Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    });
    let cases = (
        prop::collection::vec((kinds(), filters()), 1..12),
        prop::collection::vec((kinds(), ids()), 40),
    );
    let mut inputs = Vec::new();
    for _ in 0..150 {
        let tree = cases.new_tree(&mut runner).expect("a case");
        inputs.push(tree.current());
    }
    let mut hits = 0;
    for (rules, frames) in inputs {
        let rules: Vec<Input> = rules
            .iter()
            .enumerate()
            .map(|(i, (kind, (id, mask)))| rule(i as u32, *kind, *id, *mask))
            .collect();
        let compiled = loaded.install(&rules);
        for (kind, id) in frames {
            let before = loaded.sent(rules.len());
            let verdict = loaded.run(&bytes(kind, id));
            let mut expected = before.clone();
            match compiled.steps(kind, id).first().map(|step| step.rule) {
                Some(first) => {
                    hits += 1;
                    expected[first as usize] += 1;
                    assert_eq!(verdict, XDP_REDIRECT, "{kind:?} {id:#x} with {rules:?}");
                }
                None => assert_eq!(verdict, XDP_PASS, "{kind:?} {id:#x} with {rules:?}"),
            }
            assert_eq!(
                loaded.sent(rules.len()),
                expected,
                "{kind:?} {id:#x} with {rules:?}"
            );
        }
    }
    assert!(hits > 500, "only {hits} frames met a rule");
}

#[test]
fn what_is_not_a_frame_is_counted_and_passed_on() {
    let mut loaded = load();
    loaded.install(&[
        rule(0, FrameType::Classic, 0, 0),
        rule(1, FrameType::Fd, 0, 0),
    ]);
    let mut too_long = bytes(FrameType::Classic, 0x123);
    too_long[4] = 9;
    let mut fd_too_long = bytes(FrameType::Fd, 0x123);
    fd_too_long[4] = 65;
    let mut xl_wrong = bytes(FrameType::Xl, 0x123);
    xl_wrong[6] = 4;
    let malformed = [
        too_long,
        fd_too_long,
        xl_wrong,
        vec![0; 14],
        vec![0; 17],
        vec![0; 24],
        vec![0; 73],
        vec![0x80; 40],
        bytes(FrameType::Classic, 0x1234), // 13 bits without the extended flag
    ];
    for (i, frame) in malformed.iter().enumerate() {
        assert_eq!(loaded.run(frame), XDP_PASS, "{frame:02X?}");
        assert_eq!(
            loaded.reason(Reason::Malformed),
            i as u64 + 1,
            "{frame:02X?}"
        );
    }
    assert_eq!(loaded.run(&bytes(FrameType::Xl, 0x123)), XDP_PASS);
    assert_eq!(loaded.reason(Reason::Unmatched), 1);
    assert_eq!(loaded.sent(2), [0, 0]);
    assert_eq!(loaded.run(&bytes(FrameType::Fd, 0x123)), XDP_REDIRECT);
}

#[test]
fn no_tables_no_verdict() {
    let loaded = load();
    assert_eq!(loaded.run(&bytes(FrameType::Classic, 0x123)), XDP_PASS);
    assert_eq!(loaded.reason(Reason::NoTables), 1);
}
