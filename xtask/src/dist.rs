//! `cargo xtask dist`: a Debian package.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::workspace::{capture, execute, root, step, target};
use crate::{build, tool};

/// Make a Debian package of cangw and cangwd, with units for systemd, man pages and completions for shells.
///
/// It goes to target/dist.
#[derive(clap::Args)]
pub struct Options {}

const TOOLS: &[tool::Tool] = &[
    ("dpkg-deb", "dpkg"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("gzip", "gzip"),
    ("strip", "binutils"),
];

/// Files of the package that are text here: place, text.
const TEXTS: [(&str, &str); 5] = [
    (
        "usr/lib/systemd/system/cangwd.service",
        include_str!("dist/cangwd.service"),
    ),
    (
        "usr/lib/systemd/system/cangwd.socket",
        include_str!("dist/cangwd.socket"),
    ),
    (
        "usr/lib/systemd/system/cangwd-docker.socket",
        include_str!("dist/cangwd-docker.socket"),
    ),
    (
        "usr/lib/sysusers.d/cangw.conf",
        include_str!("dist/sysusers.conf"),
    ),
    ("etc/cangw/README", README),
];
/// Programs, and their places.
const PROGRAMS: [(&str, &str); 3] = [
    ("cangw", "usr/bin/cangw"),
    ("cangwd", "usr/sbin/cangwd"),
    // netavark looks for plugins in this folder; the name of the file is the driver's.
    ("cangw-netavark", "usr/libexec/netavark/cangw"),
];
const README: &str = "Topologies in this folder (*.toml) are made and kept by cangwd. After a change: systemctl reload cangwd\n\
    Examples: /usr/share/doc/cangw/examples\n";
/// What dpkg runs.
const SCRIPTS: [(&str, &str); 4] = [
    ("preinst", include_str!("dist/preinst")),
    ("postinst", include_str!("dist/postinst")),
    ("prerm", include_str!("dist/prerm")),
    ("postrm", include_str!("dist/postrm")),
];
/// Folder and name of the completions for a shell.
const COMPLETIONS: [(&str, &str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions", "NAME"),
    ("zsh", "usr/share/zsh/vendor-completions", "_NAME"),
    ("fish", "usr/share/fish/vendor_completions.d", "NAME.fish"),
];

pub fn run() -> Result<()> {
    build::run()?;
    step(package()?.display());
    Ok(())
}

/// Makes the package of the programs in target/release; its path.
pub fn package() -> Result<PathBuf> {
    tool::ensure(TOOLS)?;
    let home = target().join("dist");
    let stage = home.join("stage");
    let _ = fs::remove_dir_all(&home);
    let release = target().join("release");
    let cangw = release.join("cangw");
    for (program, place) in PROGRAMS {
        let to = stage.join(place);
        make_parent(&to)?;
        execute(
            Command::new("strip")
                .arg("-o")
                .arg(&to)
                .arg(release.join(program)),
        )?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    for (place, text) in TEXTS {
        write(&stage.join(place), text.as_bytes())?;
    }
    documents(&stage, &cangw)?;
    for (shell, folder, pattern) in COMPLETIONS {
        for (program, daemon) in [("cangw", None), ("cangwd", Some("--daemon"))] {
            let text = capture(
                Command::new(&cangw)
                    .args(["completions", shell])
                    .args(daemon),
            )?;
            let name = pattern.replace("NAME", program);
            write(&stage.join(folder).join(name), text.as_bytes())?;
        }
    }
    control(&home, &stage)?;
    let package = home.join(format!("cangw_{VERSION}_{}.deb", architecture()?));
    execute(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .args([&stage, &package]),
    )?;
    Ok(package)
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn architecture() -> Result<String> {
    Ok(capture(Command::new("dpkg").arg("--print-architecture"))?
        .trim()
        .to_owned())
}

/// Man pages, what is in usr/share/doc, and the schema of topologies.
fn documents(stage: &Path, cangw: &Path) -> Result<()> {
    let pages = stage.join("pages");
    fs::create_dir_all(&pages)?;
    execute(Command::new(cangw).arg("man").arg(&pages))?;
    for page in fs::read_dir(&pages)? {
        let page = page?.path();
        let section = page.extension().and_then(|e| e.to_str()).unwrap_or("1");
        let folder = stage.join(format!("usr/share/man/man{section}"));
        compress(&page, &folder)?;
    }
    fs::remove_dir_all(&pages)?;
    let doc = stage.join("usr/share/doc/cangw");
    for (from, to) in [("LICENSE", "copyright"), ("README.md", "README.md")] {
        write(&doc.join(to), &read(&root().join(from))?)?;
    }
    compress(&root().join("CHANGELOG.md"), &doc)?;
    for folder in ["docs", "examples", "examples/containers"] {
        for file in fs::read_dir(root().join(folder))? {
            let file = file?;
            // Not the raw numbers of measurements.
            if file.file_type()?.is_file() && file.file_name() != "performance.json" {
                write(
                    &doc.join(folder).join(file.file_name()),
                    &read(&file.path())?,
                )?;
            }
        }
    }
    Ok(())
}

/// The package's description, and the scripts of its maintainer.
fn control(home: &Path, stage: &Path) -> Result<()> {
    // dpkg-shlibdeps wants a source package around it.
    write(
        &home.join("debian/control"),
        b"Source: cangw\n\nPackage: cangw\nArchitecture: any\n",
    )?;
    let depends = capture(
        Command::new("dpkg-shlibdeps")
            .current_dir(home)
            .arg("-O")
            .args(PROGRAMS.map(|(_, place)| stage.join(place))),
    )?;
    let Some(libraries) = depends.trim().strip_prefix("shlibs:Depends=") else {
        bail!("dpkg-shlibdeps said {depends:?}");
    };
    let text = format!(
        "Package: cangw\n\
         Version: {VERSION}\n\
         Architecture: {}\n\
         Maintainer: The cangw project <cangw@users.noreply.invalid>\n\
         Depends: {libraries}, systemd, passwd\n\
         Section: net\n\
         Priority: optional\n\
         Description: CAN gateway in eBPF\n \
         Filters, edits and forwards CAN frames between interfaces in the kernel, in place of\n \
         can-gw; makes networks of virtual ECUs, and keeps them with a daemon; is Docker's and\n \
         Podman's driver for CAN networks of containers.\n",
        architecture()?
    );
    write(&stage.join("DEBIAN/control"), text.as_bytes())?;
    write(&stage.join("DEBIAN/conffiles"), b"/etc/cangw/README\n")?;
    for (name, text) in SCRIPTS {
        let path = stage.join("DEBIAN").join(name);
        write(&path, text.as_bytes())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn compress(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().and_then(|name| name.to_str());
    let to = folder.join(format!("{}.gz", name.unwrap_or_default()));
    let output = Command::new("gzip")
        .args(["-9", "-n", "-c"])
        .arg(file)
        .output()
        .context("cannot run gzip")?;
    if !output.status.success() {
        bail!("gzip failed with {}", file.display());
    }
    write(&to, &output.stdout)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn make_parent(path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(())
}

/// Writes a file that everybody may read, whatever the umask.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    make_parent(path)?;
    let named = || format!("cannot write {}", path.display());
    let mut file = fs::File::create(path).with_context(named)?;
    file.write_all(bytes).with_context(named)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).with_context(named)
}
