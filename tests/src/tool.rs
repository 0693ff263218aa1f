//! The two programs of the name `cangw`.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use crate::namespace::Namespace;
use crate::sys;

/// Seconds that a call of `cangw` may take before it is ended. Even 10,000 rules need a tenth of that.
const LONGEST: u32 = 60;

/// Whose `cangw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cangw {
    /// This project's.
    Ours,
    /// The one of can-utils, which drives the kernel's can-gw.
    CanUtils,
}

/// What a call of `cangw` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Exit status.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let Some(code) = output.status.code() else {
            panic!("cangw did not exit by itself: {output:?}");
        };
        Self {
            code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A line of `cangw -L`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The rule as options.
    pub rule: String,
    pub handled: u64,
    pub dropped: u64,
    pub deleted: u64,
}

impl Listed {
    /// Reads `cangw -A RULE # N handled N dropped N deleted`, or the same with `rule add`.
    ///
    /// # Panics
    /// When the line is something else.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        let read = || {
            let line = line.split_once(" rule add ").or(line.split_once(" -A "))?.1;
            let (rule, counters) = line.split_once(" # ")?;
            let mut words = counters.split(' ');
            let mut counter = |name: &str| {
                let number = words.next()?.parse().ok()?;
                (words.next()? == name).then_some(number)
            };
            Some(Self {
                rule: rule.to_owned(),
                handled: counter("handled")?,
                dropped: counter("dropped")?,
                deleted: counter("deleted")?,
            })
        };
        read().unwrap_or_else(|| panic!("not a line of `cangw -L`: {line:?}"))
    }
}

/// A copy in memory of a program, ready to be executed.
///
/// # Panics
/// When there is no such program, or no memory.
#[must_use]
pub fn in_memory(program: &Path) -> File {
    let mut copy = sys::memory_file().expect("a file in memory");
    let mut program = File::open(program).expect("a program can be read");
    std::io::copy(&mut program, &mut copy).expect("memory for a copy of a program");
    // A file that is open for writing cannot be executed.
    File::open(format!("/proc/self/fd/{}", copy.as_raw_fd())).expect("the copy can be read")
}

/// Where this process's children find an open file.
#[must_use]
pub fn path_of(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

/// Where children find the copy in memory of our `cangw`.
///
/// # Panics
/// When there is no memory.
#[must_use]
pub fn path_of_cangw() -> PathBuf {
    static COPY: LazyLock<File> = LazyLock::new(|| in_memory(&Cangw::Ours.path()));
    path_of(&COPY)
}

impl Cangw {
    /// Its executable: ours lies in the folder of this executable or, for a test, in the one above.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn path(self) -> PathBuf {
        let this = std::env::current_exe().expect("a process knows its executable");
        let ours = this
            .ancestors()
            .skip(1)
            .take(2)
            .map(|folder| folder.join("cangw"))
            .find(|path| path.is_file())
            .expect("cangw is beside this program: `cargo build --release` makes it");
        match self {
            Self::Ours => ours,
            Self::CanUtils => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .map(|folder| folder.join("cangw"))
                .find(|path| path.is_file() && *path != ours)
                .expect("can-utils is installed"),
        }
    }

    /// A command that will run it in a namespace. Ours is run from a copy in memory, because a guest reads files through its
    /// host, which takes longer than everything that `cangw` does.
    ///
    /// # Panics
    /// When there is no memory.
    #[must_use]
    pub fn command(self, namespace: &Namespace) -> Command {
        let path = match self {
            Self::Ours => path_of_cangw(),
            Self::CanUtils => self.path(),
        };
        let mut command = namespace.command(path);
        command.arg0("cangw");
        sys::limit_time(&mut command, LONGEST);
        command
    }

    /// Runs it with arguments that are separated by spaces.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn run(self, namespace: &Namespace, arguments: &str) -> Answer {
        self.command(namespace)
            .args(arguments.split_whitespace())
            .output()
            .unwrap_or_else(|e| panic!("cangw {arguments} does not run: {e}"))
            .into()
    }

    /// Runs it, and panics when it fails.
    ///
    /// # Panics
    /// With its messages when it fails.
    pub fn must(self, namespace: &Namespace, arguments: &str) -> String {
        let answer = self.run(namespace, arguments);
        assert_eq!(answer.code, 0, "cangw {arguments}\n{answer:#?}");
        answer.stdout
    }

    /// The rules, newest first.
    ///
    /// # Panics
    /// When it says something else.
    #[must_use]
    pub fn list(self, namespace: &Namespace) -> Vec<Listed> {
        let answer = self.run(namespace, "-L");
        // can-utils exits with the number of bytes that it sent.
        assert!(
            self == Self::CanUtils || answer.code == 0,
            "cangw -L\n{answer:#?}"
        );
        answer.stdout.lines().map(Listed::parse).collect()
    }
}

/// Adds rules, the oldest first, with our `cangw rule load`.
///
/// # Panics
/// When it fails.
pub fn load(namespace: &Namespace, rules: &str) {
    let answer = try_load(namespace, rules);
    assert_eq!(answer.code, 0, "{answer:?}");
}

/// As [`load`], whatever it answers.
///
/// # Panics
/// When it does not run.
#[must_use]
pub fn try_load(namespace: &Namespace, rules: &str) -> Answer {
    let mut child = Cangw::Ours
        .command(namespace)
        .args(["rule", "load", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cangw runs");
    let mut input = child.stdin.take().expect("standard input is a pipe");
    input.write_all(rules.as_bytes()).expect("cangw reads");
    drop(input);
    child.wait_with_output().expect("cangw ends").into()
}

/// The JSON that our `cangw` prints.
///
/// # Panics
/// When it fails or prints something else.
#[must_use]
pub fn json(namespace: &Namespace, arguments: &str) -> serde_json::Value {
    let text = Cangw::Ours.must(namespace, arguments);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("cangw {arguments}: {e}:\n{text}"))
}
