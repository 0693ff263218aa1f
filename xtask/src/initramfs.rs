//! The archive that a guest's kernel starts from: busybox, a few modules, and the script that mounts the host's files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::kernel::Kernel;
use crate::tool;

/// What the files of the host and the way back for output need, with what these depend on.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p"];

/// Makes the archive around the script that is to be the guest's first process.
pub fn make(kernel: &Kernel, init: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "host", "modules"] {
        archive.add(folder, 0o040_755, &[]);
    }
    archive.add("init", 0o100_755, init);
    archive.add("bin/busybox", 0o100_755, &busybox()?);

    let mut files = Vec::new();
    for module in MODULES {
        for file in kernel.module_files(module)? {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    for (number, file) in files.iter().enumerate() {
        // The shell expands names in this order.
        archive.add(&format!("modules/{number:02}.ko"), 0o100_644, &read(file)?);
    }
    Ok(archive.finish())
}

fn busybox() -> Result<Vec<u8>> {
    let path = tool::path("busybox")?;
    let program = read(&path)?;
    if wants_interpreter(&program) {
        bail!(
            "{} is linked dynamically and cannot start a guest: install busybox-static in its place",
            path.display()
        );
    }
    Ok(program)
}

/// Whether a 64-bit little-endian ELF file has a program header of the type `PT_INTERP`.
fn wants_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u64 = 3;
    let number = |offset: usize, length: usize| {
        let bytes = elf.get(offset..offset + length).unwrap_or_default();
        bytes
            .iter()
            .rev()
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let (table, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    (0..count).any(|index| {
        number(
            usize::try_from(table + index * size).unwrap_or(usize::MAX - 8),
            4,
        ) == PT_INTERP
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A cpio archive of the kind "newc", the one that kernels unpack.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let length = u32::try_from(data.len()).expect("files of an initramfs are small");
        let name_length = u32::try_from(name.len()).expect("names are short") + 1;
        // inode, mode, uid, gid, links, mtime, size, device (2), its own device (2), length of the name, checksum
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            0,
            0,
            name_length,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_entries_are_aligned() {
        let mut archive = Archive::default();
        archive.add("init", 0o100_755, b"abc");
        let bytes = archive.finish();
        // Header of 110 bytes, "init\0" and a byte of padding, then the data.
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[110..116], b"init\0\0"[..6].as_ref());
        assert_eq!(&bytes[116..120], b"abc\0");
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }

    #[test]
    fn this_program_is_linked_dynamically() {
        assert!(wants_interpreter(&fs::read("/proc/self/exe").unwrap()));
        assert!(!wants_interpreter(b"\x7fELF"));
    }
}
