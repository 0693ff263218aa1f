//! Where the members of the kernel's structures lie, by its type information (BTF, Documentation/bpf/btf.rst).

use crate::error::{Error, Result};

/// The kernel's own.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xEB9F;
const KIND_STRUCT: u32 = 4;
/// Bytes of a type without what its kind adds.
const TYPE: usize = 12;
/// Bytes of a member.
const MEMBER: usize = 12;

/// Type information as it is in memory.
pub struct Btf(Vec<u8>);

impl Btf {
    /// Reads the kernel's.
    ///
    /// # Errors
    /// When it has none.
    pub fn of_kernel() -> Result<Self> {
        std::fs::read(VMLINUX)
            .map(Self)
            .map_err(|e| Error::Unsupported {
                what: format!("type information in {VMLINUX} ({e})"),
                remedy: "use a kernel with CONFIG_DEBUG_INFO_BTF".into(),
            })
    }

    /// Whether a name occurs in it.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        let terminated: Vec<u8> = name.bytes().chain([0]).collect();
        self.0
            .windows(terminated.len())
            .any(|window| window == terminated)
    }

    /// Offset in bytes of a member of a structure.
    ///
    /// # Errors
    /// When there is none.
    pub fn offset(&self, structure: &str, member: &str) -> Result<u64> {
        self.find(structure, member)
            .ok_or_else(|| Error::Unsupported {
                what: format!("member {member} of struct {structure} in {VMLINUX}"),
                remedy: "report the kernel's version as a bug of cangw".into(),
            })
    }

    fn find(&self, structure: &str, member: &str) -> Option<u64> {
        let data = self.0.as_slice();
        if u16_at(data, 0)? != MAGIC {
            return None;
        }
        let [header, types, types_len, strings, strings_len] =
            [4, 8, 12, 16, 20].map(|at| u32_at(data, at).map(|v| v as usize));
        let header = header?;
        let types = section(data, header, types?, types_len?)?;
        let strings = section(data, header, strings?, strings_len?)?;
        let is = |name: u32, wanted: &str| {
            strings.get(name as usize..).is_some_and(|s| {
                s.strip_prefix(wanted.as_bytes())
                    .is_some_and(|rest| rest.first() == Some(&0))
            })
        };
        let mut at = 0;
        while at < types.len() {
            let (name, info) = (u32_at(types, at)?, u32_at(types, at + 4)?);
            let (kind, count) = (info >> 24 & 0x1F, (info & 0xFFFF) as usize);
            if kind == KIND_STRUCT && is(name, structure) {
                // With the flag, the upper byte is the size of a bit field.
                let mask = if info >> 31 == 0 {
                    u32::MAX
                } else {
                    0x00FF_FFFF
                };
                let mut members = (0..count).map(|i| at + TYPE + i * MEMBER);
                let place = members.find(|&m| u32_at(types, m).is_some_and(|n| is(n, member)))?;
                return Some(u64::from(u32_at(types, place + 8)? & mask) / 8);
            }
            at += TYPE + added(kind, count)?;
        }
        None
    }
}

/// Bytes behind a type of a kind (include/uapi/linux/btf.h).
fn added(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Pointer, forward declaration, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Array.
        3 => 12,
        // Structure, union, data section, 64-bit enumeration.
        4 | 5 | 15 | 19 => 12 * count,
        // Enumeration, function prototype.
        6 | 13 => 8 * count,
        _ => return None,
    })
}

fn section(data: &[u8], header: usize, offset: usize, len: usize) -> Option<&[u8]> {
    let begin = header.checked_add(offset)?;
    data.get(begin..begin.checked_add(len)?)
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*data.get(at..)?.first_chunk()?))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*data.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::Btf;

    /// An integer, and a structure `net` with two members.
    fn sample(flag: u32) -> Vec<u8> {
        let types: [u32; 4 + 3 + 6] = [
            [1, 1 << 24, 8, 64].as_slice(),
            &[5, flag << 31 | 4 << 24 | 2, 16],
            &[9, 1, 0],
            &[12, 1, flag << 24 | 64],
        ]
        .concat()
        .try_into()
        .unwrap();
        let strings = b"\0u64\0net\0ab\0net_cookie\0";
        let mut data = 0xEB9F_u16.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        let len = 4 * types.len() as u32;
        for field in [24, 0, len, len, strings.len() as u32] {
            data.extend(u32::to_ne_bytes(field));
        }
        data.extend(types.iter().flat_map(|t| t.to_ne_bytes()));
        data.extend(strings);
        data
    }

    #[test]
    fn a_member_is_found_with_and_without_bit_fields() {
        for flag in [0, 1] {
            let btf = Btf(sample(flag));
            assert_eq!(btf.offset("net", "net_cookie").unwrap(), 8);
            assert_eq!(btf.offset("net", "ab").unwrap(), 0);
            assert!(btf.offset("net", "a").is_err());
            assert!(btf.offset("ne", "ab").is_err());
            assert!(btf.names("net") && !btf.names("cook"));
        }
    }

    #[test]
    fn damaged_information_is_no_panic() {
        let whole = sample(0);
        for len in 0..whole.len() {
            let _ = Btf(whole[..len].to_vec()).offset("net", "net_cookie");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut data = whole.clone();
                data[at] ^= 1 << bit;
                let _ = Btf(data).offset("net", "net_cookie");
            }
        }
    }
}
