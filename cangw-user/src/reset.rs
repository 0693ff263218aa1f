//! Taking everything of cangw off a host.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::containers::fabric::{Bus, Fabric as _, Kernel};
use crate::error::Result;
use crate::folder::entries;
use crate::gateway::Gateway;
use crate::kernel::netns::NetNs;
use crate::kernel::pins;
use crate::state::Settings;
use crate::topology::host::{Host, NAMED, topologies};

/// Takes down all topologies and the buses of containers' networks, deletes the rules and settings of all network namespaces, and removes what
/// namespaces that are gone left behind. Tells each step before it is taken.
///
/// # Errors
/// When privileges are missing, or the kernel refuses a step; those before it were taken.
pub fn reset(told: &mut dyn FnMut(&dyn fmt::Display)) -> Result<()> {
    crate::capability::require("taking everything down")?;
    for bus in Kernel.own()? {
        told(&format_args!("- bus of network {bus}"));
        Kernel.remove_bus(&Bus::Own(bus, 0))?;
    }
    // Until the end: what is made meanwhile is not to be taken for something left behind.
    let host = Host::open()?;
    for name in topologies(std::iter::empty())? {
        host.down(&name, &mut |step| told(&format_args!("{name}: {step}")))?;
    }
    let mut living = HashSet::new();
    for (path, namespace) in namespaces() {
        let (number, flushed) = namespace.enter(|| {
            let number = pins::namespace_cookie()?;
            let Some(mut gateway) = Gateway::look()? else {
                return Ok((number, false));
            };
            gateway.flush()?;
            gateway.set(Settings::default())?;
            Ok((number, true))
        })?;
        living.insert(number);
        if flushed {
            told(&format_args!("- rules of {}", path.display()));
        }
    }
    for (number, folder) in pins::folders()? {
        if !living.contains(&number) {
            told(&format_args!("- {}", folder.display()));
            pins::remove_folder(&folder)?;
        }
    }
    Ok(())
}

/// Folders of pins whose network namespaces are gone.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn dead_pins() -> Result<Vec<PathBuf>> {
    // What is made meanwhile is not to be taken for something left behind.
    let _host = Host::open()?;
    let mut dead = pins::folders()?;
    for (_, namespace) in namespaces() {
        let living = namespace.enter(pins::namespace_cookie)?;
        dead.retain(|(number, _)| *number != living);
    }
    Ok(dead.into_iter().map(|(_, folder)| folder).collect())
}

/// All network namespaces that have a name, a file (as those of containers) or a process, each once.
fn namespaces() -> Vec<(PathBuf, NetNs)> {
    let of = |folder: &str| entries(Path::new(folder)).unwrap_or_default().into_iter();
    let of_processes = of("/proc").map(|path| path.join("ns/net"));
    let mut known = HashSet::new();
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().map(|mount| mount.split(' '));
    // Device, place, type.
    let of_files = mounts.filter_map(|mut mount| Some((mount.nth(1)?, mount.next()?)));
    let of_files = of_files.filter(|(_, kind)| *kind == "nsfs");
    let of_files = of_files.map(|(place, _)| PathBuf::from(place));
    for path in of(NAMED).chain(of_files).chain(of_processes) {
        if NetNs::is_there(&path)
            && let Ok(namespace) = NetNs::open(&path)
            && let Ok(file) = namespace.file().metadata()
            && known.insert((file.dev(), file.ino()))
        {
            found.push((path, namespace));
        }
    }
    found
}
