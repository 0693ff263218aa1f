//! A network namespace of its own for each test, gone when the test is over.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys;
use crate::tool::Cangw;

/// A named network namespace, removed when dropped, with what `cangw` installed in it.
pub struct Namespace {
    name: String,
    file: File,
    is_ours: bool,
}

impl Namespace {
    /// Makes a namespace whose name begins with `label`.
    ///
    /// # Panics
    /// Without root, or when the kernel refuses.
    #[must_use]
    pub fn new(label: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(
            sys::is_root(),
            "network namespaces need root: run this with `cargo xtask vm` or `cargo xtask test`"
        );
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{label}-{}-{number}", std::process::id());
        check(
            &format!("ip netns add {name}"),
            &Command::new("ip")
                .args(["netns", "add", &name])
                .output()
                .expect("`ip` runs"),
        );
        let file = File::open(format!("/run/netns/{name}")).expect("the new namespace has a file");
        let namespace = Self {
            name,
            file,
            is_ours: true,
        };
        namespace.ip("link set lo up");
        namespace
    }

    /// A namespace that somebody else has made, and will remove.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn of_others(name: &str) -> Self {
        let file = File::open(format!("/run/netns/{name}"));
        Self {
            name: name.to_owned(),
            file: file.unwrap_or_else(|e| panic!("no network namespace {name}: {e}")),
            is_ours: false,
        }
    }

    /// That of a process, such as a container's first.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    pub fn of_process(id: u32) -> Self {
        let file = File::open(format!("/proc/{id}/ns/net"));
        Self {
            name: String::new(),
            file: file.unwrap_or_else(|e| panic!("no process {id}: {e}")),
            is_ours: false,
        }
    }

    /// Its name for `ip netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = self.file.try_clone().expect("a descriptor can be copied");
        sys::run_in_namespace(&mut command, file);
        // Ctrl-C is for this process, which then cleans up.
        command.process_group(0);
        command
    }

    /// Runs commands of `ip`, one a line, and checks that they succeed.
    ///
    /// # Panics
    /// With the command's messages when it fails.
    pub fn ip(&self, lines: &str) {
        let mut child = self
            .command("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`ip` runs");
        child
            .stdin
            .take()
            .expect("standard input is a pipe")
            .write_all(lines.as_bytes())
            .expect("`ip` reads its commands");
        let output = child.wait_with_output().expect("`ip` ends");
        check(&format!("ip: {lines}"), &output);
    }

    /// Runs a program and returns what it printed.
    ///
    /// # Panics
    /// With its messages when it fails.
    #[must_use]
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self
            .command(program)
            .args(arguments)
            .output()
            .unwrap_or_else(|e| panic!("{program} does not run: {e}"));
        check(&format!("{program} {}", arguments.join(" ")), &output);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Puts the calling thread into it.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn enter_for_good(&self) {
        sys::enter_namespace(&self.file).expect("root may enter a namespace");
    }

    /// Runs a closure on a thread in the namespace. Sockets that it opens stay there.
    ///
    /// # Panics
    /// When the closure does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    sys::enter_namespace(&self.file).expect("root may enter a namespace");
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        // Pins outlive the namespace that they belong to.
        for arguments in [["-F"].as_slice(), &["settings", "reset"]] {
            let _ = Cangw::Ours.command(self).args(arguments).output();
        }
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// Panics with the messages of a command that failed.
fn check(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what}\nfailed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
