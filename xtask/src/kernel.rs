//! The test kernels: Debian's packages, unpacked under target/kernels and never installed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{capture, execute, step, target};
use crate::{apt, tool};

/// A line of kernels that the gateway is tested on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Line {
    /// The oldest: no tcx, no netkit
    #[value(name = "6.1")]
    V6_1,
    /// The long-term line
    #[value(name = "6.12")]
    V6_12,
    /// The newest
    #[value(name = "7.2")]
    V7_2,
}

/// How the packages of a line are called: these prefixes, one number that counts up, this suffix.
struct Packages {
    prefixes: &'static [&'static str],
    suffix: &'static str,
    /// The suites that have them; one whose name ends in "-security" is on the mirror of security updates.
    suites: &'static [&'static str],
}

/// An unpacked kernel.
#[derive(Clone)]
pub struct Kernel {
    /// To which line it belongs.
    pub line: Line,
    /// As `uname -r` has it.
    pub release: String,
    /// Has `vmlinuz` and `lib/modules/<release>`.
    pub folder: PathBuf,
}

impl Line {
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7_2];

    pub fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        }
    }

    fn packages(self) -> Packages {
        match self {
            Self::V6_1 => Packages {
                prefixes: &["linux-image-6.1.0-"],
                suffix: "-amd64-unsigned",
                suites: &["bookworm", "bookworm-security"],
            },
            Self::V6_12 => Packages {
                prefixes: &["linux-image-6.12."],
                suffix: "+deb12-amd64-unsigned",
                suites: &["bookworm-security"],
            },
            Self::V7_2 => Packages {
                prefixes: &["linux-binary-7.2.", "linux-modules-7.2.", "linux-base-7.2."],
                suffix: "+deb13-amd64",
                suites: &["trixie-backports"],
            },
        }
    }

    fn folder(self) -> PathBuf {
        target().join("kernels").join(self.name())
    }
}

/// The kernel that was fetched last of a line; fetches the newest when there is none.
pub fn ensure(line: Line) -> Result<Kernel> {
    match cached(line) {
        Some(kernel) => Ok(kernel),
        None => fetch_unless(line, cached),
    }
}

/// Fetches the newest kernel of a line.
pub fn fetch(line: Line) -> Result<Kernel> {
    fetch_unless(line, |_| None)
}

fn cached(line: Line) -> Option<Kernel> {
    let release = fs::read_to_string(line.folder().join("current")).ok()?;
    let folder = line.folder().join(&release);
    folder.join("vmlinuz").is_file().then_some(Kernel {
        line,
        release,
        folder,
    })
}

/// `already` is asked again under the lock: another xtask may have fetched the kernel meanwhile.
fn fetch_unless(line: Line, already: impl Fn(Line) -> Option<Kernel>) -> Result<Kernel> {
    let home = line.folder();
    fs::create_dir_all(&home)?;
    let lock = File::create(home.join("lock"))?;
    lock.lock()?;
    if let Some(kernel) = already(line) {
        return Ok(kernel);
    }
    download(line).with_context(|| format!("cannot fetch a kernel of the line {}", line.name()))
}

fn download(line: Line) -> Result<Kernel> {
    let home = line.folder();
    step(format_args!(
        "looking for the newest kernel {}",
        line.name()
    ));
    remove(&home.join("apt"))?;
    let apt = apt::Scratch::new(&home.join("apt"), line.packages().suites)?;
    let names = newest(&apt, line)?;
    let list = names.join(" ");
    if let Some(kernel) = cached(line)
        && fs::read_to_string(kernel.folder.join("packages")).is_ok_and(|before| before == list)
    {
        step(format_args!("{} is there already", kernel.release));
        return Ok(kernel);
    }
    step(format_args!("fetching {list}"));
    let tree = home.join("new");
    remove(&tree)?;
    for package in apt.download(&names)? {
        execute(
            Command::new("dpkg")
                .arg("--extract")
                .arg(package)
                .arg(&tree),
        )?;
    }
    fs::write(tree.join("packages"), list)?;
    let kernel = arrange(line, &tree, &home)?;
    remove(&home.join("apt"))?;
    Ok(kernel)
}

/// The names of a line's packages with the highest number that all of them have.
fn newest(apt: &apt::Scratch, line: Line) -> Result<Vec<String>> {
    let Packages {
        prefixes,
        suffix,
        suites,
    } = line.packages();
    let mut common: Option<Vec<u32>> = None;
    for prefix in prefixes {
        let names = apt.names(prefix)?;
        let numbers = names.lines().filter_map(|name| {
            name.strip_prefix(prefix)?
                .strip_suffix(suffix)?
                .parse()
                .ok()
        });
        common = Some(
            numbers
                .filter(|number| common.as_ref().is_none_or(|before| before.contains(number)))
                .collect(),
        );
    }
    let Some(number) = common.into_iter().flatten().max() else {
        bail!(
            "the suites {} have no package {}*{suffix}",
            suites.join(", "),
            prefixes[0]
        );
    };
    Ok(prefixes
        .iter()
        .map(|prefix| format!("{prefix}{number}{suffix}"))
        .collect())
}

/// Brings the packages' two layouts (/boot and /lib, or all in /usr/lib) to one, and makes the modules loadable.
fn arrange(line: Line, tree: &Path, home: &Path) -> Result<Kernel> {
    if !tree.join("lib").exists() {
        fs::rename(tree.join("usr/lib"), tree.join("lib"))?;
    }
    let modules = tree.join("lib/modules");
    let release = match fs::read_dir(&modules)?.next() {
        Some(entry) => entry?.file_name().into_string().unwrap_or_default(),
        None => bail!("the packages have no modules"),
    };
    let image = [
        tree.join("boot").join(format!("vmlinuz-{release}")),
        modules.join(&release).join("vmlinuz"),
    ];
    let Some(image) = image.iter().find(|image| image.is_file()) else {
        bail!("the packages have no kernel image")
    };
    fs::rename(image, tree.join("vmlinuz"))?;

    step(format_args!("preparing the modules of {release}"));
    // Those that every guest loads: busybox cannot decompress them, and an emulated processor is slow at it.
    let folders = [
        "net/can",
        "net/9p",
        "net/sched",
        "fs/9p",
        "fs/netfs",
        "fs/fscache",
        "drivers/net/can",
        "drivers/virtio",
        "drivers/char",
    ];
    let mut compressed = Vec::new();
    for folder in folders {
        find_compressed(
            &modules.join(&release).join("kernel").join(folder),
            &mut compressed,
        )?;
    }
    if !compressed.is_empty() {
        execute(
            Command::new(tool::path("xz")?)
                .arg("--decompress")
                .args(compressed),
        )?;
    }
    execute(
        Command::new(tool::path("depmod")?)
            .arg("--basedir")
            .arg(tree)
            .arg(&release),
    )?;

    let folder = home.join(&release);
    // One that is there is left over by a fetch that did not get as far as writing `current`.
    remove(&folder)?;
    fs::rename(tree, &folder)?;
    // Written last and at once: a folder that it names is complete. Older ones stay, guests may be running from them.
    fs::write(home.join("current.new"), &release)?;
    fs::rename(home.join("current.new"), home.join("current"))?;
    Ok(Kernel {
        line,
        release,
        folder,
    })
}

fn find_compressed(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        // A folder that this kernel builds in or has elsewhere.
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find_compressed(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "xz") {
            found.push(path);
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

impl Kernel {
    /// modprobe, on this kernel's modules.
    pub fn modprobe(&self) -> Result<Command> {
        let mut command = Command::new(tool::path("modprobe")?);
        command
            .arg("--dirname")
            .arg(&self.folder)
            .arg("--set-version")
            .arg(&self.release);
        Ok(command)
    }

    /// The files of a module and of what it depends on, in the order to load them; none when it is built in.
    pub fn module_files(&self, module: &str) -> Result<Vec<PathBuf>> {
        let text = capture(self.modprobe()?.args(["--show-depends", module]))?;
        // Lines are "insmod <path> [parameters]" and "builtin <name>".
        Ok(text
            .lines()
            .filter_map(|line| line.strip_prefix("insmod "))
            .map(|rest| PathBuf::from(rest.trim_end()))
            .collect())
    }
}
