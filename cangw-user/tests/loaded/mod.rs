//! The programs as this machine's kernel loads and executes them (`BPF_PROG_TEST_RUN`), without any CAN interface.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use aya::programs::{TestRun as _, TestRunOptions, TestRunResult};
use cangw::compile::{Compiled, Input, Interface, States, compile};
use cangw::kernel::bpf;
use cangw::kernel::maps::Maps;
use cangw::kernel::pins::Pins;
use cangw_common::abi::{self, VIRTUAL, XDP_REDIRECT};
use cangw_common::frame::FrameType;

/// The loopback interface: test packets come from there.
pub const LOOPBACK: u32 = 1;

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
pub struct Loaded {
    pub maps: Maps,
    xdp: aya::programs::Xdp,
    _bpffs: Bpffs,
}

/// Loads the programs, and says where they are pinned.
pub fn load() -> (Loaded, Pins) {
    let bpffs = Bpffs::mount();
    let pins = Pins::open_in(bpffs.path(), true)
        .expect("the folder can be made")
        .expect("it was created");
    let needs = bpf::Needs {
        xdp: true,
        slots: abi::MAX_RULES,
        ..Default::default()
    };
    bpf::load(&pins, false, needs).expect("the kernel loads the programs");
    let loaded = Loaded {
        maps: Maps::open(&pins).expect("the maps are pinned"),
        xdp: bpf::xdp_program(&pins).expect("the program is pinned"),
        _bpffs: bpffs,
    };
    (loaded, pins)
}

impl Loaded {
    /// Gives the loopback interface tables for these rules.
    pub fn install(&mut self, rules: &[Input]) -> Compiled {
        let interface = Interface {
            ifindex: LOOPBACK,
            max_hops: 1,
            flags: VIRTUAL | XDP_REDIRECT,
        };
        let mut compiled = compile(interface, rules, &States::default()).expect("few rules fit");
        self.maps
            .switch(abi::slot(LOOPBACK, 0), &mut compiled)
            .expect("the tables can be written");
        compiled
    }

    /// Runs the XDP program so many times.
    pub fn run(&self, frame: &[u8], times: u32) -> TestRunResult {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = times;
        self.xdp
            .test_run(options)
            .expect("the kernel runs the program")
    }
}

/// A frame as it lies in a packet, with 8 data bytes; CAN XL with 3.
pub fn bytes(kind: FrameType, id: u32) -> Vec<u8> {
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
