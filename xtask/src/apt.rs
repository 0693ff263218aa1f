//! Debian packages: which are missing, and installing them.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::{Result, bail};

use crate::tool;
use crate::workspace::{capture, execute, is_root, step};

/// Installs the packages through apt-get; where there is none, says what to install.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if tool::find("apt-get").is_none() {
        bail!("this system has no apt-get: install what Debian calls {names}, then run this again");
    }
    step(format_args!("installing {names}"));
    if execute(&mut apt_get(
        &[&["install", "--yes", "--no-install-recommends"], packages].concat(),
    )?)
    .is_ok()
    {
        return Ok(());
    }
    // The machine's lists may be absent or may name versions that the mirror no longer has.
    step("refreshing the package lists");
    execute(&mut apt_get(&["update"])?)?;
    execute(&mut apt_get(
        &[&["install", "--yes", "--no-install-recommends"], packages].concat(),
    )?)
}

/// Those of the packages that dpkg does not have; all of them where there is no dpkg.
pub fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(packages)
        .output();
    // dpkg-query fails when it does not know one of the names, and still prints the others.
    let known = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    packages
        .iter()
        .copied()
        .filter(|package| {
            !known
                .lines()
                .any(|line| line == format!("{package} installed"))
        })
        .collect()
}

fn apt_get(arguments: &[&str]) -> Result<Command> {
    let mut command = if is_root() {
        Command::new("env")
    } else if tool::find("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    } else {
        bail!(
            "installing packages needs root and there is no sudo: as root, run `apt-get {}`",
            arguments.join(" ")
        );
    };
    // sudo drops the environment, hence env(1) beneath it. Another run may be installing too: wait for it.
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"])
        .args([
            "--option=Dpkg::Use-Pty=0",
            "--option=DPkg::Lock::Timeout=300",
        ])
        .args(arguments)
        // Standard output belongs to the command that the tools are for.
        .stdout(io::stderr());
    Ok(command)
}

/// An apt of its own folder, for suites that the machine's apt may not be configured for.
pub struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// Reads the lists of the suites from the mirrors that this machine's apt uses.
    pub fn new(folder: &Path, suites: &[&str]) -> Result<Self> {
        for needed in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(folder.join(needed))?;
        }
        let mut sources = String::new();
        for suite in suites {
            let label = if suite.ends_with("-security") {
                "Debian-Security"
            } else {
                "Debian"
            };
            writeln!(
                sources,
                "deb {} {} {suite} main",
                signed_by(),
                mirror(label)?
            )?;
        }
        fs::write(folder.join("sources.list"), sources)?;
        let scratch = Self {
            folder: folder.to_owned(),
        };
        execute(
            scratch
                .command("apt-get")
                .args(["--quiet", "--quiet", "update"]),
        )?;
        Ok(scratch)
    }

    /// The names of packages that start with a prefix, one a line.
    pub fn names(&self, prefix: &str) -> Result<String> {
        capture(self.command("apt-cache").args(["pkgnames", prefix]))
    }

    /// Fetches packages and returns their files.
    pub fn download(&self, names: &[String]) -> Result<Vec<PathBuf>> {
        let packages = self.folder.join("packages");
        execute(
            self.command("apt-get")
                .current_dir(&packages)
                .args(["--quiet", "--quiet", "download"])
                .args(names),
        )?;
        let files: Result<Vec<_>, _> = fs::read_dir(&packages)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect();
        Ok(files?)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::SourceList", self.folder.join("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::State::Lists", self.folder.join("lists")),
            ("Dir::Cache", self.folder.join("cache")),
            // apt's own user cannot write into this folder.
            ("APT::Sandbox::User", "root".into()),
            ("Acquire::Languages", "none".into()),
        ] {
            command.arg(format!("--option={option}={}", value.display()));
        }
        command
    }
}

/// The address of a mirror that this machine's apt uses for Debian or its security updates.
fn mirror(label: &str) -> Result<String> {
    if tool::find("apt-get").is_none() {
        bail!(
            "test kernels are Debian's packages and come through apt-get, which this system does not have"
        );
    }
    let targets = capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
    ]))?;
    let wanted = format!("Debian|{label}|");
    match targets
        .lines()
        .find_map(|target| target.strip_prefix(&wanted))
    {
        Some(uri) => Ok(uri.to_owned()),
        None => bail!(
            "apt knows no mirror of {label} here, or no lists of it yet: add one to /etc/apt/sources.list.d and run `apt-get update`"
        ),
    }
}

/// The keys of Debian's releases as an option of a source, where they are not among those that apt trusts anyway.
fn signed_by() -> &'static str {
    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
    if Path::new(KEYRING).exists() {
        "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    } else {
        ""
    }
}
