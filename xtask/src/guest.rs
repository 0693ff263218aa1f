//! One run of a command in a guest: an emulated machine with a test kernel and the host's files.

mod script;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::kernel::{self, Kernel, Line};
use crate::workspace::{self, Labelled, forward, step};
use crate::{initramfs, setup, tool};

/// The exit status of a run that was ended for taking too long, as with timeout(1).
pub const TIMED_OUT: u8 = 124;

/// The machine and the kernel that a command runs on.
#[derive(Clone, clap::Args)]
pub struct Machine {
    /// Count instructions: one processor, whose nanoseconds are the instructions it executed
    #[arg(long)]
    pub icount: bool,
    /// Add four emulated CAN controllers, can0 and can1 on one bus, can2 and can3 on another
    #[arg(long)]
    pub can_hw: bool,
    /// Processors. Each is a thread, and what runs on several waits for all of them, so that more than the host has are slow
    #[arg(long, value_name = "N", default_value_t = Self::default().processors, conflicts_with = "icount", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub processors: u8,
    /// Memory in megabytes
    #[arg(long, value_name = "MB", default_value_t = Self::default().memory)]
    pub memory: u32,
    /// How often the kernel's can-gw forwards a frame at most (its parameter max_hops)
    #[arg(long, value_name = "N", default_value_t = Self::default().max_hops, value_parser = clap::value_parser!(u8).range(1..=6))]
    pub max_hops: u8,
    /// Let a debugger attach to the guest's kernel at this socket (gdb's remote protocol)
    #[arg(long, value_name = "SOCKET")]
    pub debugger: Option<PathBuf>,
    /// Seconds after which the guest is killed, with the exit status 124
    #[arg(long, value_name = "SECONDS", default_value_t = Self::default().timeout)]
    pub timeout: u64,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            icount: false,
            can_hw: false,
            processors: 2,
            memory: 1024,
            max_hops: 1,
            debugger: None,
            timeout: 600,
        }
    }
}

/// How a run ended.
pub struct Outcome {
    /// The command's exit status, or [`TIMED_OUT`].
    pub status: u8,
    /// What the command wrote to standard output, all of which was shown as it came.
    pub stdout: Vec<u8>,
}

/// A guest whose kernel crashed, or whose machine ended, before the command did.
pub struct Death {
    /// What the command had written to standard output.
    pub stdout: Vec<u8>,
    /// What happened, with the last words of QEMU and of the guest's kernel.
    pub message: String,
}

/// Boots a kernel, runs the command on it as root in the workspace's folder, and shows its output as it comes.
pub fn run(line: Line, machine: &Machine, command: &[OsString]) -> Result<Outcome> {
    setup::guest()?;
    boot(&kernel::ensure(line)?, machine, "", command)?.map_err(|death| anyhow!(death.message))
}

/// The same with a kernel that is there already. Each line of output begins with the label.
pub fn boot(
    kernel: &Kernel,
    machine: &Machine,
    label: &str,
    command: &[OsString],
) -> Result<Result<Outcome, Death>> {
    let folder = Folder::new(kernel.line)?;
    let shares = shares();
    let init = script::init(&shares, &folder.path.join("start.sh"));
    fs::write(
        folder.path.join("initramfs"),
        initramfs::make(kernel, &init)?,
    )?;
    fs::write(
        folder.path.join("start.sh"),
        script::start(&folder.path, kernel, machine, command),
    )?;
    let modprobe = folder.path.join("modprobe");
    fs::write(
        &modprobe,
        script::modprobe(&tool::path("modprobe")?, kernel),
    )?;
    fs::set_permissions(&modprobe, fs::Permissions::from_mode(0o755))?;

    let (stdout, guest_stdout) = io::pipe()?;
    let (stderr, guest_stderr) = io::pipe()?;
    let mut qemu = qemu(
        machine,
        &kernel.folder.join("vmlinuz"),
        &folder.path,
        &shares,
    )?;
    // Pipes for the guest's two outputs: QEMU finds them as its descriptors 1 and 0. Its own messages go to a file.
    qemu.stdin(guest_stderr)
        .stdout(guest_stdout)
        .stderr(File::create(folder.path.join("qemu.log"))?);
    let mut child = qemu.spawn().context("cannot start QEMU")?;
    // The pipes end with QEMU once this process has no other end of them.
    drop(qemu);

    let (ended, stdout) = thread::scope(|scope| {
        let stdout = scope.spawn(|| forward(stdout, Labelled::new(label, io::stdout())));
        let stderr = scope.spawn(|| forward(stderr, Labelled::new(label, io::stderr())));
        let ended = wait(&mut child, Duration::from_secs(machine.timeout));
        let outputs = [stdout, stderr].map(|thread| thread.join().unwrap_or_default());
        (ended, outputs.into_iter().next().unwrap_or_default())
    });
    if !ended? {
        step(format_args!(
            "the guest was still running after {} s and was killed",
            machine.timeout
        ));
        return Ok(Ok(Outcome {
            status: TIMED_OUT,
            stdout,
        }));
    }
    let status = fs::read_to_string(folder.path.join("status"))
        .ok()
        .and_then(|text| text.trim().parse().ok());
    Ok(match status {
        Some(status) => Ok(Outcome { status, stdout }),
        None => Err(Death {
            message: format!(
                "the guest with kernel {} did not get to the end{}",
                kernel.release,
                folder.messages()
            ),
            stdout,
        }),
    })
}

/// The folders that a guest may write to.
fn shares() -> Vec<PathBuf> {
    let (root, target) = (workspace::root(), workspace::target());
    let mut shares = vec![root.to_owned()];
    if !target.starts_with(root) {
        shares.push(target);
    }
    shares
}

fn qemu(machine: &Machine, kernel: &Path, folder: &Path, shares: &[PathBuf]) -> Result<Command> {
    // However this process ends, the guest ends with it.
    let mut command = Command::new(tool::path("setpriv")?);
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(tool::path("qemu-system-x86_64")?);
    if machine.icount {
        // With `sleep=off` the clock would jump to the end of a time limit whenever the guest waits for a file of the host.
        command.args([
            "-accel",
            "tcg,thread=single",
            "-icount",
            "shift=0,sleep=on",
            "-smp",
            "1",
        ]);
    } else {
        command.args(["-accel", "tcg,thread=multi", "-smp"]);
        command.arg(machine.processors.to_string());
    }
    // An emulated `rep movsb` moves a byte at a time. Without these two, the kernel moves words, and walks four levels of page tables
    // instead of five. Where instructions are counted, all is as the processor says.
    let processor = if machine.icount {
        "max"
    } else {
        "max,erms=off,la57=off"
    };
    command.args(["-cpu", processor, "-m", &machine.memory.to_string()]);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    command
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(folder.join("initramfs"));
    // A kernel that stumbles is a failed run, not one that goes on somehow. QEMU translates code for the address at which it
    // runs: with another address in each process, that work would be done again for each.
    command.args([
        "-append",
        "console=ttyS0 quiet panic=-1 oops=panic norandmaps",
    ]);
    command
        .arg("-serial")
        .arg(format!("file:{}", escape(&folder.join("console.log"))));
    command.args(["-device", "virtio-serial-pci"]);
    for (number, (name, descriptor)) in [("out", 1), ("err", 0)].into_iter().enumerate() {
        command
            .arg("-chardev")
            .arg(format!("file,id={name},path=/proc/self/fd/{descriptor}"));
        command
            .arg("-device")
            .arg(format!("virtserialport,chardev={name},nr={}", number + 1));
    }
    let share = |path: &Path, tag: &str, options: &str| {
        format!(
            "local,path={},mount_tag={tag},security_model=none,multidevs=remap{options}",
            escape(path)
        )
    };
    command
        .arg("-virtfs")
        .arg(share(Path::new("/"), "root", ",readonly=on"));
    for (number, path) in shares.iter().enumerate() {
        command
            .arg("-virtfs")
            .arg(share(path, &format!("share{number}"), ""));
    }
    if let Some(socket) = &machine.debugger {
        command
            .arg("-gdb")
            .arg(format!("unix:{},server=on,wait=off", escape(socket)));
    }
    if machine.can_hw {
        for bus in ["bus0", "bus1"] {
            command.args(["-object", &format!("can-bus,id={bus}")]);
            for _ in 0..2 {
                command.args(["-device", &format!("kvaser_pci,canbus={bus}")]);
            }
        }
    }
    Ok(command)
}

/// A path as a value of QEMU's options, in which a comma ends it.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Whether the child ended by itself within the time; otherwise it was killed.
fn wait(child: &mut Child, time: Duration) -> Result<bool> {
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > time {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(true)
}

/// The folder of one run, removed at its end. The console's log is kept beside it, one for each line.
struct Folder {
    path: PathBuf,
    log: PathBuf,
    /// Held as long as the folder is in use; the system lets go of it however this process ends.
    _lock: File,
}

impl Folder {
    fn new(line: Line) -> Result<Self> {
        static GUESTS: AtomicU32 = AtomicU32::new(0);
        let home = workspace::target().join("vm");
        let number = GUESTS.fetch_add(1, Ordering::Relaxed);
        let path = home.join(format!("{}-{number}", std::process::id()));
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        // Nobody looks at a folder between its making and its locking.
        let making = File::open(&home)?;
        making.lock()?;
        for entry in home
            .read_dir()?
            .flatten()
            .filter(|entry| entry.path().is_dir())
        {
            // Left over by a run that was interrupted.
            if File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        fs::create_dir(&path)?;
        let lock = File::open(&path)?;
        lock.lock()?;
        Ok(Self {
            path,
            log: home.join(format!("{}-console.log", line.name())),
            _lock: lock,
        })
    }

    /// What QEMU and the guest's kernel said last.
    fn messages(&self) -> String {
        let mut text = String::new();
        for name in ["qemu.log", "console.log"] {
            let bytes = fs::read(self.path.join(name)).unwrap_or_default();
            let content = String::from_utf8_lossy(&bytes);
            let lines: Vec<_> = content.lines().map(str::trim_end).collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            let none = if lines.is_empty() { " (empty)" } else { "" };
            text.push_str(&format!("\n  end of its {name}:{none}"));
            for line in last {
                text.push_str("\n    ");
                text.push_str(line);
            }
        }
        text.push_str(&format!(
            "\n  all of the console's log: {}",
            self.log.display()
        ));
        text
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::rename(self.path.join("console.log"), &self.log);
        let _ = fs::remove_dir_all(&self.path);
    }
}
