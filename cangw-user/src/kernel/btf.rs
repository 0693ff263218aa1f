//! Where the members of the kernel's structures lie, by its type information (BTF, Documentation/bpf/btf.rst).

use crate::error::{Error, Result};

/// The kernel's own.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xEB9F;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// How deep members without names stand in each other, at most.
const DEEPEST: u32 = 8;
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

    /// Offsets in bytes of members of structures, given as `(structure, member)`, also of those within structures and unions in them that have no name.
    ///
    /// # Errors
    /// When one is not there.
    pub fn offsets<const N: usize>(&self, wanted: [(&str, &str); N]) -> Result<[u64; N]> {
        let found = self.find(wanted);
        let mut offsets = [0; N];
        for ((offset, found), (structure, member)) in offsets.iter_mut().zip(found).zip(wanted) {
            *offset = found.ok_or_else(|| Error::Unsupported {
                what: format!("member {member} of struct {structure} in {VMLINUX}"),
                remedy: "report the kernel's version as a bug of cangw".into(),
            })?;
        }
        Ok(offsets)
    }

    fn find<const N: usize>(&self, wanted: [(&str, &str); N]) -> [Option<u64>; N] {
        let mut found = [None; N];
        let Some(types) = Types::new(&self.0) else {
            return found;
        };
        for number in 0..types.places.len() {
            let Some(structure) = types.at(number).filter(|t| t.kind == KIND_STRUCT) else {
                continue;
            };
            for (found, (_, member)) in found
                .iter_mut()
                .zip(wanted)
                .filter(|(found, (name, _))| found.is_none() && types.is(structure.name, name))
            {
                *found = types.member(number, member, DEEPEST);
            }
        }
        found
    }
}

/// The sections of type information.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins, by its number less 1.
    places: Vec<usize>,
}

/// What all types begin with.
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    count: usize,
    has_bit_fields: bool,
}

impl<'a> Types<'a> {
    fn new(data: &'a [u8]) -> Option<Self> {
        if u16_at(data, 0)? != MAGIC {
            return None;
        }
        let [header, types, types_len, strings, strings_len] =
            [4, 8, 12, 16, 20].map(|at| u32_at(data, at).map(|v| v as usize));
        let header = header?;
        let mut all = Self {
            types: section(data, header, types?, types_len?)?,
            strings: section(data, header, strings?, strings_len?)?,
            places: Vec::new(),
        };
        let mut at = 0;
        while at < all.types.len() {
            all.places.push(at);
            let Type { kind, count, .. } = all.at(all.places.len() - 1)?;
            at += TYPE + added(kind, count)?;
        }
        Some(all)
    }

    fn at(&self, number: usize) -> Option<Type> {
        let at = *self.places.get(number)?;
        let info = u32_at(self.types, at + 4)?;
        Some(Type {
            at,
            name: u32_at(self.types, at)?,
            kind: info >> 24 & 0x1F,
            count: (info & 0xFFFF) as usize,
            has_bit_fields: info >> 31 != 0,
        })
    }

    fn is(&self, name: u32, wanted: &str) -> bool {
        self.strings.get(name as usize..).is_some_and(|s| {
            s.strip_prefix(wanted.as_bytes())
                .is_some_and(|rest| rest.first() == Some(&0))
        })
    }

    /// Offset in bytes of a member, also of one within members that have no name.
    fn member(&self, number: usize, wanted: &str, depth: u32) -> Option<u64> {
        let structure = self.at(number)?;
        if !matches!(structure.kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        // With bit fields, the upper byte is the size of one.
        let mask = if structure.has_bit_fields {
            0x00FF_FFFF
        } else {
            u32::MAX
        };
        for index in 0..structure.count {
            let place = structure.at + TYPE + index * MEMBER;
            let name = u32_at(self.types, place)?;
            let offset = u64::from(u32_at(self.types, place + 8)? & mask) / 8;
            if self.is(name, wanted) {
                return Some(offset);
            }
            if self.is(name, "") && depth > 0 {
                let inner = (u32_at(self.types, place + 4)? as usize).checked_sub(1)?;
                if let Some(within) = self.member(inner, wanted, depth - 1) {
                    return Some(offset + within);
                }
            }
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
        information(&types)
    }

    fn information(types: &[u32]) -> Vec<u8> {
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
            let both = btf.offsets([("net", "net_cookie"), ("net", "ab")]);
            assert_eq!(both.unwrap(), [8, 0]);
            assert!(btf.offsets([("net", "ab"), ("net", "a")]).is_err());
            assert!(btf.offsets([("ne", "ab")]).is_err());
            assert!(btf.names("net") && !btf.names("cook"));
        }
    }

    /// A structure `net` with a union that has no name at byte 4, in which `ab` lies at byte 8.
    fn nested() -> Vec<u8> {
        let types: [u32; 2 * (3 + 3)] = [
            [5, 4 << 24 | 1, 16].as_slice(),
            &[0, 2, 32],
            &[0, 5 << 24 | 1, 8],
            &[9, 1, 64],
        ]
        .concat()
        .try_into()
        .unwrap();
        information(&types)
    }

    #[test]
    fn a_member_without_a_name_is_looked_into() {
        let btf = Btf(nested());
        assert_eq!(btf.offsets([("net", "ab")]).unwrap(), [12]);
        assert!(btf.offsets([("net", "net_cookie")]).is_err());
    }

    #[test]
    fn damaged_information_is_no_panic() {
        for whole in [sample(0), nested()] {
            for len in 0..whole.len() {
                let _ = Btf(whole[..len].to_vec()).offsets([("net", "net_cookie")]);
            }
            for at in 0..whole.len() {
                for bit in 0..8 {
                    let mut data = whole.clone();
                    data[at] ^= 1 << bit;
                    let _ = Btf(data).offsets([("net", "net_cookie")]);
                }
            }
        }
    }
}
